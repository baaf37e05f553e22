"""Annotations and notes as people write them down, checked before anything is sent."""

from __future__ import annotations

import difflib
import hashlib
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import orjson

from ..errors import ConfigurationError

Kind = Literal["annotation", "note"]

ROLES = ("user", "agent")
"""Sides of a turn that the API takes annotations of."""

ANNOTATION_TYPES = ("missing_topic", "wrong_transcript", "wrong_info")
"""Labels that the API knows."""

COLUMNS: Mapping[Kind, tuple[str, ...]] = {
    "annotation": ("conversation_id", "turn_index", "role", "annotation_type"),
    "note": ("conversation_id", "note"),
}
"""What each row has to have; `agent_id` too where there are several agents."""

AGENT_COLUMN = "agent_id"

_ID_LENGTH = 32
"""Hexadecimal digits: 128 bits, so that no two rows ever share an id."""


@dataclass(frozen=True)
class Record:
    """A row as it was given.

    Attributes:
        place: Its line or its number, counted from 1.
        values: By column; what was empty is missing.
        problem: Why it could not be read; None where it could.
        is_line: Whether the place is a line of a text.
    """

    place: int
    values: Mapping[str, Any]
    problem: str | None = None
    is_line: bool = False


@dataclass(frozen=True)
class Row:
    """An annotation or a note that is fit to be sent; the names are columns of `write_backs`.

    Attributes:
        write_back_id: the same for the same row, in whatever file it stands and whoever sends it.
    """

    place: int
    agent_id: str
    conversation_id: str
    kind: Kind
    write_back_id: str
    turn_index: int | None = None
    role: str | None = None
    annotation_type: str | None = None
    note: str | None = None

    def __str__(self) -> str:
        """What it says, in a line."""
        if self.kind == "note":
            return f"note {_short(self.note or '')!r}"
        return f"turn {self.turn_index}, {self.role}: {self.annotation_type}"


class UnfitRowError(ValueError):
    """The row cannot be sent; the message says why."""


def from_rows(rows: Iterable[Mapping[str, Any]]) -> list[Record]:
    """Rows of a query or of a notebook, numbered."""
    return [Record(place, _tidied(row)) for place, row in enumerate(rows, 1)]


def from_line(number: int, row: Mapping[str, Any]) -> Record:
    """A row that begins in this line of a text."""
    return Record(number, _tidied(row), is_line=True)


def unreadable(number: int, problem: str) -> Record:
    """A line of a text that holds no row."""
    return Record(number, {}, problem, is_line=True)


def check_columns(kind: Kind, records: Sequence[Record]) -> None:
    """Refuses rows of which none has a column that each must have.

    Raises:
        ConfigurationError: A column is missing; the message names those that are there.
    """
    present = {name for record in records for name in record.values}
    if not present:
        return
    if missing := [name for name in COLUMNS[kind] if name not in present]:
        raise ConfigurationError(
            f"column {', '.join(missing)} is missing: each {kind} needs "
            f"{', '.join(COLUMNS[kind])}; there are {', '.join(sorted(present))}"
        )


def unused_columns(kind: Kind, records: Iterable[Record]) -> list[str]:
    """Columns that the API has no place for."""
    present = {name for record in records for name in record.values}
    return sorted(present - {AGENT_COLUMN, *COLUMNS[kind]})


def checked(
    kind: Kind, records: Iterable[Record], agent_ids: Sequence[str]
) -> Iterator[tuple[Record, Row | str]]:
    """Each record with what is to be sent, or why it cannot be.

    Args:
        kind: What the rows are.
        records: The rows.
        agent_ids: The agents that are configured; a row names one of them where there are several.
    """
    fit: list[tuple[Record, Row | str]] = []
    by_id: dict[str, int] = {}
    notes: dict[tuple[str, str], set[int]] = {}
    for record in records:
        try:
            row = _row(kind, record, agent_ids)
            if (first := by_id.setdefault(row.write_back_id, row.place)) != row.place:
                raise UnfitRowError(f"it is the same as {first}")
        except UnfitRowError as error:
            fit.append((record, str(error)))
            continue
        fit.append((record, row))
        if kind == "note":
            notes.setdefault((row.agent_id, row.conversation_id), set()).add(row.place)
    for record, found in fit:
        others: set[int] = set()
        if isinstance(found, Row) and kind == "note":
            others = notes[found.agent_id, found.conversation_id] - {found.place}
        if others:
            also = ", ".join(map(str, sorted(others)))
            yield record, f"the conversation has another note in {also}: leave one of them"
        else:
            yield record, found


def _row(kind: Kind, record: Record, agent_ids: Sequence[str]) -> Row:
    if record.problem:
        raise UnfitRowError(record.problem)
    values = record.values
    if missing := [name for name in COLUMNS[kind] if name not in values]:
        raise UnfitRowError(f"{', '.join(missing)} is empty")
    agent_id = _agent(values.get(AGENT_COLUMN), agent_ids)
    conversation_id = _text("conversation_id", values["conversation_id"])
    said: dict[str, Any]
    if kind == "note":
        said = {"note": _text("note", values["note"])}
    else:
        said = {
            "turn_index": _index(values["turn_index"]),
            "role": _choice("role", values["role"], ROLES),
            "annotation_type": _choice(
                "annotation_type", values["annotation_type"], ANNOTATION_TYPES
            ),
        }
    named = orjson.dumps([agent_id, conversation_id, kind, said], option=orjson.OPT_SORT_KEYS)
    id_ = hashlib.sha256(named).hexdigest()[:_ID_LENGTH]
    return Row(record.place, agent_id, conversation_id, kind, id_, **said)


def _agent(value: Any, agent_ids: Sequence[str]) -> str:
    if value is None:
        if len(agent_ids) == 1:
            return agent_ids[0]
        raise UnfitRowError(f"agent_id is empty, and there are {', '.join(agent_ids)}")
    agent_id = _text(AGENT_COLUMN, value)
    if agent_id not in agent_ids:
        raise UnfitRowError(f"agent {agent_id} is not configured: known are {', '.join(agent_ids)}")
    return agent_id


def _text(name: str, value: Any) -> str:
    """Text as it stands but for white space around it; ids of digits alone come as numbers."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise UnfitRowError(f"{name} is no text: {value!r}")
    return value.strip()


def _index(value: Any) -> int:
    """A turn's place, counted from 0."""
    number = value.strip() if isinstance(value, str) else value
    try:
        index = int(number)
        if isinstance(number, bool) or float(number) != index:
            raise ValueError
    except (ValueError, TypeError, OverflowError):
        raise UnfitRowError(f"turn_index is no whole number: {value!r}") from None
    if index < 0:
        raise UnfitRowError(f"turn_index is {index}: turns are counted from 0")
    return index


def _choice(name: str, value: Any, known: Collection[str]) -> str:
    """One of the words that the API knows, in small letters."""
    word = str(value).strip().lower()
    if word in known:
        return word
    close = difflib.get_close_matches(word.replace(" ", "_"), known, 1)
    meant = f"; is {close[0]} meant?" if close else ""
    raise UnfitRowError(f"{name} {value!r} is not known: there are {', '.join(known)}{meant}")


def _tidied(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row without what is empty, its columns in small letters."""
    return {str(name).strip().lower(): value for name, value in row.items() if not _is_empty(value)}


def _is_empty(value: Any) -> bool:
    # pandas has NaN for what is missing
    is_nan = isinstance(value, float) and math.isnan(value)
    return value is None or is_nan or (isinstance(value, str) and not value.strip())


def _short(text: str, length: int = 40) -> str:
    words = " ".join(text.split())
    return words if len(words) <= length else f"{words[: length - 1]}…"
