"""The scheduled load: new and changed conversations of all agents."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence

import dlt

from ..api.throttle import Traffic
from ..clock import Clock, utc_now
from ..config.agent import Agent
from ..config.settings import Settings
from ..errors import BusyError, ConfigurationError, PolyAIError
from ..locking.files import LockTimeout
from ..locking.leases import Holder
from ..locking.names import LOAD_WRITER
from ..tables.audit import FETCH_FAILURES
from ..tables.conversations import CONVERSATIONS
from ..tables.registry import loaded_tables
from ..warehouse.capabilities import advice_without_leases
from ..warehouse.held import LOAD_SCHEMA
from .agent_reader import AgentReader
from .committer import open_committer
from .loop import LoadLoop, OnBegin
from .memory import fix_mmap_threshold
from .report import RunReport, no_op

logger = logging.getLogger("polyai")


def load(
    settings: Settings,
    pipeline: dlt.Pipeline,
    *,
    full: bool = False,
    select: Sequence[str] = (),
    stop: threading.Event | None = None,
    on_begin: OnBegin = no_op,
    clock: Clock = utc_now,
) -> list[RunReport]:
    """Loads new and changed conversations; several agents are read at once.

    An agent that cannot be read, or that another run is loading, does not keep the others from
    being loaded; its report has the error. What a killed run did not commit is read again.

    Args:
        settings: Agents and how to read them.
        pipeline: Destination; see `open_pipeline`.
        full: Read each listing to its end, not only the look-back window.
        select: Tables to load, none for all; `conversations` and `fetch_failures` are always
            loaded, because they are the state of the load.
        stop: Event that ends the run as interrupted; what was read is still loaded.
        on_begin: Called with the report of each agent, whose counts are updated in place.
        clock: Injectable clock.

    Returns:
        A report for each agent that was begun.

    Raises:
        BusyError: Another run on this machine loads into the same destination.
        ConfigurationError: A table of `select` does not exist.
        DestinationError: The destination cannot be read or written.
        LeaseLostError: Another machine has taken over, because this one did not respond.
    """
    stop = stop or threading.Event()
    tables = selected_tables(select)
    timeout = LockTimeout(settings.lock_wait, stop)
    fix_mmap_threshold()
    if advice := advice_without_leases(pipeline):
        logger.warning("%s", advice)
    agent_ids = [agent.agent_id for agent in settings.agents]
    reports: list[RunReport] = []
    with open_committer(
        pipeline, LOAD_WRITER.lock_ending, lambda: agent_ids, timeout, LOAD_SCHEMA
    ) as (
        committer,
        others,
    ):
        readers: list[AgentReader] = []
        with committer.kept_open():
            for agent in settings.agents:
                if holder := others.get(agent.agent_id):
                    reports.append(_not_begun(agent, BusyError(_held_by(agent, holder))))
                    continue
                try:
                    reader = AgentReader(
                        agent, settings, committer.warehouse, full=full, stop=stop, clock=clock
                    )
                except ConfigurationError as error:
                    reports.append(_not_begun(agent, error))
                    continue
                readers.append(reader)
        reports += LoadLoop(committer, tables, on_begin, stop).run(readers)
    return sorted(reports, key=lambda report: agent_ids.index(report.agent_id))


def selected_tables(select: Sequence[str]) -> list[str]:
    """Returns the names of the tables that a load fills if these are selected; all for none.

    Raises:
        ConfigurationError: A table does not exist.
    """
    known = [table.name for table in loaded_tables()]
    if unknown := set(select) - set(known):
        raise ConfigurationError(
            f"unknown table {', '.join(sorted(unknown))} (expected {', '.join(known)})"
        )
    always = {CONVERSATIONS.name, FETCH_FAILURES.name}
    return [name for name in known if not select or name in always or name in select]


def _held_by(agent: Agent, holder: Holder) -> str:
    return f"{agent.agent_id} is being loaded by {holder}"


def _not_begun(agent: Agent, error: PolyAIError) -> RunReport:
    report = RunReport(agent.agent_id, "load", Traffic())
    report.finish(error)
    return report
