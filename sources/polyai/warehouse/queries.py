"""Queries on the destination's dataset: rows, records and Arrow tables, in bounded parts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from functools import cached_property
from typing import Any, Self, TypeVar

import dlt
import pyarrow as pa
from dlt.common.destination.dataset import DBApiCursor
from dlt.destinations.exceptions import DatabaseUndefinedRelation
from dlt.destinations.sql_client import SqlClientBase

from ..tables.declaration import Table
from .clients import sql_client
from .dialects import parse, portable, qualified, qualify_tables, to_sql
from .duckdb_file import file_lock, retry_while_locked
from .ducklake_destination import without_creation
from .errors import destination_errors
from .user_query import check_query, restricted
from .values import NATIVE, rows_of

T = TypeVar("T")

IDS_PER_QUERY = 1_000
"""Ids in one `IN` list; every destination accepts that many."""

_JSON_AS_TEXT = frozenset({"duckdb", "postgres"})
"""sqlglot's names of the dialects that cast JSON to its text."""

ROWS_PER_QUERY = 50_000
"""Rows of one column that are read together."""


def id_batches(ids: Sequence[str]) -> Iterator[tuple[Sequence[str], str]]:
    """Splits ids into batches for `IN` lists.

    Args:
        ids: Any number of ids.

    Yields:
        A batch of at most `IDS_PER_QUERY` ids, and as many placeholders, separated by commas.
    """
    for start in range(0, len(ids), IDS_PER_QUERY):
        batch = ids[start : start + IDS_PER_QUERY]
        yield batch, ", ".join(["%s"] * len(batch))


class Warehouse:
    """Queries on the dataset of a pipeline. Each query opens a connection of its own, by default.

    Args:
        pipeline: Pipeline with the destination and the dataset.
        locks_file: Take the lock on a DuckDB file for each query, waiting without limit for other
            processes that write to it. For runs that write to it too.
        absent: Names of tables to treat as if they did not exist, because they will be dropped.
    """

    def __init__(
        self,
        pipeline: dlt.Pipeline,
        *,
        locks_file: bool = False,
        absent: frozenset[str] = frozenset(),
    ) -> None:
        self.pipeline = pipeline
        self._absent = absent
        self._locks_file = locks_file
        self._lock = file_lock(pipeline) if locks_file else nullcontext()
        self._is_open = False
        self._translations: dict[str, str] = {}

    def for_thread(self) -> Self:
        """Returns an equal warehouse for another thread.

        To be called in the main thread, because dlt creates clients in one thread only.
        """
        copy = type(self)(self.pipeline, locks_file=self._locks_file, absent=self._absent)
        copy._client.make_qualified_table_name("any")
        return copy

    @contextmanager
    def kept_open(self) -> Iterator[None]:
        """Keeps the connection open during several queries, each of which would open one.

        In the thread that queries this warehouse, and only for as long as others may wait: a DuckDB
        file is locked meanwhile.
        """
        if self._is_open:
            yield
            return
        with self._lock:
            with destination_errors():
                self._is_open = self._opened()
            if not self._is_open:
                yield
                return
            try:
                yield
            finally:
                self._is_open = False
                self._client.close_connection()

    def _opened(self) -> bool:
        """Opens the connection; returns False if a lake does not exist yet."""
        try:
            retry_while_locked(self._client.open_connection)
        except DatabaseUndefinedRelation:
            return False
        return True

    @property
    def is_kept_open(self) -> bool:
        """True while `kept_open` keeps the connection open."""
        return self._is_open

    def rows(self, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Runs a query.

        Args:
            sql: The query: `{table}` for the qualified name of a table, `%s` for each parameter.
            parameters: Values of the placeholders.

        Returns:
            The rows; none if a table does not exist yet.

        Raises:
            DestinationError: The destination cannot be reached, or rejects the query.
        """
        return self._read(self._rows_of, sql, parameters) or []

    def rows_by_column(self, sql: str, *parameters: object) -> list[dict[str, Any]]:
        """Runs a query as `rows` does, and returns its rows by column name in lower case."""
        return [
            {name.lower(): value for name, value in row.items()}
            for row in self._read(self._records_of, sql, parameters) or ()
        ]

    def arrow(self, sql: str, *parameters: object) -> list[pa.Table]:
        """Runs a query as `rows` does, and returns Arrow tables of up to `ROWS_PER_QUERY` rows."""
        return self._read(_as_arrow, sql, parameters) or []

    def records(self, sql: str) -> list[dict[str, Any]]:
        """Runs a user's own query, and returns its rows by column.

        It is one SELECT, which can read the warehouse and nothing else; see `restricted`. It is run
        as it is. Where that finds no table, because the destination has no dataset that it looks in
        by default, tables without a dataset are taken for those of the warehouse.

        Raises:
            ConfigurationError: It is not one SELECT, or reads something else.
            DestinationError: The destination cannot be reached, or rejects the query.
        """
        with destination_errors():
            check_query(sql, self.dialect)
            try:
                return self._restricted(sql)
            except DatabaseUndefinedRelation:
                query = qualified(sql, self.dialect, self._client.make_qualified_table_name)
                if query is None:
                    raise
                return self._restricted(query)

    def has_table(self, name: str) -> bool:
        """Checks whether a table exists."""
        return self._read(lambda _: True, f"SELECT 1 FROM {{{name}}} WHERE 1 = 0", ()) is not None

    def has_columns(self, name: str, columns: Iterable[str]) -> bool:
        """Checks whether a table exists with all of these columns."""
        found = self.existing_columns(name)
        return found is not None and found.issuperset(columns)

    def existing_columns(self, name: str) -> frozenset[str] | None:
        """Returns the names of a table's columns in lower case; None if it does not exist."""
        return self._read(
            lambda cursor: frozenset(column.lower() for column in column_names(cursor)),
            f"SELECT * FROM {{{name}}} WHERE 1 = 0",
            (),
        )

    def count_rows(self, table: str) -> int:
        """Counts the rows of a table; 0 if it does not exist yet."""
        rows = self.rows(f"SELECT count(*) FROM {{{table}}}")
        return int(rows[0][0]) if rows else 0

    def later(self, moment: str, duration: timedelta) -> str:
        """Renders SQL for a moment plus a duration in the destination's dialect.

        Args:
            moment: SQL expression of a timestamp.
            duration: Duration of whole seconds.
        """
        seconds = int(duration.total_seconds())
        if self.dialect in NATIVE:
            # without sqlglot, whose dialect takes 80 CPU ms to import
            return f"({moment} + INTERVAL '{seconds} SECOND')"
        # the whole query is translated
        return f"DATEADD(SECOND, {seconds}, {moment})"

    def name(self, column: str) -> str:
        """Returns the quoted name of a column for a query."""
        if self.dialect not in NATIVE:
            return f'"{self._client.escape_column_name(column, quote=False)}"'
        return str(self._client.escape_column_name(column))

    def columns_of(self, table: Table) -> str:
        """Renders the columns of a table for a query, JSON ones as text; see `json_text`."""
        return ", ".join(
            self.json_text(column.name) if column.type == "json" else self.name(column.name)
            for column in table.columns
        )

    def hash_of(self, columns: Iterable[str]) -> str | None:
        """Renders a hash of 64 bits of several columns; None where SQL has no cheap one."""
        is_cheap = self.dialect == "duckdb"
        return f"hash({', '.join(columns)})" if is_cheap else None

    def json_text(self, column: str) -> str:
        """Renders SQL for a JSON column as text, which has all digits of its numbers.

        Destinations other than DuckDB and PostgreSQL return what their drivers make of it.
        """
        name = self.name(column)
        is_cast = self.dialect in _JSON_AS_TEXT
        return f"CAST({name} AS VARCHAR) AS {name}" if is_cast else name

    def _read(
        self, take: Callable[[DBApiCursor], T], sql: str, parameters: Sequence[object]
    ) -> T | None:
        """Runs a query with qualified table names; None if a table does not exist yet."""
        with destination_errors():
            names = _QualifiedNames(self._client, is_bare=self.dialect not in NATIVE)
            query = sql.format_map(names)
            if not self._absent.isdisjoint(names.tables):
                return None
            if self.dialect not in NATIVE:
                query = self._translated(query)
            try:
                return self._execute(take, query, parameters)
            except DatabaseUndefinedRelation:
                return None

    def _execute(
        self, take: Callable[[DBApiCursor], T], query: str, parameters: Sequence[object]
    ) -> T:
        client = self._client

        def read() -> T:
            with client.execute_query(query, *parameters) as cursor:
                return take(cursor)

        def open_and_read() -> T:
            with self._lock, client:
                return read()

        return read() if self._is_open else retry_while_locked(open_and_read)

    def _restricted(self, query: str) -> list[dict[str, Any]]:
        client = self._client

        def open_and_read() -> list[dict[str, Any]]:
            # a connection of its own: on DuckDB the limits stay until it is closed
            with (
                self._lock,
                client,
                restricted(self.pipeline, client),
                client.execute_query(query) as cursor,
            ):
                return self._records_of(cursor)

        return retry_while_locked(open_and_read)

    def _translated(self, query: str) -> str:
        """Translates a query of ours, with bare names of tables, to the destination's dialect."""
        if query not in self._translations:
            tree = parse(query.replace("%s", "?"))
            qualify_tables(tree, self.dialect, self._client.make_qualified_table_name)
            portable(tree, self.dialect)
            self._translations[query] = to_sql(tree, self.dialect).replace("?", "%s")
        return self._translations[query]

    def _rows_of(self, cursor: DBApiCursor) -> list[tuple[Any, ...]]:
        return rows_of(column_names(cursor), cursor.fetchall(), self.dialect)

    def _records_of(self, cursor: DBApiCursor) -> list[dict[str, Any]]:
        names = column_names(cursor)
        return [dict(zip(names, row)) for row in self._rows_of(cursor)]

    @cached_property
    def dialect(self) -> str:
        """Name of the destination's dialect in sqlglot."""
        return str(self._client.capabilities.sqlglot_dialect)

    @cached_property
    def _client(self) -> SqlClientBase[Any]:
        """Client that connects for each query, created once: that takes as long as a query."""
        client: SqlClientBase[Any] = without_creation(sql_client(self.pipeline))
        return client


def column_names(cursor: DBApiCursor) -> list[str]:
    """Returns the names of the columns of a result, also of one without a `description`."""
    description = getattr(cursor, "description", None)
    if description is None:
        keys: Any = getattr(cursor, "keys", list)
        return list(keys())
    return [column[0] for column in description]


def _as_arrow(cursor: DBApiCursor) -> list[pa.Table]:
    return [part for part in cursor.iter_arrow(chunk_size=ROWS_PER_QUERY) if part.num_rows]


class _QualifiedNames(dict[str, str]):
    """Mapping from the tables named in a query to their qualified names.

    Args:
        client: Client of the destination.
        is_bare: Leave the names as they are; `_translated` qualifies them.
    """

    def __init__(self, client: Any, *, is_bare: bool) -> None:
        super().__init__()
        self._client = client
        self._is_bare = is_bare
        self.tables: set[str] = set()

    def __missing__(self, table: str) -> str:
        self.tables.add(table)
        return table if self._is_bare else str(self._client.make_qualified_table_name(table))
