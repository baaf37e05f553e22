"""The scheduled job: every agent's new and changed conversations, one load package a chunk."""

from __future__ import annotations

import ctypes
import gc
import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Any

import dlt
import pyarrow as pa
from dlt.common.typing import TDataItem
from dlt.destinations.exceptions import DatabaseUndefinedRelation
from dlt.extract import DltSource
from dlt.pipeline.exceptions import PipelineStepFailed

from . import recovery
from .audit import audit_table, failure_row
from .client import Traffic
from .clock import Clock, utc_now
from .destination import destination_errors, kept_open, lift_memory_limit, owner_only
from .errors import ApiError, BusyError, ConfigurationError
from .lease import Leases
from .locks import Patience, leases, working_directory
from .reading import AgentReader
from .reconciliation import unequal_turns
from .report import RunReport
from .resources import LOADED_TABLES, one_chunk, one_table
from .schema import Table
from .settings import Settings
from .tables import CONVERSATION_TABLES, FETCH_FAILURES, SYNC_RUNS, TURNS
from .warehouse import Warehouse

logger = logging.getLogger("polyai")

_M_MMAP_THRESHOLD = -3
"""glibc's name for the size from which on memory comes from the system in a piece of its own. It
grows by itself unless it is set, and then DuckDB's blocks of 256 KB leave holes behind."""

_MMAP_THRESHOLD_BYTES = 128 * 1024
"""What it is at the start of a process."""

OnBegin = Callable[[RunReport], None]
"""Told of each agent's report when its load begins; the counts then move in place."""


def _silent(report: RunReport) -> None:
    """Takes no notice."""


def load(
    settings: Settings,
    pipeline: dlt.Pipeline,
    *,
    full: bool = False,
    select: Sequence[str] = (),
    stop: threading.Event | None = None,
    on_begin: OnBegin = _silent,
    clock: Clock = utc_now,
) -> list[RunReport]:
    """Loads what is new or changed, agent by agent.

    What a killed run left half-way is loaded first. An agent that cannot be read, or that another
    run is loading, does not keep the others from being loaded; its report says so.

    Args:
        settings: Agents and how to read them.
        pipeline: Where to load; see `open_pipeline`.
        full: Read each listing to its end, not only the look-back.
        select: Tables to load; `conversations` and `fetch_failures` always are, because they tell
            what is held. None for all.
        stop: When set, what was read is loaded, and the run ends as interrupted.
        on_begin: Called with the report of each agent, whose counts then move in place.
        clock: What time it is.

    Returns:
        A report for each agent that was begun.

    Raises:
        BusyError: Another run on this machine loads into the same place.
        ConfigurationError: A table of `select` does not exist.
        DestinationError: The destination cannot be read or written.
        LeaseLostError: Another machine has taken over, because this one stood still.
    """
    stop = stop or threading.Event()
    tables = _selected(select)
    patience = Patience(settings.lock_wait, stop)
    _keep_memory_in_one_piece()
    reports: list[RunReport] = []
    with owner_only(), working_directory(pipeline, patience):
        recovery.discard_torn_packages(pipeline)
        with destination_errors(), kept_open(pipeline):
            # before the leases, which make the dataset: where it was dropped, dlt begins anew
            pipeline.sync_destination()
        pending = recovery.pending_agents(pipeline)
        wanted = pending | {agent.agent_id for agent in settings.agents}
        with leases(pipeline, wanted, patience) as (held, others):
            job = _Job(pipeline, held)
            job.recover(may_load=not pending & others.keys())
            for agent in settings.agents:
                if stop.is_set():
                    break
                if holder := others.get(agent.agent_id):
                    reports.append(_busy(agent.agent_id, str(holder)))
                    continue
                reader = AgentReader(
                    agent, settings, job.warehouse, full=full, stop=stop, clock=clock
                )
                reports.append(job.load_agent(reader, tables, on_begin))
            job.tidy_up()
    return reports


def _selected(select: Sequence[str]) -> list[str]:
    known = [table.name for table in LOADED_TABLES]
    if unknown := set(select) - set(known):
        names = ", ".join(table.name for table in CONVERSATION_TABLES)
        raise ConfigurationError(f"no table {', '.join(sorted(unknown))}: there are {names}")
    always = {"conversations", FETCH_FAILURES.name}
    return [name for name in known if not select or name in always or name in select]


def _busy(agent_id: str, holder: str) -> RunReport:
    report = RunReport(agent_id, "load", Traffic())
    report.finish(BusyError(f"{agent_id} is being loaded by {holder}"))
    return report


class _Job:
    """One run over a pipeline that nobody else is using, with the leases that it needs."""

    def __init__(self, pipeline: dlt.Pipeline, held: Leases | None) -> None:
        self.pipeline = pipeline
        self.warehouse = Warehouse(pipeline)
        self._leases = held

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
            if not self.warehouse.answers():
                raise
            logger.warning("it cannot be loaded, and is read again: %s", error.exception)
            recovery.discard(self.pipeline)

    def load_agent(
        self, reader: AgentReader, tables: Sequence[str], on_begin: OnBegin
    ) -> RunReport:
        """Loads what the reader brings, chunk by chunk, and keeps the run's report."""
        report = reader.report
        killed = self.warehouse.begun_runs(report.agent_id)

        def count_rows(table: str, rows: int) -> None:
            report.rows[table] += rows

        on_begin(report)
        self._write(SYNC_RUNS, [report.as_row()], report.agent_id)
        with reader, _cycles_collected_by_chunk() as collect:
            for chunk in reader.chunks():
                self._run(one_chunk(chunk, count_rows).with_resources(*tables))
                collect()
        if TURNS.name in tables:
            self._check_turns(report, reader.now())
        report.held = self.warehouse.count_held(report.agent_id)
        report.finish(reader.stopped_by, interrupted=reader.is_stopped)
        ended = [report.as_row()]
        if report.status in ("complete", "partial"):
            # from here on nothing of what they left is uncertain
            ended += [{**run, "status": "interrupted"} for run in killed]
        self._write(SYNC_RUNS, ended, report.agent_id)
        return report

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
            self._write(FETCH_FAILURES, rows, report.agent_id)

    def _write(self, table: Table, rows: Sequence[Mapping[str, Any]], agent_id: str) -> None:
        """Writes rows of an audit table."""

        def items() -> Iterator[TDataItem]:
            yield audit_table(table, rows, recovery.load_id_of(agent_id))

        self._run(one_table(table, items))

    def _run(self, source: DltSource) -> None:
        with destination_errors():
            self.pipeline.extract(source)
            self._finish_packages()

    def _finish_packages(self) -> None:
        self.pipeline.normalize()
        _give_back_memory()
        if self._leases is not None:
            self._leases.renew()
        try:
            with kept_open(self.pipeline):
                self.pipeline.load()
        except PipelineStepFailed as error:
            if not lift_memory_limit(self.pipeline, error):
                raise
            logger.warning("texts of this size need more memory: DuckDB's limit is lifted")
            self._start_over()
            with kept_open(self.pipeline):
                self.pipeline.load()

    def _start_over(self) -> None:
        """Takes packages that were begun back to their start."""
        self._drop_staging()
        recovery.start_over(self.pipeline, self.warehouse.complete_packages())

    def _drop_staging(self) -> None:
        """Drops the staging dataset, which is this working directory's own."""
        with (
            destination_errors(),
            suppress(DatabaseUndefinedRelation),
            kept_open(self.pipeline),
            self.pipeline.sql_client() as client,
            client.with_staging_dataset(),
        ):
            if client.has_dataset():
                client.drop_dataset()


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


def _keep_memory_in_one_piece() -> None:
    """Lets the system have back what DuckDB frees: else a long run grows with each chunk."""
    with suppress(AttributeError, OSError, TypeError):  # only glibc has it
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _MMAP_THRESHOLD_BYTES)


def _give_back_memory() -> None:
    """Hands memory that reading has freed back to the system: the load needs as much again."""
    pa.default_memory_pool().release_unused()
    with suppress(AttributeError, OSError, TypeError):  # only glibc has it
        ctypes.CDLL(None).malloc_trim(0)
