"""Queries that collect the status of a warehouse.

They read only the destination: no API key is needed, no request is sent and nothing is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields
from datetime import datetime, timedelta
from typing import Any

from ..clock import Clock, in_utc, utc_now
from ..config.settings import resolve, shared_setting
from ..errors import ConfigurationError, DestinationError
from ..tables.rules import complete_load_sql
from ..warehouse.counts import (
    ConversationCounts,
    conversation_counts,
    some_unequal_turns,
    table_counts,
    turn_counts,
)
from ..warehouse.loaded_through import loaded_through
from ..warehouse.open import destination_label
from ..warehouse.queries import Warehouse
from .report import AgentStatus, Failures, OpenFailure, Run, Status

SHOWN_RUNS = 5
"""Newest runs of an agent in its status."""

SHOWN_CONVERSATIONS = 10
"""Conversations that are named per kind of failure."""


def collect_status(
    warehouse: Warehouse,
    *,
    agent_ids: Sequence[str] = (),
    max_age: timedelta | None = None,
    quick: bool = False,
    clock: Clock = utc_now,
) -> Status:
    """Reads the status of a warehouse.

    Args:
        warehouse: The warehouse; see `open_to_read`.
        agent_ids: Only these agents. Default: all that are loaded or configured.
        max_age: Age of the last complete load above which an agent is stale.
        quick: Do not count or compare turns and rows, which reads whole tables.
        clock: Clock.

    Raises:
        BusyError: The DuckDB file stayed locked.
        ConfigurationError: An agent is unknown, or a setting is wrong.
        DestinationError: Nothing was ever loaded, or the destination cannot be read.
    """
    now = clock()
    if not any(_exists(warehouse, table) for table in ("sync_runs", "conversations")):
        raise DestinationError(
            f"nothing has been loaded into {destination_label(warehouse.pipeline)}: "
            "run polyai-warehouse load"
        )
    # runs first: rows that arrive meanwhile then count as loaded and never as missing
    runs = _runs(warehouse)
    failures = _failures(warehouse, now - shared_setting("give_up_after"))
    conversations = conversation_counts(warehouse)
    forgotten = dict(warehouse.rows("SELECT agent_id, count(*) FROM {forgotten} GROUP BY agent_id"))
    too_old = dict(warehouse.rows("SELECT agent_id, too_old FROM {retention}"))
    names = dict(warehouse.rows("SELECT agent_id, agent_name FROM {agents}"))
    turns = {} if quick else turn_counts(warehouse)
    tables = {} if quick else table_counts(warehouse)
    known = sorted({*runs, *conversations, *failures, *_configured()})
    if unknown := sorted(set(agent_ids) - set(known)):
        raise ConfigurationError(
            f"agent {', '.join(unknown)} is neither in the warehouse nor configured "
            f"(known: {', '.join(known)})"
        )
    found = []
    for agent_id in known if not agent_ids else dict.fromkeys(agent_ids):
        own = runs.get(agent_id, _AgentRuns())
        ended_at = own.success.finished_at if own.success else None
        # never negative, also if this clock is behind the loader's
        age = max(now - ended_at, timedelta(0)) if ended_at else None
        loaded = loaded_through(warehouse, agent_id)
        is_unequal = agent_id in turns and turns[agent_id].unequal > 0
        found.append(
            AgentStatus(
                agent_id,
                runs=own.newest,
                unfinished=own.unfinished,
                last_success=own.success,
                age=age,
                is_stale=max_age is not None and (age is None or age > max_age),
                api_count=own.api_count,
                absent=own.absent,
                count_excess=own.count_excess,
                conversations=conversations.get(agent_id, ConversationCounts()),
                failures=failures.get(agent_id, Failures()),
                forgotten=forgotten.get(agent_id, 0),
                too_old=too_old.get(agent_id) or 0,
                agent_name=names.get(agent_id),
                turns=turns.get(agent_id),
                unequal_turns=some_unequal_turns(warehouse, agent_id, SHOWN_CONVERSATIONS)
                if is_unequal
                else {},
                tables=tables.get(agent_id, {}),
                source_api=loaded[0] if loaded else None,
                last_verify=own.verified,
            )
        )
    pipeline = warehouse.pipeline
    return Status(
        now,
        max_age,
        tuple(found),
        destination_label(pipeline),
        str(pipeline.destination.destination_name),
        pipeline.dataset_name,
    )


def _exists(warehouse: Warehouse, table: str) -> bool:
    return bool(warehouse.rows(f"SELECT count(*) FROM {{{table}}} WHERE 1 = 0"))


def _configured() -> list[str]:
    """Returns the configured agents; empty if the configuration is incomplete."""
    try:
        return [agent.agent_id for agent in resolve().agents]
    except ConfigurationError:
        return []


@dataclass(frozen=True)
class _AgentRuns:
    """Runs of an agent, and what they recorded."""

    newest: tuple[Run, ...] = ()
    unfinished: tuple[Run, ...] = ()
    success: Run | None = None
    api_count: int | None = None
    absent: int | None = None
    count_excess: int | None = None
    verified: Run | None = None


def _runs(warehouse: Warehouse) -> dict[str, _AgentRuns]:
    """Reads the relevant runs by agent; a warehouse gets about 100,000 of them per year."""
    # columns that an earlier version did not write are added by the next load
    names = [
        column.name
        for column in fields(Run)
        if column.default is MISSING or _has_column(warehouse, column.name)
    ]
    kinds = {
        "success": f"({complete_load_sql()})",
        "counted": "api_count IS NOT NULL",
        "swept": "absent IS NOT NULL" if "absent" in names else "1 = 0",
        "verified": "findings IS NOT NULL" if "findings" in names else "1 = 0",
        "unfinished": "status = 'running'",
    }
    numbered = ", ".join(
        f"CASE WHEN {condition} THEN row_number() OVER (PARTITION BY agent_id, "
        f"CASE WHEN {condition} THEN 1 ELSE 0 END ORDER BY started_at DESC) END AS nth_{kind}"
        for kind, condition in kinds.items()
    )
    rows = warehouse.rows(
        f"""
        SELECT agent_id, nth, nth_success, nth_counted, nth_swept, nth_verified,
            nth_unfinished,
            {", ".join(names)}
        FROM (
            SELECT agent_id, {", ".join(names)}, {numbered},
                row_number() OVER (PARTITION BY agent_id ORDER BY started_at DESC) AS nth
            FROM {{sync_runs}}
        ) numbered
        WHERE nth <= {SHOWN_RUNS} OR nth_success = 1 OR nth_counted = 1 OR nth_swept = 1
        OR nth_verified = 1 OR nth_unfinished <= {SHOWN_RUNS}
        ORDER BY agent_id, nth
        """
    )
    found: dict[str, _AgentRuns] = {}
    for agent_id in dict.fromkeys(row[0] for row in rows):
        own = [
            (row[1:7], Run(**dict(zip(names, map(_in_utc, row[7:])))))
            for row in rows
            if row[0] == agent_id
        ]
        found[agent_id] = _AgentRuns(
            newest=tuple(run for (nth, *_), run in own if nth <= SHOWN_RUNS),
            unfinished=tuple(run for (*_, nth), run in own if nth is not None),
            success=next((run for nths, run in own if nths[1] == 1), None),
            api_count=next((run.api_count for nths, run in own if nths[2] == 1), None),
            absent=next((run.absent for nths, run in own if nths[3] == 1), None),
            count_excess=next((run.count_excess for nths, run in own if nths[2] == 1), None),
            verified=next((run for nths, run in own if nths[4] == 1), None),
        )
    return found


def _has_column(warehouse: Warehouse, name: str) -> bool:
    try:
        warehouse.rows(f"SELECT {name} FROM {{sync_runs}} WHERE 1 = 0")
    except DestinationError:
        return False
    return True


def _failures(warehouse: Warehouse, given_up_until: datetime) -> dict[str, Failures]:
    """Reads open failures by agent; those that began until `given_up_until` are given up."""
    not_held = dict(
        warehouse.rows(
            """
            SELECT f.agent_id, count(*) FROM {fetch_failures} f
            WHERE f.resolved_at IS NULL AND f.stage IN ('detail', 'listing') AND NOT EXISTS (
                SELECT 1 FROM {conversations} c
                WHERE c.agent_id = f.agent_id AND c.conversation_id = f.conversation_id
            )
            GROUP BY f.agent_id
            """
        )
    )
    names = ", ".join(column.name for column in fields(OpenFailure))
    named: dict[str, list[OpenFailure]] = {}
    for agent_id, *values in warehouse.rows(
        f"""
        SELECT agent_id, {names} FROM (
            SELECT agent_id, {names}, row_number() OVER (
                PARTITION BY agent_id ORDER BY first_failed_at, conversation_id, stage
            ) AS nth
            FROM {{fetch_failures}} WHERE resolved_at IS NULL
        ) numbered
        WHERE nth <= {SHOWN_CONVERSATIONS} ORDER BY agent_id, nth
        """
    ):
        named.setdefault(agent_id, []).append(OpenFailure(*map(_in_utc, values)))
    return {
        agent_id: Failures(
            int(open_),
            int(given_up),
            int(not_held.get(agent_id, 0)),
            tuple(named.get(agent_id, ())),
        )
        for agent_id, open_, given_up in warehouse.rows(
            """
            SELECT agent_id, count(*), sum(CASE WHEN first_failed_at <= %s THEN 1 ELSE 0 END)
            FROM {fetch_failures} WHERE resolved_at IS NULL GROUP BY agent_id
            """,
            given_up_until,
        )
    }


def _in_utc(value: Any) -> Any:
    return in_utc(value) if isinstance(value, datetime) else value
