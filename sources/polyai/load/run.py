"""The scheduled job, and one slice of a backfill: conversations, one load package a chunk."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import dlt

from ..api.throttle import Traffic
from ..clock import Clock, utc_now
from ..config.settings import Agent, Settings
from ..errors import BusyError, ConfigurationError, PolyAIError
from ..listing.landmarks import Landmarks
from ..locking.files import LockTimeout, agent_leases, database_lock, working_directory_lock
from ..locking.leases import Holder
from ..tables.audit import FETCH_FAILURES
from ..tables.registry import conversation_tables, loaded_tables
from ..warehouse.held import BACKFILL_SCHEMA, LOAD_SCHEMA
from ..warehouse.open import connect, owner_only
from . import discard as recovery
from .agent_reader import AgentReader
from .committer import Job, OnBegin, keep_memory_in_one_piece
from .plan import Span
from .report import RunReport


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
    """Loads what is new or changed; several agents are read at once.

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
    timeout = LockTimeout(settings.lock_wait, stop)
    keep_memory_in_one_piece()
    reports: list[RunReport] = []
    with owner_only(), working_directory_lock(pipeline, timeout), database_lock(pipeline, timeout):
        recovery.discard_torn_packages(pipeline)
        # before the leases, which make the dataset: where it was dropped, dlt begins anew
        connect(pipeline)
        pending = recovery.pending_agents(pipeline)
        wanted = pending | {agent.agent_id for agent in settings.agents}
        with agent_leases(pipeline, wanted, timeout) as (held, others):
            job = Job(pipeline, held, LOAD_SCHEMA)
            job.recover(may_load=not pending & others.keys())
            readers: list[AgentReader] = []
            for agent in settings.agents:
                if holder := others.get(agent.agent_id):
                    reports.append(_not_begun(agent, BusyError(_is_loaded_by(agent, holder))))
                    continue
                try:
                    reader = AgentReader(
                        agent, settings, job.warehouse, full=full, stop=stop, clock=clock
                    )
                except ConfigurationError as error:
                    reports.append(_not_begun(agent, error))
                    continue
                readers.append(reader)
            reports += job.load(readers, tables, on_begin, stop)
            job.tidy_up()
    order = [agent.agent_id for agent in settings.agents]
    return sorted(reports, key=lambda report: order.index(report.agent_id))


def load_slice(
    settings: Settings,
    pipeline: dlt.Pipeline,
    span: Span,
    *,
    again: bool = False,
    landmarks: Landmarks | None = None,
    stop: threading.Event | None = None,
    on_begin: OnBegin = _silent,
    clock: Clock = utc_now,
) -> RunReport:
    """Loads what one agent has in a range of time; needs nothing but its arguments.

    Any number may run at once, beside each other and beside `load`, each with a pipeline of its
    own: they only take turns where they would merge rows of the same days. How far `load` has come
    does not change. What a killed one left is thrown away and read again.

    Args:
        settings: One agent and how to read it.
        pipeline: Where to load, with a working directory that nobody else is using.
        span: The range.
        again: Read all of it, also what is held and has not changed.
        landmarks: Where the Data API's listing has what; learns from each page.
        stop: When set, what was read is loaded, and the run ends as interrupted.
        on_begin: Called with the report, whose counts then move in place.
        clock: What time it is.

    Raises:
        BusyError: Another run uses the working directory.
        ConfigurationError: The agent lacks what the chosen API needs.
        DestinationError: The destination cannot be read or written.
        LeaseLostError: Another machine has taken over, because this one stood still.
    """
    stop = stop or threading.Event()
    timeout = LockTimeout(settings.lock_wait, stop)
    keep_memory_in_one_piece()
    (agent,) = settings.agents
    with owner_only(), working_directory_lock(pipeline, timeout):
        recovery.discard(pipeline)
        connect(pipeline)
        with agent_leases(pipeline, (), timeout) as (held, _):
            if held is not None:
                held.release_leftovers()
            job = Job(pipeline, held, BACKFILL_SCHEMA)
            reader = AgentReader(
                agent,
                settings,
                job.warehouse,
                span=span,
                again=again,
                landmarks=landmarks,
                stop=stop,
                clock=clock,
            )
            (report,) = job.load([reader], _selected(()), on_begin, stop)
            job.tidy_up()
    return report


def _selected(select: Sequence[str]) -> list[str]:
    known = [table.name for table in loaded_tables()]
    if unknown := set(select) - set(known):
        names = ", ".join(table.name for table in conversation_tables())
        raise ConfigurationError(f"no table {', '.join(sorted(unknown))}: there are {names}")
    always = {"conversations", FETCH_FAILURES.name}
    return [name for name in known if not select or name in always or name in select]


def _is_loaded_by(agent: Agent, holder: Holder) -> str:
    return f"{agent.agent_id} is being loaded by {holder}"


def _not_begun(agent: Agent, error: PolyAIError) -> RunReport:
    report = RunReport(agent.agent_id, "load", Traffic())
    report.finish(error)
    return report
