"""Runs that send annotations and notes: validate rows, group them by agent, and send them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

import dlt

from ..api.throttle import Traffic
from ..clock import Clock, utc_now
from ..config.agent import DATA
from ..config.settings import Settings
from ..errors import BusyError, ConfigurationError, PolyAIError
from ..load.committer import open_committer
from ..load.report import no_op
from ..locking.files import LockTimeout
from ..locking.names import WRITE_BACKS_WRITER
from ..warehouse.duckdb_file import duckdb_path
from ..warehouse.held import LoadState
from .report import Result, WriteBackReport, WriteBacks
from .rows import Kind, Record, Row, check_columns, checked, unused_columns
from .sending import COMMANDS, AgentWriteBacks

logger = logging.getLogger("polyai")

PIPELINE_NAME = "polyai_write_backs"
"""dlt pipeline and schema of write-backs; separate from `load`, which may run meanwhile."""

OnBegin = Callable[[WriteBackReport], None]
"""Callback for each agent's report as its run begins; the counts then change in place."""


def write_back(
    kind: Kind,
    records: Sequence[Record],
    settings: Settings,
    pipeline: dlt.Pipeline,
    *,
    overwrite: bool = False,
    dry_run: bool = False,
    stop: threading.Event | None = None,
    on_begin: OnBegin = no_op,
    clock: Clock = utc_now,
) -> WriteBacks:
    """Sends annotations or notes; see `command.annotate` and `command.note`.

    Raises:
        BusyError: Another run on this machine writes back into the same warehouse.
        ConfigurationError: No row has a required column, or no agent with rows has a valid key.
        DestinationError: The warehouse cannot be read or written.
        LeaseLostError: Another machine has taken over this run's lease.
    """
    stop = stop or threading.Event()
    check_columns(kind, records)
    agents = {agent.agent_id: agent for agent in settings.agents}
    by_agent: dict[str, list[Row]] = {}
    invalid: list[Result] = []
    for record, row in checked(kind, records, list(agents)):
        if isinstance(row, Row):
            by_agent.setdefault(row.agent_id, []).append(row)
        else:
            conversation_id = record.values.get("conversation_id")
            shown = None if conversation_id is None else str(conversation_id)
            invalid.append(Result(record.place, shown, "", "rejected", row))
    done = WriteBacks([], invalid, unused_columns(kind, records), dry_run)

    def new_report(agent_id: str) -> WriteBackReport:
        report = WriteBackReport(agent_id, COMMANDS[kind], Traffic(), started_at=clock())
        done.reports.append(report)
        return report

    def leave(agent_id: str, error: PolyAIError) -> None:
        report = new_report(agent_id)
        for row in by_agent[agent_id]:
            report.add(Result.of(row, "not sent", str(error)))
        report.finish(error, interrupted=stop.is_set(), now=clock())

    def begin(agent_id: str, warehouse: LoadState | None) -> AgentWriteBacks:
        return AgentWriteBacks(
            agents[agent_id],
            kind,
            by_agent[agent_id],
            settings,
            warehouse,
            new_report(agent_id),
            overwrite=overwrite,
            stop=stop,
            clock=clock,
        )

    problems = {agent_id: agents[agent_id].problem_with(DATA) for agent_id in by_agent}
    usable = [agent_id for agent_id, problem in problems.items() if not problem]
    if by_agent and not usable:
        raise ConfigurationError(next(iter(problems.values())))
    for agent_id, problem in problems.items():
        if problem:
            leave(agent_id, ConfigurationError(problem))
    if dry_run:
        file = duckdb_path(pipeline)
        # reading a missing file would create it
        warehouse = LoadState(pipeline) if file is None or file.exists() else None
        for agent_id in usable:
            with begin(agent_id, warehouse) as run:
                on_begin(run.report)
                run.check()
        return done
    if not usable:
        return done

    def lease_names() -> list[str]:
        return [WRITE_BACKS_WRITER.lease(agent_id) for agent_id in usable]

    timeout = LockTimeout(settings.lock_wait, stop)
    with open_committer(pipeline, WRITE_BACKS_WRITER.lock_ending, lease_names, timeout) as (
        committer,
        others,
    ):
        for agent_id in usable:
            if holder := others.get(WRITE_BACKS_WRITER.lease(agent_id)):
                leave(agent_id, BusyError(f"{holder} writes back to {agent_id}"))
                continue
            with begin(agent_id, committer.warehouse) as run:
                on_begin(run.report)
                run.send(committer)
    return done
