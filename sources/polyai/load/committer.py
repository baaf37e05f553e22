"""One run over a pipeline: chunks into load packages, packages into the destination."""

from __future__ import annotations

import ctypes
import gc
import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import dlt
import pyarrow as pa
from dlt.common.typing import TDataItem
from dlt.destinations.exceptions import DatabaseUndefinedRelation
from dlt.destinations.sql_client import SqlClientBase
from dlt.extract import DltSource
from dlt.pipeline.exceptions import PipelineStepFailed

from ..errors import ApiError
from ..locking.files import (
    LockTimeout,
    agent_leases,
    database_lock,
    staging_dataset_name,
    working_directory_lock,
)
from ..locking.leases import Holder, Leases
from ..shape.audit_rows import audit_table, failure_row
from ..tables.audit import FETCH_FAILURES, FORGOTTEN, SYNC_RUNS
from ..tables.conversations import TURNS
from ..tables.declaration import Table
from ..tables.registry import erased_tables, loaded_tables
from ..warehouse.counts import unequal_turns
from ..warehouse.duckdb_file import kept_open, lift_memory_limit
from ..warehouse.errors import destination_errors, is_conflict
from ..warehouse.held import LOAD_COMMANDS, LoadState
from ..warehouse.open import connect, owner_only
from ..warehouse.queries import id_batches
from ..warehouse.retry import retry
from . import discard as recovery
from .agent_reader import AgentReader, Chunk
from .plan import may_be_at_work
from .report import RunReport
from .source import empty_tables, one_chunk, some_tables

logger = logging.getLogger("polyai")

_M_MMAP_THRESHOLD = -3
"""glibc's name for the size from which on memory comes from the system in a piece of its own. It
grows by itself unless it is set, and then DuckDB's blocks of 256 KB leave holes behind."""

_MMAP_THRESHOLD_BYTES = 128 * 1024
"""What it is at the start of a process."""

_TABLES = "tables"
"""Lease on making the tables."""

_COMMITS = "commits"
"""Lease on any load, where one commit after the other is all that the destination takes."""

_ONE_COMMIT_AT_A_TIME = frozenset({"dlt.destinations.ducklake"})
"""DuckLake numbers its commits: two at once cost one of them all its work."""

_POLL_SECONDS = 0.02
"""Time between two looks at whether an agent has brought something."""

OnBegin = Callable[[RunReport], None]
"""Told of each agent's report when its load begins; the counts then move in place."""

AGENTS_AT_ONCE = 4
"""Agents that are read at once; each with `workers` requests in flight, and its own rate limit."""

LANES = 16
"""Parts of an agent's days that are merged independently: a day belongs to the one that its number
gives. Loads that merge into the same lane take turns."""


@dataclass
class _Active:
    """An agent that is being read."""

    reader: AgentReader
    chunks: Iterator[Chunk]
    killed: list[dict[str, Any]]
    """Runs that never said how they ended."""


@contextmanager
def audit_job(
    pipeline: dlt.Pipeline,
    lock_ending: str,
    lease_names: Callable[[], Sequence[str]],
    timeout: LockTimeout,
) -> Iterator[tuple[Job, Mapping[str, Holder]]]:
    """A job over audit tables, and nobody else's over the same until it ends.

    What a killed run has left is thrown away: such a run finds out what was done without it.

    Args:
        pipeline: Named after what is done, as is its schema; it runs beside `load`.
        lock_ending: What the lock beside a DuckDB file ends with.
        lease_names: Tells the leases that are needed, once the destination answers.
        timeout: How long to wait for another run.

    Yields:
        The job, and who holds the leases that it did not get.
    """
    with (
        owner_only(),
        working_directory_lock(pipeline, timeout),
        database_lock(pipeline, timeout, lock_ending),
    ):
        recovery.discard(pipeline)
        connect(pipeline)
        with agent_leases(pipeline, lease_names(), timeout) as (held, others):
            job = Job(pipeline, held, pipeline.pipeline_name)
            yield job, others
            job.tidy_up()


class Job:
    """One run over a pipeline that nobody else is using, with the leases that it needs."""

    def __init__(self, pipeline: dlt.Pipeline, held: Leases | None, schema: str) -> None:
        self.pipeline = pipeline
        self.warehouse = LoadState(pipeline, locks_file=True)
        self._leases = held
        self._schema = schema
        self._commits_as_a_whole = pipeline.destination.destination_type in _ONE_COMMIT_AT_A_TIME

    def recover(self, *, may_load: bool) -> None:
        """Loads what a killed run has left; what cannot be loaded is read again instead."""
        pipeline = self.pipeline
        self._start_over()
        if not may_load:
            # another machine goes on where that run ended
            recovery.discard(pipeline)
        with destination_errors():
            if pipeline.has_pending_data:
                logger.warning("loading what an interrupted run has left")
                self._load_pending()

    def _load_pending(self) -> None:
        try:
            self._finish_packages()
        except PipelineStepFailed as error:
            # one package that the destination does not take would be in the way for ever
            if not self.warehouse.is_reachable():
                raise
            logger.warning("it cannot be loaded, and is read again: %s", error.exception)
            recovery.discard(self.pipeline)

    def load(
        self,
        readers: Sequence[AgentReader],
        tables: Sequence[str],
        on_begin: OnBegin,
        stop: threading.Event,
    ) -> list[RunReport]:
        """Loads what the readers bring, a chunk of whichever has one, and keeps their reports."""
        waiting, active = deque(readers), deque[_Active]()
        reports: list[RunReport] = []
        with ExitStack() as opened, _cycles_collected_by_chunk() as collect:
            if self._leases is not None:
                self.make_tables([table for table in loaded_tables() if table.name in tables])
            while waiting or active:
                while waiting and len(active) < AGENTS_AT_ONCE and not stop.is_set():
                    reader = opened.enter_context(waiting.popleft())
                    reports.append(reader.report)
                    active.append(self._begin(reader, active, on_begin))
                if not active:
                    break
                one = _ready(active)
                if chunk := next(one.chunks, None):
                    self._load_chunk(chunk, one.reader.report, tables)
                    active.append(one)
                else:
                    self._end(one, tables)
                collect()
        return reports

    def _begin(
        self, reader: AgentReader, active: Collection[_Active], on_begin: OnBegin
    ) -> _Active:
        report = reader.report
        on_begin(report)
        # first the own row: it makes the table what this version knows
        self.write({SYNC_RUNS: [report.as_row()]}, report.agent_id)
        killed = [
            run
            for run in self.warehouse.unfinished_runs(report.agent_id, LOAD_COMMANDS)
            if run["run_id"] != report.run_id and _is_over(run, report)
        ]
        reader.start()

        def others_wait() -> bool:
            return any(other.reader.is_ready for other in active if other.reader is not reader)

        return _Active(reader, reader.chunks(others_wait), killed)

    def _load_chunk(self, chunk: Chunk, report: RunReport, tables: Sequence[str]) -> None:
        def count_rows(table: str, rows: int) -> None:
            report.rows[table] += rows

        source = one_chunk(chunk, count_rows, self._schema).with_resources(*tables)
        self._run(source, lambda: _lanes(report.agent_id, chunk.days))

    def _end(self, one: _Active, tables: Sequence[str]) -> None:
        reader, report = one.reader, one.reader.report
        if returned := self.warehouse.reloaded_after_erasure(report.agent_id):
            # read before they were erased, here or on another machine, and loaded since
            self.erase(report.agent_id, returned)
        if TURNS.name in tables:
            self._check_turns(report, reader.now())
        if report.range_from is None:
            # a slice is not asked, and counting takes the longer the more there is
            report.held = self.warehouse.count_conversations(report.agent_id)
        report.finish(reader.stopped_by, interrupted=reader.is_stopped, now=reader.now())
        rows: dict[Table, Sequence[Mapping[str, Any]]] = {}
        if reader.forgotten:
            rows[FORGOTTEN] = reader.forgotten
        ended = [report.as_row()]
        if report.has_read_all:
            # from here on nothing of what they left is uncertain
            ended += [{**run, "status": "interrupted"} for run in one.killed]
        self.write(rows | {SYNC_RUNS: ended}, report.agent_id)

    def make_tables(self, tables: Sequence[Table]) -> None:
        """Makes the tables where there are none, one run at a time: two at once would fail.

        Args:
            tables: What the run writes beside `sync_runs`; the first of them is looked for.
        """
        if self._has_tables(tables):
            return
        with self._turn([_TABLES]):
            if not self._has_tables(tables):
                self._run(empty_tables([*tables, SYNC_RUNS], self._schema))

    def begin(
        self, report: RunReport, tables: Sequence[Table], commands: Sequence[str]
    ) -> list[dict[str, Any]]:
        """Writes a run's first row of `sync_runs`, and makes tables, in one package.

        Args:
            report: The run's.
            tables: What it writes beside `sync_runs`.
            commands: What of the agent there is one run of at a time.

        Returns:
            The rows of killed runs, for the run to write at its end.
        """
        agent_id = report.agent_id
        rows: dict[Table, Sequence[Mapping[str, Any]]] = {SYNC_RUNS: [report.as_row()]}
        if self._has_tables(tables):
            self.write(rows, agent_id)
        else:
            with self._turn([_TABLES]):
                self.write(rows | {table: [] for table in tables}, agent_id)
        return [
            {**run, "status": "interrupted"}
            for run in self.warehouse.unfinished_runs(agent_id, commands)
            if run["run_id"] != report.run_id
        ]

    def _has_tables(self, tables: Sequence[Table]) -> bool:
        return all(self.warehouse.has_table(table.name) for table in (tables[0], SYNC_RUNS))

    def delete(self, table: Table, condition: str, *parameters: object) -> None:
        """Deletes rows of a table that this run alone writes.

        Args:
            table: The table.
            condition: SQL, `%s` for each parameter.
            parameters: Its values.
        """
        with self._deleting() as client:
            name = client.make_qualified_table_name(table.name)
            client.execute_sql(f"DELETE FROM {name} WHERE {condition}", *parameters)

    def erase(self, agent_id: str, conversation_ids: Sequence[str]) -> Counter[str]:
        """Deletes all rows of conversations, but those that say that they were erased.

        Returns:
            How many there were, by table.
        """
        rows: Counter[str] = Counter()
        with self._deleting() as client:
            for table in erased_tables():
                if not self.warehouse.has_table(table.name):
                    continue
                name = client.make_qualified_table_name(table.name)
                for ids, marks in id_batches(conversation_ids):
                    these = f"FROM {name} WHERE agent_id = %s AND conversation_id IN ({marks})"
                    found = client.execute_sql(f"SELECT count(*) {these}", agent_id, *ids)
                    if found and found[0][0]:
                        client.execute_sql(f"DELETE {these}", agent_id, *ids)
                        rows[table.name] += found[0][0]
        return rows

    @contextmanager
    def _deleting(self) -> Iterator[SqlClientBase[Any]]:
        """The destination, for statements that take their turn as a load does."""
        with (
            self._turn([_COMMITS] if self._commits_as_a_whole else []),
            destination_errors(),
            kept_open(self.pipeline),
            self.pipeline.sql_client() as client,
        ):
            yield client

    def drop_datasets(self, names: Iterable[str]) -> None:
        """Drops datasets of the destination, those that are there."""
        with (
            destination_errors(),
            kept_open(self.pipeline),
            self.pipeline.sql_client() as client,
        ):
            for name in names:
                with (
                    suppress(DatabaseUndefinedRelation),
                    client.with_alternative_dataset_name(name),
                ):
                    if client.has_dataset():
                        client.drop_dataset()

    def tidy_up(self) -> None:
        """Leaves nothing behind but the tables, and a few records of what was loaded."""
        self._drop_staging()
        recovery.forget_loaded_packages(self.pipeline)

    def _check_turns(self, report: RunReport, now: datetime) -> None:
        """Records conversations whose turns are not in the warehouse as many as they came."""
        open_ = self.warehouse.open_failures(report.agent_id)
        rows = []
        for conversation_id, (sent, landed) in unequal_turns(
            self.warehouse, report.agent_id, sorted(report.load_ids)
        ).items():
            error = ApiError(f"{sent} turns were read, {landed} are in the warehouse")
            logger.error("conversation %s: %s", conversation_id, error)
            report.failed += 1
            report.failures[conversation_id] = error
            rows.append(
                failure_row(
                    report.agent_id,
                    conversation_id,
                    open_.get(conversation_id),
                    now,
                    error,
                    is_over=False,
                )
            )
        if rows:
            self.write({FETCH_FAILURES: rows}, report.agent_id)

    def write(self, rows: Mapping[Table, Sequence[Mapping[str, Any]]], agent_id: str) -> None:
        """Writes rows of audit tables, in one package."""

        def items(table: Table) -> Callable[[], Iterator[TDataItem]]:
            return lambda: iter([audit_table(table, rows[table], recovery.load_id_of(agent_id))])

        self._run(some_tables({table: items(table) for table in rows}, self._schema))

    def _run(self, source: DltSource, lanes: Callable[[], Iterable[str]] = list) -> None:
        """Loads a source as one package.

        Args:
            source: What to load.
            lanes: Tells, once it is extracted, with whom it has to take turns.
        """
        with destination_errors():
            self.pipeline.extract(source)
            self._finish_packages(lanes)

    def _turn(self, names: Iterable[str]) -> AbstractContextManager[None]:
        return self._leases.holding(names) if self._leases is not None else nullcontext()

    def _finish_packages(self, lanes: Callable[[], Iterable[str]] = list) -> None:
        self.pipeline.normalize()
        _give_back_memory()
        with self._turn([_COMMITS] if self._commits_as_a_whole else lanes()):
            retry(self._load_packages, retry_if=self._prepare_retry)

    def _load_packages(self) -> None:
        if self._leases is not None:
            self._leases.renew()
        with kept_open(self.pipeline):
            self.pipeline.load()

    def _prepare_retry(self, error: Exception) -> bool:
        """Discards what a failed attempt wrote, if another attempt may succeed."""
        if not isinstance(error, PipelineStepFailed):
            return False
        if lift_memory_limit(self.pipeline, error):
            logger.warning("texts of this size need more memory: DuckDB's limit is lifted")
        elif is_conflict(error):
            logger.info("another load committed meanwhile: trying again")
        else:
            return False
        self._start_over()
        return True

    def _start_over(self) -> None:
        """Takes packages that were begun back to their start."""
        self._drop_staging()
        recovery.start_over(self.pipeline, self.warehouse.complete_packages())

    def _drop_staging(self) -> None:
        """Drops the staging dataset, which is this working directory's own."""
        self.drop_datasets([staging_dataset_name(self.pipeline)])


def _ready(active: deque[_Active]) -> _Active:
    """Takes the next one of which something has arrived."""
    while True:
        for place, one in enumerate(active):
            if one.reader.is_ready:
                del active[place]
                return one
        time.sleep(_POLL_SECONDS)


def _is_over(run: Mapping[str, Any], report: RunReport) -> bool:
    """Whether a run that never said how it ended cannot be at work any more.

    Of loads there is one at a time. Of a backfill's slices this is known of the same one only.
    """
    if report.range_from is not None:
        return (run["range_from"], run["range_to"]) == (report.range_from, report.range_to)
    return not may_be_at_work(run, report.started_at)


def _lanes(agent_id: str, days: Iterable[int | None]) -> Iterator[str]:
    """The leases that keep other loads from merging rows of the same conversations meanwhile.

    Where the day of one of them is not known, that is all lanes.
    """
    known = set(days)
    numbers = range(LANES) if None in known else {day % LANES for day in known if day is not None}
    return (f"{agent_id} days {number}/{LANES}" for number in numbers)


@contextmanager
def _cycles_collected_by_chunk() -> Iterator[Callable[[], object]]:
    """Looks for reference cycles after each chunk instead of all the time.

    Parsed JSON has none, but is what makes the collector run: it costs more than the parsing.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield gc.collect
    finally:
        if was_enabled:
            gc.enable()


def keep_memory_in_one_piece() -> None:
    """Lets the system have back what DuckDB frees: else a long run grows with each chunk."""
    with suppress(AttributeError, OSError, TypeError):  # only glibc has it
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _MMAP_THRESHOLD_BYTES)


def _give_back_memory() -> None:
    """Hands memory that reading has freed back to the system: the load needs as much again."""
    pa.default_memory_pool().release_unused()
    with suppress(AttributeError, OSError, TypeError):  # only glibc has it
        ctypes.CDLL(None).malloc_trim(0)
