"""A DuckDB file without what was deleted from it.

A deleted row stays in the file: it is marked, and what it took is used again at some time. So the
file is written anew from what is left, and the new one takes its place.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import dlt
import duckdb

from ..errors import DestinationError
from ..views.publishing import take_over_access
from ..warehouse.duckdb_file import duckdb_path, file_lock, retry_while_locked
from ..warehouse.errors import destination_errors

_DRAFTS = ".rewriting"
"""Ending of the folder in which the new file is written."""

_COUNTED = (
    "SELECT (SELECT count(*) FROM duckdb_tables() WHERE database_name = $1), "
    "(SELECT count(*) FROM duckdb_views() WHERE database_name = $1 AND NOT internal)"
)


def rewrite(pipeline: dlt.Pipeline) -> bool:
    """Writes the warehouse's file anew, which takes room for a second one meanwhile.

    Nobody else can write it until it is done. One that is killed leaves the file as it was.

    Args:
        pipeline: Whose warehouse it is.

    Returns:
        Whether there is such a file; other destinations have their own ways.

    Raises:
        DestinationError: It cannot be written.
    """
    database = duckdb_path(pipeline)
    if database is None or not database.exists():
        return False
    drafts = database.with_name(f"{database.name}{_DRAFTS}")
    with destination_errors(), file_lock(pipeline):
        shutil.rmtree(drafts, ignore_errors=True)  # of a run that was killed
        drafts.mkdir(mode=0o700)
        try:
            draft = drafts / database.name
            # opened for writing, what a killed run has left beside the file becomes part of it
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
    """Copies tables, views, comments and whatever else there is."""
    # by the name that DuckDB gives the file, which statements of views may begin with
    new, old = database.stem, f"{database.stem} as it was"
    with duckdb.connect() as connection:
        connection.execute(f"ATTACH {_quoted(draft)} AS {_name(new)}")
        attach_old = f"ATTACH {_quoted(database)} AS {_name(old)} (READ_ONLY)"
        retry_while_locked(lambda: connection.execute(attach_old))
        connection.execute(f"COPY FROM DATABASE {_name(old)} TO {_name(new)}")
        counts = [connection.execute(_COUNTED, [name]).fetchone() for name in (new, old)]
        if counts[0] != counts[1]:
            raise DestinationError(f"{database} cannot be written anew: not all of it was copied")
        for name in (old, new):
            connection.execute(f"DETACH {_name(name)}")


def _quoted(path: Path) -> str:
    text = str(path).replace("'", "''")
    return f"'{text}'"


def _name(name: str) -> str:
    text = name.replace('"', '""')
    return f'"{text}"'
