"""Rules per column: those that `pii` does not redact, and those that are never loaded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Self

import pyarrow as pa

from ..api.decoding import decode, encode
from ..config.settings import Settings
from ..errors import ConfigurationError
from ..tables.children import ANNOTATIONS, FUNCTION_EVENTS, NOTES
from ..tables.conversations import CONVERSATIONS
from ..tables.declaration import Column, Table
from ..tables.names import AGENTS, DEPLOYMENTS, PHONE_NUMBERS, VARIANTS
from ..tables.registry import conversation_tables, key_of, name_tables
from ..tables.turns import LLM_REQUESTS, TURNS

PREFIXES: Mapping[Table, str] = {
    CONVERSATIONS: "",
    TURNS: "turns[].",
    LLM_REQUESTS: "turns[].llm_requests[].",
    ANNOTATIONS: "turns[].reviews[].",
    FUNCTION_EVENTS: "functionEvents{}[].",
    AGENTS: "agents[].",
    DEPLOYMENTS: "deployments[].",
    VARIANTS: "variants[].",
    PHONE_NUMBERS: "phoneNumbers[].",
}
"""Path of the objects that rows of a table are made of."""

_NEEDED = frozenset(
    {
        "created_at", "started_at", "finished_at", "in_progress", "environment", "direction",
        "num_turns",
    }
)  # fmt: skip
"""Columns of `conversations` by which a load knows what to read again."""


@dataclass(frozen=True)
class ColumnRules:
    """Rules per column.

    Attributes:
        kept: Columns that are not redacted, by table.
        dropped: Columns that are never loaded, by table.
    """

    kept: Mapping[Table, frozenset[str]] = field(default_factory=dict)
    dropped: Mapping[Table, frozenset[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Returns the rules of the settings; see `named`."""
        return cls.named(settings.keep_columns, settings.drop_columns)

    @classmethod
    def named(cls, keep: Iterable[str], drop: Iterable[str]) -> Self:
        """Returns the rules for columns that are given as `table.column`.

        Raises:
            ConfigurationError: There is no such column, or it cannot be kept or dropped.
        """
        return cls(_by_table("keep_columns", keep), _by_table("drop_columns", drop))

    def kept_fields(self, table: Table) -> frozenset[str]:
        """Returns the API's fields of a table's rows that are not redacted."""
        fields = table.fields(PREFIXES[table])
        return frozenset(fields[name] for name in self.kept.get(table, ()))

    @property
    def drops_notes(self) -> bool:
        """True if notes are never loaded, with all of their versions."""
        return "note" in self.dropped.get(CONVERSATIONS, ())

    def without_dropped(self, tables: Mapping[str, pa.Table]) -> dict[str, pa.Table]:
        """Returns the rows of tables, by name, with NULL in the dropped columns."""
        found = dict(tables)
        for table, columns in self.dropped.items():
            if table.name not in found:
                continue
            rows = found[table.name]
            for name in columns:
                position = rows.schema.get_field_index(name)
                declared = rows.schema.field(position)
                nulls = pa.nulls(rows.num_rows, declared.type)
                rows = rows.set_column(position, declared, nulls)
            found[table.name] = _without_unfit(table, rows, columns)
        return found

    def empty_dropped(self, table: Table, row: dict[str, Any]) -> None:
        """Sets the dropped columns of a row to None."""
        row.update(dict.fromkeys(self.dropped.get(table, ())))


NO_RULES = ColumnRules()


def _without_unfit(table: Table, rows: pa.Table, columns: Iterable[str]) -> pa.Table:
    """Removes values that did not fit the type of a dropped column from `extra`."""
    fields = table.fields(PREFIXES.get(table, "?"))
    names = {fields[name] for name in columns if name in fields}
    if not names or "extra" not in rows.column_names:
        return rows
    extras = []
    for text in rows["extra"].to_pylist():
        if text is not None and any(name in text for name in names):
            left = {name: item for name, item in decode(text.encode()).items() if name not in names}
            text = encode(left).decode() if left else None
        extras.append(text)
    position = rows.schema.get_field_index("extra")
    return rows.set_column(position, rows.schema.field(position), pa.array(extras, pa.string()))


def _by_table(setting: str, given: Iterable[str]) -> dict[Table, frozenset[str]]:
    allowed = _keepable if setting == "keep_columns" else _droppable
    known = {
        f"{table.name}.{column.name}": (table, column)
        for table in (*conversation_tables(), *name_tables())
        for column in table.columns
    }
    found: dict[Table, frozenset[str]] = {}
    for name in given:
        if name not in known:
            near = get_close_matches(name, known, 1)
            hint = f"Did you mean {near[0]}?" if near else "Expected table.column"
            raise ConfigurationError(f"{setting}: there is no column {name}. {hint}")
        table, column = known[name]
        if reason := allowed(table, column):
            raise ConfigurationError(f"{setting}: {name} {reason}")
        found[table] = found.get(table, frozenset()) | {column.name}
    return found


def _keepable(table: Table, column: Column) -> str:
    """Returns the reason why a column cannot be kept; empty if it can be."""
    if table in PREFIXES and column.name in table.fields(PREFIXES[table]):
        return ""
    return (
        "cannot be kept, because its value is a part of what other columns have too, or is not "
        "from PolyAI"
    )


def _droppable(table: Table, column: Column) -> str:
    """Returns the reason why a column cannot be dropped; empty if it can be."""
    if table is NOTES:
        return "cannot be dropped: drop conversations.note, which has no versions then"
    if column.name in key_of(table) or column.required:
        return "cannot be dropped: it is a part of the key"
    if table is CONVERSATIONS and column.name in _NEEDED:
        return "cannot be dropped: a load needs it to know what to read again"
    return "" if column.apis else "cannot be dropped: it is not from PolyAI"
