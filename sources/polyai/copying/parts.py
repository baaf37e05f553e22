"""Parts of a warehouse that are copied and compared together, and their rows.

A part holds all rows of some ids of one agent, so that a copy of it replaces whole merge keys.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from ..tables.conversations import CONVERSATIONS
from ..tables.declaration import ARROW_TYPES, Table
from ..tables.registry import conversation_tables, copied_tables
from ..warehouse.queries import Warehouse

_DUCKDB = "duckdb"
"""sqlglot's name of the dialect whose driver returns Arrow of the declared types."""

_PLAIN_ID = re.compile(r"[\w.:+@-]+")
"""Ids that need no escaping. DuckDB's driver looks for pandas twice for each parameter, which takes
0.14 CPU s for 1,000 of them where pandas is not installed."""

_IDS_PER_PART = 500
"""Ids of one load package; every destination accepts as many in an `IN` list."""

_BY_FIRST = "ORDER BY 1 NULLS FIRST"
"""Order by the first column, which has no NULL: MySQL, where NULLs come first, needs no rewording,
about which sqlglot would log a warning per query."""

_READ_BYTES = 4 * 2**20
"""Rows that are read together, about."""

_FIRST_READ = 50
"""Ids that are read first, before the size of their rows is known."""


@dataclass(frozen=True)
class Group:
    """Tables whose rows are copied together.

    Attributes:
        tables: The tables.
        anchor: Table that has the ids.
        orphans: Only ids of the anchor that `conversations` does not have.
    """

    tables: tuple[Table, ...]
    anchor: Table
    orphans: bool = False

    @property
    def column(self) -> str:
        """Column with the ids, which the merge keys of all tables include."""
        return self.anchor.merge_key[min(1, len(self.anchor.merge_key) - 1)]


@dataclass(frozen=True)
class Part:
    """Some ids of one agent in the tables of a group."""

    group: Group
    agent_id: str
    ids: Sequence[str]

    def where(self, warehouse: Warehouse, ids: Sequence[str]) -> tuple[str, list[str]]:
        """Returns the condition on the rows of ids, and its parameters."""
        column = warehouse.name(self.group.column)
        if warehouse.dialect == _DUCKDB and all(map(_PLAIN_ID.fullmatch, ids)):
            listed = ", ".join(f"'{id_}'" for id_ in ids)
            return f"agent_id = %s AND {column} IN ({listed})", [self.agent_id]
        marks = ", ".join(["%s"] * len(ids))
        return f"agent_id = %s AND {column} IN ({marks})", [self.agent_id, *ids]


def groups() -> list[Group]:
    """Returns the groups, which together have every row of the registered tables."""
    of_answers = conversation_tables()
    return [
        Group(of_answers, CONVERSATIONS),
        *(Group((one,), one, orphans=True) for one in of_answers if one is not CONVERSATIONS),
        *(Group((one,), one) for one in copied_tables() if one not in of_answers),
    ]


def parts(warehouse: Warehouse, group: Group) -> Iterator[Part]:
    """Yields the parts of a group, ordered by agent and id."""
    anchor, column = group.anchor.name, warehouse.name(group.column)
    for (agent_id,) in warehouse.rows(f"SELECT DISTINCT agent_id FROM {{{anchor}}} {_BY_FIRST}"):
        if group.column == "agent_id":
            yield Part(group, agent_id, [agent_id])
            continue
        conditions, parameters = ["t.agent_id = %s"], [agent_id]
        if group.orphans:
            conditions.append(
                "NOT EXISTS (SELECT 1 FROM {conversations} c WHERE c.agent_id = t.agent_id "
                "AND c.conversation_id = t.conversation_id)"
            )
        after: list[str] = []
        while True:
            later = [f"t.{column} > %s"] if after else []
            found = warehouse.rows(
                f"SELECT DISTINCT t.{column} FROM {{{anchor}}} t "
                f"WHERE {' AND '.join([*conditions, *later])} "
                f"{_BY_FIRST} LIMIT {_IDS_PER_PART}",
                *parameters,
                *after,
            )
            if not found:
                break
            ids = [id_ for (id_,) in found]
            yield Part(group, agent_id, ids)
            after = ids[-1:]


class Reader:
    """Reads rows of parts in bounded memory, as Arrow with the declared columns.

    Args:
        warehouse: The warehouse, with any of the registered tables.
    """

    def __init__(self, warehouse: Warehouse) -> None:
        self.warehouse = warehouse
        self._declared: dict[str, Table | None] = {}
        self._ids_per_read: dict[str, int] = {}

    def unknown_columns(self, table: Table) -> list[str]:
        """Returns the columns of a table that its declaration does not have."""
        existing = self.warehouse.existing_columns(table.name) or frozenset()
        return sorted(existing - {column.name for column in table.columns})

    def rows(self, part: Part, table: Table) -> Iterator[pa.Table]:
        """Yields the rows of a part in one of its tables."""
        existing = self._existing(table)
        if existing is None:
            return
        begin = 0
        while begin < len(part.ids):
            size = self._ids_per_read.get(table.name, _FIRST_READ)
            ids = part.ids[begin : begin + size]
            condition, parameters = part.where(self.warehouse, ids)
            found = self._read(
                existing,
                f"SELECT {self.warehouse.columns_of(existing)} FROM {{{table.name}}} "
                f"WHERE {condition}",
                parameters,
            )
            read = 0
            for rows in found:
                read += rows.nbytes
                yield _completed(table, rows)
            per_id = max(1, read // len(ids))
            self._ids_per_read[table.name] = min(
                _IDS_PER_PART, size * 4, max(1, _READ_BYTES // per_id)
            )
            begin += len(ids)

    def has_rows(self, part: Part, table: Table) -> bool:
        """Returns whether a part has any row in one of its tables."""
        condition, parameters = part.where(self.warehouse, part.ids)
        sql = f"SELECT agent_id FROM {{{table.name}}} WHERE {condition} LIMIT 1"
        return bool(self.warehouse.rows(sql, *parameters))

    def _existing(self, table: Table) -> Table | None:
        """Returns a table with those of its columns that exist; None if it does not exist."""
        if table.name not in self._declared:
            names = self.warehouse.existing_columns(table.name)
            self._declared[table.name] = (
                None
                if names is None
                else replace(
                    table, columns=tuple(one for one in table.columns if one.name in names)
                )
            )
        return self._declared[table.name]

    def _read(self, table: Table, sql: str, parameters: Sequence[str]) -> list[pa.Table]:
        if self.warehouse.dialect == _DUCKDB:
            return self.warehouse.arrow(sql, *parameters)
        rows = self.warehouse.rows(sql, *parameters)
        values = list(zip(*rows)) or [()] * len(table.columns)
        return [
            pa.table(
                {
                    column.name: pa.array(
                        _as_declared(values_, column.type), ARROW_TYPES[column.type]
                    )
                    for column, values_ in zip(table.columns, values)
                }
            )
        ]


def _as_declared(values: Sequence[Any], type_: str) -> Sequence[Any]:
    if type_ != "double":
        return values
    return [None if value is None else float(value) for value in values]


def _completed(table: Table, rows: pa.Table) -> pa.Table:
    """Returns rows with the declared columns and types; those that do not exist are NULL."""
    rows = rows.rename_columns([name.lower() for name in rows.column_names])
    missing = [column for column in table.columns if column.name not in rows.column_names]
    for column in missing:
        nulls = pa.nulls(rows.num_rows, ARROW_TYPES[column.type])
        rows = rows.append_column(column.name, nulls)
    return rows.select(table.arrow_schema.names).cast(table.arrow_schema)
