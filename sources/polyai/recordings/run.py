"""Runs that download missing recordings and register them in the warehouse.

A file is stored before it is added to the manifest, and there before its row is committed. A killed
run therefore leaves no orphan: the next one looks for files in the store before it requests them.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import Any

import dlt

from ..api.client import DataApi
from ..api.throttle import Traffic
from ..clock import Clock, utc_now
from ..config.agent import DATA, Agent
from ..config.retention import limit
from ..config.settings import Settings
from ..errors import ApiError, BusyError, ConfigurationError, PolyAIError, StoreError
from ..load.held_mode import enter_mode
from ..load.report import no_op
from ..locking.files import LockTimeout
from ..locking.names import RECORDINGS_WRITER
from ..shape.audit_rows import Failure, failure_row
from ..shape.redaction import has_redacted_numbers, request_options
from ..tables.audit import FETCH_FAILURES, SYNC_RUNS
from ..tables.declaration import Table
from ..tables.recordings import RECORDINGS
from .archive import Archive, Due, Kind
from .fetcher import RecordingFetcher
from .manifest import key_of
from .outcome import Outcome, Task
from .report import RecordingsReport
from .short import is_retry_due
from .wav import REFUSALS
from .work import COMMAND, COMMANDS, TABLES, Work, open_work

logger = logging.getLogger("polyai")

PIPELINE_NAME = "polyai_recordings"
"""dlt pipeline and schema of recordings; separate from `load`, which may run meanwhile."""

_NEWEST = 100
"""Sample of conversations whose phone numbers show whether the key sees personal data."""

Rows = dict[Table, Sequence[Mapping[str, Any]]]
"""Rows to commit, by table."""

OnBegin = Callable[[RecordingsReport], None]
"""Callback for each agent's report as its run begins; the counts then change in place."""


def fetch_recordings(
    settings: Settings,
    pipeline: dlt.Pipeline,
    *,
    stop: threading.Event | None = None,
    on_begin: OnBegin = no_op,
    clock: Clock = utc_now,
) -> list[RecordingsReport]:
    """Downloads the missing recordings of calls in the warehouse, oldest first.

    Can be killed at any time, and can run at the same time as `load`. Stored recordings are not
    requested again.

    Args:
        settings: Agents, kinds of recordings, and the store.
        pipeline: The warehouse; `open_pipeline` with the name `PIPELINE_NAME`.
        stop: When set, recordings in progress are finished and the run ends as interrupted.
        on_begin: Called with the report of each agent.
        clock: Current time.

    Returns:
        One report per agent that was begun; an agent that fails does not stop the others.

    Raises:
        BusyError: Another run on this machine downloads recordings into the same store.
        ConfigurationError: `recordings_url` cannot be used.
        DestinationError: The destination cannot be read or written.
        LeaseLostError: The lease expired, and a run on another machine has taken over.
        StoreError: The store cannot be read or written.
    """
    stop = stop or threading.Event()
    reports = []
    agent_ids = [agent.agent_id for agent in settings.agents]
    timeout = LockTimeout(settings.lock_wait, stop)
    with open_work(
        pipeline, settings.recordings_url, timeout, agent_ids, begins=True, clock=clock
    ) as work:
        for agent in settings.agents:
            if stop.is_set():
                break
            report = RecordingsReport(agent.agent_id, COMMAND, Traffic(), started_at=clock())
            reports.append(report)
            try:
                if holder := work.others.get(RECORDINGS_WRITER.lease(agent.agent_id)):
                    raise BusyError(f"{holder} downloads recordings of {agent.agent_id}")
                enter_mode(work.committer.warehouse, report, settings)
            except (BusyError, ConfigurationError) as error:
                report.finish(error)
                continue
            on_begin(report)
            AgentRecordings(work, agent, settings, report, stop, clock).fetch()
    return reports


class AgentRecordings:
    """One agent's part of a run.

    Args:
        work: Resources of the run.
        agent: The agent.
        settings: Settings of the run.
        report: Counts, updated in place.
        stop: When set, no further recording is begun.
        clock: Current time.
    """

    def __init__(
        self,
        work: Work,
        agent: Agent,
        settings: Settings,
        report: RecordingsReport,
        stop: threading.Event,
        clock: Clock = utc_now,
    ) -> None:
        self._work = work
        self._agent = agent
        self._settings = settings
        self._report = report
        self._stop = stop
        self._clock = clock
        not_before = limit(settings.ages.recordings, clock())
        self._archive = Archive(work.committer.warehouse, agent.agent_id, not_before)
        self._writer = work.writer(agent.agent_id, report.run_id, clock)
        self._failed: set[str] = set()
        """Calls with a failed recording in this run."""

    def fetch(self, tasks: Sequence[Task] | None = None) -> None:
        """Downloads these recordings, or all missing ones, and commits the report."""
        committer, report = self._work.committer, self._report
        killed = committer.begin(report, COMMANDS, TABLES)
        rows, error = self._fetch(tasks)
        self._writer.describe_in(report)
        report.finish(error, interrupted=self._stop.is_set(), now=self._clock())
        committer.write(rows | {SYNC_RUNS: [report.as_row(), *killed]})

    def _fetch(self, tasks: Iterable[Task] | None) -> tuple[Rows, PolyAIError | None]:
        """Downloads; returns the rows that are not committed yet, and the error that stopped it."""
        settings, work = self._settings, self._work
        if problem := self._agent.problem_with(DATA):
            return {}, ConfigurationError(problem)
        api = DataApi(
            self._agent,
            **request_options(settings),
            connections=settings.workers,
            traffic=self._report.traffic,
        )
        fetcher = RecordingFetcher(
            api,
            self._agent.agent_id,
            work.archive,
            work.incoming,
            self._writer.manifest,
            facts={
                "run_id": self._report.run_id,
                "agent_id": self._agent.agent_id,
                "redacted_asked": settings.redacted,
            },
            workers=settings.workers,
            stop=self._stop,
            clock=self._clock,
            on_outcome=self._report.count,
        )
        error: PolyAIError | None = None
        try:
            with fetcher:
                for batch in fetcher.batches(self._missing(api) if tasks is None else tasks):
                    work.committer.write(self._rows(batch))
        except (ApiError, StoreError) as stopped_by:
            error = stopped_by
        try:
            # files in the store are registered, whatever happened to the others
            rows = self._rows(fetcher.rest)
            self._writer.compact()
            return rows, error
        except StoreError as stopped_by:
            return {}, error or stopped_by

    def _missing(self, api: DataApi) -> Iterator[Task]:
        """Yields missing recordings, those of calls that failed before last.

        Calls that have failed for too long are left out.
        """
        settings, report, wait = self._settings, self._report, self._settings.recordings_wait
        kinds, now = self._kinds(api), self._clock()
        report.expected = self._archive.count_due(kinds, wait) * len(kinds)
        too_old = now - settings.give_up_after
        forgotten = self._work.committer.warehouse.forgotten(self._agent.agent_id)
        failed_before: list[Task] = []
        for due in self._archive.due(kinds, wait):
            if due.conversation_id in forgotten:
                continue
            failure = self._failures.get(due.conversation_id)
            if failure is not None and failure.first_failed_at < too_old:
                report.given_up += 1
                continue
            tasks = [
                task
                for kind in kinds
                if due.lacks(kind, wait) and (task := self._task(due, kind, failure, now))
            ]
            if failure is None:
                yield from tasks
            else:
                failed_before += tasks
        yield from failed_before

    def _task(self, due: Due, kind: Kind, failure: Failure | None, now: datetime) -> Task | None:
        """Returns the task for a missing recording; None if it is not to be requested now."""
        row = due.rows.get(kind, {})
        if due.is_short(kind) and due.ended_at is not None:
            if not is_retry_due(row, due.ended_at, now):
                self._report.short += 1
                return None
            return Task(due._replace(began=row["started_at"]), kind, is_short=True)
        if failure is not None and row.get("error_code") in REFUSALS:
            # the same bytes would come again
            if row["fetched_at"] >= failure.first_failed_at + self._settings.recordings_wait:
                self._report.given_up += 1
                return None
            if not is_retry_due(row, failure.first_failed_at, now):
                self._report.postponed += 1
                return None
        return Task(due, kind)

    def _kinds(self, api: DataApi) -> list[Kind]:
        """Kinds of recordings to download per call, as far as the key gives access."""
        redacted = self._settings.redacted
        if not redacted and has_redacted_numbers(
            api.conversations(limit=_NEWEST, offset=0).conversations
        ):
            # it gets redacted ones whatever it requests, and the answer does not show it
            logger.warning(
                "%s: the API key has no access to personal data: PolyAI sends redacted recordings "
                "only, and they are stored as redacted",
                self._agent.agent_id,
            )
            redacted = True
        return [Kind(direction, redacted) for direction in self._settings.directions]

    def _rows(self, batch: Sequence[Outcome]) -> Rows:
        """Adds stored files to the manifest; returns the rows for the warehouse."""
        if not batch:
            return {}
        rows = [outcome.row for outcome in batch]
        loaded = {key_of(outcome.row) for outcome in batch if outcome.is_loaded}
        self._writer.record(
            rows,
            [entry for outcome in batch for entry in outcome.entries],
            [kept for outcome in batch for kept in outcome.kept],
            replaces=loaded.__contains__,
        )
        return {RECORDINGS: rows, FETCH_FAILURES: list(self._failure_rows(batch))}

    @cached_property
    def _failures(self) -> dict[str, Failure]:
        """Open failures of recordings, by call."""
        return self._work.committer.warehouse.open_failures(self._agent.agent_id, "recording")

    def _failure_rows(self, batch: Sequence[Outcome]) -> Iterator[dict[str, Any]]:
        """Yields rows of new, repeated and resolved failures; one row per call."""
        by_call: dict[str, Outcome] = {}
        for outcome in batch:
            conversation_id = outcome.row["conversation_id"]
            if outcome.error is not None:
                self._failed.add(conversation_id)
            if outcome.error is not None or conversation_id not in self._failed:
                by_call[conversation_id] = outcome
        for conversation_id, outcome in by_call.items():
            if outcome.error is not None or conversation_id in self._failures:
                yield failure_row(
                    self._agent.agent_id,
                    conversation_id,
                    self._failures.get(conversation_id),
                    self._clock(),
                    outcome.error,
                    is_over=outcome.error is None,
                    stage="recording",
                )
