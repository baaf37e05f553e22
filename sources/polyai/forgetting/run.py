"""Erasure of conversations and callers from the warehouse, its files and its copies.

The request is committed to `forgotten` before anything is deleted. From then on no load restores
the conversations, and the next run completes the erasure if this one is killed.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import dlt

from ..clock import Clock, utc_now
from ..errors import PolyAIError
from ..load.exclusive import exclusive_committer
from ..locking.files import LockTimeout
from ..views.publication import is_current
from ..views.refresh import refresh
from ..warehouse.holds import HoldKeys
from ..warehouse.queries import Warehouse
from .agent_erasure import AgentErasure
from .copies import remake_copies
from .erasures import Erasures
from .ledger import open_ledger
from .recording_files import open_recordings
from .rewriting import discard_pending, rewrite_files
from .selection import Mentions, Selection, select

PIPELINE_NAME = "polyai_forget"
"""dlt pipeline and schema of the tables about erasures."""

_LOCK_ENDING = ".forget.lock"


@dataclass(frozen=True)
class Readers:
    """Published copy for readers, which is refreshed after an erasure.

    Attributes:
        zone: Time zone of the views' local dates.
        publish_to: Folder of the copy, or folder or URL of Parquet files; None for neither.
    """

    zone: str
    publish_to: Path | str | None


def forget(
    pipeline: dlt.Pipeline,
    conversation_ids: Sequence[str],
    callers: Sequence[str] = (),
    *,
    recordings_url: str | None,
    readers: Readers,
    agent_ids: Sequence[str] = (),
    reason: str | None = None,
    pii_secret: str = "",
    phone_region: str = "",
    mentions: Mentions = "list",
    forget_ledger: str = "",
    lock_wait: timedelta = timedelta(0),
    stop: threading.Event | None = None,
    clock: Clock = utc_now,
) -> Erasures:
    """Erases conversations and callers, and keeps them from being loaded again.

    Erases rows of all tables, recordings with their manifest, and packages that are not loaded
    yet; rewrites a DuckDB file and refreshes its published copy. Sends no request to PolyAI, which
    keeps its data. Also completes unfinished erasures of killed runs. Idempotent.

    Args:
        pipeline: Pipeline of the warehouse: `open_pipeline` with the name `PIPELINE_NAME`.
        conversation_ids: Conversations, in the warehouse or not.
        callers: Phone numbers. Calls that started before this run are not loaded again; later
            calls are.
        recordings_url: Archive of the recordings; None for a warehouse without one.
        readers: The published copy.
        agent_ids: As for `select`.
        reason: Stored with each conversation.
        pii_secret: As for `select`; also the key of the hashes of callers.
        phone_region: As for `select`.
        mentions: As for `select`.
        forget_ledger: Ledger to which the erasure is added, and whose erasures are applied if the
            warehouse does not have them, because it was restored; see `open_ledger`.
        lock_wait: Time to wait for other runs; no other run may write at the same time.
        stop: When set, the run ends before the next agent; the next run completes the rest.
        clock: Source of the current time.

    Returns:
        Erasures by agent; an error of one agent does not stop the others.

    Raises:
        BusyError: Another run writes into the warehouse.
        ConfigurationError: As for `select`; or `recordings_url` or `forget_ledger` cannot be used.
        DestinationError: The destination cannot be read or written.
        LeaseLostError: Another machine has taken over a lease because this run was suspended.
        StoreError: The ledger cannot be read.
    """
    stop = stop or threading.Event()
    ledger = open_ledger(forget_ledger, pipeline.pipelines_dir)

    def selected(warehouse: Warehouse, mentions: Mentions = "ignore") -> list[Selection]:
        return select(
            warehouse,
            conversation_ids,
            callers,
            agent_ids=agent_ids,
            pii_secret=pii_secret,
            phone_region=phone_region,
            mentions=mentions,
            ledger=ledger,
        )

    def selected_agents() -> list[str]:
        found = selected(Warehouse(pipeline, locks_file=True))
        return [selection.agent_id for selection in found]

    timeout = LockTimeout(lock_wait, stop)
    # backfills are not locked out: a slice erases forgotten conversations that it has read
    with (
        exclusive_committer(pipeline, timeout, selected_agents, _LOCK_ENDING) as committer,
        open_recordings(committer, recordings_url, clock) as files,
    ):
        selections = selected(committer.warehouse, mentions)
        agents = [
            AgentErasure(
                committer,
                selection,
                reason=reason,
                keys=HoldKeys(pii_secret, phone_region),
                ledger=ledger,
                clock=clock,
            )
            for selection in selections
        ]
        started = []
        for agent in agents:
            if stop.is_set():
                break
            agent.erase(files)
            started.append(agent)
        discard_pending(committer)
        is_rewritten = rewrite_files(committer)
        copies, left = remake_copies(pipeline, wait=lock_wait, besides=readers.publish_to)
        for agent in started:
            agent.finish(left)
    error = _refresh_copy(pipeline, readers, lock_wait)
    if readers.publish_to is not None and error is None:
        copies.append(str(readers.publish_to))
    return Erasures(
        [agent.erasure for agent in started],
        is_rewritten,
        error,
        copies,
        is_interrupted=len(started) < len(agents),
    )


def _refresh_copy(pipeline: dlt.Pipeline, readers: Readers, wait: timedelta) -> str | None:
    """Refreshes the published copy; returns the reason if that is not possible."""
    if readers.publish_to is None:
        return None
    try:
        refresh(pipeline, readers.zone, readers.publish_to, wait=wait)
    except PolyAIError as error:
        return f"the published copy still contains the erased data: {error}"
    if is_current(pipeline, readers.publish_to):
        return None
    return (
        "the published copy still contains the erased data, because another run is publishing. Run "
        "views when it has ended"
    )
