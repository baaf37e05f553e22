"""Deletes recordings by age: from the store, the manifest and the warehouse."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import dlt

from ..api.throttle import Traffic
from ..clock import Clock, utc_now
from ..load.report import RunReport, no_op
from ..locking.files import LockTimeout
from ..shape.audit_rows import failure_row
from ..tables.audit import FETCH_FAILURES, SYNC_RUNS
from ..tables.recordings import RECORDINGS
from ..warehouse.held import PRUNE
from ..warehouse.holds import NO_KEYS, HoldKeys, Holds
from ..warehouse.queries import Warehouse, id_batches
from ..warehouse.s3_objects import Locked, locked_error
from .archive import Archive, next_day
from .deletion import deletions, file_names, kept_by_recording, purge
from .layout import base_path, partition
from .manifest import Row
from .work import COMMANDS, TABLES, Work, open_work

OnRows = Callable[[int], None]
"""Callback for the number of rows deleted so far."""


@dataclass
class Pruning:
    """Recordings of one agent that were deleted, or would be.

    Attributes:
        agent_id: The agent.
        before: Limit: calls that began earlier.
        files: Number of files.
        bytes: Total size of the files.
        rows: Rows of `recordings`, including those without a file.
        on_hold: Conversations that were left because of a legal hold, with its reason.
        locked: Deleted files of which the bucket keeps a version, under Object Lock.
    """

    agent_id: str
    before: datetime
    files: int = 0
    bytes: int = 0
    rows: int = 0
    on_hold: dict[str, str | None] = field(default_factory=dict)
    locked: list[Locked] = field(default_factory=list)

    def count(self, rows: Sequence[Row]) -> None:
        """Adds deleted rows."""
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
    keys: HoldKeys = NO_KEYS,
    lock_wait: timedelta = timedelta(0),
    dry_run: bool = False,
    stop: threading.Event | None = None,
    on_rows: OnRows = no_op,
    clock: Clock = utc_now,
) -> list[Pruning]:
    """Deletes recordings of calls older than an age; they are not downloaded again.

    A bucket with versioning also loses the versions, except those under Object Lock. The limit is
    committed before anything is deleted: `recordings` requests nothing older than it,
    whatever the settings. The next pruning completes one that was killed.

    Args:
        pipeline: As for `fetch_recordings`.
        recordings_url: Address of the store.
        older_than: Minimum age of a call.
        agent_ids: Agents; None for all that have recordings in the warehouse.
        keys: Settings by which callers on legal hold are recognized; what is on hold stays.
        lock_wait: Maximum time to wait for another run over the same recordings.
        dry_run: Delete nothing. Raises what the real run would.
        stop: When set, ends after the current day.
        on_rows: Called with the number of rows deleted so far.
        clock: Current time.

    Raises:
        PolyAIError: As `fetch_recordings` does.
    """
    stop = stop or threading.Event()
    results = []
    with open_work(pipeline, recordings_url, LockTimeout(lock_wait, stop), agent_ids) as work:
        work.refuse_others()
        for agent_id in work.agent_ids:
            result = Pruning(agent_id, clock() - older_than)
            results.append(result)
            warehouse = work.committer.warehouse
            archive, holds = Archive(warehouse, agent_id), Holds(warehouse, agent_id, keys)
            if dry_run or work.place is None:
                for rows in archive.days(result.before):
                    result.count(_without_holds(rows, holds, warehouse, result))
            else:
                _prune(work, archive, holds, result, stop, on_rows, clock)
    return results


def _prune(
    work: Work,
    archive: Archive,
    holds: Holds,
    result: Pruning,
    stop: threading.Event,
    on_rows: OnRows,
    clock: Clock,
) -> None:
    agent_id, before = result.agent_id, result.before
    report = RunReport(agent_id, PRUNE, Traffic(), range_to=before, started_at=clock())
    killed = work.committer.begin(report, COMMANDS, TABLES)
    import pyarrow.compute as pc

    writer, store = work.writer(agent_id, report.run_id, clock), work.archive.store
    others = kept_by_recording(writer.manifest.index.kept)
    # first, because the rows of the warehouse show the next pruning what is left to delete
    on_hold = holds.loaded(work.committer.warehouse)
    is_due = pc.field("started_at") < before
    if on_hold:
        is_due &= ~pc.field("conversation_id").isin(sorted(on_hold))
    writer.manifest.remove(is_due, (), writer.head)
    open_failures = work.committer.warehouse.open_failures(agent_id, "recording")
    deleted_kept: set[str] = set()
    last_day, of_last_day = partition(agent_id, before), set[str]()
    for all_rows in archive.days(before):
        if stop.is_set():
            break
        rows = _without_holds(all_rows, holds, work.committer.warehouse, result)
        if not rows:
            continue
        entries, paths = deletions(rows, others, clock, run_id=report.run_id, why=PRUNE)
        writer.append(entries)
        store.delete(paths)
        deleted_kept.update(paths)
        of_last_day.update(base_path(path) for path in paths if last_day in path)
        resolved = {row["conversation_id"] for row in rows} & open_failures.keys()
        if resolved:
            failures = [
                failure_row(
                    agent_id,
                    conversation_id,
                    open_failures[conversation_id],
                    clock(),
                    None,
                    is_over=True,
                    stage="recording",
                )
                for conversation_id in sorted(resolved)
            ]
            work.committer.write({FETCH_FAILURES: failures})
        first = min(row["started_at"] for row in rows)
        condition = "agent_id = %s AND started_at >= %s AND started_at < %s"
        bounds = (agent_id, first, min(before, next_day(first)))
        if len(rows) == len(all_rows):
            work.committer.delete(RECORDINGS, condition, *bounds)
        else:
            for ids, marks in id_batches(sorted({row["conversation_id"] for row in rows})):
                these = f"{condition} AND conversation_id IN ({marks})"
                work.committer.delete(RECORDINGS, these, *bounds, *ids)
        result.count(rows)
        on_rows(result.rows)
    writer.manifest.remove(pc.scalar(False), deleted_kept, writer.head)
    writer.describe_in(report)
    report.rows[RECORDINGS.name] = result.rows
    names_on_hold = {name for one in {*on_hold, *result.on_hold} for name in file_names(one)}

    def is_pruned(path: str) -> bool:
        day, _, name = path.rpartition("/")
        # names of days are in their order
        is_old = day < last_day or path in of_last_day
        return is_old and name not in names_on_hold

    if not stop.is_set():
        result.locked = purge(store, agent_id, is_pruned)
    report.is_proven = not result.locked
    report.finish(interrupted=stop.is_set(), now=clock())
    if result.locked:
        report.error = locked_error(result.locked)
    work.committer.write({SYNC_RUNS: [report.as_row(), *killed]})


def _without_holds(
    rows: Sequence[Row], holds: Holds, warehouse: Warehouse, result: Pruning
) -> list[Row]:
    """Returns the rows of conversations that are not on legal hold; notes the others."""
    found = holds.among(warehouse, {row["conversation_id"] for row in rows})
    result.on_hold |= {name: hold.reason for name, hold in found.items()}
    return [row for row in rows if row["conversation_id"] not in found]
