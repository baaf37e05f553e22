"""Rewrite of a DuckDB file without its deleted rows.

DuckDB only marks deleted rows and reuses their space later. The remaining content is therefore
copied to a new file, which replaces the old one.
"""

from __future__ import annotations

import os
import shutil
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

_COUNTED = (
    "SELECT (SELECT count(*) FROM duckdb_tables() WHERE database_name = $1), "
    "(SELECT count(*) FROM duckdb_views() WHERE database_name = $1 AND NOT internal)"
)


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
    new, old = database.stem, f"{database.stem} before"
    config = {**COPY_CONFIG, "temp_directory": str(draft.parent)}
    with duckdb.connect(config=config) as connection:
        connection.execute(f"ATTACH {_quoted(draft)} AS {_name(new)}")
        attach_old = f"ATTACH {_quoted(database)} AS {_name(old)} (READ_ONLY)"
        retry_while_locked(lambda: connection.execute(attach_old))
        execute_in_memory_limit(connection, f"COPY FROM DATABASE {_name(old)} TO {_name(new)}")
        counts = [connection.execute(_COUNTED, [name]).fetchone() for name in (new, old)]
        if counts[0] != counts[1]:
            raise DestinationError(f"cannot rewrite {database}: the copy is incomplete")
        for name in (old, new):
            connection.execute(f"DETACH {_name(name)}")


def _quoted(path: Path) -> str:
    text = str(path).replace("'", "''")
    return f"'{text}'"


def _name(name: str) -> str:
    text = name.replace('"', '""')
    return f'"{text}"'
