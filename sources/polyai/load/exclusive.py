"""Committer of a run that excludes all others that write rows of the same agents."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import dlt

from ..errors import BusyError
from ..locking.files import LockTimeout, database_lock
from ..locking.names import WRITERS
from .committer import Committer, open_committer


@contextmanager
def exclusive_committer(
    pipeline: dlt.Pipeline,
    timeout: LockTimeout,
    agent_ids: Callable[[], Sequence[str]],
    lock_ending: str,
) -> Iterator[Committer]:
    """Opens a committer, and locks out all other runs that write rows of the agents.

    Args:
        pipeline: Pipeline of the run.
        timeout: Maximum time to wait for other runs.
        agent_ids: Returns the agents; called when the locks are held.
        lock_ending: Ending of the name of the run's own lock file.

    Raises:
        BusyError: Another run holds a lock or a lease.
    """

    def lease_names() -> list[str]:
        return [writer.lease(agent_id) for agent_id in agent_ids() for writer in WRITERS]

    with ExitStack() as locks:
        for writer in WRITERS:
            locks.enter_context(database_lock(pipeline, timeout, writer.lock_ending))
        committer, others = locks.enter_context(
            open_committer(pipeline, lock_ending, lease_names, timeout)
        )
        for name, holder in others.items():
            raise BusyError(f"{holder} holds the lease on {name}")
        yield committer
