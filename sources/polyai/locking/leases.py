"""Leases on agents, kept in the warehouse: two machines never load the same agent at once.

A row of `load_leases` says who loads an agent, through which staging dataset and until when, and
whose staging dataset is still to be dropped (`stale_dataset`). A free lease belongs to nobody. Time
is the destination's alone, so that the machines' clocks do not matter.

Nothing here needs more of the destination than statements that are each applied as a whole, and
reads that see what was committed. Where it enforces no keys, two machines may add a row for one
agent; a lease is held only while all rows of the agent carry the same owner. No statement takes a
row from an owner whose term runs, so of two who read back after they wrote, at most one finds all.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Self, TypeVar

import dlt
from dlt.destinations.exceptions import DatabaseException, DatabaseUndefinedRelation
from dlt.destinations.job_client_impl import SqlJobClientBase
from dlt.destinations.sql_client import SqlClientBase
from sqlglot import exp

from ..clock import in_utc
from ..errors import DestinationError, LeaseLostError, first_line
from ..warehouse.dialects import parse, to_sql
from ..warehouse.errors import destination_errors

logger = logging.getLogger("polyai")

T = TypeVar("T")

TABLE = "load_leases"

TERM = timedelta(minutes=5)
"""How long a lease holds that is not renewed: what a machine that died keeps others waiting."""

BEATS_A_TERM = 5
"""Renewals within a term; all but one may fail."""

DIALECTS = frozenset({"bigquery", "databricks", "duckdb", "postgres", "redshift", "snowflake"})
"""Where a row is changed as a whole or not at all, by sqlglot's name.

Tried are PostgreSQL, DuckDB and DuckLake; the others by what their manuals say.
"""

_ATTEMPTS = 6
"""At a statement that collides with another machine's, or fails for another reason."""

_PAUSE_SECONDS = 0.1
"""Longest pause before the second attempt; each further one may be as much longer."""

_LOCK_TIMEOUT = "30s"
"""How long PostgreSQL waits for a merge of the run whose staging dataset is dropped."""

_WAITS_UNTOLD = 10
"""Times that a step asks for its lease before it says that it waits."""

_LONGEST_WAIT = 3.0
"""Seconds between two of these times at most."""

_JOIN_SECONDS = 5
"""How long the end of a run waits for a renewal that is under way."""

# in snowflake's dialect: sqlglot does not bring duckdb's intervals into a form that all take
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
_LOOK = f"SELECT owner, stale_dataset, acquired_at, expires_at FROM {TABLE} WHERE agent_id = ?"
_IS_STAGING_IN_USE = (
    f"SELECT 1 FROM {TABLE} WHERE staging_dataset = ? AND owner NOT IN ('', ?) "
    "AND expires_at > CURRENT_TIMESTAMP"
)
_FORGET_STALE = f"UPDATE {TABLE} SET stale_dataset = '' WHERE agent_id = ? AND owner = ?"
_RENEW = (
    f"UPDATE {TABLE} SET expires_at = DATEADD(SECOND, {{seconds}}, CURRENT_TIMESTAMP) "
    "WHERE owner = ? AND agent_id IN ({ids})"
)
_OURS = f"SELECT agent_id FROM {TABLE} WHERE owner = ? AND agent_id IN ({{ids}})"
_RELEASE = (
    f"UPDATE {TABLE} SET owner = '', staging_dataset = '', expires_at = CURRENT_TIMESTAMP "
    "WHERE owner = ? AND agent_id IN ({ids})"
)
_GIVE_BACK_ALL = f"UPDATE {TABLE} SET owner = '', expires_at = CURRENT_TIMESTAMP WHERE owner = ?"


@dataclass(frozen=True)
class Holder:
    """Who has the lease of an agent; times are the destination's, in UTC."""

    owner: str
    acquired_at: datetime
    expires_at: datetime

    def __str__(self) -> str:
        return f"{self.owner} since {self.acquired_at:%Y-%m-%d %H:%M:%S} UTC"


class Leases:
    """The leases that one run holds, renewed by a thread of their own inside a `with` block.

    What protects: an agent has one owner at a time, by the destination's clock. An owner that
    stood still for longer than the term finds out when it calls `renew` before it writes. One that
    stood still while it wrote cannot merge any more, because whoever takes over drops its staging
    dataset first. Open is only the moment between `renew` and the first statement of a load: dlt
    makes its staging tables anew there.

    Args:
        pipeline: Whose destination and dataset the leases are kept in; nothing is asked of it yet.
        owner: Unlike that of any other run at the same time. The same as that of an earlier run
            that is surely over takes its leases up at once.
        staging_dataset: The owner's own, which nobody else merges from.
        term: How long a lease holds that is not renewed; whole seconds.

    Attributes:
        lost: Set when another machine has a lease of this run, or when a term went by without a
            renewal, so that another may have it. Stays set; `renew` tells what is true.
    """

    def __init__(
        self, pipeline: dlt.Pipeline, owner: str, staging_dataset: str, *, term: timedelta = TERM
    ) -> None:
        self.lost = threading.Event()
        self._owner = owner
        self._staging_dataset = staging_dataset
        self._seconds = int(term.total_seconds())
        # a connection for each thread; made here, because a client reads the pipeline's state
        self._client: SqlClientBase[Any] = pipeline.sql_client()
        self._client_of_heartbeat: SqlClientBase[Any] = pipeline.sql_client()
        self._held: frozenset[str] = frozenset()
        self._renewed_at = time.monotonic()
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    @staticmethod
    def supports(pipeline: dlt.Pipeline) -> bool:
        """Whether the destination can keep leases; nothing is asked of it."""
        client = pipeline.destination_client()
        return (
            isinstance(client, SqlJobClientBase) and client.capabilities.sqlglot_dialect in DIALECTS
        )

    def acquire(self, agent_ids: Iterable[str]) -> dict[str, Holder]:
        """Tries once to get the leases of these agents; those that it gets are this run's now.

        Returns:
            Who has the others, by agent.

        Raises:
            DestinationError: The destination cannot be used, or a run that stands still in the
                middle of a merge cannot be kept from going on.
        """
        others: dict[str, Holder] = {}
        with _connected(self._client) as table:
            for agent_id in sorted(set(agent_ids)):
                if holder := self._take(table, agent_id):
                    others[agent_id] = holder
        return others

    def renew(self) -> None:
        """Makes the term of all leases begin anew; also one that has run out, if nobody took it.

        Raises:
            LeaseLostError: Another run has one of them.
            DestinationError: The destination cannot be used; nothing is known.
        """
        self._renew(self._client)

    def release(self, agent_ids: Iterable[str] | None = None) -> None:
        """Gives these leases back, or all of them. What cannot be given back expires."""
        given = self._held if agent_ids is None else self._held.intersection(agent_ids)
        if not given:
            return
        self._held -= given
        try:
            with _connected(self._client) as table:
                table.run(_RELEASE, self._owner, *sorted(given), ids=len(given))
        except DestinationError as error:
            logger.warning("the leases end within %s seconds, not now: %s", self._seconds, error)

    def give_back_all(self) -> None:
        """Gives back what an earlier run with the same owner has left, which is surely over."""
        with _connected(self._client) as table, suppress(DatabaseUndefinedRelation):
            table.run(_GIVE_BACK_ALL, self._owner)

    @contextmanager
    def turn(self, names: Iterable[str]) -> Iterator[None]:
        """Holds leases for a step, waiting for each as long as it takes.

        All runs ask for theirs in the same order, so none waits for one that waits for it.
        """
        held: list[str] = []
        try:
            if wanted := sorted(set(names)):
                # one connection for all attempts: to open one can take longer than the wait
                with _connected(self._client) as table:
                    for name in wanted:
                        self._wait_for(table, name)
                        held.append(name)
            yield
        finally:
            self.release(held)

    def _wait_for(self, table: _LeaseTable, name: str) -> None:
        """Takes a lease as soon as it is free."""
        waits = 0
        while holder := self._take(table, name):
            waits += 1
            if waits == _WAITS_UNTOLD:
                logger.info("waiting for %s: it belongs to %s", name, holder)
            time.sleep(random.uniform(0, min(waits / 4, _LONGEST_WAIT)))  # noqa: S311

    def __enter__(self) -> Self:
        self._renewed_at = time.monotonic()
        for work in (self._beat, self._watch):
            thread = threading.Thread(target=work, name=f"leases{work.__name__}", daemon=True)
            thread.start()
            self._threads.append(thread)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(_JOIN_SECONDS)
        self.release()

    def _take(self, table: _LeaseTable, agent_id: str) -> Holder | None:
        """Takes the lease if it is free; who has it otherwise."""
        taken = (self._owner, self._staging_dataset, self._staging_dataset, agent_id, self._owner)
        for attempt in range(_ATTEMPTS):
            _pause(attempt)
            table.add(agent_id)
            table.run(_TAKE, *taken, seconds=self._seconds)
            rows = table.run(_LOOK, agent_id)
            owners = {owner for owner, *_ in rows}
            if owners == {self._owner}:
                # from here on it is renewed, however long the rest takes
                self._held |= {agent_id}
                self._shut_out(table, agent_id, {stale_dataset for _, stale_dataset, *_ in rows})
                return None
            others = [
                Holder(owner, in_utc(acquired_at), in_utc(expires_at))
                for owner, _, acquired_at, expires_at in rows
                if owner not in ("", self._owner)
            ]
            if others and self._owner not in owners:
                break
            # two rows, and another run was quicker at one of them: nobody has the lease
            table.run(_RELEASE, self._owner, agent_id, ids=1)
        if not others:
            raise DestinationError(f"the lease of {agent_id} cannot be written into {TABLE}")
        return others[0]

    def _shut_out(self, table: _LeaseTable, agent_id: str, stale_datasets: set[str]) -> None:
        """Drops the last owner's staging dataset: should it go on, it can merge nothing any more.

        Its name stays in the row until that is done, so it is not forgotten if this run dies.
        """
        for name in sorted(stale_datasets - {"", self._staging_dataset}):
            # the same machine may be at work again, on other agents
            if not table.run(_IS_STAGING_IN_USE, name, self._owner):
                table.drop_staging(name)
        if stale_datasets != {""}:
            table.run(_FORGET_STALE, agent_id, self._owner)

    def _renew(self, client: SqlClientBase[Any]) -> None:
        agent_ids, began_at = sorted(self._held), time.monotonic()
        if agent_ids:
            mine = (self._owner, *agent_ids)
            with _connected(client) as table:
                try:
                    table.run(_RENEW, *mine, ids=len(agent_ids), seconds=self._seconds)
                    rows = table.run(_OURS, *mine, ids=len(agent_ids))
                except DatabaseUndefinedRelation:
                    rows = []
            # but for what was given back meanwhile
            lost = self._held.intersection(agent_ids).difference(agent_id for (agent_id,) in rows)
            if lost:
                raise LeaseLostError(
                    f"another machine has taken over {', '.join(sorted(lost))}, because this one "
                    f"was not heard of for {self._seconds} seconds"
                )
        self._renewed_at = began_at

    def _beat(self) -> None:
        while not self._stop.wait(self._seconds / BEATS_A_TERM):
            try:
                self._renew(self._client_of_heartbeat)
            except LeaseLostError as error:
                logger.error("%s", error)
                self.lost.set()
                return
            except Exception as error:
                logger.warning("the leases were not renewed, but will be tried again: %s", error)

    def _watch(self) -> None:
        """Notices the end of the term also where a renewal hangs."""
        while (left := self._renewed_at + self._seconds - time.monotonic()) > 0:
            if self._stop.wait(left):
                return
        if self._held:
            logger.error("the leases have run out: they could not be renewed")
            self.lost.set()


class _LeaseTable:
    """The table over an open connection; a statement that fails is tried again.

    A conflict with another machine's statement looks to dlt like many other failures.
    """

    def __init__(self, client: SqlClientBase[Any]) -> None:
        self._client = client

    def run(
        self, statement: str, *parameters: str, ids: int = 0, seconds: int = 0
    ) -> list[tuple[Any, ...]]:
        """Runs a statement of this module, with as many placeholders for ids as there are."""
        marks = ", ".join("?" * ids)
        sql = sql_for(self._client, statement.format(ids=marks, seconds=seconds))
        rows = _patiently(lambda: self._client.execute_sql(sql, *parameters))
        return [tuple(row) for row in rows or ()]

    def add(self, agent_id: str) -> None:
        """Makes sure that the agent has a row, and that there is a table for it."""
        try:
            self.run(_ADD, agent_id, agent_id)
        except DatabaseUndefinedRelation:
            _patiently(self._create)
            self.run(_ADD, agent_id, agent_id)

    def drop_staging(self, name: str) -> None:
        """Drops another run's staging dataset, which may be gone already."""
        client = self._client
        if not name.startswith(f"{client.dataset_name}_staging"):
            # who can write into the table does not choose what is dropped
            logger.warning("%s is no staging dataset of %s", name, client.dataset_name)
            return
        with client.with_alternative_dataset_name(name):
            try:
                if client.has_dataset():
                    logger.warning("dropping %s, which a run on another machine has left", name)
                    if client.capabilities.sqlglot_dialect == "postgres":
                        client.execute_sql(f"SET lock_timeout = '{_LOCK_TIMEOUT}'")
                    client.drop_dataset()
            except DatabaseException as error:
                if client.has_dataset():
                    cause = first_line(error)
                    raise DestinationError(
                        f"{name} cannot be dropped ({cause}). Most likely a run on another machine "
                        "stands still in the middle of a load: end its process"
                    ) from error

    def _create(self) -> None:
        if not self._client.has_dataset():
            self._client.create_dataset()
        try:
            self._client.execute_sql(sql_for(self._client, _CREATE.format(key=" PRIMARY KEY")))
        except DatabaseException:
            # a key is welcome, but not every destination takes it
            self._client.execute_sql(sql_for(self._client, _CREATE.format(key="")))


def sql_for(client: SqlClientBase[Any], statement: str) -> str:
    """A statement of this module in the destination's words, `%s` for each parameter."""
    dialect = client.capabilities.sqlglot_dialect
    name = exp.to_table(client.make_qualified_table_name(TABLE), dialect=dialect)
    tree = parse(statement)
    for table in list(tree.find_all(exp.Table)):
        if table.name == TABLE:
            table.replace(name.copy())
    return to_sql(tree, dialect).replace("?", "%s")


@contextmanager
def _connected(client: SqlClientBase[Any]) -> Iterator[_LeaseTable]:
    with destination_errors():
        try:
            with client:
                yield _LeaseTable(client)
        except Exception as error:
            # dlt lets through what some drivers raise when they connect
            if client.is_dbapi_exception(error):
                cause = first_line(error)
                raise DestinationError(f"the destination cannot be used: {cause}") from error
            raise


def _patiently(action: Callable[[], T]) -> T:
    """Tries again what the destination refuses, unless it is for want of a table."""
    for attempt in range(_ATTEMPTS - 1):
        _pause(attempt)
        try:
            return action()
        except DatabaseUndefinedRelation:
            raise
        except DatabaseException as error:
            logger.debug("trying again: %s", error)
    _pause(_ATTEMPTS)
    return action()


def _pause(attempt: int) -> None:
    """Lets others go first, each time by another while; not before the first attempt."""
    if attempt:
        time.sleep(random.uniform(0, _PAUSE_SECONDS * attempt))  # noqa: S311
