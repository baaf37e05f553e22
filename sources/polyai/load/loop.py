"""Loop of a load: reads agents side by side, and hands their chunks to the committer."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ..errors import ApiError
from ..shape.audit_rows import failure_row
from ..tables.audit import FETCH_FAILURES, SYNC_RUNS
from ..tables.declaration import Table
from ..tables.erasure import FORGOTTEN, RETENTION
from ..tables.turns import TURNS
from ..warehouse.counts import unequal_turns
from ..warehouse.held import LOAD, LOAD_COMMANDS
from .agent_reader import AgentReader
from .chunk import Batch, Chunk
from .committer import Committer
from .fallback import note_limits
from .memory import cycles_collected_rarely
from .names import agent_name, are_due, changed_names
from .refetch import may_be_running
from .report import RunReport

logger = logging.getLogger("polyai")

OnBegin = Callable[[RunReport], None]
"""Called with the report of each agent when its load begins; the counts are updated in place."""

CONCURRENT_AGENTS = 4
"""Agents that are read at once; each with `workers` requests in flight, and its own rate limit."""

_POLL_SECONDS = 0.02
"""Pause between two checks of whether an agent has a chunk ready."""


@dataclass
class _Active:
    """An agent that is being read.

    Attributes:
        reader: Its reader.
        chunks: The chunks of the reader.
        interrupted: Rows that mark the runs without an end that this one completes.
    """

    reader: AgentReader
    chunks: Iterator[Chunk]
    interrupted: list[dict[str, Any]]


class LoadLoop:
    """Loads several agents at once, one chunk at a time.

    Args:
        committer: Commits chunks and audit rows.
        tables: Names of the tables to load.
        on_begin: Called with the report of each agent.
        stop: Event that ends the run; what was read is still loaded.
    """

    def __init__(
        self,
        committer: Committer,
        tables: Sequence[str],
        on_begin: OnBegin,
        stop: threading.Event,
    ) -> None:
        self._committer = committer
        self._warehouse = committer.warehouse
        self._tables = tables
        self._on_begin = on_begin
        self._stop = stop

    def run(self, readers: Sequence[AgentReader]) -> list[RunReport]:
        """Loads all chunks of the readers, from whichever has one ready.

        Returns:
            The reports of the agents that were begun.
        """
        waiting, active = deque(readers), deque[_Active]()
        reports: list[RunReport] = []
        with ExitStack() as opened, cycles_collected_rarely() as collect:
            while waiting or active:
                while waiting and len(active) < CONCURRENT_AGENTS and not self._stop.is_set():
                    reader = opened.enter_context(waiting.popleft())
                    reports.append(reader.report)
                    active.append(self._begin(reader, active))
                if not active:
                    break
                one = _next_ready(active)
                if chunk := next(one.chunks, None):
                    self._commit(chunk, one.reader.report)
                    active.append(one)
                    collect()
                else:
                    with self._committer.kept_open():
                        self._end(one)
        return reports

    def _begin(self, reader: AgentReader, active: Collection[_Active]) -> _Active:
        report = reader.report
        self._on_begin(report)
        with self._committer.kept_open():
            unfinished = self._committer.begin(report, LOAD_COMMANDS)
            interrupted = [run for run in unfinished if _is_over(run, report)]
            if report.command == LOAD:
                now = reader.now()
                reader.reads_names = are_due(self._warehouse, report.agent_id, now)
        # upgrades the warehouse of an earlier version
        self._committer.create_tables(())
        reader.start()

        def others_wait() -> bool:
            return any(other.reader.is_ready for other in active if other.reader is not reader)

        return _Active(reader, reader.chunks(others_wait), interrupted)

    def _commit(self, chunk: Chunk, report: RunReport) -> None:
        def count_rows(batch: Batch) -> None:
            for table in self._tables:
                report.rows[table] += batch.count_rows(table)

        self._committer.commit_chunk(chunk, report.agent_id, self._tables, count_rows)

    def _end(self, one: _Active) -> None:
        reader, report = one.reader, one.reader.report
        if returned := self._warehouse.reloaded_after_erasure(report.agent_id):
            # read before they were erased, here or on another machine, and loaded since
            self._committer.erase(report.agent_id, returned, reader.hold_keys)
        if TURNS.name in self._tables:
            self._check_turns(report, reader.now())
        rows: dict[Table, Sequence[Mapping[str, Any]]] = {}
        if malformed := self._malformed_rows(reader, report):
            rows[FETCH_FAILURES] = malformed
        if report.range_from is None:
            # not reported for a slice, and counting takes longer the more is loaded
            report.held = self._warehouse.count_conversations(report.agent_id)
            # conversations may have been erased since the run began
            erased = {row["conversation_id"] for row in reader.forgotten}
            report.forgotten = len(erased | self._warehouse.forgotten(report.agent_id))
            report.pending += self._warehouse.count_unloaded_failures(report.agent_id)
        note_limits(report, self._warehouse, reader.environments)
        report.finish(reader.stopped_by, interrupted=reader.is_stopped, now=reader.now())
        if report.command == LOAD:
            rows |= self._changed_names(reader)
        if (too_old := reader.too_old_row()) is not None:
            rows[RETENTION] = [too_old]
        if reader.forgotten:
            rows[FORGOTTEN] = reader.forgotten
        ended = [report.as_row()]
        if report.has_read_all:
            # what the interrupted runs left partially loaded has been read again
            ended += one.interrupted
        self._committer.write(rows | {SYNC_RUNS: ended})

    def _changed_names(self, reader: AgentReader) -> dict[Table, list[dict[str, Any]]]:
        """Returns the rows of names to write; notes the time of reading them, and the agent's."""
        report, now = reader.report, reader.now()
        if reader.names.is_whole:
            report.names_read_at = now
        changed = changed_names(
            self._warehouse,
            report.agent_id,
            reader.names.rows,
            reader.names_by_hand,
            now,
            has_news=bool(report.load_ids) or reader.reads_names,
        )
        report.agent_name = agent_name(self._warehouse, report.agent_id, changed)
        return changed

    def _malformed_rows(self, reader: AgentReader, report: RunReport) -> list[dict[str, Any]]:
        """Returns rows of `fetch_failures` for list rows without an id, and for those gone."""
        found = reader.malformed
        known = self._warehouse.open_failures(report.agent_id, "listing")
        report.pending = len(found.keys() - known.keys())
        report.failed += len(found)
        errors: dict[str, ApiError | None] = {}
        for key, row in found.items():
            errors[key] = error = ApiError(row.message)
            report.note_failure(key, error)
        if report.absent is not None:
            # all was listed
            errors |= dict.fromkeys(known.keys() - found.keys())
        return [
            failure_row(
                report.agent_id,
                key,
                known.get(key),
                reader.now(),
                error,
                is_over=error is None,
                stage="listing",
            )
            for key, error in errors.items()
        ]

    def _check_turns(self, report: RunReport, now: datetime) -> None:
        """Records conversations with another number of turns in the warehouse than were read."""
        known = self._warehouse.open_failures(report.agent_id)
        rows = []
        for conversation_id, (read, loaded) in unequal_turns(
            self._warehouse, report.agent_id, sorted(report.load_ids)
        ).items():
            error = ApiError(f"{read} turns were read, {loaded} are in the warehouse")
            logger.error("conversation %s: %s", conversation_id, error)
            report.failed += 1
            report.failures[conversation_id] = error
            rows.append(
                failure_row(
                    report.agent_id,
                    conversation_id,
                    known.get(conversation_id),
                    now,
                    error,
                    is_over=False,
                )
            )
        if rows:
            self._committer.write({FETCH_FAILURES: rows})


def _next_ready(active: deque[_Active]) -> _Active:
    """Removes and returns the next agent with a chunk ready; waits for one."""
    while True:
        for place, one in enumerate(active):
            if one.reader.is_ready:
                del active[place]
                return one
        time.sleep(_POLL_SECONDS)


def _is_over(run: Mapping[str, Any], report: RunReport) -> bool:
    """Checks whether a run without an end can no longer be running.

    There is one load per agent at a time. Slices of a backfill run concurrently, so that this is
    known only of a run over the same slice.
    """
    if report.range_from is not None:
        return (run["range_from"], run["range_to"]) == (report.range_from, report.range_to)
    return not may_be_running(run, report.started_at)
