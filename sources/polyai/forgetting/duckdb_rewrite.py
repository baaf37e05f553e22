"""Rewrite of a DuckDB file without its deleted rows.

DuckDB only marks deleted rows and reuses their space later. The remaining content is therefore
copied to a new file, which replaces the old one.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import dlt
import duckdb

from ..errors import DestinationError
from ..views.publishing import take_over_access
from ..warehouse.duckdb_file import (
    COPY_CONFIG,
    duckdb_path,
    execute_in_memory_limit,
    file_lock,
    retry_while_locked,
)
from ..warehouse.errors import destination_errors

_DRAFTS = ".rewriting"
"""Suffix of the folder in which the new file is written."""

_MEMORY = "80MB"
"""DuckDB's limit, which excludes the texts that are being compressed: these need more than it."""

_COUNTED = (
    "SELECT (SELECT count(*) FROM duckdb_tables() WHERE database_name = $1), "
    "(SELECT count(*) FROM duckdb_views() WHERE database_name = $1 AND NOT internal)"
)

_TABLES = "SELECT schema_name, table_name, sql FROM duckdb_tables() WHERE database_name = $1"

_COMPUTED = "GENERATED ALWAYS AS"
"""Part of the definition of a table that has computed columns, which only a user's table has."""


def rewrite_duckdb_file(pipeline: dlt.Pipeline) -> bool:
    """Rewrites the DuckDB file of the warehouse; temporarily needs disk space for a second one.

    Other writers are locked out meanwhile. A killed rewrite leaves the file unchanged.

    Args:
        pipeline: Pipeline of the warehouse.

    Returns:
        True if the destination is a DuckDB file; nothing is rewritten on other destinations.

    Raises:
        DestinationError: The file cannot be written.
    """
    database = duckdb_path(pipeline)
    if database is None or not database.exists():
        return False
    drafts = database.with_name(f"{database.name}{_DRAFTS}")
    with destination_errors(), file_lock(pipeline):
        shutil.rmtree(drafts, ignore_errors=True)  # left by a killed run
        drafts.mkdir(mode=0o700)
        try:
            draft = drafts / database.name
            # opening the file for writing merges the write-ahead log of a killed run
            retry_while_locked(lambda: duckdb.connect(str(database))).close()
            _copy(database, draft)
            take_over_access(database, draft)
            with draft.open("rb") as file:
                os.fsync(file.fileno())
            draft.replace(database)
        finally:
            shutil.rmtree(drafts, ignore_errors=True)
    return True


def _copy(database: Path, draft: Path) -> None:
    """Copies the whole content: tables, views, comments."""
    # the catalog name that DuckDB derives from the file, which views may refer to
    new, old = _name(database.stem), _name(_before(database))
    with _attached(database, draft) as connection:
        tables = connection.execute(_TABLES, [_before(database)]).fetchall()
        if any(_COMPUTED in sql for *_, sql in tables):
            # a statement of ours would have to leave out the computed columns
            execute_in_memory_limit(connection, f"COPY FROM DATABASE {old} TO {new}")
            tables = []
        else:
            connection.execute(f"COPY FROM DATABASE {old} TO {new} (SCHEMA)")
    for schema, table, _ in tables:
        place = f"{_name(schema)}.{_name(table)}"
        # attached again for each table, because DuckDB keeps memory until the file is closed
        with _attached(database, draft) as connection:
            execute_in_memory_limit(
                connection, f"INSERT INTO {new}.{place} SELECT * FROM {old}.{place}"
            )
            rows = [
                connection.execute(f"SELECT count(*) FROM {name}.{place}").fetchone()
                for name in (new, old)
            ]
        _check(database, rows)
    with _attached(database, draft) as connection:
        names = (database.stem, _before(database))
        _check(database, [connection.execute(_COUNTED, [name]).fetchone() for name in names])


def _before(database: Path) -> str:
    """Returns the catalog name of the old file."""
    return f"{database.stem} before"


@contextmanager
def _attached(database: Path, draft: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """Opens a database in memory with both files attached."""
    config = {**COPY_CONFIG, "memory_limit": _MEMORY, "temp_directory": str(draft.parent)}
    old = _name(_before(database))
    with duckdb.connect(config=config) as connection:
        connection.execute(f"ATTACH {_quoted(draft)} AS {_name(database.stem)}")
        attach_old = f"ATTACH {_quoted(database)} AS {old} (READ_ONLY)"
        retry_while_locked(lambda: connection.execute(attach_old))
        yield connection
        for name in (old, _name(database.stem)):
            connection.execute(f"DETACH {name}")


def _check(database: Path, counts: Sequence[object]) -> None:
    """Raises an error if the counts of the new file and the old one differ."""
    if counts[0] != counts[1]:
        raise DestinationError(f"cannot rewrite {database}: the copy is incomplete")


def _quoted(path: Path) -> str:
    text = str(path).replace("'", "''")
    return f"'{text}'"


def _name(name: str) -> str:
    text = name.replace('"', '""')
    return f'"{text}"'
