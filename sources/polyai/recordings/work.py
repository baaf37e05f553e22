"""Resources of a run over recordings: warehouse, archive, locks and leases."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import dlt

from ..clock import Clock, utc_now
from ..errors import BusyError, ConfigurationError
from ..load.committer import Committer, open_committer
from ..locking.files import LockTimeout
from ..locking.leases import Holder
from ..locking.names import RECORDINGS_WRITER
from ..tables.audit import FETCH_FAILURES
from ..tables.recordings import RECORDINGS
from ..warehouse.held import PRUNE
from ..warehouse.incoming import Incoming
from ..warehouse.open import working_folder
from ..warehouse.queries import Warehouse
from ..warehouse.stores import open_store
from .archive import agents_with_recordings
from .identity import Place
from .opening import Opening
from .writer import ArchiveWriter

COMMAND = "recordings"

COMMANDS = (COMMAND, "verify", PRUNE)
"""Commands of runs over recordings in `sync_runs`; they exclude each other."""

TABLES = (RECORDINGS, FETCH_FAILURES)
"""Tables that a run writes besides `sync_runs`."""


@dataclass(frozen=True)
class Work:
    """Resources of a run over recordings, open until it ends.

    Attributes:
        committer: Commits to the warehouse.
        place: The archive; None if the warehouse has none.
        incoming: Folder in which files are written first.
        agent_ids: Agents whose recordings are processed.
        others: Holders of the leases that this run did not get.
    """

    committer: Committer
    place: Place | None
    incoming: Incoming
    agent_ids: tuple[str, ...]
    others: Mapping[str, Holder]

    @property
    def archive(self) -> Place:
        """The archive of a run that has one."""
        if self.place is None:
            raise ConfigurationError("the warehouse has no archive of recordings yet")
        return self.place

    def writer(
        self, agent_id: str, run_id: str, clock: Clock, *, repairs: bool = False
    ) -> ArchiveWriter:
        """Opens manifest and custody log of an agent for writing; see `ArchiveWriter`."""
        return ArchiveWriter(
            self.archive,
            self.incoming,
            self.committer.warehouse,
            agent_id,
            run_id,
            clock,
            repairs=repairs,
        )

    def refuse_others(self) -> None:
        """Checks that this run holds all leases.

        Raises:
            BusyError: Another run holds one of them.
        """
        for agent_id in self.agent_ids:
            if holder := self.others.get(RECORDINGS_WRITER.lease(agent_id)):
                raise BusyError(f"{holder} is processing recordings of {agent_id}")


@contextmanager
def open_work(
    pipeline: dlt.Pipeline,
    url: str,
    timeout: LockTimeout,
    agent_ids: Sequence[str] | None = None,
    *,
    begins: bool = False,
    is_confirmed_later: bool = False,
    clock: Clock = utc_now,
) -> Iterator[Work]:
    """Opens archive and warehouse, with locks and leases against other runs over recordings.

    Args:
        pipeline: The warehouse.
        url: Address of the store.
        timeout: Maximum time to wait for another run.
        agent_ids: Agents; None for all that have recordings in the warehouse.
        begins: Begin an archive if the warehouse has none.
        is_confirmed_later: See `Opening`.
        clock: Current time.

    Raises:
        ConfigurationError: The store is not the archive of the warehouse.
    """
    store = open_store(url)

    def lease_names() -> list[str]:
        nonlocal agent_ids
        if agent_ids is None:
            agent_ids = agents_with_recordings(Warehouse(pipeline, locks_file=True))
        return [RECORDINGS_WRITER.lease(name) for name in agent_ids]

    with open_committer(pipeline, RECORDINGS_WRITER.lock_ending, lease_names, timeout) as (
        committer,
        others,
    ):
        opening = Opening(committer, store, url, clock, is_confirmed_later=is_confirmed_later)
        with Incoming(store, working_folder(pipeline.pipelines_dir)) as incoming:
            is_opened = begins or not opening.is_new
            names = tuple(agent_ids or ())
            place = opening.open(incoming, names if begins else ()) if is_opened else None
            store.delete_orphans()
            yield Work(committer, place, incoming, names, others)
