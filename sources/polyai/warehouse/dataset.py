"""Schema of the warehouse in a DuckDB file, which may have been renamed since its first load."""

from __future__ import annotations

from pathlib import Path

import duckdb

from ..errors import ConfigurationError
from .duckdb_file import LOCKED, READERS_SECONDS, not_opened_by_threads
from .retry import retry

MAIN = "main"
"""DuckDB's default schema."""

DATASETS = """
    SELECT schema_name FROM duckdb_tables() WHERE database_name = current_database()
    GROUP BY ALL HAVING bool_or(table_name = '_dlt_loads')
    AND bool_or(table_name IN ('sync_runs', 'fetch_failures'))
"""
"""Query for the schemas that contain tables of ours."""

_RETRY_SECONDS = 0.1


def loaded_schemas(database: Path, wait_seconds: float = READERS_SECONDS) -> frozenset[str] | None:
    """Finds the schemas of a DuckDB file that contain tables of ours.

    Args:
        database: The file; it need not exist.
        wait_seconds: Time to wait for another process that has the file open for writing.

    Returns:
        None if the file cannot be read.
    """

    def read() -> frozenset[str]:
        with not_opened_by_threads(database) as is_opened:
            if is_opened:
                # a process cannot have a file open for reading and for writing at once
                raise duckdb.IOException(LOCKED)
            connection = duckdb.connect(str(database), read_only=True)
            try:
                return frozenset(name for (name,) in connection.execute(DATASETS).fetchall())
            finally:
                connection.close()

    if not database.is_file():
        return frozenset()
    try:
        return retry(
            read,
            retry_if=lambda error: LOCKED in str(error),
            attempts=None,
            within_seconds=wait_seconds,
            pause=lambda _: _RETRY_SECONDS,
        )
    except duckdb.Error:
        return None  # opening the destination reports it


def schema_of(dataset: str, database: Path, loaded: frozenset[str], *, default: str) -> str:
    """Returns the schema of a dataset in a DuckDB file.

    That is the schema that contains tables of ours: `main` if the file had the dataset's name when
    it was first loaded, else the dataset. In a file without tables its present name decides.

    Args:
        dataset: The dataset.
        database: The file.
        loaded: Its schemas with tables of ours.
        default: Name of the default dataset, to which `main` belongs in a file of that name.

    Raises:
        ConfigurationError: Both schemas contain tables of ours; or the schema has the name of the
            database, which DuckDB refuses as ambiguous.
    """
    expected = MAIN if database.stem == dataset else dataset
    if expected == MAIN:
        other = database.stem if dataset == MAIN else dataset
    else:
        # in a file of the default name, `main` belongs to the default dataset
        other = expected if database.stem == default else MAIN
    if {expected, other} <= loaded and expected != other:
        raise ConfigurationError(
            f"{database} has a warehouse in each of two schemas, {expected} and {other}, because "
            "it was renamed and loaded again. Keep one: move the other into a file of its own, or "
            "drop it"
        )
    if other == database.stem and other in loaded:
        raise ConfigurationError(
            f"{database} has its tables in the schema {other}, because it was renamed, and DuckDB "
            "cannot distinguish that schema from the database of the same name. Give the file "
            "another name, such as calls.duckdb, and set DESTINATION__DUCKDB__CREDENTIALS to it"
        )
    return other if other in loaded else expected
