"""Runs that delete conversations, recordings and words that are too old.

The limit is committed before anything is deleted: no load brings back what is older, and the next
run completes one that was killed.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import dlt

from ..api.throttle import Traffic
from ..clock import Clock, utc_now
from ..config.retention import Ages
from ..copying.parts import Group, Part
from ..copying.sides import agents as known_agents
from ..errors import ConfigurationError, PolyAIError, StoreError
from ..forgetting.copies import remake_copies
from ..forgetting.recording_files import RecordingFiles, open_recordings
from ..forgetting.rewriting import discard_pending, rewrite_files
from ..forgetting.selection import start_times
from ..load.committer import Committer
from ..load.exclusive import exclusive_committer
from ..load.memory import fix_mmap_threshold
from ..load.report import RunReport
from ..locking.files import LockTimeout
from ..recordings.prune import prune as prune_recordings
from ..recordings.run import PIPELINE_NAME as RECORDINGS_PIPELINE
from ..redacting.conversion import Conversion
from ..shape.held_redaction import HeldRedaction
from ..shape.held_rows import HeldRows
from ..shape.held_transcripts import EMPTIED_TABLES
from ..tables.audit import SYNC_RUNS
from ..tables.conversations import CONVERSATIONS
from ..tables.debug_chats import DEBUG_CHAT_TURNS
from ..tables.erasure import HOLDS, RETENTION
from ..tables.recordings import RECORDINGS
from ..tables.registry import conversation_tables
from ..warehouse.duckdb_destination import merges_in_transactions
from ..warehouse.holds import HoldKeys
from ..warehouse.open import destination_label
from ..warehouse.queries import Warehouse, id_batches
from ..warehouse.retention_limits import retention_limits
from ..warehouse.target import Target
from .counts import count_due, count_rows
from .due import Due, Limits
from .result import AgentRetention, Retention

PIPELINE_NAME = "polyai_retention"
"""dlt pipeline and schema of the load packages of retention."""

COMMAND = "retention"
"""Value of `command` in `sync_runs`."""

_LOCK_ENDING = ".retention.lock"

_IDS_PER_PART = 500
"""Conversations whose words are deleted in one load package."""


@dataclass(frozen=True)
class Rules:
    """Settings of a run.

    Attributes:
        ages: Ages at which something is deleted.
        keys: Settings by which callers on legal hold are recognized.
        recordings_url: Archive of the recordings.
        lock_wait: Time to wait for other runs.
    """

    ages: Ages
    keys: HoldKeys
    recordings_url: str
    lock_wait: timedelta = timedelta()


def apply(
    target: Target,
    rules: Rules,
    agent_ids: Sequence[str] = (),
    *,
    stop: threading.Event | None = None,
    clock: Clock = utc_now,
) -> Retention:
    """Deletes what is too old: rows, recordings, and both in copies and in the bytes of files.

    With nothing to delete, it takes a query per setting and agent, and no lock. Can be killed at
    any time, and run again.

    Args:
        target: The warehouse.
        rules: Settings of the run.
        agent_ids: Agents; all of the warehouse if empty.
        stop: When set, ends before the next part.
        clock: Current time.

    Raises:
        BusyError: Another run writes into the warehouse.
        ConfigurationError: A caller on legal hold cannot be recognized; or words are to be deleted
            from a destination that cannot replace rows safely.
        DestinationError: The destination cannot be read or written.
        LeaseLostError: Another machine has taken over a lease because this run was suspended.
        StoreError: Recordings cannot be deleted.
    """
    stop = stop or threading.Event()
    pipeline = target.open(PIPELINE_NAME)
    now = clock()
    limits = Limits.of(rules.ages, now)
    warehouse = Warehouse(pipeline, locks_file=True)
    with warehouse.kept_open():
        chosen = list(agent_ids) or known_agents(warehouse)
        due = {one: Due(warehouse, one, limits, rules.keys) for one in chosen}
        with_recordings = [one for one in chosen if due[one].has_recordings()]
        with_rows = [
            one
            for one in chosen
            if next(due[one].conversations(), None) or next(due[one].transcripts(), None)
        ]
    results = {one: AgentRetention(one, limits) for one in chosen}
    for one in chosen:
        results[one].leave(due[one].on_hold)
    if with_recordings and limits.recordings is not None:
        for pruned in prune_recordings(
            target.open(RECORDINGS_PIPELINE),
            rules.recordings_url,
            now - limits.recordings,
            agent_ids=with_recordings,
            keys=rules.keys,
            lock_wait=rules.lock_wait,
            stop=stop,
            clock=lambda: now,
        ):
            results[pruned.agent_id].recordings += pruned.files
            results[pruned.agent_id].rows[RECORDINGS.name] += pruned.rows
            results[pruned.agent_id].locked += len(pruned.locked)
            results[pruned.agent_id].on_hold |= pruned.on_hold
    copies: list[str] = []
    is_rewritten = False
    if (with_rows or with_recordings) and not stop.is_set():
        run = _Run(pipeline, rules, limits, results, stop, now)
        copies, is_rewritten = run.delete(with_rows)
    return Retention(list(results.values()), copies, is_rewritten, stop.is_set())


class _Run:
    """Deletion of rows and words, while no other run writes."""

    def __init__(
        self,
        pipeline: dlt.Pipeline,
        rules: Rules,
        limits: Limits,
        results: dict[str, AgentRetention],
        stop: threading.Event,
        now: datetime,
    ) -> None:
        self._pipeline = pipeline
        self._rules = rules
        self._limits = limits
        self._results = results
        self._stop = stop
        self._now = now

    def delete(self, agent_ids: Sequence[str]) -> tuple[list[str], bool]:
        """Deletes, then rewrites files and copies; returns the copies, and whether it has files."""
        pipeline, rules = self._pipeline, self._rules
        fix_mmap_threshold()
        timeout = LockTimeout(rules.lock_wait, self._stop)
        reports: list[tuple[RunReport, PolyAIError | None]] = []
        interrupted: list[dict[str, Any]] = []
        with (
            exclusive_committer(
                pipeline, timeout, lambda: list(self._results), _LOCK_ENDING
            ) as committer,
            open_recordings(committer, rules.recordings_url, lambda: self._now) as files,
        ):
            for agent_id in agent_ids:
                report = RunReport(
                    agent_id,
                    COMMAND,
                    Traffic(),
                    range_to=self._limits.conversations or self._limits.transcripts,
                    started_at=self._now,
                )
                interrupted += committer.begin(report, [COMMAND], (RETENTION, HOLDS))
                reports.append((report, self._delete_of(committer, report, files)))
            discard_pending(committer)
            is_rewritten = rewrite_files(committer)
            copies, left = remake_copies(pipeline, wait=rules.lock_wait)
            problem = (
                StoreError(f"copies still contain deleted rows: {'; '.join(left)}")
                if left
                else None
            )
            for report, error in reports:
                report.is_proven = not self._results[report.agent_id].locked
                report.finish(error or problem, interrupted=self._stop.is_set())
                self._results[report.agent_id].error = report.error
            if reports:
                rows = [*(report.as_row() for report, _ in reports), *interrupted]
                committer.write({SYNC_RUNS: rows})
        return copies, is_rewritten

    def _delete_of(
        self, committer: Committer, report: RunReport, files: RecordingFiles | PolyAIError | None
    ) -> PolyAIError | None:
        """Deletes what is too old of one agent; returns the error that stopped it."""
        warehouse, agent_id = committer.warehouse, report.agent_id
        result = self._results[agent_id]
        known = retention_limits(warehouse, agent_id)
        after = known.at(self._rules.ages, self._now)

        def write(**values: Any) -> None:
            row = {"agent_id": agent_id, "run_id": report.run_id, **values}
            committer.write({RETENTION: [row]})

        # before anything is deleted, so that nothing of it is loaded again
        write(
            conversations_before=after.conversations_before,
            transcripts_before=known.transcripts_before,
            too_old=known.too_old,
            applied_at=known.applied_at,
        )
        try:
            due = Due(warehouse, agent_id, self._limits, self._rules.keys)
            self._delete_conversations(committer, report, due, files)
            self._delete_words(committer, report, due)
        except (ConfigurationError, StoreError) as error:
            return error
        finally:
            report.rows.update(result.rows + result.changed_rows)
        if not self._stop.is_set():
            write(
                conversations_before=after.conversations_before,
                transcripts_before=after.transcripts_before,
                too_old=known.too_old + result.conversations,
                applied_at=self._now,
            )
        return None

    def _delete_conversations(
        self,
        committer: Committer,
        report: RunReport,
        due: Due,
        files: RecordingFiles | PolyAIError | None,
    ) -> None:
        agent_id, result = report.agent_id, self._results[report.agent_id]

        def delete_files(conversation_ids: Sequence[str]) -> None:
            if files is not None and not isinstance(files, PolyAIError):
                times = start_times(committer.warehouse, agent_id, conversation_ids)
                found = files.delete(committer.warehouse, report, times, COMMAND)
                result.recordings += len(found)
                result.locked += len(files.locked)

        for ids in due.conversations():
            if self._stop.is_set():
                return
            if isinstance(files, PolyAIError):
                raise files
            done = committer.erase(agent_id, ids, self._rules.keys, delete_files)
            result.rows.update(done.rows)
            result.conversations += len(ids) - len(done.on_hold)
            result.leave(done.on_hold)
        result.leave(due.on_hold)

    def _delete_words(self, committer: Committer, report: RunReport, due: Due) -> None:
        agent_id, result = report.agent_id, self._results[report.agent_id]
        conversion = Conversion(
            committer.warehouse,
            HeldRows(HeldRedaction("keep", "", "drop"), drops_transcripts=True),
            [agent_id],
            (),
        )
        for ids in due.transcripts():
            if self._stop.is_set():
                return
            if not merges_in_transactions(self._pipeline):
                raise ConfigurationError(
                    f"{destination_label(self._pipeline)} cannot replace rows safely, so that "
                    "words cannot be deleted there: remove retention_transcripts"
                )
            on_hold = committer.on_hold(agent_id, ids, self._rules.keys)
            result.leave(on_hold)
            words_of = [name for name in ids if name not in on_hold]
            result.rows.update(_empty(committer, agent_id, words_of))
            for _, changed in conversion.convert(
                committer, iter(_parts(agent_id, words_of)), self._stop
            ):
                result.changed_rows.update(changed)
            result.transcripts += len(words_of)
        result.leave(due.on_hold)


def _empty(committer: Committer, agent_id: str, conversation_ids: Sequence[str]) -> Counter[str]:
    """Deletes the rows that have nothing but words; returns their numbers by table."""
    rows: Counter[str] = Counter()
    for table in EMPTIED_TABLES:
        for ids, marks in id_batches(conversation_ids):
            these = f"agent_id = %s AND conversation_id IN ({marks})"
            count = count_rows(committer.warehouse, table.name, agent_id, ids)
            if count:
                committer.delete(table, these, agent_id, *ids)
                rows[table.name] += count
    return rows


def _parts(agent_id: str, conversation_ids: Sequence[str]) -> list[Part]:
    kept = tuple(table for table in conversation_tables() if table not in EMPTIED_TABLES)
    groups = (
        Group(kept, CONVERSATIONS),
        # the id of a debug chat is that of its conversation
        Group((DEBUG_CHAT_TURNS,), DEBUG_CHAT_TURNS),
    )
    return [
        Part(group, agent_id, conversation_ids[start : start + _IDS_PER_PART])
        for group in groups
        for start in range(0, len(conversation_ids), _IDS_PER_PART)
    ]


def plan(
    warehouse: Warehouse,
    rules: Rules,
    agent_ids: Sequence[str] = (),
    *,
    copies: Sequence[str] = (),
    clock: Clock = utc_now,
) -> Retention:
    """Counts what a run would delete, by table.

    Args:
        warehouse: The warehouse.
        rules: Settings of the run.
        agent_ids: As for `apply`.
        copies: Copies for readers, which would be made again.
        clock: Current time.

    Raises:
        ConfigurationError: A caller on legal hold cannot be recognized.
        DestinationError: The destination cannot be read.
    """
    limits = Limits.of(rules.ages, clock())
    results = []
    with warehouse.kept_open():
        for agent_id in agent_ids or known_agents(warehouse):
            result = AgentRetention(agent_id, limits)
            results.append(result)
            count_due(warehouse, result, rules.keys)
    return Retention(results, list(copies))
