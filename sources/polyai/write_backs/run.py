"""Annotations and notes from rows: checked, shared out among the agents, and sent."""

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
"""dlt pipeline and schema of what is told of write-backs; runs beside `load`."""

LOCK_ENDING = ".write-backs.lock"

OnBegin = Callable[[WriteBackReport], None]
"""Told of each agent's report when its run begins; the counts then move in place."""


def _silent(report: WriteBackReport) -> None:
    """Takes no notice."""


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
    """Adds annotations to turns, each once: `POST …/{conversationId}/annotation`.

    An annotation that PolyAI has already, or that was sent before, is not sent.

    Args:
        settings: Agents, and how to reach them.
        pipeline: Where the warehouse is; `open_pipeline` with the name `PIPELINE_NAME`.
        rows: Mappings with conversation_id, turn_index (counted from 0), role (user or agent) and
            annotation_type (missing_topic, wrong_transcript or wrong_info), and agent_id where
            there are several agents; or any table that Arrow takes: pandas, polars, DuckDB.
        dry_run: Only look whether they could be sent; nothing is sent or written.
        stop: When set, what is under way is finished, and the run ends as interrupted.
        on_begin: Called with the report of each agent.
        clock: What time it is.

    Returns:
        What came of each row; a bad one does not keep the others.

    Raises:
        BusyError: Another run on this machine writes back into the same warehouse.
        ConfigurationError: No row has a column that each must have.
        DestinationError: The warehouse cannot be read or written.
        LeaseLostError: Another machine has taken over, because this one stood still.
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
    """Replaces the notes of conversations: `POST …/{conversationId}/note`.

    Args:
        settings: As for `annotate`.
        pipeline: As for `annotate`.
        rows: As for `annotate`, with conversation_id and note.
        overwrite: Replace also a note that is newer than what the warehouse holds.
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
    """What `annotate` and `note` do, with rows that were read from a file."""
    stop = stop or threading.Event()
    check_columns(kind, records)
    agents = {agent.agent_id: agent for agent in settings.agents}
    by_agent: dict[str, list[Row]] = {}
    unfit: list[Result] = []
    for record, row in checked(kind, records, list(agents)):
        if isinstance(row, Row):
            by_agent.setdefault(row.agent_id, []).append(row)
        else:
            named = record.values.get("conversation_id")
            shown = None if named is None else str(named)
            unfit.append(Result(record.place, shown, "", "rejected", row))
    done = WriteBacks([], unfit, unused_columns(kind, records), dry_run)

    def begun(agent_id: str, warehouse: LoadState | None) -> AgentWriteBacks:
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
        # one that is not there would be made by looking into it
        warehouse = LoadState(pipeline) if file is None or file.exists() else None
        for agent_id in by_agent:
            with begun(agent_id, warehouse) as run:
                on_begin(run.report)
                run.look()
        return done
    if not by_agent:
        return done

    def lease_names() -> list[str]:
        return [lease_name(agent_id) for agent_id in by_agent]

    timeout = LockTimeout(settings.lock_wait, stop)
    with open_committer(pipeline, LOCK_ENDING, lease_names, timeout) as (committer, others):
        for agent_id in by_agent:
            with begun(agent_id, committer.warehouse) as run:
                if holder := others.get(lease_name(agent_id)):
                    run.leave_to(holder)
                else:
                    on_begin(run.report)
                    run.send(committer)
    return done


def lease_name(agent_id: str) -> str:
    """The lease on writing back to an agent."""
    return f"{agent_id} write-backs"


def _records(rows: Any) -> list[Record]:
    """Rows of a notebook; a table is anything that hands itself over as Arrow."""
    given: Iterable[Mapping[str, Any]] = rows
    if hasattr(rows, "__arrow_c_stream__"):
        given = pa.table(rows).to_pylist()
    return from_rows(given)
