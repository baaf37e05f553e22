"""Validation of annotations and notes as users write them."""

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
"""Sides of a turn that the API lets annotate."""

ANNOTATION_TYPES = ("missing_topic", "wrong_transcript", "wrong_info")
"""Annotation types that the API accepts."""

COLUMNS: Mapping[Kind, tuple[str, ...]] = {
    "annotation": ("conversation_id", "turn_index", "role", "annotation_type"),
    "note": ("conversation_id", "note"),
}
"""Required columns; `agent_id` too if several agents are configured."""

AGENT_COLUMN = "agent_id"

_ID_LENGTH = 32
"""Hexadecimal digits: 128 bits, so that ids do not collide."""


@dataclass(frozen=True)
class Record:
    """Row of the input.

    Attributes:
        place: Line or number of the row, counted from 1.
        values: Values by column; empty ones are left out.
        problem: Reason why it could not be read; None if it could.
        is_line: Whether `place` is a line of a text file.
    """

    place: int
    values: Mapping[str, Any]
    problem: str | None = None
    is_line: bool = False


@dataclass(frozen=True)
class Row:
    """Valid annotation or note; the names are columns of `write_backs`.

    Attributes:
        write_back_id: Hash of the content: the same for the same row in any file and run.
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
        """The row in one line of text."""
        if self.kind == "note":
            return f"note {_short(self.note or '')!r}"
        return f"turn {self.turn_index}, {self.role}: {self.annotation_type}"


class InvalidRowError(ValueError):
    """The row cannot be sent; the message gives the reason."""


def from_rows(rows: Iterable[Mapping[str, Any]]) -> list[Record]:
    """Numbers the rows of a query or of a notebook."""
    return [Record(place, _tidied(row)) for place, row in enumerate(rows, 1)]


def from_line(number: int, row: Mapping[str, Any]) -> Record:
    """Row that begins in this line of a text file."""
    return Record(number, _tidied(row), is_line=True)


def unreadable(number: int, problem: str) -> Record:
    """Line of a text file that is not a row."""
    return Record(number, {}, problem, is_line=True)


def check_columns(kind: Kind, records: Sequence[Record]) -> None:
    """Checks that the required columns exist.

    Raises:
        ConfigurationError: No row has a required column; the message names the existing ones.
    """
    present = {name for record in records for name in record.values}
    if not present:
        return
    if missing := [name for name in COLUMNS[kind] if name not in present]:
        raise ConfigurationError(
            f"column {', '.join(missing)} is missing: each {kind} needs "
            f"{', '.join(COLUMNS[kind])}; the input has {', '.join(sorted(present))}"
        )


def unused_columns(kind: Kind, records: Iterable[Record]) -> list[str]:
    """Columns without a counterpart in the API."""
    present = {name for record in records for name in record.values}
    return sorted(present - {AGENT_COLUMN, *COLUMNS[kind]})


def checked(
    kind: Kind, records: Iterable[Record], agent_ids: Sequence[str]
) -> Iterator[tuple[Record, Row | str]]:
    """Yields each record with its valid row, or with the reason why it is invalid.

    Args:
        kind: Kind of the rows.
        records: The input.
        agent_ids: Configured agents; a row has to name one of them if there are several.
    """
    checked_rows: list[tuple[Record, Row | str]] = []
    by_id: dict[str, int] = {}
    notes: dict[tuple[str, str], set[int]] = {}
    for record in records:
        try:
            row = _row(kind, record, agent_ids)
            if (first := by_id.setdefault(row.write_back_id, row.place)) != row.place:
                raise InvalidRowError(f"duplicate of {first}")
        except InvalidRowError as error:
            checked_rows.append((record, str(error)))
            continue
        checked_rows.append((record, row))
        if kind == "note":
            notes.setdefault((row.agent_id, row.conversation_id), set()).add(row.place)
    for record, found in checked_rows:
        others: set[int] = set()
        if isinstance(found, Row) and kind == "note":
            others = notes[found.agent_id, found.conversation_id] - {found.place}
        if others:
            also = ", ".join(map(str, sorted(others)))
            yield record, f"the conversation has another note in {also}: keep one of them"
        else:
            yield record, found


def _row(kind: Kind, record: Record, agent_ids: Sequence[str]) -> Row:
    if record.problem:
        raise InvalidRowError(record.problem)
    values = record.values
    if missing := [name for name in COLUMNS[kind] if name not in values]:
        raise InvalidRowError(f"{', '.join(missing)} is empty")
    agent_id = _agent(values.get(AGENT_COLUMN), agent_ids)
    conversation_id = _text("conversation_id", values["conversation_id"])
    content: dict[str, Any]
    if kind == "note":
        content = {"note": _text("note", values["note"])}
    else:
        content = {
            "turn_index": _index(values["turn_index"]),
            "role": _choice("role", values["role"], ROLES),
            "annotation_type": _choice(
                "annotation_type", values["annotation_type"], ANNOTATION_TYPES
            ),
        }
    named = orjson.dumps([agent_id, conversation_id, kind, content], option=orjson.OPT_SORT_KEYS)
    id_ = hashlib.sha256(named).hexdigest()[:_ID_LENGTH]
    return Row(record.place, agent_id, conversation_id, kind, id_, **content)


def _agent(value: Any, agent_ids: Sequence[str]) -> str:
    if value is None:
        if len(agent_ids) == 1:
            return agent_ids[0]
        raise InvalidRowError(
            f"agent_id is empty, and several agents are configured: {', '.join(agent_ids)}"
        )
    agent_id = _text(AGENT_COLUMN, value)
    if agent_id not in agent_ids:
        raise InvalidRowError(
            f"agent {agent_id} is not configured (configured: {', '.join(agent_ids)})"
        )
    return agent_id


def _text(name: str, value: Any) -> str:
    """Text without surrounding white space; numeric ids may be numbers."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise InvalidRowError(f"{name} is not text: {value!r}")
    return value.strip()


def _index(value: Any) -> int:
    """Index of a turn, counted from 0."""
    number = value.strip() if isinstance(value, str) else value
    try:
        index = int(number)
        if isinstance(number, bool) or float(number) != index:
            raise ValueError
    except (ValueError, TypeError, OverflowError):
        raise InvalidRowError(f"turn_index is not an integer: {value!r}") from None
    if index < 0:
        raise InvalidRowError(f"turn_index is {index}: turns are counted from 0")
    return index


def _choice(name: str, value: Any, known: Collection[str]) -> str:
    """One of the values that the API accepts, in lower case."""
    word = str(value).strip().lower()
    if word in known:
        return word
    close = difflib.get_close_matches(word.replace(" ", "_"), known, 1)
    hint = f"; did you mean {close[0]}?" if close else ""
    raise InvalidRowError(f"{name} {value!r} is not valid (expected {', '.join(known)}){hint}")


def _tidied(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row without empty values, its columns in lower case."""
    return {str(name).strip().lower(): value for name, value in row.items() if not _is_empty(value)}


def _is_empty(value: Any) -> bool:
    # pandas uses NaN for missing values
    is_nan = isinstance(value, float) and math.isnan(value)
    return value is None or is_nan or (isinstance(value, str) and not value.strip())


def _short(text: str, length: int = 40) -> str:
    words = " ".join(text.split())
    return words if len(words) <= length else f"{words[: length - 1]}…"
