"""How a table is declared, and what derives from a declaration: Arrow schema and dlt hints."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

ColumnType = Literal["text", "bigint", "double", "bool", "timestamp", "json"]

ARROW_TYPES: dict[ColumnType, pa.DataType] = {
    "text": pa.string(),
    "bigint": pa.int64(),
    "double": pa.float64(),
    "bool": pa.bool_(),
    "timestamp": pa.timestamp("us", tz="UTC"),
    "json": pa.string(),
}
"""The Arrow type that carries each declared type. JSON travels as its text."""

TOMBSTONE = "_deleted"
"""dlt's hard-delete flag of a child table: NULL in every row that a reader ever sees.

A conversation that lost all its children sends one flagged row, which makes the merge delete what
is held; the flagged row itself is never inserted.
"""

LOAD_ID = "_dlt_load_id"

OWNER = ("agent_id", "conversation_id")
"""What the key of every conversation table begins with."""


@dataclass(frozen=True)
class Column:
    """One column: what it holds, in which unit, and where each API sends it."""

    name: str
    type: ColumnType
    description: str
    source: str = ""
    """Field of the Data API's list row or detail."""
    source_v3: str = ""
    """Field of the Conversations API v3 row, where it sends one."""
    unit: str = ""
    required: bool = False

    @property
    def apis(self) -> frozenset[str]:
        """The APIs that send it."""
        named = {"data": self.source, "conversations_v3": self.source_v3}
        return frozenset(api for api, source in named.items() if source)


@dataclass(frozen=True)
class Table:
    """One table: its columns in order, and the key that follows agent_id and conversation_id."""

    name: str
    description: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    merge_key: tuple[str, ...] = ("agent_id", "conversation_id")
    """Rows that share it are replaced together when it is loaded again."""
    is_child: bool = False
    """Replaced as a whole with its conversation, also by nothing."""

    def fields(self, prefix: str) -> dict[str, str]:
        """Columns that take one field of the Data API as it is: column name to field name.

        Args:
            prefix: Where the row stands in the answer, such as `turns[].`; empty for the top.
        """
        plain = re.compile(re.escape(prefix) + r"(\w+)")
        matches = ((column.name, plain.fullmatch(column.source)) for column in self.columns)
        return {name: match[1] for name, match in matches if match}

    def unknown_to(self, apis: frozenset[str]) -> frozenset[str]:
        """Columns that none of these APIs sends, but another one does.

        Args:
            apis: `data` and `conversations_v3`, or one of them.
        """
        return frozenset(
            column.name for column in self.columns if column.apis and not column.apis & apis
        )

    def is_known_to(self, apis: frozenset[str]) -> bool:
        """Whether any of these APIs says anything of the table's rows."""
        return any(column.apis & apis for column in self.columns if column.name not in OWNER)

    @property
    def arrow_schema(self) -> pa.Schema:
        """The exact Arrow schema that every batch of this table has."""
        return pa.schema(
            pa.field(column.name, ARROW_TYPES[column.type], nullable=not column.required)
            for column in self.columns
        )

    @property
    def dlt_columns(self) -> dict[str, dict[str, Any]]:
        """Column hints for dlt, in the order of the Arrow schema."""
        hints: dict[str, dict[str, Any]] = {}
        for column in self.columns:
            hint: dict[str, Any] = {
                "name": column.name,
                "data_type": column.type,
                "nullable": not column.required,
                "description": column.description,
            }
            if column.type == "timestamp":
                hint |= {"timezone": True, "precision": 6}
            if column.name == TOMBSTONE:
                hint["hard_delete"] = True
            hints[column.name] = hint
        return hints

    @property
    def write_disposition(self) -> dict[str, Any]:
        """Replace by merge key; rows of one package are distinct already, so no primary key."""
        return {"disposition": "merge", "strategy": "delete-insert"}
