"""Merge of loaded values into new rows, for columns that the new answer has no value for.

The Data API sends notes, tags, scores, summaries and function events, the Conversations API v3 the
state. Columns of both APIs take the newest answer; a column that only the other API sends keeps its
loaded value, and so do fields without a column. What retention or a missing permission took away
at PolyAI keeps its loaded value too; see `Column.is_kept_when_absent`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import repeat
from typing import Any

import pyarrow as pa

from ..api.decoding import decode, encode
from ..tables.declaration import Column, Table
from ..tables.rules import REDACTED
from .answer import Answer

LoadedRow = Mapping[str, Any]


def merge_loaded(table: Table, rows: pa.Table, answers: Sequence[Answer]) -> pa.Table:
    """Fills the columns that the new answers have no value for with the loaded values.

    Args:
        table: The declaration.
        rows: New rows: one per answer in `conversations`, any number in child tables.
        answers: Answers of the batch.
    """
    by_id = {
        answer.conversation_id: answer
        for answer in answers
        if answer.loaded and (not table.key or table.name in answer.loaded.children)
    }
    if not by_id:
        return rows
    answered = rows
    found = list(_loaded_rows(table, rows, by_id))
    unknown = {apis: table.unknown_to(apis) for apis in {answer.apis for answer in answers}}
    for column in table.columns:
        name = column.name
        absent = _absent(answered, column) if column.is_kept_when_absent else ()
        withheld = _withheld(rows) if name == "extra" else ()
        kept = {
            index: row[name]
            for index, answer, row in found
            if row[name] is not None
            and (
                (answer.keeps_extra or index in withheld)
                if name == "extra"
                else (name in unknown[answer.apis] or index in absent)
            )
        }
        if kept:
            rows = _set_values(rows, name, kept)
    return rows


def _absent(rows: pa.Table, column: Column) -> frozenset[int]:
    """Returns the rows whose answer has no value for the column."""
    names = [column.name, column.kept_with] if column.kept_with else [column.name]
    parts = zip(*(rows[name].to_pylist() for name in names))
    return frozenset(
        index
        for index, values in enumerate(parts)
        if all(value in (None, REDACTED) for value in values)
    )


def _withheld(rows: pa.Table) -> frozenset[int]:
    """Returns the rows of `conversations` whose turns PolyAI does not show."""
    if "is_transcript_withheld" not in rows.column_names:
        return frozenset()
    values = rows["is_transcript_withheld"].to_pylist()
    return frozenset(index for index, value in enumerate(values) if value)


def _loaded_rows(
    table: Table, rows: pa.Table, by_id: Mapping[str, Answer]
) -> Iterator[tuple[int, Answer, LoadedRow]]:
    """Yields index, answer and loaded row of each new row that is already in the warehouse."""
    keys = zip(*(rows[name].to_pylist() for name in table.key)) if table.key else repeat(())
    for index, (owner, key) in enumerate(zip(rows["conversation_id"].to_pylist(), keys)):
        answer = by_id.get(owner)
        if answer is None or answer.loaded is None:
            continue
        loaded = answer.loaded
        row = loaded.children[table.name].get(key) if table.key else loaded.columns
        if row:
            yield index, answer, row


def _set_values(rows: pa.Table, name: str, kept: Mapping[int, Any]) -> pa.Table:
    """Sets values of one column by row; objects in `extra` are merged."""
    values = rows[name].to_pylist()
    declared = rows.schema.field(name)
    for index, value in kept.items():
        if name == "extra":
            values[index] = _merged_json(value, values[index])
        else:
            values[index] = for_arrow(value, declared.type)
    position = rows.schema.get_field_index(name)
    return rows.set_column(position, declared, pa.array(values, declared.type))


def _merged_json(loaded: Any, new: str | None) -> str:
    """Merges two JSON objects; the new value of a common key wins."""
    known = decode(loaded.encode()) if isinstance(loaded, str) else loaded
    return encode({**known, **(decode(new.encode()) if new else {})}).decode()


def for_arrow(value: Any, to: pa.DataType) -> Any:
    """Converts a value of a destination, some of which return objects and decimals, for Arrow."""
    if pa.types.is_string(to) and not isinstance(value, str):
        return encode(value).decode()
    if pa.types.is_floating(to):
        return float(value)
    if pa.types.is_boolean(to):
        return bool(value)
    return value
