"""Creation of the views in a warehouse, in one transaction if the destination supports it."""

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
from sqlglot.errors import SqlglotError

from ..config.time_zones import DEFAULT_ZONE, time_zone
from ..errors import BusyError, DestinationError, first_line
from ..load.committer import Committer, open_committer
from ..locking.files import LockTimeout
from ..tables.registry import tables
from ..warehouse.clients import sql_client
from ..warehouse.duckdb_file import kept_open
from ..warehouse.errors import destination_errors
from ..warehouse.queries import Warehouse, column_names
from .definitions import INFO_VIEW, tables_read, views, with_dependents
from .grants import grants_on
from .statements import WITHOUT_REPLACE, Statements

logger = logging.getLogger("polyai")

PIPELINE_NAME = "polyai_views"
"""Name of the pipeline and of its dlt schema, which create tables that do not exist yet."""

_LOCK_ENDING = ".views.lock"

_LEASE = "views"

_LOCK_TIMEOUT = "SET LOCAL lock_timeout = '10s'"
"""Bound on the wait for running queries, during which PostgreSQL blocks new readers."""

_LOCK_TIMED_OUT = "lock timeout"


@dataclass(frozen=True)
class ViewsReport:
    """Result of `create_views`.

    Attributes:
        zone: IANA name of the reporting time zone.
        created: Created views, in order of creation.
        failed: Views that the destination refused, with its message, or that its dialect cannot
            express. An older view of the name
            still exists.
        tables_made: Tables that did not exist and were created empty.
    """

    zone: str
    created: tuple[str, ...]
    failed: dict[str, str]
    tables_made: tuple[str, ...]


class _ViewRefusedError(Exception):
    """The destination refused a view."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


def create_views(
    pipeline: dlt.Pipeline, zone: str = DEFAULT_ZONE, *, lock_wait: timedelta = timedelta()
) -> ViewsReport:
    """Creates or replaces all views, with comments on views, tables and columns.

    Readers see either the old views or the new ones. Can run during a load, with which it shares
    the lock on a DuckDB file. Tables that do not exist yet are created empty.

    Args:
        pipeline: `open_pipeline(…, name=PIPELINE_NAME)`.
        zone: IANA name of the reporting time zone; part of the views.
        lock_wait: Maximum wait for another run that creates views.

    Raises:
        BusyError: Another run creates views.
        ConfigurationError: The time zone does not exist.
        DestinationError: The destination cannot be used, or a user's view depends on a view that
            has to be replaced. Nothing was changed.
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
        with destination_errors(), kept_open(pipeline), sql_client(pipeline) as client:
            existing = {
                table.name: _columns(client, table.name)
                for table in tables()
                if committer.warehouse.has_table(table.name)
            }
            statements = statements_for(client, zone)
            failed = _create_all(client, statements)
            _comment(client, statements, existing, failed)
    return ViewsReport(
        zone,
        tuple(name for name in views() if name not in failed),
        failed,
        tuple(table.name for table in missing),
    )


def drop_views(pipeline: dlt.Pipeline, *, lock_wait: timedelta = timedelta()) -> None:
    """Drops all views; tables are kept.

    Raises:
        BusyError: Another run creates views.
        DestinationError: The destination cannot be used, or a user's view depends on one of the
            views. Nothing was changed.
    """
    with (
        _committer(pipeline, lock_wait),
        destination_errors(),
        kept_open(pipeline),
        sql_client(pipeline) as client,
        _transaction(client),
    ):
        if client.has_dataset():
            _drop(client, statements_for(client, DEFAULT_ZONE), views())


def views_are_current(pipeline: dlt.Pipeline, zone: str = DEFAULT_ZONE) -> bool:
    """Returns whether the views are those that `create_views` would create; one small query.

    Views that the destination refused count as created, because it would refuse them again.

    Args:
        pipeline: Any pipeline with the destination and dataset of the warehouse.
        zone: IANA name of the reporting time zone.
    """
    warehouse = Warehouse(pipeline, locks_file=True)
    statements = statements_for(sql_client(pipeline), time_zone(zone))
    return warehouse.rows(f"SELECT fingerprint FROM {{{INFO_VIEW}}}") == [(statements.fingerprint,)]


def statements_for(client: SqlClientBase[Any], zone: str) -> Statements:
    """Returns the statements for the destination of a client."""
    dialect = str(client.capabilities.sqlglot_dialect)
    return Statements(dialect, client.make_qualified_table_name, zone).fingerprinted()


@contextmanager
def _committer(pipeline: dlt.Pipeline, lock_wait: timedelta) -> Iterator[Committer]:
    """Opens the committer that creates or drops views; only one run does so at a time."""
    timeout = LockTimeout(lock_wait, threading.Event())
    with open_committer(pipeline, _LOCK_ENDING, lambda: [_LEASE], timeout) as (committer, others):
        if others:
            raise BusyError(f"the views are being created by {others[_LEASE]}")
        yield committer


def _columns(client: SqlClientBase[Any], table: str) -> frozenset[str]:
    """Returns the column names of a table in lower case."""
    place = client.make_qualified_table_name(table)
    with client.execute_query(f"SELECT * FROM {place} WHERE 1 = 0") as cursor:
        return frozenset(name.lower() for name in column_names(cursor))


def _create_all(client: SqlClientBase[Any], statements: Statements) -> dict[str, str]:
    """Creates all views; returns the ones that the destination refused, with its messages.

    Starts over after each refused view: first it drops the view instead of replacing it, because
    PostgreSQL cannot change the columns of a replaced view, then it leaves the view out.
    """
    dropped: set[str] = set()
    failed: dict[str, str] = {}
    while True:
        try:
            with _transaction(client):
                granted = grants_on(client, dropped) if dropped else []
                _drop(client, statements, dropped)
                _create(client, statements, dropped, failed)
                client.execute_many(granted)
        except _ViewRefusedError as refused:
            if _LOCK_TIMED_OUT in str(refused):
                raise DestinationError(
                    f"view {refused.name} is being read, and the query did not end within 10 s: "
                    "run views again after the query"
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


def _drop(client: SqlClientBase[Any], statements: Statements, names: Collection[str]) -> None:
    """Drops views, each before the views that it reads; never drops views of users."""
    for name in reversed(list(views())):
        if name in names:
            try:
                client.execute_sql(statements.drop(name))
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
                    "was changed. Drop the dependent views, run views again, and recreate them"
                ) from error


def _create(
    client: SqlClientBase[Any],
    statements: Statements,
    dropped: Collection[str],
    failed: Collection[str],
) -> None:
    for view in views().values():
        if view.name not in failed:
            try:
                create = statements.create(view, replacing=view.name not in dropped)
                if statements.dialect in WITHOUT_REPLACE:
                    client.execute_sql(statements.drop(view.name))
                client.execute_sql(create)
            except (DatabaseException, SqlglotError) as error:
                raise _ViewRefusedError(view.name, first_line(error)) from error


def _comment(
    client: SqlClientBase[Any],
    statements: Statements,
    existing: Mapping[str, Collection[str]],
    failed: Collection[str],
) -> None:
    """Comments on tables, views and columns, as far as the destination supports it."""
    created = [view for view in views().values() if view.name not in failed]
    for what, comments in {
        "tables": statements.table_comments(existing),
        "views": [line for view in created for line in statements.view_comments(view)],
        "columns of views": [
            line for view in created for line in statements.view_column_comments(view)
        ],
    }.items():
        if comments:
            try:
                with _transaction(client):
                    client.execute_many(comments)
            except DatabaseException as error:
                # DuckLake does not support comments on columns of views
                logger.info("no comments on %s: %s", what, first_line(error))


@contextmanager
def _transaction(client: SqlClientBase[Any]) -> Iterator[None]:
    """Opens a transaction if the destination supports one for views."""
    if not client.capabilities.supports_ddl_transactions:
        yield
        return
    with client.begin_transaction():
        if client.capabilities.sqlglot_dialect == "postgres":
            client.execute_sql(_LOCK_TIMEOUT)
        yield
