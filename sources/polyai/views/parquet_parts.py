"""Parts of a warehouse as Parquet files: one part per table or view, agent and month.

Parts are read from a draft, a DuckDB file in which the expensive views are tables; see
`publishing.drafted`. A part has a content hash, which does not depend on the order of its rows, so
that only parts with other rows, columns or types have to be written again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import duckdb

from ..tables.conversations import CONVERSATIONS
from ..tables.declaration import OWNER
from ..tables.erasure import FORGOTTEN_CALLERS
from ..tables.recordings import RECORDINGS
from ..tables.registry import conversation_tables, copied_tables
from ..tables.rules import PLACED_AT
from ..warehouse.duckdb_file import execute_in_memory_limit
from .definitions import views

AGENT = OWNER[0]

MONTH = "month"
"""Partition of the month in UTC in which a conversation began, such as `2026-09`. Views of daily
figures have the month of the local date."""

FILE_NAME = "data.parquet"
"""Name of the file in each partition."""

_NULL = "__HIVE_DEFAULT_PARTITION__"
"""Name of NULL as a partition, as in Hive, Spark, Trino and DuckDB."""

_NO_ROWS = "none"
"""Partition of the file of an empty table; pyarrow cannot read a table of NULL partitions only."""

_LAYOUT = 1
"""Number of the way in which rows are written; another one makes all files be written again."""

_VOLATILE = frozenset({"load_age_minutes"})
"""Columns that depend on the current time. In a file they are those of the time of publication."""

_LOCAL_DATE = "local_date"

_BEGAN_AT = "began_at"
"""Column of views with the start of the conversation."""

_OPTIONS = "FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE 100000, ROW_GROUP_SIZE_BYTES '8MB'"
"""Row groups are in memory as a whole while they are written."""

MEMORY = "120MB"
"""DuckDB's limit, which excludes what is being written. A lower one is too low for a million
conversations, and is then raised."""


@dataclass(frozen=True)
class Relation:
    """Table or view of a draft.

    Attributes:
        name: Its name.
        columns: Type by column, in order.
        is_table: Whether its rows have numbers (`rowid`).
        month: SQL for the month of a row; None if it is not partitioned by month.
        joins: Whether `month` needs the row's conversation.
    """

    name: str
    columns: Mapping[str, str]
    is_table: bool
    month: str | None
    joins: bool

    @property
    def partitions(self) -> tuple[str, ...]:
        """Columns that are in the path of a file and not in the file."""
        agent = (AGENT,) if AGENT in self.columns else ()
        return (*agent, MONTH) if self.month else agent

    def source(self, rows: str) -> str:
        """Returns a FROM clause with the rows as `t` and their conversation as `c`.

        Args:
            rows: Name of the table or view, or a query of its rows.
        """
        if not self.joins:
            return f"{rows} AS t"
        return (
            f"{rows} AS t LEFT JOIN (SELECT {', '.join(OWNER)}, "
            f"{_month(PLACED_AT.sql())} AS month FROM {CONVERSATIONS.name}) AS c "
            f"ON {' AND '.join(f'c.{name} = t.{name}' for name in OWNER)}"
        )

    @property
    def types(self) -> dict[str, str]:
        """Type in the files by column."""
        return {
            name: "VARCHAR" if kind == "JSON" else kind
            for name, kind in self.columns.items()
            if name not in self.partitions
        }


@dataclass(frozen=True)
class Part:
    """Rows of a table or view that are in one file.

    Attributes:
        table: Name of the table or view.
        partition: Value by partition column.
        rows: Number of rows.
        content: Hash of columns, types and rows.
        span: First and last row number of a table; None for a view and without rows.
    """

    table: str
    partition: Mapping[str, str | None]
    rows: int
    content: str
    span: tuple[int, int] | None

    @property
    def path(self) -> str:
        """Path of the file below the folder or bucket."""
        folders = (
            f"{name}={_NULL if value is None else quote(value, safe=' ')}/"
            for name, value in self.partition.items()
        )
        return f"{self.table}/{''.join(folders)}{FILE_NAME}"


def relation_names() -> frozenset[str]:
    """Returns the names of all tables and views that are published.

    Only loads need the callers that were erased, and who reads them can test a number.
    """
    return (
        frozenset(table.name for table in copied_tables()) - {FORGOTTEN_CALLERS.name}
        | views().keys()
    )


def relations(draft: duckdb.DuckDBPyConnection) -> list[Relation]:
    """Returns the tables and views of a draft that are ours."""
    found = draft.execute(
        "SELECT table_name, table_type = 'BASE TABLE' FROM information_schema.tables "
        "WHERE table_schema = current_schema() AND table_catalog = current_database()"
    ).fetchall()
    return [
        _relation(draft, name, is_table=is_table)
        for name, is_table in sorted(found)
        if name in relation_names()
    ]


def _relation(draft: duckdb.DuckDBPyConnection, name: str, *, is_table: bool) -> Relation:
    described = draft.execute(f"DESCRIBE {name}").fetchall()
    columns = {column: kind for column, kind, *_ in described}
    by_month = {table.name for table in (*conversation_tables(), RECORDINGS)} | views().keys()
    month, joins = None, False
    if name == CONVERSATIONS.name:
        month = _month(PLACED_AT.sql("t"))
    elif AGENT in columns and name in by_month:
        if _BEGAN_AT in columns:
            month = _month(f"t.{_BEGAN_AT}")
        elif OWNER[1] in columns:
            month, joins = "c.month", True
        elif _LOCAL_DATE in columns:
            month = f"strftime(t.{_LOCAL_DATE}, '%Y-%m')"
    return Relation(name, columns, is_table, month, joins)


def parts(draft: duckdb.DuckDBPyConnection, relation: Relation) -> Iterator[Part]:
    """Yields the parts of a table or view; one without rows if it is empty.

    An empty file has the columns, so that a query on it works before the first row.
    """
    partitions = [_sql_of(relation, name) for name in relation.partitions]
    hashed = [_as_written(relation, name) for name in relation.types if name not in _VOLATILE]
    number = "t.rowid" if relation.is_table else "NULL"
    # hashed before the join, which keeps rows in memory
    rows_hashed = (
        f"(SELECT *, hash({', '.join(hashed)}) AS _content, {number} AS _number "
        f"FROM {relation.name} AS t)"
    )
    group = f" GROUP BY {', '.join(partitions)}" if partitions else ""
    execute_in_memory_limit(
        draft,
        f"SELECT count(*), sum(t._content::HUGEINT), min(t._number), max(t._number)"
        f"{''.join(f', {partition}' for partition in partitions)} "
        f"FROM {relation.source(rows_hashed)}{group}",
    )
    empty = (0, None, None, None, *[_NO_ROWS] * len(partitions))
    for rows, total, first, last, *values in draft.fetchall() or [empty]:
        written = (_LAYOUT, list(relation.types.items()), rows, total)
        yield Part(
            relation.name,
            dict(zip(relation.partitions, values)),
            rows,
            hashlib.sha256(repr(written).encode()).hexdigest(),
            None if first is None else (first, last),
        )


def write(draft: duckdb.DuckDBPyConnection, relation: Relation, part: Part, file: Path) -> None:
    """Writes the rows of a part into a new Parquet file."""
    columns = ", ".join(f'{_as_written(relation, name)} AS "{name}"' for name in relation.types)
    conditions = [
        f"{_sql_of(relation, name)} {_equals(value)}" for name, value in part.partition.items()
    ]
    if part.span:
        # rows that were loaded together lie together: the others are not read
        conditions.append(f"t.rowid BETWEEN {part.span[0]} AND {part.span[1]}")
    execute_in_memory_limit(
        draft,
        f"COPY (SELECT {columns} FROM {relation.source(relation.name)} "
        f"WHERE {' AND '.join(conditions) or 'TRUE'}) TO {_quoted(str(file))} ({_OPTIONS})",
    )


def _sql_of(relation: Relation, partition: str) -> str:
    return str(relation.month) if partition == MONTH else f"t.{partition}"


def _as_written(relation: Relation, column: str) -> str:
    """Returns the SQL for the value of a column in a file."""
    is_same = relation.types[column] == relation.columns[column]
    return f't."{column}"' if is_same else f'CAST(t."{column}" AS {relation.types[column]})'


def _month(moment: str) -> str:
    """Returns the SQL for the month of a moment in UTC."""
    return f"strftime({moment} AT TIME ZONE 'UTC', '%Y-%m')"


def _equals(value: str | None) -> str:
    return "IS NULL" if value is None else f"= {_quoted(value)}"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
