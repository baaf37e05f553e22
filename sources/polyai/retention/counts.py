"""Counts of what a run of retention would delete."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from ..tables.recordings import RECORDINGS
from ..tables.registry import erased_tables
from ..warehouse.holds import HoldKeys, Holds
from ..warehouse.queries import Warehouse, id_batches
from .due import Due
from .result import AgentRetention


def count_due(warehouse: Warehouse, result: AgentRetention, keys: HoldKeys) -> None:
    """Counts what would be deleted of one agent, into its result."""
    agent_id = result.agent_id
    due = Due(warehouse, agent_id, result.limits, keys)
    for ids in due.conversations():
        result.conversations += len(ids)
        for table in erased_tables():
            if table is not RECORDINGS:
                result.rows[table.name] += count_rows(warehouse, table.name, agent_id, ids)
    for ids in due.transcripts():
        result.transcripts += len(ids)
    result.leave(due.on_hold)
    if (before := result.limits.recordings) is not None:
        rows, result.recordings = _recordings(warehouse, agent_id, before)
        on_hold = Holds(warehouse, agent_id, keys).loaded(warehouse)
        for batch, marks in id_batches(sorted(on_hold)):
            these = f"AND conversation_id IN ({marks})"
            left, files = _recordings(warehouse, agent_id, before, these, *batch)
            rows, result.recordings = rows - left, result.recordings - files
        result.rows[RECORDINGS.name] = rows
    result.rows = +result.rows


def count_rows(warehouse: Warehouse, table: str, agent_id: str, ids: Sequence[str]) -> int:
    """Returns the number of rows of these conversations in a table."""
    return sum(
        int(count)
        for batch, marks in id_batches(ids)
        for (count,) in warehouse.rows(
            f"SELECT count(*) FROM {{{table}}} WHERE agent_id = %s "
            f"AND conversation_id IN ({marks})",
            agent_id,
            *batch,
        )
    )


def _recordings(
    warehouse: Warehouse, agent_id: str, before: datetime, condition: str = "", *ids: str
) -> tuple[int, int]:
    """Returns the numbers of rows and of files of calls that began before."""
    rows = warehouse.rows(
        "SELECT count(*), sum(CASE WHEN status = 'stored' THEN 1 ELSE 0 END) FROM {recordings} "
        f"WHERE agent_id = %s AND started_at < %s {condition}",
        agent_id,
        before,
        *ids,
    )
    return (int(rows[0][0]), int(rows[0][1] or 0)) if rows else (0, 0)
