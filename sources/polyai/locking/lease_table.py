"""Table `load_leases`: its statements, and their execution over a connection.

Every time in it is the destination's, so that the machines' clocks do not matter.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from dlt.destinations.exceptions import DatabaseException, DatabaseUndefinedRelation
from dlt.destinations.sql_client import SqlClientBase
from sqlglot import exp

from ..errors import DestinationError, first_line
from ..warehouse.dialects import parse, portable, to_sql
from ..warehouse.errors import destination_errors
from ..warehouse.retry import backoff, retry
from ..warehouse.values import rows_of

logger = logging.getLogger("polyai")

T = TypeVar("T")

TABLE = "load_leases"

ATTEMPTS = 6
"""Attempts at a statement that conflicts with another machine's, or fails otherwise."""

_LOCK_TIMEOUT = "30s"
"""Time that PostgreSQL waits for a merge of the run whose staging dataset is dropped."""

_CREATE = (
    f"CREATE TABLE IF NOT EXISTS {TABLE} (agent_id VARCHAR(255) NOT NULL{{key}}, "
    "owner TEXT NOT NULL, staging_dataset TEXT NOT NULL, stale_dataset TEXT NOT NULL, "
    "acquired_at TIMESTAMPTZ NOT NULL, expires_at TIMESTAMPTZ NOT NULL)"
)
_ADD = (
    f"INSERT INTO {TABLE} "
    "(agent_id, owner, staging_dataset, stale_dataset, acquired_at, expires_at) "
    "SELECT ?, '', '', '', CURRENT_TIMESTAMP, CURRENT_TIMESTAMP FROM (SELECT 1 AS one) AS this "
    f"WHERE NOT EXISTS (SELECT 1 FROM {TABLE} WHERE agent_id = ?)"
)
_TAKE = (
    f"UPDATE {TABLE} SET owner = ?, staging_dataset = ?, "
    "stale_dataset = CASE WHEN staging_dataset = ? OR stale_dataset <> '' THEN stale_dataset "
    "ELSE staging_dataset END, acquired_at = CURRENT_TIMESTAMP, "
    "expires_at = DATEADD(SECOND, {seconds}, CURRENT_TIMESTAMP) "
    "WHERE agent_id = ? AND (owner IN ('', ?) OR expires_at <= CURRENT_TIMESTAMP)"
)
_READ = f"SELECT owner, stale_dataset, acquired_at, expires_at FROM {TABLE} WHERE agent_id = ?"
_IS_STAGING_IN_USE = (
    f"SELECT 1 FROM {TABLE} WHERE staging_dataset = ? AND owner NOT IN ('', ?) "
    "AND expires_at > CURRENT_TIMESTAMP"
)
_CLEAR_STALE = f"UPDATE {TABLE} SET stale_dataset = '' WHERE agent_id = ? AND owner = ?"
_RENEW = (
    f"UPDATE {TABLE} SET expires_at = DATEADD(SECOND, {{seconds}}, CURRENT_TIMESTAMP) "
    "WHERE owner = ? AND agent_id IN ({ids})"
)
_OWNED = f"SELECT agent_id FROM {TABLE} WHERE owner = ? AND agent_id IN ({{ids}})"
_RELEASE = (
    f"UPDATE {TABLE} SET owner = '', staging_dataset = '', expires_at = CURRENT_TIMESTAMP "
    "WHERE owner = ? AND agent_id IN ({ids})"
)
_RELEASE_ALL = f"UPDATE {TABLE} SET owner = '', expires_at = CURRENT_TIMESTAMP WHERE owner = ?"


class LeaseTable:
    """Table over an open connection, for one owner. Statements that fail are retried.

    dlt does not distinguish a conflict with another machine's statement from most other failures.

    Args:
        client: Client with an open connection; see `connected`.
        owner: The owner.
    """

    def __init__(self, client: SqlClientBase[Any], owner: str) -> None:
        self._client = client
        self._owner = owner

    def add(self, agent_id: str) -> None:
        """Adds a free row for an agent unless it has one; creates the table if it is missing."""
        try:
            self._run(_ADD, agent_id, agent_id)
        except DatabaseUndefinedRelation:
            _retried(self._create)
            self._run(_ADD, agent_id, agent_id)

    def take(self, agent_id: str, staging_dataset: str, seconds: int) -> None:
        """Makes the owner that of an agent's lease, where it is free, expired or the owner's own.

        Args:
            agent_id: The agent.
            staging_dataset: The owner's staging dataset. That of the last owner becomes stale.
            seconds: Term of the lease.
        """
        staging = staging_dataset, staging_dataset
        self._run(_TAKE, self._owner, *staging, agent_id, self._owner, seconds=seconds)

    def rows_of(self, agent_id: str) -> list[tuple[Any, ...]]:
        """Returns owner, stale dataset, `acquired_at` and `expires_at` of an agent's rows."""
        return self._run(_READ, agent_id)

    def is_staging_in_use(self, name: str) -> bool:
        """Checks whether another owner holds a lease with a staging dataset."""
        return bool(self._run(_IS_STAGING_IN_USE, name, self._owner))

    def clear_stale(self, agent_id: str) -> None:
        """Removes the name of the stale dataset from an agent's row."""
        self._run(_CLEAR_STALE, agent_id, self._owner)

    def renew(self, agent_ids: Sequence[str], seconds: int) -> frozenset[str]:
        """Restarts the term of the owner's leases on agents.

        Returns:
            The agents whose leases are still the owner's.
        """
        try:
            self._run(_RENEW, self._owner, *agent_ids, ids=len(agent_ids), seconds=seconds)
            rows = self._run(_OWNED, self._owner, *agent_ids, ids=len(agent_ids))
        except DatabaseUndefinedRelation:
            return frozenset()
        return frozenset(agent_id for (agent_id,) in rows)

    def release(self, agent_ids: Sequence[str]) -> None:
        """Frees the owner's leases on agents."""
        self._run(_RELEASE, self._owner, *agent_ids, ids=len(agent_ids))

    def release_all(self) -> None:
        """Frees all leases of the owner. Their staging datasets stay in the rows, as possibly used.

        Raises:
            DatabaseUndefinedRelation: There is no table.
        """
        self._run(_RELEASE_ALL, self._owner)

    def drop_staging(self, name: str) -> None:
        """Drops another run's staging dataset, if it exists.

        Raises:
            DestinationError: It is locked for longer than `_LOCK_TIMEOUT`.
        """
        client = self._client
        if not name.startswith(f"{client.dataset_name}_staging"):
            # write access to the table must not allow to drop any dataset
            logger.warning("%s is not a staging dataset of %s", name, client.dataset_name)
            return
        with client.with_alternative_dataset_name(name):
            try:
                if client.has_dataset():
                    logger.warning("dropping %s, left by a run on another machine", name)
                    if client.capabilities.sqlglot_dialect == "postgres":
                        client.execute_sql(f"SET lock_timeout = '{_LOCK_TIMEOUT}'")
                    client.drop_dataset()
            except DatabaseException as error:
                if client.has_dataset():
                    raise DestinationError(
                        f"{name} cannot be dropped ({first_line(error)}). Most likely a run on "
                        "another machine is stopped in the middle of a load: end its process"
                    ) from error

    def _run(
        self, statement: str, *parameters: str, ids: int = 0, seconds: int = 0
    ) -> list[tuple[Any, ...]]:
        """Runs a statement of this module with a number of placeholders for ids."""
        marks = ", ".join("?" * ids)
        sql = sql_for(self._client, statement.format(ids=marks, seconds=seconds))
        rows = _retried(lambda: self._client.execute_sql(sql, *parameters)) or []
        names = [""] * len(rows[0]) if rows else []
        return rows_of(names, rows, self._client.capabilities.sqlglot_dialect)

    def _create(self) -> None:
        if not self._client.has_dataset():
            self._client.create_dataset()
        try:
            self._client.execute_sql(sql_for(self._client, _CREATE.format(key=" PRIMARY KEY")))
        except DatabaseException:
            # some destinations do not accept keys; the leases do not depend on one
            self._client.execute_sql(sql_for(self._client, _CREATE.format(key="")))


@contextmanager
def connected(client: SqlClientBase[Any], owner: str) -> Iterator[LeaseTable]:
    """Opens a connection to the table for an owner.

    Raises:
        DestinationError: The destination cannot be used.
    """
    with destination_errors():
        try:
            with client:
                yield LeaseTable(client, owner)
        except Exception as error:
            # dlt does not wrap what some drivers raise while they connect
            if client.is_dbapi_exception(error):
                raise DestinationError(
                    f"the destination cannot be used: {first_line(error)}"
                ) from error
            raise


def sql_for(client: SqlClientBase[Any], statement: str) -> str:
    """Renders a statement of this module for a client: dialect, table name, `%s` for parameters."""
    dialect = client.capabilities.sqlglot_dialect
    name = exp.to_table(client.make_qualified_table_name(TABLE), dialect=dialect)
    tree = parse(statement)
    for table in list(tree.find_all(exp.Table)):
        if table.name == TABLE:
            table.replace(name.copy())
    portable(tree, str(dialect))
    return to_sql(tree, dialect).replace("?", "%s")


def pause_seconds(attempt: int) -> float:
    """Random pause after an attempt at a statement, from 1: a tenth of `backoff`."""
    return backoff(attempt) / 10


def _retried(action: Callable[[], T]) -> T:
    """Retries a statement that the destination rejects, unless its table is missing."""

    def may_succeed(error: Exception) -> bool:
        logger.debug("a statement on %s failed: %s", TABLE, error)
        return isinstance(error, DatabaseException) and not isinstance(
            error, DatabaseUndefinedRelation
        )

    return retry(action, retry_if=may_succeed, attempts=ATTEMPTS, pause=pause_seconds)
