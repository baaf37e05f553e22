"""Declaration of a table, and the Arrow schema and dlt hints that derive from it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
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
"""Arrow type of each declared type. JSON is carried as text."""

Writer = Literal["answer", "chunk", "run", "names", "command"]
"""Writer of a table's rows.

`answer`: shaping, from the API's answer for one conversation. `chunk`: each chunk of a load, beside
the conversations. `run`: each run, whatever the command. `names`: `load`, at most once a day.
`command`: a command other than `load`.
"""

PersonalData = Literal["none", "label", "identifier", "contact", "staff", "free_text"]
"""Class of a column by the personal data that it can have.

`none`: numbers, flags, times, and what the load computes. `label`: names, codes and ids of things
at PolyAI, as sent. `identifier`: leads to one conversation. `contact`: phone numbers and addresses.
`staff`: people who review or deploy. `free_text`: words of people, or objects with any content.
"""

CLASS_HINT = "x-annotation-pii"
"""Hint of dlt's columns with their class."""

TOMBSTONE = "_deleted"
"""dlt's hard-delete flag of a child table; NULL in every row of the warehouse.

A conversation that lost all its children sends one flagged row, which makes the merge delete the
loaded rows; the flagged row itself is never inserted.
"""

LOAD_ID = "_dlt_load_id"

OWNER = ("agent_id", "conversation_id")
"""First columns of the key of every conversation table."""


@dataclass(frozen=True)
class Column:
    """Declaration of one column: type, description, unit, and its field in each API."""

    name: str
    type: ColumnType
    description: str
    source: str = ""
    """Field of the Data API's list row or detail."""
    source_v3: str = ""
    """Field of the Conversations API v3 row; empty if v3 has none."""
    unit: str = ""
    required: bool = False
    is_kept_when_absent: bool = False
    """An answer without a value, or with `REDACTED`, leaves the loaded one as it is: retention or a
    missing permission took it away, while nobody can remove it on purpose."""
    kept_with: str = ""
    """Another column of the same value: a loaded part never stands beside the other's new one."""

    pii: PersonalData = "none"
    """Class by the personal data that its values can have."""

    @property
    def comment(self) -> str:
        """Description with unit and class, for the database."""
        unit = f" Unit: {self.unit}." if self.unit else ""
        is_named = self.pii != "none"
        return self.description + unit + f" Personal data: {self.pii}." * is_named

    @property
    def apis(self) -> frozenset[str]:
        """The APIs that send the column's value."""
        named = {"data": self.source, "conversations_v3": self.source_v3}
        return frozenset(api for api, source in named.items() if source)


@dataclass(frozen=True)
class Reference:
    """Reference to the key of another table by columns that are not part of the table's own key.

    Attributes:
        table: Name of the referenced table.
        columns: Columns of the same name in both tables; the referenced table's key.
    """

    table: str
    columns: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """Declaration of one table. `registry` lists it; everything else derives from here.

    Attributes:
        name: Name in the warehouse.
        description: Comment on the table: "One row per …".
        columns: Columns in order.
        key: Key columns that follow agent_id and conversation_id.
        merge_key: Rows that share these columns are replaced together by a later load.
        is_child: Replaced as a whole with its conversation, even if nothing replaces it.
        written_by: Writer of its rows. Decides whether `load` fills it and `status` reconciles it.
        is_erased: `forget` deletes its rows with their conversation.
        is_kept_when_withheld: An answer without turns leaves its loaded rows as they are.
        is_local: Its rows are about this warehouse in its place: neither another destination nor
            Parquet files get them.
        is_parent_optional: Rows can exist without the row that their key refers to.
        references: References besides the one that the key implies.
        outline: Columns that the entity diagram shows beside the keys.
        read_by: Columns by which its rows are read, besides the owner's ids and the merge key; each
            gets an index where the destination has indexes.
        in_extra: Known fields of the API that have no column and are kept in `extra`; they are not
            reported as unmapped.
        conversation_began_at: SQL for the start of the conversation that a row belongs to; None if
            the table does not have it.
    """

    name: str
    description: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    merge_key: tuple[str, ...] = OWNER
    is_child: bool = False
    written_by: Writer = "command"
    is_erased: bool = False
    is_kept_when_withheld: bool = False
    is_local: bool = False
    is_parent_optional: bool = False
    references: tuple[Reference, ...] = ()
    outline: tuple[str, ...] = ()
    read_by: tuple[tuple[str, ...], ...] = ()
    in_extra: frozenset[str] = frozenset()
    conversation_began_at: str | None = None

    def fields(self, prefix: str) -> dict[str, str]:
        """Returns the columns that take one field of the Data API unchanged, with that field.

        Args:
            prefix: Path of the row in the answer, such as `turns[].`; empty for the top level.
        """
        plain = re.compile(re.escape(prefix) + r"(\w+)")
        matches = ((column.name, plain.fullmatch(column.source)) for column in self.columns)
        return {name: match[1] for name, match in matches if match}

    def unknown_to(self, apis: frozenset[str]) -> frozenset[str]:
        """Returns the columns that none of these APIs sends, but another one does.

        Args:
            apis: `data` and `conversations_v3`, or one of them.
        """
        return frozenset(
            column.name for column in self.columns if column.apis and not column.apis & apis
        )

    def is_known_to(self, apis: frozenset[str]) -> bool:
        """Returns whether any of these APIs sends a column of the table besides the owner's ids."""
        return any(column.apis & apis for column in self.columns if column.name not in OWNER)

    @cached_property
    def arrow_schema(self) -> pa.Schema:
        """Arrow schema of every batch of this table."""
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
                CLASS_HINT: column.pii,
            }
            if column.type == "timestamp":
                hint |= {"timezone": True, "precision": 6}
            if column.name == TOMBSTONE:
                hint["hard_delete"] = True
            hints[column.name] = hint
        return hints

    @property
    def write_disposition(self) -> dict[str, Any]:
        """Merge by merge key. No primary key: rows of one package are distinct already."""
        return {"disposition": "merge", "strategy": "delete-insert"}
