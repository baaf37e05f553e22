"""Runs that send annotations and notes: validate rows, group them by agent, and send them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

import dlt

from ..api.throttle import Traffic
from ..clock import Clock, utc_now
from ..config.settings import Settings
from ..load.committer import open_committer
from ..load.report import no_op
from ..locking.files import LockTimeout
from ..warehouse.duckdb_file import duckdb_path
from ..warehouse.held import LoadState
from .report import Result, WriteBackReport, WriteBacks
from .rows import Kind, Record, Row, check_columns, checked, unused_columns
from .sending import COMMANDS, AgentWriteBacks

logger = logging.getLogger("polyai")

PIPELINE_NAME = "polyai_write_backs"
"""dlt pipeline and schema of write-backs; separate from `load`, which may run meanwhile."""

LOCK_ENDING = ".write-backs.lock"

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
        ConfigurationError: No row has a required column, or an agent has no valid key.
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
    for agent_id in by_agent:
        agents[agent_id].check_usable()
    done = WriteBacks([], invalid, unused_columns(kind, records), dry_run)

    def begin(agent_id: str, warehouse: LoadState | None) -> AgentWriteBacks:
        report = WriteBackReport(agent_id, COMMANDS[kind], Traffic(), started_at=clock())
        done.reports.append(report)
        return AgentWriteBacks(
            agents[agent_id],
            kind,
            by_agent[agent_id],
            settings,
            warehouse,
            report,
            overwrite=overwrite,
            stop=stop,
            clock=clock,
        )

    if dry_run:
        file = duckdb_path(pipeline)
        # reading a missing file would create it
        warehouse = LoadState(pipeline) if file is None or file.exists() else None
        for agent_id in by_agent:
            with begin(agent_id, warehouse) as run:
                on_begin(run.report)
                run.check()
        return done
    if not by_agent:
        return done

    def lease_names() -> list[str]:
        return [lease_name(agent_id) for agent_id in by_agent]

    timeout = LockTimeout(settings.lock_wait, stop)
    with open_committer(pipeline, LOCK_ENDING, lease_names, timeout) as (committer, others):
        for agent_id in by_agent:
            with begin(agent_id, committer.warehouse) as run:
                if holder := others.get(lease_name(agent_id)):
                    run.leave_to(holder)
                else:
                    on_begin(run.report)
                    run.send(committer)
    return done


def lease_name(agent_id: str) -> str:
    """Name of the lease on write-backs to an agent."""
    return f"{agent_id} write-backs"
