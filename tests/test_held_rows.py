"""Conversion of loaded rows: equal to the rows of a load under the same mode."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from command import AGENT
from polyai.shape.held_redaction import HeldRedaction
from polyai.shape.held_rows import HeldRows, redacted_tables
from polyai.shape.redaction import Redaction
from polyai.shape.shaping import Shaped
from polyai.tables.audit import FETCH_FAILURES, SYNC_RUNS, WRITE_BACKS
from polyai.tables.debug_chats import DEBUG_CHAT_TURNS, DEBUG_CHATS
from polyai.tables.declaration import Table
from polyai.tables.names import DEPLOYMENTS, PHONE_NUMBERS, VARIANTS
from polyai.tables.recordings import RECORDINGS
from polyai.tables.registry import conversation_tables
from polyai.tables.rules import DROPPED
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


NUMBER = "+44 20 7946 0018"


class TestOtherTables:
    @pytest.mark.parametrize(
        ("table", "row"),
        [
            (FETCH_FAILURES, {"message": f"no caller {NUMBER}", "error_code": NUMBER}),
            (SYNC_RUNS, {"error": f"at {NUMBER}", "unmapped_fields": f'{{"turns.{NUMBER}":2}}'}),
            (RECORDINGS, {"error_code": NUMBER}),
            (WRITE_BACKS, {"note": f"call {NUMBER}", "message": NUMBER, "error_id": NUMBER}),
            (DEBUG_CHATS, {"error": f"turn 1: {NUMBER}"}),
            (
                DEBUG_CHAT_TURNS,
                {
                    "user_input": NUMBER,
                    "response": NUMBER,
                    "metadata": f'{{"{NUMBER}":"{NUMBER}"}}',
                    "check": f'contains "{NUMBER}"',
                    "failure": f'contains "{NUMBER}": the answer was "{NUMBER}"',
                    "extra": f'{{"to":"{NUMBER}"}}',
                },
            ),
            (DEPLOYMENTS, {"created_by": "jo@example.com", "message": NUMBER, "extra": None}),
            (PHONE_NUMBERS, {"number": NUMBER, "extra": f'{{"sip":"{NUMBER}"}}'}),
            (VARIANTS, {"variant_id": "442079460018", "earlier_names": f'[{{"name":"{NUMBER}"}}]'}),
        ],
        ids=lambda value: value.name if isinstance(value, Table) else "",
    )
    def test_have_no_numbers_left(self, table: Table, row: Json) -> None:
        assert table in redacted_tables()
        whole = {column.name: None for column in table.columns} | row
        rows = HeldRows(HeldRedaction("hash", SECRET, "keep"), drops_transcripts=False)
        (found,) = rows.converted(table, [dict(whole)])
        assert not re.search("7946|example", str(found))
        changed = {name for name in whole if found[name] != whole[name]}
        assert changed == {name for name, value in row.items() if value is not None}

    def test_words_of_debug_chats_are_dropped(self) -> None:
        row = dict.fromkeys(column.name for column in DEBUG_CHAT_TURNS.columns)
        row |= {"turn_index": 1, "passed": False, "user_input": "hi", "response": "hello"}
        row |= {"check": 'contains "bye"', "failure": 'contains "bye": the answer was "hello"'}
        rows = HeldRows(HeldRedaction("keep", "", "drop"), drops_transcripts=True)
        (found,) = rows.converted(DEBUG_CHAT_TURNS, [row])
        assert {name: value for name, value in found.items() if value is not None} == {
            "turn_index": 1,
            "passed": False,
            "check": DROPPED,
            "failure": DROPPED,
        }

    def test_a_number_of_the_company_has_no_row_under_drop(self) -> None:
        row = dict.fromkeys(column.name for column in PHONE_NUMBERS.columns)
        row |= {"agent_id": AGENT, "number": NUMBER}
        rows = HeldRows(HeldRedaction("drop", "", "keep"), drops_transcripts=False)
        assert rows.converted(PHONE_NUMBERS, [row]) == []
