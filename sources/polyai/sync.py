"""The scheduled job: every agent's new and changed conversations, one load package a chunk."""

from __future__ import annotations

import ctypes
import gc
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

import dlt
import pyarrow as pa
from dlt.common.storages.load_package import load_package_state
from dlt.common.typing import TDataItem
from dlt.extract import DltSource

from .errors import ConfigurationError
from .reading import AgentReader
from .report import RunReport
from .resources import LOADED_TABLES, one_chunk, one_table
from .settings import Agent, Settings
from .tables import CONVERSATION_TABLES, FETCH_FAILURES, SYNC_RUNS
from .warehouse import Warehouse, destination_errors, forget_loaded_packages, owner_only

logger = logging.getLogger("polyai")

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
) -> list[RunReport]:
    """Loads what is new or changed, agent by agent.

    What a killed run left half-way is loaded first. An agent that cannot be read does not keep
    the others from being loaded; its error is in its report.

    Args:
        settings: Agents and how to read them.
        pipeline: Where to load; see `open_pipeline`.
        full: Read each listing to its end, not only the look-back.
        select: Tables to load; `conversations` and `fetch_failures` always are, because they tell
            what is held. None for all.
        stop: When set, what was read is loaded, and the run ends as interrupted.
        on_begin: Called with the report of each agent, whose counts then move in place.

    Returns:
        A report for each agent that was begun.

    Raises:
        ConfigurationError: A table of `select` does not exist.
        DestinationError: The destination cannot be read or written.
    """
    stop = stop or threading.Event()
    tables = _selected(select)
    with owner_only(), destination_errors():
        pipeline.sync_destination()
        if pipeline.has_pending_data:
            logger.warning("loading what an interrupted run has left")
            pipeline.normalize()
            pipeline.load()
    reports: list[RunReport] = []
    for agent in settings.agents:
        if stop.is_set():
            break
        with owner_only():
            reports.append(_load_agent(agent, settings, pipeline, full, tables, stop, on_begin))
    forget_loaded_packages(pipeline)
    return reports


def _selected(select: Sequence[str]) -> list[str]:
    known = [table.name for table in LOADED_TABLES]
    if unknown := set(select) - set(known):
        names = ", ".join(table.name for table in CONVERSATION_TABLES)
        raise ConfigurationError(f"no table {', '.join(sorted(unknown))}: there are {names}")
    always = {"conversations", FETCH_FAILURES.name}
    return [name for name in known if not select or name in always or name in select]


def _load_agent(
    agent: Agent,
    settings: Settings,
    pipeline: dlt.Pipeline,
    full: bool,
    tables: Sequence[str],
    stop: threading.Event,
    on_begin: OnBegin,
) -> RunReport:
    warehouse = Warehouse(pipeline)
    with AgentReader(agent, settings, warehouse, full=full, stop=stop) as reader:
        report = reader.report

        def count_rows(table: str, rows: int) -> None:
            report.rows[table] += rows

        on_begin(report)
        with _cycles_collected_by_chunk() as collect:
            for chunk in reader.chunks():
                _run(pipeline, one_chunk(chunk, count_rows).with_resources(*tables))
                collect()
        report.finish(reader.stopped_by, interrupted=stop.is_set())
        _keep(report, pipeline)
        return report


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


def _keep(report: RunReport, pipeline: dlt.Pipeline) -> None:
    """Writes the run into `sync_runs`."""

    def rows() -> Iterator[TDataItem]:
        yield report.as_table(str(load_package_state()["load_id"]))

    _run(pipeline, one_table(SYNC_RUNS, rows))


def _run(pipeline: dlt.Pipeline, source: DltSource) -> None:
    with destination_errors():
        pipeline.extract(source)
        pipeline.normalize()
        _give_back_memory()
        pipeline.load()


def _give_back_memory() -> None:
    """Hands memory that reading has freed back to the system: the load needs as much again."""
    pa.default_memory_pool().release_unused()
    with suppress(AttributeError, OSError, TypeError):  # only glibc has it
        ctypes.CDLL(None).malloc_trim(0)
