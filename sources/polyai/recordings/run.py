"""Recordings: those that are missing are fetched, kept as files, and told of in the warehouse.

A file is in its place before the manifest tells of it, and there before the warehouse does. So a
run that is killed leaves nothing that the next one does not find: what the warehouse lacks is
looked for in the store before it is asked for.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import dlt

from ..api.client import DataApi
from ..api.throttle import Traffic
from ..clock import Clock, utc_now
from ..config.settings import Agent, Settings
from ..errors import ApiError, BusyError, PolyAIError, StoreError
from ..load.committer import Committer, open_committer
from ..locking.files import LockTimeout
from ..locking.leases import Holder
from ..shape.audit_rows import Failure, failure_row
from ..shape.redaction import has_redacted_numbers
from ..tables.audit import FETCH_FAILURES, RECORDINGS, SYNC_RUNS
from ..tables.declaration import Table
from ..warehouse.held import PRUNE
from ..warehouse.open import working_folder
from ..warehouse.queries import Warehouse
from .archive import Archive, Kind, agents_held
from .fetcher import Outcome, RecordingFetcher, Task
from .manifest import Manifest
from .report import RecordingsReport
from .store import Incoming, Store, open_store

logger = logging.getLogger("polyai")

PIPELINE_NAME = "polyai_recordings"
"""dlt pipeline and schema of what is told of recordings; beside `load`, which goes on meanwhile."""

COMMAND = "recordings"

COMMANDS = (COMMAND, "verify", PRUNE)
"""What runs over recordings are called in `sync_runs`; there is one at a time."""

TABLES = (RECORDINGS, FETCH_FAILURES)
"""What a run writes beside `sync_runs`."""

LOCK_ENDING = ".recordings.lock"

_NEWEST = 100
"""Conversations whose numbers tell what the key may hear."""

Rows = dict[Table, Sequence[Mapping[str, Any]]]
"""Rows to write, by table."""

OnBegin = Callable[[RecordingsReport], None]
"""Told of each agent's report when its run begins; the counts then move in place."""


def _silent(report: RecordingsReport) -> None:
    """Takes no notice."""


def fetch_recordings(
    settings: Settings,
    pipeline: dlt.Pipeline,
    *,
    stop: threading.Event | None = None,
    on_begin: OnBegin = _silent,
    clock: Clock = utc_now,
) -> list[RecordingsReport]:
    """Fetches the recordings that are missing of calls which the warehouse holds, oldest first.

    Can be killed at any moment, and runs beside `load`. What is held is not asked for again.

    Args:
        settings: Agents, which recordings, and where to keep them.
        pipeline: Where the warehouse is; `open_pipeline` with the name `PIPELINE_NAME`.
        stop: When set, what is under way is finished, and the run ends as interrupted.
        on_begin: Called with the report of each agent.
        clock: What time it is.

    Returns:
        A report for each agent that was begun; one that failed did not keep the others.

    Raises:
        BusyError: Another run on this machine fetches recordings into the same place.
        ConfigurationError: `recordings_url` cannot be used.
        DestinationError: The destination cannot be read or written.
        LeaseLostError: Another machine has taken over, because this one stood still.
        StoreError: The store cannot be read or written.
    """
    stop = stop or threading.Event()
    reports = []
    agent_ids = [agent.agent_id for agent in settings.agents]
    timeout = LockTimeout(settings.lock_wait, stop)
    with at_work(pipeline, settings.recordings_url, timeout, agent_ids) as work:
        for agent in settings.agents:
            if stop.is_set():
                break
            report = RecordingsReport(agent.agent_id, COMMAND, Traffic(), started_at=clock())
            reports.append(report)
            if holder := work.others.get(lease_name(agent.agent_id)):
                report.finish(BusyError(f"{holder} fetches recordings of {agent.agent_id}"))
                continue
            on_begin(report)
            AgentRecordings(work, agent, settings, report, stop, clock).fetch()
    return reports


@dataclass(frozen=True)
class Work:
    """What a run over recordings needs, held until it ends.

    Attributes:
        committer: Writes into the warehouse.
        store: Where files are.
        incoming: Where they are written first.
        agent_ids: Whose recordings.
        others: Who holds the leases that this run did not get.
    """

    committer: Committer
    store: Store
    incoming: Incoming
    agent_ids: tuple[str, ...]
    others: Mapping[str, Holder]

    def refuse_others(self) -> None:
        """Lets go on only where this run has all the leases.

        Raises:
            BusyError: Another run has one of them.
        """
        for agent_id in self.agent_ids:
            if holder := self.others.get(lease_name(agent_id)):
                raise BusyError(f"{holder} is at work on recordings of {agent_id}")


@contextmanager
def at_work(
    pipeline: dlt.Pipeline, url: str, timeout: LockTimeout, agent_ids: Sequence[str] | None = None
) -> Iterator[Work]:
    """Opens store and warehouse, and keeps other runs over the same recordings away.

    Args:
        pipeline: Where the warehouse is.
        url: Where the store is.
        timeout: How long to wait for another run.
        agent_ids: Whose recordings; None for all that the warehouse tells of.
    """
    store = open_store(url)

    def lease_names() -> list[str]:
        nonlocal agent_ids
        if agent_ids is None:
            agent_ids = agents_held(Warehouse(pipeline, locks_file=True))
        return [lease_name(name) for name in agent_ids]

    with (
        open_committer(pipeline, LOCK_ENDING, lease_names, timeout) as (committer, others),
        Incoming(store, working_folder(pipeline.pipelines_dir)) as incoming,
    ):
        store.check()
        store.delete_orphans()
        yield Work(committer, store, incoming, tuple(agent_ids or ()), others)


def lease_name(agent_id: str) -> str:
    """The lease on an agent's recordings; that of `load` is another one."""
    return f"{agent_id} recordings"


class AgentRecordings:
    """One agent's part of a run.

    Args:
        work: What the run holds.
        agent: The agent.
        settings: The run's settings.
        report: Counts, which move in place.
        stop: Set from outside: begin no more.
        clock: What time it is.
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
        self._archive = Archive(work.committer.warehouse, agent.agent_id)
        self._manifest = Manifest(work.store, work.incoming, agent.agent_id)
        self._failed: set[str] = set()
        """Calls of which a recording failed in this run."""

    def fetch(self, tasks: Sequence[Task] | None = None) -> None:
        """Fetches these recordings, or all that are missing, and keeps the report."""
        committer, report = self._work.committer, self._report
        killed = committer.begin(report, TABLES, COMMANDS)
        rows, error = self._fetch(tasks)
        report.finish(error, interrupted=self._stop.is_set(), now=self._clock())
        committer.write(rows | {SYNC_RUNS: [report.as_row(), *killed]})

    def _fetch(self, tasks: Iterable[Task] | None) -> tuple[Rows, PolyAIError | None]:
        """Fetches; the rows that are still to be written, and what stopped it."""
        settings, work = self._settings, self._work
        api = DataApi(
            self._agent,
            request_timeout=settings.request_timeout,
            max_attempts=settings.max_attempts,
            connections=settings.workers,
            traffic=self._report.traffic,
        )
        fetcher = RecordingFetcher(
            api,
            self._agent.agent_id,
            work.store,
            work.incoming,
            self._manifest,
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
            # what is in the store is told of, whatever happened to the others
            return self._rows(fetcher.rest), error
        except StoreError as stopped_by:
            return {}, error or stopped_by

    def _missing(self, api: DataApi) -> Iterator[Task]:
        """What neither the warehouse has, nor is past being asked for."""
        settings, report, wait = self._settings, self._report, self._settings.recordings_wait
        kinds = self._kinds(api)
        report.expected = self._archive.count_due(kinds, wait) * len(kinds)
        too_old = self._clock() - settings.give_up_after
        forgotten = self._work.committer.warehouse.forgotten(self._agent.agent_id)
        for due in self._archive.due(kinds, wait):
            if due.conversation_id in forgotten:
                continue
            failure = self._failures.get(due.conversation_id)
            if failure is not None and failure.first_failed_at < too_old:
                report.given_up += 1
                continue
            yield from (Task(due, kind) for kind in kinds if due.lacks(kind, wait))

    def _kinds(self, api: DataApi) -> list[Kind]:
        """The recordings that are wanted of each call, and that the key is given."""
        redacted = self._settings.redacted
        if not redacted and has_redacted_numbers(
            api.conversations(limit=_NEWEST, offset=0).conversations
        ):
            # it is given the redacted ones whatever it asks, and nothing in the answer tells
            logger.warning(
                "%s: the key has no access to personal data, so PolyAI gives it redacted "
                "recordings only: they are stored as such",
                self._agent.agent_id,
            )
            redacted = True
        return [Kind(direction, redacted) for direction in self._settings.directions]

    def _rows(self, batch: Sequence[Outcome]) -> Rows:
        """Tells the manifest of what is in the store, and what to tell the warehouse."""
        if not batch:
            return {}
        rows = [outcome.row for outcome in batch]
        self._manifest.add(rows)
        return {RECORDINGS: rows, FETCH_FAILURES: list(self._failure_rows(batch))}

    @cached_property
    def _failures(self) -> dict[str, Failure]:
        """Calls of which a recording could not be fetched so far."""
        return self._work.committer.warehouse.open_failures(self._agent.agent_id, "recording")

    def _failure_rows(self, batch: Sequence[Outcome]) -> Iterator[dict[str, Any]]:
        """Failures that are new or again, and those that are over; one row a call."""
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
