"""Deletes recordings by age: from the store, the manifest and the warehouse."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import dlt

from ..api.throttle import Traffic
from ..clock import Clock, utc_now
from ..errors import StoreError
from ..load.report import RunReport
from ..locking.files import LockTimeout
from ..shape.audit_rows import failure_row
from ..tables.audit import FETCH_FAILURES, RECORDINGS, SYNC_RUNS
from ..warehouse.held import PRUNE
from .archive import Archive, next_day
from .layout import partition
from .manifest import Manifest, Row
from .run import COMMANDS, TABLES, Work, at_work
from .store import Store

OnRows = Callable[[int], None]
"""Told how many rows have been deleted."""


def _silent(_: int) -> None:
    """Takes no notice."""


@dataclass
class Pruning:
    """What was deleted of one agent, or would be.

    Attributes:
        agent_id: The agent.
        before: Calls that began before.
        files: Files.
        bytes: Their size.
        rows: Rows of `recordings`, also of those that have no file.
    """

    agent_id: str
    before: datetime
    files: int = 0
    bytes: int = 0
    rows: int = 0

    def count(self, rows: Sequence[Row]) -> None:
        """Adds rows that go."""
        stored = [row for row in rows if row["status"] == "stored"]
        self.files += len(stored)
        self.bytes += sum(row["bytes"] or 0 for row in stored)
        self.rows += len(rows)


def prune(
    pipeline: dlt.Pipeline,
    recordings_url: str,
    older_than: timedelta,
    *,
    agent_ids: Sequence[str] | None = None,
    lock_wait: timedelta = timedelta(0),
    dry_run: bool = False,
    stop: threading.Event | None = None,
    on_rows: OnRows = _silent,
    clock: Clock = utc_now,
) -> list[Pruning]:
    """Deletes the recordings of calls that began longer ago, and keeps them from coming back.

    The limit is written down before anything is deleted: `recordings` fetches nothing from before
    it, with whatever settings. A pruning that was killed is done to its end by the next one.

    Args:
        pipeline: As for `fetch_recordings`.
        recordings_url: Where the files are.
        older_than: Age from which on they go.
        agent_ids: Whose; None for all that the warehouse tells of.
        lock_wait: How long to wait for another run over the same recordings.
        dry_run: Delete nothing.
        stop: When set, ends after the day that is being deleted.
        on_rows: Told how many rows have been deleted.
        clock: What time it is.

    Raises:
        PolyAIError: As `fetch_recordings` does.
    """
    stop = stop or threading.Event()
    results = []
    with at_work(pipeline, recordings_url, LockTimeout(lock_wait, stop), agent_ids) as work:
        work.refuse_others()
        for agent_id in work.agent_ids:
            result = Pruning(agent_id, clock() - older_than)
            results.append(result)
            archive = Archive(work.committer.warehouse, agent_id)
            if dry_run:
                for rows in archive.days(result.before):
                    result.count(rows)
            else:
                _prune(work, archive, result, stop, on_rows, clock)
    return results


def _prune(
    work: Work,
    archive: Archive,
    result: Pruning,
    stop: threading.Event,
    on_rows: OnRows,
    clock: Clock,
) -> None:
    agent_id, before = result.agent_id, result.before
    report = RunReport(agent_id, PRUNE, Traffic(), range_to=before, started_at=clock())
    killed = work.committer.begin(report, TABLES, COMMANDS)
    manifest = Manifest(work.store, work.incoming, agent_id)
    open_failures = work.committer.warehouse.open_failures(agent_id, "recording")
    for rows in archive.days(before):
        if stop.is_set():
            break
        folder = partition(agent_id, rows[0]["started_at"])
        work.store.delete([path_to_delete(work.store, row["uri"]) for row in rows if row["uri"]])
        told = manifest.read(folder).values()
        # a file that the limit cuts through keeps what is younger
        manifest.replace(folder, [row for row in told if row["started_at"] >= before])
        over = {row["conversation_id"] for row in rows} & open_failures.keys()
        if over:
            settled = [
                failure_row(
                    agent_id,
                    conversation_id,
                    open_failures[conversation_id],
                    clock(),
                    None,
                    is_over=True,
                    stage="recording",
                )
                for conversation_id in sorted(over)
            ]
            work.committer.write({FETCH_FAILURES: settled})
        first = min(row["started_at"] for row in rows)
        work.committer.delete(
            RECORDINGS,
            "agent_id = %s AND started_at >= %s AND started_at < %s",
            agent_id,
            first,
            min(before, next_day(first)),
        )
        result.count(rows)
        on_rows(result.rows)
    report.rows[RECORDINGS.name] = result.rows
    report.finish(interrupted=stop.is_set(), now=clock())
    work.committer.write({SYNC_RUNS: [report.as_row(), *killed]})


def path_to_delete(store: Store, uri: str) -> str:
    """The path of a file in the store.

    Raises:
        StoreError: It lies in another one.
    """
    path = store.path_of(uri)
    if path is None:
        raise StoreError(
            f"{uri} is not in {store}, so it is not deleted: set recordings_url to where it is, or "
            "where it was moved, let `recordings verify --refetch` correct the warehouse first"
        )
    return path
