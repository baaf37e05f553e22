"""Queries of people who look at a warehouse while it is being loaded."""

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
from ..warehouse.duckdb_file import duckdb_path
from ..warehouse.errors import destination_errors
from ..warehouse.open import working_folder
from .definitions import DIALECT, address
from .publishing import INFO_TABLE, is_published, publish, published_file

logger = logging.getLogger("polyai")

LOOKS_EVERY_SECONDS = 60.0
"""Time between two looks at whether the warehouse has changed."""

_ENDING_SECONDS = 1.0

Row = dict[str, Any]
"""A row by column; numbers are int or float, moments know their zone."""


class Reader(Protocol):
    """Asks a warehouse. Threads can share one; it asks one thing at a time.

    Use as a context manager.
    """

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    @property
    def as_of(self) -> datetime:
        """UTC: when what is read was taken from the warehouse."""

    def query(self, sql: str, **parameters: object) -> list[Row]:
        """Runs a query.

        Args:
            sql: In DuckDB's words, over our tables and views by bare name, values as `$name`.
            parameters: The values by name.

        Raises:
            DestinationError: The warehouse cannot be asked, or does not take the query.
        """


def open_reader(pipeline: dlt.Pipeline, publish_to: Path | None = None) -> Reader:
    """A reader of the pipeline's warehouse, which has its views already.

    A DuckDB warehouse is read from a published copy, which is made where it is missing or older
    than the warehouse, and made anew when the warehouse changes.

    Args:
        pipeline: Whose warehouse it is.
        publish_to: Folder of the copy; by default one beside dlt's working directories.

    Raises:
        ConfigurationError: The warehouse cannot be published into that folder.
    """
    if duckdb_path(pipeline) is None:
        return DestinationReader(pipeline)
    folder = publish_to or working_folder(pipeline.pipelines_dir).with_name("published")
    return PublishedReader(pipeline, folder)


class PublishedReader:
    """Reads a published copy, always the newest one; keeps it current meanwhile.

    Args:
        pipeline: Whose warehouse it is.
        folder: Of the copy.
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
        # a copy that is being made is thrown away: nobody waits for it
        self._thread.join(_ENDING_SECONDS)
        with self._lock:
            self._close()

    @property
    def as_of(self) -> datetime:
        (row,) = self.query(f"SELECT as_of FROM {INFO_TABLE}")
        moment: datetime = row["as_of"]
        return in_utc(moment)

    def query(self, sql: str, **parameters: object) -> list[Row]:
        with self._lock, destination_errors():
            found = self._newest().execute(sql, parameters)
            return _rows([column[0] for column in found.description], found.fetchall())

    def _newest(self) -> duckdb.DuckDBPyConnection:
        """A connection to the file that is in place now."""
        number = self._file.stat().st_ino
        if self._opened and self._opened[0] == number:
            return self._opened[1]
        # the older one goes first: DuckDB opens no other file of the same name beside it
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
        while not self._stop.wait(LOOKS_EVERY_SECONDS):
            try:
                self._publish()
            except PolyAIError as error:
                logger.warning("the older copy is shown: %s", error)


class DestinationReader:
    """Asks the destination itself, in its own words.

    Args:
        pipeline: Whose destination it is.
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
        words = self._worded(sql, parameters)
        with self._lock, destination_errors():
            try:
                return self._asked(words)
            except DatabaseTransientException:
                # it closes what has been idle for long
                self._client.close_connection()
                self._client.open_connection()
                return self._asked(words)

    def _asked(self, words: str) -> list[Row]:
        with self._client.execute_query(words) as cursor:
            return _rows([column[0] for column in cursor.description or ()], cursor.fetchall())

    def _worded(self, sql: str, parameters: dict[str, object]) -> str:
        tree = sqlglot.parse_one(sql, read=DIALECT)
        dialect = str(self._client.capabilities.sqlglot_dialect)
        address(tree, dialect, self._client.make_qualified_table_name, parameters)
        return tree.sql(dialect)


def _rows(names: list[str], values: list[tuple[Any, ...]]) -> list[Row]:
    return [dict(zip(names, map(_plain, row))) for row in values]


def _plain(value: object) -> object:
    return float(value) if isinstance(value, Decimal) else value
