"""Runs that send annotations and notes: validate rows, group them by agent, and send them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import dlt
import pyarrow as pa

from ..api.throttle import Traffic
from ..clock import Clock, utc_now
from ..config.settings import Settings
from ..load.committer import open_committer
from ..locking.files import LockTimeout
from ..warehouse.duckdb_file import duckdb_path
from ..warehouse.held import LoadState
from .report import Result, WriteBackReport, WriteBacks
from .rows import Kind, Record, Row, check_columns, checked, from_rows, unused_columns
from .sending import COMMANDS, AgentWriteBacks

logger = logging.getLogger("polyai")

PIPELINE_NAME = "polyai_write_backs"
"""dlt pipeline and schema of write-backs; separate from `load`, which may run meanwhile."""

LOCK_ENDING = ".write-backs.lock"

OnBegin = Callable[[WriteBackReport], None]
"""Callback for each agent's report as its run begins; the counts then change in place."""


def _silent(report: WriteBackReport) -> None:
    """No-op."""


def annotate(
    settings: Settings,
    pipeline: dlt.Pipeline,
    rows: Any,
    *,
    dry_run: bool = False,
    stop: threading.Event | None = None,
    on_begin: OnBegin = _silent,
    clock: Clock = utc_now,
) -> WriteBacks:
    """Adds annotations to turns: `POST …/{conversationId}/annotation`. Idempotent.

    An annotation that PolyAI already has, or that was sent before, is not sent.

    Args:
        settings: Agents and connection settings.
        pipeline: The warehouse; `open_pipeline` with the name `PIPELINE_NAME`.
        rows: Mappings with conversation_id, turn_index (counted from 0), role (user or agent),
            annotation_type (missing_topic, wrong_transcript or wrong_info), and agent_id if
            several agents are configured; or any Arrow-compatible table: pandas, polars, DuckDB.
        dry_run: Only check the rows; nothing is sent or written.
        stop: When set, rows in progress are finished and the run ends as interrupted.
        on_begin: Called with the report of each agent.
        clock: Current time.

    Returns:
        The result of each row; an invalid row does not stop the others.

    Raises:
        BusyError: Another run on this machine writes back with the same warehouse.
        ConfigurationError: No row has a required column.
        DestinationError: The warehouse cannot be read or written.
        LeaseLostError: The lease expired, and a run on another machine has taken over.
    """
    return write_back(
        "annotation",
        _records(rows),
        settings,
        pipeline,
        dry_run=dry_run,
        stop=stop,
        on_begin=on_begin,
        clock=clock,
    )


def note(
    settings: Settings,
    pipeline: dlt.Pipeline,
    rows: Any,
    *,
    overwrite: bool = False,
    dry_run: bool = False,
    stop: threading.Event | None = None,
    on_begin: OnBegin = _silent,
    clock: Clock = utc_now,
) -> WriteBacks:
    """Replaces the notes of conversations: `POST …/{conversationId}/note`. Idempotent.

    Args:
        settings: As for `annotate`.
        pipeline: As for `annotate`.
        rows: As for `annotate`, with conversation_id and note.
        overwrite: Also replace a note that is newer than in the warehouse.
        dry_run: As for `annotate`.
        stop: As for `annotate`.
        on_begin: As for `annotate`.
        clock: As for `annotate`.

    Returns:
        As `annotate` does.

    Raises:
        PolyAIError: As `annotate` does.
    """
    return write_back(
        "note",
        _records(rows),
        settings,
        pipeline,
        overwrite=overwrite,
        dry_run=dry_run,
        stop=stop,
        on_begin=on_begin,
        clock=clock,
    )


def write_back(
    kind: Kind,
    records: Sequence[Record],
    settings: Settings,
    pipeline: dlt.Pipeline,
    *,
    overwrite: bool = False,
    dry_run: bool = False,
    stop: threading.Event | None = None,
    on_begin: OnBegin = _silent,
    clock: Clock = utc_now,
) -> WriteBacks:
    """Implements `annotate` and `note`, for rows that were read from a file."""
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


def _records(rows: Any) -> list[Record]:
    """Converts mappings or an Arrow-compatible table."""
    given: Iterable[Mapping[str, Any]] = rows
    if hasattr(rows, "__arrow_c_stream__"):
        given = pa.table(rows).to_pylist()
    return from_rows(given)
