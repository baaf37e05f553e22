"""Leases on agents in the warehouse: two machines never load the same agent at once.

A row of `load_leases` names the owner of an agent's lease, the staging dataset it loads through,
when the lease expires, and the staging dataset that is still to be dropped (`stale_dataset`). A
free lease has no owner.

The destination needs to support only statements that are atomic each, and reads that see what was
committed. Without enforced keys, two machines may add a row for the same agent; a run has the lease
only while all rows of the agent have it as owner. No statement takes a row from an owner whose
lease has not expired, so of two runs that read after they wrote, at most one finds all rows its
own.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Self

import dlt
from dlt.destinations.exceptions import DatabaseUndefinedRelation
from dlt.destinations.sql_client import SqlClientBase

from ..clock import in_utc
from ..errors import DestinationError, LeaseLostError
from .lease_table import ATTEMPTS, TABLE, LeaseTable, connected, pause_seconds

logger = logging.getLogger("polyai")

TERM = timedelta(minutes=5)
"""Time until a lease expires that is not renewed: how long a machine that failed blocks others."""

HEARTBEATS_PER_TERM = 5
"""Renewals within a term; all but one may fail."""

_SILENT_WAITS = 10
"""Attempts at the lease for a step before the wait is logged."""

_LONGEST_WAIT_SECONDS = 3.0
"""Longest pause between two of these attempts."""

_JOIN_SECONDS = 5
"""Time that the end of a run waits for a renewal in progress."""


@dataclass(frozen=True)
class Holder:
    """Holder of an agent's lease; times are the destination's, in UTC."""

    owner: str
    acquired_at: datetime
    expires_at: datetime

    def __str__(self) -> str:
        return f"{self.owner} since {self.acquired_at:%Y-%m-%d %H:%M:%S} UTC"


class Leases:
    """Leases that one run holds, renewed by a thread of their own inside a `with` block.

    An agent has one owner at a time, by the destination's clock. An owner that was suspended for
    longer than the term notices it when it calls `renew` before it writes. One that was suspended
    while it wrote cannot merge any more, because the next owner first drops its staging dataset.
    Unprotected is only the moment between `renew` and the first statement of a load, in which dlt
    creates its staging tables again.

    Args:
        pipeline: Pipeline with the destination and the dataset of the leases. Not connected yet.
        owner: Name that no other run has at the same time. A run with the name of an earlier run,
            which has certainly ended, takes over its leases immediately.
        staging_dataset: The owner's own staging dataset, from which no other run merges.
        term: Time until a lease expires that is not renewed; whole seconds.

    Attributes:
        lost: Set once another machine has a lease of this run, or a term passed without
            a renewal, so that another machine may have it. Stays set; `renew` checks again.
    """

    def __init__(
        self, pipeline: dlt.Pipeline, owner: str, staging_dataset: str, *, term: timedelta = TERM
    ) -> None:
        self.lost = threading.Event()
        self._owner = owner
        self._staging_dataset = staging_dataset
        self._seconds = int(term.total_seconds())
        # one per thread; created here, because a client reads the pipeline's state
        self._client: SqlClientBase[Any] = pipeline.sql_client()
        self._heartbeat_client: SqlClientBase[Any] = pipeline.sql_client()
        self._held: frozenset[str] = frozenset()
        self._renewed_at = time.monotonic()
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def acquire(self, agent_ids: Iterable[str]) -> dict[str, Holder]:
        """Tries once to acquire the leases of agents.

        Returns:
            Holders of the leases that could not be acquired, by agent.

        Raises:
            DestinationError: The destination cannot be used, or the staging dataset of a run that
                is stopped in the middle of a merge cannot be dropped.
        """
        holders: dict[str, Holder] = {}
        with connected(self._client, self._owner) as table:
            for agent_id in sorted(set(agent_ids)):
                if holder := self._take(table, agent_id):
                    holders[agent_id] = holder
        return holders

    def renew(self) -> None:
        """Restarts the term of all leases, including expired ones that nobody has taken.

        Raises:
            LeaseLostError: Another run has one of them.
            DestinationError: The destination cannot be used; their state is unknown.
        """
        self._renew(self._client)

    def release(self, agent_ids: Iterable[str] | None = None) -> None:
        """Releases leases. If the destination cannot be used, they expire.

        Args:
            agent_ids: Agents whose leases to release; None for all.
        """
        released = self._held if agent_ids is None else self._held.intersection(agent_ids)
        if not released:
            return
        self._held -= released
        try:
            with connected(self._client, self._owner) as table:
                table.release(sorted(released))
        except DestinationError as error:
            logger.warning(
                "the leases were not released, and expire within %s seconds: %s",
                self._seconds,
                error,
            )

    def release_leftovers(self) -> None:
        """Releases the leases that an earlier run with the same owner left when it was killed."""
        with connected(self._client, self._owner) as table, suppress(DatabaseUndefinedRelation):
            table.release_all()

    @contextmanager
    def holding(self, names: Iterable[str]) -> Iterator[None]:
        """Holds leases for one step, waiting for each without limit.

        All runs acquire theirs in the same order, so there are no deadlocks.
        """
        held: list[str] = []
        try:
            if wanted := sorted(set(names)):
                # one connection for all attempts: opening one can take longer than the wait
                with connected(self._client, self._owner) as table:
                    for name in wanted:
                        self._wait_for(table, name)
                        held.append(name)
            yield
        finally:
            self.release(held)

    def _wait_for(self, table: LeaseTable, name: str) -> None:
        """Takes a lease as soon as it is free."""
        waits = 0
        while holder := self._take(table, name):
            waits += 1
            if waits == _SILENT_WAITS:
                logger.info("waiting for the lease %s, held by %s", name, holder)
            time.sleep(random.uniform(0, min(waits / 4, _LONGEST_WAIT_SECONDS)))  # noqa: S311

    def __enter__(self) -> Self:
        self._renewed_at = time.monotonic()
        for work in (self._heartbeat, self._watch_expiry):
            thread = threading.Thread(target=work, name=f"leases{work.__name__}", daemon=True)
            thread.start()
            self._threads.append(thread)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(_JOIN_SECONDS)
        self.release()

    def _take(self, table: LeaseTable, agent_id: str) -> Holder | None:
        """Takes a lease if it is free; returns its holder otherwise."""
        for attempt in range(ATTEMPTS):
            time.sleep(pause_seconds(attempt))
            table.add(agent_id)
            table.take(agent_id, self._staging_dataset, self._seconds)
            rows = table.rows_of(agent_id)
            owners = {owner for owner, *_ in rows}
            if owners == {self._owner}:
                # renewed from now on, however long the rest takes
                self._held |= {agent_id}
                self._drop_stale(table, agent_id, {stale_dataset for _, stale_dataset, *_ in rows})
                return None
            others = [
                Holder(owner, in_utc(acquired_at), in_utc(expires_at))
                for owner, _, acquired_at, expires_at in rows
                if owner not in ("", self._owner)
            ]
            if others and self._owner not in owners:
                break
            # of two rows, another run took one first: neither has the lease
            table.release([agent_id])
        if not others:
            raise DestinationError(f"the lease of {agent_id} cannot be written to {TABLE}")
        return others[0]

    def _drop_stale(self, table: LeaseTable, agent_id: str, stale_datasets: set[str]) -> None:
        """Drops the last owner's staging dataset, so that it can merge nothing if it resumes.

        Its name stays in the row until then, so that the next owner drops it if this run dies.
        """
        for name in sorted(stale_datasets - {"", self._staging_dataset}):
            # the same machine may be loading other agents again
            if not table.is_staging_in_use(name):
                table.drop_staging(name)
        if stale_datasets != {""}:
            table.clear_stale(agent_id)

    def _renew(self, client: SqlClientBase[Any]) -> None:
        agent_ids, began_at = sorted(self._held), time.monotonic()
        if agent_ids:
            with connected(client, self._owner) as table:
                renewed = table.renew(agent_ids, self._seconds)
            # without those that were released meanwhile
            if lost := self._held.intersection(agent_ids) - renewed:
                raise LeaseLostError(
                    f"another machine has taken over {', '.join(sorted(lost))}, because this one "
                    f"did not renew its lease for {self._seconds} seconds"
                )
        self._renewed_at = began_at

    def _heartbeat(self) -> None:
        while not self._stop.wait(self._seconds / HEARTBEATS_PER_TERM):
            try:
                self._renew(self._heartbeat_client)
            except LeaseLostError as error:
                logger.error("%s", error)
                self.lost.set()
                return
            except Exception as error:
                logger.warning("the leases were not renewed, which is retried: %s", error)

    def _watch_expiry(self) -> None:
        """Detects the end of the term even if a renewal hangs."""
        while (left := self._renewed_at + self._seconds - time.monotonic()) > 0:
            if self._stop.wait(left):
                return
        if self._held:
            logger.error("the leases have expired: they could not be renewed")
            self.lost.set()
