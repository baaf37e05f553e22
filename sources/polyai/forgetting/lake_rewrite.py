"""Rewrite of a DuckLake without its deleted rows.

DuckLake only marks deleted rows: the Parquet files with them stay, for the snapshots of earlier
states, and so do rows that are still in the catalog. The files are therefore written again, all
earlier snapshots expire, and the files that none refers to any more are deleted.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Any

from dlt.destinations.sql_client import SqlClientBase

from ..errors import DestinationError
from ..load.committer import Committer
from ..tables.registry import erased_tables
from ..warehouse.ducklake import DUCKLAKE, catalog_file
from ..warehouse.errors import is_conflict
from ..warehouse.retry import retry
from .sqlite_rewrite import rewrite_sqlite_file

_SEPARATORS = re.compile(r"[/\\]")

_FOLDERS = 3
"""Last parts of a file's path: schema, table and file."""


def rewrite_lake(committer: Committer) -> bool:
    """Rewrites the files of the warehouse that have deleted rows, and deletes the old ones.

    No other run of ours commits meanwhile. The snapshots are those of the whole lake: other
    datasets in it lose their earlier states too. Idempotent, so that the next run completes a
    killed one.

    Args:
        committer: Committer of the run.

    Returns:
        True if the destination is a DuckLake; nothing is rewritten on other destinations.

    Raises:
        DestinationError: The catalog or the files cannot be written.
    """
    pipeline = committer.pipeline
    if pipeline.destination.destination_type != DUCKLAKE:
        return False
    with committer.kept_open():
        existing = [
            table.name for table in erased_tables() if committer.warehouse.has_table(table.name)
        ]
    credentials: Any = pipeline.destination_client().config.credentials
    with committer.statements() as client:
        lake = _Lake(client, credentials.ducklake_name)
        for table in existing:
            retry(lambda: lake.rewrite(table), retry_if=is_conflict)  # noqa: B023 - called at once
        retry(lake.expire, retry_if=is_conflict)
        lake.delete_orphans()
    if credentials.catalog.drivername == "sqlite":
        rewrite_sqlite_file(catalog_file(credentials))
    return True


class _Lake:
    """Maintenance of an open lake.

    Args:
        client: Client with an open connection.
        name: Name by which the lake is attached.
    """

    def __init__(self, client: SqlClientBase[Any], name: str) -> None:
        self._client = client
        self._name = self._literal(name)
        self._dataset = client.dataset_name

    def rewrite(self, table: str) -> None:
        """Writes the files of a table again that have deleted rows."""
        name, schema = self._literal(table), self._literal(self._dataset)
        # a few rows at a time are kept in the catalog, with those that were deleted
        self._call(
            f"ducklake_flush_inlined_data({self._name}, table_name => {name}, "
            f"schema_name => {schema})"
        )
        self._call(
            f"ducklake_rewrite_data_files({self._name}, {name}, schema => {schema}, "
            "delete_threshold => 0)"
        )

    def expire(self) -> None:
        """Expires all snapshots but the last, and deletes files that only these referred to."""
        # not now, because clocks of other machines may be ahead
        newest = self._rows(f"SELECT max(snapshot_time) FROM ducklake_snapshots({self._name})")
        later = newest[0][0] + timedelta(seconds=1)
        self._call(f"ducklake_expire_snapshots({self._name}, older_than => {_moment(later)})")
        self._call(f"ducklake_cleanup_old_files({self._name}, cleanup_all => true)")

    def delete_orphans(self) -> None:
        """Deletes files that killed runs wrote and did not commit.

        DuckLake deletes all unknown files or none, so it does where all are of this dataset: others
        may belong to a transaction in progress, or to somebody else who uses the folder.
        """
        (now,) = self._rows("SELECT now()")
        orphans = f"ducklake_delete_orphaned_files({self._name}, older_than => {_moment(now[0])}"
        found = [path for path, *_ in self._rows(f"SELECT * FROM {orphans}, dry_run => true)")]
        own = [path for path in found if self._is_own(path)]
        if not own:
            return
        if len(own) < len(found):
            raise DestinationError(
                f"{len(own)} files of killed runs may still contain the erased data, such as "
                f"{own[0]}, and are not deleted, because the lake has unknown files of others too. "
                "Delete them, or all with ducklake_delete_orphaned_files, and run forget again"
            )
        self._call(f"{orphans})")

    def _is_own(self, path: str) -> bool:
        parts = _SEPARATORS.split(path)
        schema = parts[-_FOLDERS] if len(parts) >= _FOLDERS else ""
        staging = f"{self._dataset}_staging"
        return (schema == self._dataset or schema.startswith(staging)) and parts[-1].startswith(
            "ducklake-"
        )

    def _call(self, function: str) -> None:
        self._rows(f"CALL {function}")

    def _rows(self, sql: str) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in self._client.execute_sql(sql) or ()]

    def _literal(self, text: str) -> str:
        return str(self._client.capabilities.escape_literal(text))


def _moment(moment: datetime) -> str:
    return f"TIMESTAMPTZ '{moment.isoformat()}'"
