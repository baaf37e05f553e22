"""What only another API knew of a conversation, kept when this one is read.

Each API says some things that the other does not: the Data API has notes, tags, scores, summaries
and function events, the Conversations API v3 the state. What both say comes from the newest answer;
a column of which the new answer cannot speak keeps what it held, and so do fields without a column.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import repeat
from typing import Any

import orjson
import pyarrow as pa

from ..tables.declaration import Table
from .answer import Answer

HeldRow = Mapping[str, Any]


def keeping_held(table: Table, rows: pa.Table, answers: Sequence[Answer]) -> pa.Table:
    """The rows of new answers, with what is held in the columns that these cannot fill.

    Args:
        table: The declaration.
        rows: A row for each answer where the table is that of conversations, else any number.
        answers: The batch.
    """
    by_id = {
        answer.conversation_id: answer
        for answer in answers
        if answer.held and (not table.key or table.name in answer.held.children)
    }
    if not by_id:
        return rows
    found = list(_held_rows(table, rows, by_id))
    unknown = {apis: table.unknown_to(apis) for apis in {answer.apis for answer in answers}}
    for name in (column.name for column in table.columns):
        kept = {
            index: row[name]
            for index, answer, row in found
            if (answer.keeps_extra if name == "extra" else name in unknown[answer.apis])
            and row[name] is not None
        }
        if kept:
            rows = _with(rows, name, kept)
    return rows


def _held_rows(
    table: Table, rows: pa.Table, by_id: Mapping[str, Answer]
) -> Iterator[tuple[int, Answer, HeldRow]]:
    """Each row of which there is one already: its place, its answer, and what is held."""
    keys = zip(*(rows[name].to_pylist() for name in table.key)) if table.key else repeat(())
    for index, (owner, key) in enumerate(zip(rows["conversation_id"].to_pylist(), keys)):
        answer = by_id.get(owner)
        if answer is None or answer.held is None:
            continue
        held = answer.held
        row = held.children[table.name].get(key) if table.key else held.columns
        if row:
            yield index, answer, row


def _with(rows: pa.Table, name: str, kept: Mapping[int, Any]) -> pa.Table:
    """The rows with these values, by row, in one column; of JSON objects the keys that are new."""
    values = rows[name].to_pylist()
    declared = rows.schema.field(name)
    for index, value in kept.items():
        if name == "extra":
            values[index] = _united(value, values[index])
        else:
            values[index] = _as_sent(value, declared.type)
    position = rows.schema.get_field_index(name)
    return rows.set_column(position, declared, pa.array(values, declared.type))


def _united(held: Any, new: str | None) -> str:
    """Both objects in one; of a key that both have, the new value."""
    known = orjson.loads(held) if isinstance(held, str) else held
    united = {**known, **(orjson.loads(new) if new else {})}
    return orjson.dumps(united).decode()


def _as_sent(value: Any, to: pa.DataType) -> Any:
    """A destination's value as Arrow takes it: some give JSON as objects, numbers as decimals."""
    if pa.types.is_string(to) and not isinstance(value, str):
        return orjson.dumps(value).decode()
    if pa.types.is_floating(to):
        return float(value)
    return value
