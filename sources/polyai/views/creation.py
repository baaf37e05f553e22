"""Makes the views in a warehouse, all of them in one transaction where it has transactions."""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import dlt
from dlt.destinations.exceptions import DatabaseException
from dlt.destinations.sql_client import SqlClientBase

from ..config.time_zones import DEFAULT_ZONE, time_zone
from ..errors import BusyError, DestinationError, first_line
from ..load.committer import Committer, open_committer
from ..locking.files import LockTimeout
from ..tables.registry import tables
from ..warehouse.duckdb_file import kept_open
from ..warehouse.errors import destination_errors
from ..warehouse.queries import Warehouse
from .definitions import INFO_VIEW, tables_read, views, with_dependents
from .grants import grants_on
from .wording import Wording

logger = logging.getLogger("polyai")

PIPELINE_NAME = "polyai_views"
"""Name of the pipeline, and of its dlt schema, with which tables are made that are missing."""

_LOCK_ENDING = ".views.lock"

_LEASE = "views"

_LOCK_TIMEOUT = "SET LOCAL lock_timeout = '10s'"
"""PostgreSQL lets no new reader in while this waits for a running query to end."""

_LOCK_TIMED_OUT = "lock timeout"


@dataclass(frozen=True)
class ViewsReport:
    """What was made.

    Attributes:
        zone: IANA name of the reporting time zone.
        created: Views that are there now, in the order in which they were made.
        failed: Those that the destination does not take, with what it says; an older view of
            the name is still there.
        tables_made: Tables that were missing, and are there now, without a row.
    """

    zone: str
    created: tuple[str, ...]
    failed: dict[str, str]
    tables_made: tuple[str, ...]


class _ViewRefusedError(Exception):
    """The destination does not take a view."""

    def __init__(self, name: str, said: str) -> None:
        super().__init__(said)
        self.name = name


def create_views(
    pipeline: dlt.Pipeline, zone: str = DEFAULT_ZONE, *, lock_wait: timedelta = timedelta()
) -> ViewsReport:
    """Creates or refreshes all views, with comments on them, on our tables and on all columns.

    Readers see the old views or the new ones. Runs beside a load: a DuckDB file is taken in turns.
    Tables that were never loaded are made, empty.

    Args:
        pipeline: `open_pipeline(…, name=PIPELINE_NAME)`.
        zone: IANA name of the reporting time zone; it stands in the views.
        lock_wait: How long to wait for another run that makes them.

    Raises:
        BusyError: Another run makes them.
        ConfigurationError: There is no such zone.
        DestinationError: The destination cannot be used, or a view of the user's own keeps one of
            ours from being replaced. Nothing has changed then.
    """
    zone = time_zone(zone)
    with _committer(pipeline, lock_wait) as committer:
        with kept_open(pipeline):
            missing = [
                table
                for table in tables()
                if table.name in tables_read() and not committer.warehouse.has_table(table.name)
            ]
        if missing:
            committer.create_tables(missing)
        with destination_errors(), kept_open(pipeline), pipeline.sql_client() as client:
            held = {
                table.name: _columns(client, table.name)
                for table in tables()
                if committer.warehouse.has_table(table.name)
            }
            wording = wording_of(client, zone)
            failed = _create_all(client, wording)
            _comment(client, wording, held, failed)
    return ViewsReport(
        zone,
        tuple(name for name in views() if name not in failed),
        failed,
        tuple(table.name for table in missing),
    )


def drop_views(pipeline: dlt.Pipeline, *, lock_wait: timedelta = timedelta()) -> None:
    """Drops all views; tables stay as they are.

    Raises:
        BusyError: Another run makes them.
        DestinationError: The destination cannot be used, or a view of the user's own reads one of
            ours. Nothing has changed then.
    """
    with (
        _committer(pipeline, lock_wait),
        destination_errors(),
        kept_open(pipeline),
        pipeline.sql_client() as client,
        _transaction(client),
    ):
        if client.has_dataset():
            _drop(client, wording_of(client, DEFAULT_ZONE), views())


def views_are_current(pipeline: dlt.Pipeline, zone: str = DEFAULT_ZONE) -> bool:
    """Whether the views are those that `create_views` would make; costs one small query.

    Views that the destination did not take then count as made: it would not take them again.

    Args:
        pipeline: Any whose destination and dataset are those of the warehouse.
        zone: IANA name of the reporting time zone.
    """
    warehouse = Warehouse(pipeline, locks_file=True)
    wording = wording_of(pipeline.sql_client(), time_zone(zone))
    return warehouse.rows(f"SELECT fingerprint FROM {{{INFO_VIEW}}}") == [(wording.fingerprint,)]


def wording_of(client: SqlClientBase[Any], zone: str) -> Wording:
    """How the client's destination words our statements."""
    dialect = str(client.capabilities.sqlglot_dialect)
    return Wording(dialect, client.make_qualified_table_name, zone).fingerprinted()


@contextmanager
def _committer(pipeline: dlt.Pipeline, lock_wait: timedelta) -> Iterator[Committer]:
    """The one run that makes or drops views."""
    timeout = LockTimeout(lock_wait, threading.Event())
    with open_committer(pipeline, _LOCK_ENDING, lambda: [_LEASE], timeout) as (committer, others):
        if others:
            raise BusyError(f"the views are being made by {others[_LEASE]}")
        yield committer


def _columns(client: SqlClientBase[Any], table: str) -> frozenset[str]:
    """The columns that a table has, by our names."""
    place = client.make_qualified_table_name(table)
    with client.execute_query(f"SELECT * FROM {place} WHERE 1 = 0") as cursor:
        return frozenset(column[0].lower() for column in cursor.description or ())


def _create_all(client: SqlClientBase[Any], wording: Wording) -> dict[str, str]:
    """Makes all views; tells which the destination does not take, and why.

    After each view that it refuses it begins again: first without replacing it in place, because
    PostgreSQL does not let a replaced view's columns change, and then without the view.
    """
    dropped: set[str] = set()
    failed: dict[str, str] = {}
    while True:
        try:
            with _transaction(client):
                granted = grants_on(client, dropped) if dropped else []
                _drop(client, wording, dropped)
                _create(client, wording, dropped, failed)
                client.execute_many(granted)
        except _ViewRefusedError as refused:
            if _LOCK_TIMED_OUT in str(refused):
                raise DestinationError(
                    f"view {refused.name} is being read, for longer than a refresh waits: run "
                    "views again when the query is done"
                ) from refused
            concerned = with_dependents(refused.name)
            if refused.name in dropped:
                dropped.difference_update(concerned)
                failed |= dict.fromkeys(concerned, f"needs {refused.name}")
                failed[refused.name] = str(refused)
            else:
                dropped.update(concerned)
        else:
            return failed


def _drop(client: SqlClientBase[Any], wording: Wording, names: Collection[str]) -> None:
    """Drops views, each before those that it reads, and never what others have built on them."""
    for name in reversed(list(views())):
        if name in names:
            try:
                client.execute_sql(wording.drop(name))
            except DatabaseException as error:
                dependents = [
                    line.removeprefix("DETAIL:").strip()
                    for line in str(error).splitlines()
                    if " depends on " in line
                ]
                if not dependents:
                    raise
                raise DestinationError(
                    f"view {name} cannot be replaced or dropped: {'; '.join(dependents)}. Nothing "
                    "was changed. Drop what depends on it, run views again, and create it anew"
                ) from error


def _create(
    client: SqlClientBase[Any],
    wording: Wording,
    dropped: Collection[str],
    failed: Collection[str],
) -> None:
    for view in views().values():
        if view.name not in failed:
            statement = wording.create(view, replacing=view.name not in dropped)
            try:
                client.execute_sql(statement)
            except DatabaseException as error:
                raise _ViewRefusedError(view.name, first_line(error)) from error


def _comment(
    client: SqlClientBase[Any],
    wording: Wording,
    held: Mapping[str, Collection[str]],
    failed: Collection[str],
) -> None:
    """Says what everything means, as far as the destination can keep it."""
    made = [view for view in views().values() if view.name not in failed]
    for what, statements in {
        "tables": wording.table_comments(held),
        "views": [line for view in made for line in wording.view_comments(view)],
        "columns of views": [line for view in made for line in wording.view_column_comments(view)],
    }.items():
        if statements:
            try:
                with _transaction(client):
                    client.execute_many(statements)
            except DatabaseException as error:
                # DuckLake keeps none of a view's columns
                logger.info("no comments on %s: %s", what, first_line(error))


@contextmanager
def _transaction(client: SqlClientBase[Any]) -> Iterator[None]:
    """One transaction where the destination takes views in one; else each statement by itself."""
    if not client.capabilities.supports_ddl_transactions:
        yield
        return
    with client.begin_transaction():
        if client.capabilities.sqlglot_dialect == "postgres":
            client.execute_sql(_LOCK_TIMEOUT)
        yield
