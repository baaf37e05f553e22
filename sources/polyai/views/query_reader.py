"""Readers of a warehouse that can be queried during a load."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Protocol, Self

import dlt
import duckdb
import sqlglot
from dlt.destinations.exceptions import DatabaseTransientException
from dlt.destinations.sql_client import SqlClientBase

from ..clock import in_utc, utc_now
from ..errors import PolyAIError
from ..warehouse.dialects import to_sql
from ..warehouse.duckdb_file import duckdb_path
from ..warehouse.errors import destination_errors
from ..warehouse.open import working_folder
from ..warehouse.queries import column_names
from ..warehouse.values import rows_of
from .definitions import DIALECT, address
from .publishing import INFO_TABLE, is_published, publish, published_file

logger = logging.getLogger("polyai")

CHECK_INTERVAL_SECONDS = 60.0
"""Time between two checks for changes of the warehouse."""

_JOIN_SECONDS = 1.0
"""Maximum wait for the publishing thread when a reader is closed."""

Row = dict[str, Any]
"""Row by column. Numbers are int or float; timestamps are in UTC, local ones without a zone."""


class Reader(Protocol):
    """Reader of a warehouse, used as a context manager.

    Threads can share a reader; it runs one query at a time.
    """

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    @property
    def as_of(self) -> datetime:
        """Time of the data, UTC."""

    def query(self, sql: str, **parameters: object) -> list[Row]:
        """Runs a query.

        Args:
            sql: Query in DuckDB's dialect, over tables and views by their bare names, with values
                as `$name`.
            parameters: Values by name.

        Raises:
            DestinationError: The warehouse cannot be reached, or refuses the query.
        """


def open_reader(pipeline: dlt.Pipeline, publish_to: Path | str | None = None) -> Reader:
    """Returns a reader of a warehouse whose views exist.

    A DuckDB warehouse is read from a published copy, which is created if needed and updated
    whenever the warehouse changes.

    Args:
        pipeline: Pipeline of the warehouse.
        publish_to: Folder of the copy; by default, and if Parquet files are published instead, one
            beside dlt's working directories.

    Raises:
        ConfigurationError: The warehouse cannot be published into that folder.
    """
    if duckdb_path(pipeline) is None:
        return DestinationReader(pipeline)
    if not isinstance(publish_to, Path):
        publish_to = working_folder(pipeline.pipelines_dir).with_name("published")
    return PublishedReader(pipeline, publish_to)


class PublishedReader:
    """Reader of the newest published copy, which it also keeps current.

    Args:
        pipeline: Pipeline of the warehouse.
        folder: Folder of the copy.
    """

    def __init__(self, pipeline: dlt.Pipeline, folder: Path) -> None:
        self._file = published_file(pipeline, folder)
        self._publish: Callable[[], object] = lambda: (
            is_published(pipeline, folder) or publish(pipeline, folder)
        )
        self._schema = pipeline.dataset_name
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=self._keep_current, name="polyai-publish", daemon=True
        )
        self._opened: tuple[int, duckdb.DuckDBPyConnection] | None = None

    def __enter__(self) -> Self:
        self._publish()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        # an unfinished copy is discarded
        self._thread.join(_JOIN_SECONDS)
        with self._lock:
            self._close()

    @property
    def as_of(self) -> datetime:
        (row,) = self.query(f"SELECT as_of FROM {INFO_TABLE}")
        moment: datetime = row["as_of"]
        return moment

    def query(self, sql: str, **parameters: object) -> list[Row]:
        with self._lock, destination_errors():
            found = self._newest().execute(sql, parameters)
            return _rows([column[0] for column in found.description], found.fetchall())

    def _newest(self) -> duckdb.DuckDBPyConnection:
        """Returns a connection to the current file."""
        number = self._file.stat().st_ino
        if self._opened and self._opened[0] == number:
            return self._opened[1]
        # close the older one first: DuckDB cannot open another file of the same name beside it
        self._close()
        connection = duckdb.connect(str(self._file), read_only=True)
        connection.execute(f"""SET schema = '"{self._schema}"'""")
        self._opened = number, connection
        return connection

    def _close(self) -> None:
        if self._opened:
            self._opened[1].close()
            self._opened = None

    def _keep_current(self) -> None:
        while not self._stop.wait(CHECK_INTERVAL_SECONDS):
            try:
                self._publish()
            except PolyAIError as error:
                logger.warning("not published, reading the older copy: %s", error)


class DestinationReader:
    """Reader of the destination itself, in its own SQL dialect.

    Args:
        pipeline: Pipeline of the warehouse.
    """

    def __init__(self, pipeline: dlt.Pipeline) -> None:
        self._client: SqlClientBase[Any] = pipeline.sql_client()
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        with destination_errors():
            self._client.open_connection()
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._client.close_connection()

    @property
    def as_of(self) -> datetime:
        return utc_now()

    def query(self, sql: str, **parameters: object) -> list[Row]:
        statement = self._transpiled(sql, parameters)
        with self._lock, destination_errors():
            try:
                return self._rows(statement)
            except DatabaseTransientException:
                # the server closes connections that were idle for long
                self._client.close_connection()
                self._client.open_connection()
                return self._rows(statement)

    def _rows(self, statement: str) -> list[Row]:
        with self._client.execute_query(statement) as cursor:
            names = column_names(cursor)
            dialect = str(self._client.capabilities.sqlglot_dialect)
            return _rows(names, rows_of(names, cursor.fetchall(), dialect))

    def _transpiled(self, sql: str, parameters: dict[str, object]) -> str:
        tree = sqlglot.parse_one(sql, read=DIALECT)
        dialect = str(self._client.capabilities.sqlglot_dialect)
        address(tree, dialect, self._client.make_qualified_table_name, parameters)
        return to_sql(tree, dialect)


def _rows(names: list[str], values: list[tuple[Any, ...]]) -> list[Row]:
    return [dict(zip(names, map(_plain, row))) for row in values]


def _plain(value: object) -> object:
    if isinstance(value, datetime) and value.tzinfo:
        return in_utc(value)
    return float(value) if isinstance(value, Decimal) else value
