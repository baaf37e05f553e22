"""Conversion of loaded rows: equal to the rows of a load under the same mode."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from polyai.shape.held_redaction import HeldRedaction
from polyai.shape.held_rows import HeldRows
from polyai.shape.redaction import Redaction
from polyai.shape.shaping import Shaped
from polyai.tables.registry import conversation_tables
from test_redaction import SECRET, spoken, with_new_fields
from test_redaction_corpus import PLACES, SPELLINGS, shaped

pytestmark = pytest.mark.unit

Json = dict[str, Any]

MODES = [("hash", "keep"), ("drop", "keep"), ("keep", "drop"), ("drop", "drop")]


def converted(result: Shaped, pii: Any, transcripts: Any, *, drops_hashes: bool = False) -> Json:
    redaction = HeldRedaction(pii, SECRET, transcripts)
    redaction.drops_hashes = drops_hashes
    rows = HeldRows(redaction, drops_transcripts=transcripts == "drop")
    return {
        table.name: comparable(rows.converted(table, result.tables[table.name].to_pylist()))
        for table in conversation_tables()
    }


def comparable(rows: list[Json]) -> list[str]:
    """Rows in any order, with the keys of JSON objects in any order."""
    return sorted(
        json.dumps({name: plain(value) for name, value in row.items()}, default=str, sort_keys=True)
        for row in rows
    )


def plain(value: Any) -> Any:
    try:
        return json.loads(value) if isinstance(value, str) and value[:1] in "{[" else value
    except ValueError:
        return value


def loaded(details: list[Json], pii: Any, transcripts: Any) -> Json:
    redaction = Redaction(pii, SECRET, transcripts)
    tables = shaped([redaction.apply(detail) for detail in details]).tables
    return {name: comparable(rows.to_pylist()) for name, rows in tables.items()}


_DIGITS = re.compile(r"-?\d+(?:\.0)?")

READ_AS_NUMBERS = (
    "startedAt", "finishedAt", "turns[].user_input_datetime", "functionEvents[].start_time",
    "a metric's timestamp", "turns[].intents", "a key of function events",
)  # fmt: skip
"""Places whose numbers are loaded as times, counts, labels or turns, which a row does not show."""


COUNTED = ("num_turns", "turns[].is_silence")
"""Places whose values are counted, of which only the count is loaded."""


def spellings_at(place: str) -> list[Any]:
    return [
        spelling
        for spelling in SPELLINGS
        if place not in READ_AS_NUMBERS or not _DIGITS.fullmatch(str(spelling))
    ]


def details_of(spellings: slice) -> list[Json]:
    """One conversation per place and spelling."""
    return [
        {"conversationId": f"{place} {index}"} | PLACES[place](spelling)
        for place in PLACES
        if place not in COUNTED
        for index, spelling in enumerate(spellings_at(place)[spellings])
    ]


@pytest.mark.parametrize(
    "spellings",
    [
        pytest.param(slice(0, None, 16), id="some"),
        pytest.param(slice(None), id="all", marks=pytest.mark.slow),
    ],
)
class TestRedact:
    @pytest.mark.parametrize(("pii", "transcripts"), MODES)
    def test_rows_equal_those_of_a_load(self, spellings: slice, pii: str, transcripts: str) -> None:
        details = details_of(spellings)
        assert converted(shaped(details), pii, transcripts) == loaded(details, pii, transcripts)

    def test_hashes_stay_or_are_dropped_as_the_numbers_would_have_been(
        self, spellings: slice
    ) -> None:
        details = details_of(spellings)
        hashed = shaped([Redaction("hash", SECRET, "keep").apply(detail) for detail in details])
        assert converted(hashed, "hash", "keep") == loaded(details, "hash", "keep")
        dropped = converted(hashed, "drop", "keep", drops_hashes=True)
        assert dropped == loaded(details, "drop", "keep")


@pytest.mark.parametrize("words", ["said", {"said": "xylophone"}, ["xylophone"], 12, True])
@pytest.mark.parametrize("document", [spoken, with_new_fields])
def test_transcripts_are_removed_as_by_a_load(document: Any, words: Any) -> None:
    detail = document(words)
    assert converted(shaped([detail]), "keep", "drop") == loaded([detail], "keep", "drop")
