"""Rewrite of a SQLite file without its deleted rows, which stay in its free pages."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from ..load.committer import Committer
from ..warehouse.errors import destination_errors

_WAIT_SECONDS = 60
"""Time to wait for another process that is using the file."""


def rewrite_sqlite_warehouse(committer: Committer) -> bool:
    """Rewrites the file of a warehouse in SQLite.

    Args:
        committer: Committer of the run.

    Returns:
        True if the destination is SQLite; nothing is rewritten on other destinations.

    Raises:
        DestinationError: The file cannot be written.
    """
    with committer.statements() as client:
        if client.capabilities.sqlglot_dialect != "sqlite":
            return False
        dataset = client.fully_qualified_dataset_name(quote=False)
        attached = client.execute_sql("SELECT name, file FROM pragma_database_list") or ()
    files = {str(name): str(file) for name, file in attached}
    rewrite_sqlite_file(Path(files[dataset]))
    return True


def rewrite_sqlite_file(path: Path) -> None:
    """Rewrites a SQLite file; a killed rewrite leaves it unchanged.

    Args:
        path: The file.

    Raises:
        DestinationError: It cannot be written.
    """
    with destination_errors(), closing(sqlite3.connect(path, timeout=_WAIT_SECONDS)) as connection:
        connection.execute("VACUUM")
        # the log of a file in WAL mode has the old pages too
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
