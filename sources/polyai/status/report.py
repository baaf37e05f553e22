"""How a warehouse stands: how fresh it is, how its runs went, whether its rows agree.

Everything is read from the destination: PolyAI is asked nothing, no key is needed, and nothing is
written, so it works on any machine that reaches the destination.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from typing import Any

from ..clock import Clock, in_utc, utc_now
from ..config.settings import resolve, shared_setting
from ..errors import ConfigurationError, DestinationError
from ..tables.rules import complete_load_sql, missing
from ..warehouse.counts import (
    ConversationCounts,
    TableCounts,
    TurnCounts,
    conversation_counts,
    some_unequal_turns,
    table_counts,
    turn_counts,
)
from ..warehouse.open import destination_label
from ..warehouse.queries import Warehouse

SHOWN_RUNS = 5
"""Newest runs of an agent that are told of."""

SHOWN_CONVERSATIONS = 10
"""Conversations that are named for each thing that is wrong with them."""


@dataclass(frozen=True)
class Run:
    """A row of `sync_runs`; the names are its columns."""

    run_id: str
    command: str
    status: str
    started_at: datetime
    finished_at: datetime | None
    listed: int | None
    api_count: int | None
    new: int | None
    changed: int | None
    settled: int | None
    unchanged: int | None
    fetched: int | None
    failed: int | None
    withheld: int | None
    requests: int | None
    retries: int | None
    error: str | None
    given_up: int | None = None
    absent: int | None = None


@dataclass(frozen=True)
class OpenFailure:
    """An open row of `fetch_failures`; the names are its columns."""

    conversation_id: str
    stage: str
    attempts: int
    http_status: int | None
    error_code: str | None
    error_id: str | None
    message: str | None
    first_failed_at: datetime
    last_failed_at: datetime


@dataclass(frozen=True)
class Failures:
    """Conversations of an agent that could not be read."""

    open: int = 0
    given_up: int = 0
    """Those among them that are too old to be tried again, but by a full load."""
    not_held: int = 0
    """Those among them that have no row; the others failed when they were read again."""
    named: tuple[OpenFailure, ...] = ()
    """The oldest."""

    @property
    def retried(self) -> int:
        """Those that the next load tries again."""
        return self.open - self.given_up


@dataclass(frozen=True)
class AgentStatus:
    """How one agent stands.

    Attributes:
        agent_id: The agent.
        runs: The newest runs of any kind, newest first.
        unfinished: Runs that have not said how they ended: under way, or killed.
        last_success: The newest load that read all there was.
        age: Time since it ended; None where there was none.
        is_stale: There was none, or it is older than is asked for.
        api_count: Conversations that the API had when last asked.
        absent: Held ones that the last full load did not find listed; None before one.
        conversations: What is held.
        failures: What could not be read.
        forgotten: Conversations that were erased.
        turns: Turns against the counts of the answers; None where they are not compared.
        unequal_turns: Some conversations whose turns differ: `num_turns` and rows.
        tables: Rows by table; empty where they are not counted.
    """

    agent_id: str
    runs: tuple[Run, ...]
    unfinished: tuple[Run, ...]
    last_success: Run | None
    age: timedelta | None
    is_stale: bool
    api_count: int | None
    absent: int | None
    conversations: ConversationCounts
    failures: Failures
    forgotten: int = 0
    turns: TurnCounts | None = None
    unequal_turns: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    tables: Mapping[str, TableCounts] = field(default_factory=dict)

    @property
    def was_begun(self) -> bool:
        """A run has been at it, or rows of it are there all the same."""
        return bool(self.runs) or self.conversations != ConversationCounts()

    @property
    def missing(self) -> int | None:
        """Conversations that the API had and of which no trace is found."""
        return missing(
            self.api_count,
            self.conversations.held,
            erased=self.forgotten,
            absent=self.absent,
            pending=self.conversations.incomplete + self.failures.not_held,
        )

    @property
    def is_consistent(self) -> bool:
        """No row is doubled, lost or without its conversation, as far as was looked."""
        return not (self.turns and self.turns.unequal) and not any(
            counts.doubled or counts.orphans for counts in self.tables.values()
        )


@dataclass(frozen=True)
class Status:
    """How a warehouse stands."""

    checked_at: datetime
    max_age: timedelta | None
    agents: tuple[AgentStatus, ...]

    @property
    def is_healthy(self) -> bool:
        """Nothing is stale, and all rows agree."""
        return all(agent.is_consistent and not agent.is_stale for agent in self.agents)


def status(
    warehouse: Warehouse,
    *,
    agent_ids: Sequence[str] = (),
    max_age: timedelta | None = None,
    quick: bool = False,
    clock: Clock = utc_now,
) -> Status:
    """Looks at the whole warehouse.

    Args:
        warehouse: Where to look; see `open_to_read`.
        agent_ids: Only these; by default all that are found, and all that are configured.
        max_age: Age of the last successful load from which on an agent is stale.
        quick: Leave out what reads whole tables: turns and rows are neither counted nor compared.
        clock: What time it is.

    Raises:
        BusyError: A DuckDB file is locked for too long.
        ConfigurationError: An agent is unknown, or a setting is wrong.
        DestinationError: Nothing was ever loaded, or the destination cannot be read.
    """
    now = clock()
    if not any(_exists(warehouse, table) for table in ("sync_runs", "conversations")):
        raise DestinationError(
            f"nothing has been loaded into {destination_label(warehouse.pipeline)}: "
            "run polyai-warehouse load"
        )
    # first the runs: what lands meanwhile is then held too many, and never missing
    runs = _runs(warehouse)
    failures = _failures(warehouse, now - shared_setting("give_up_after"))
    conversations = conversation_counts(warehouse)
    forgotten = dict(warehouse.rows("SELECT agent_id, count(*) FROM {forgotten} GROUP BY agent_id"))
    turns = {} if quick else turn_counts(warehouse)
    tables = {} if quick else table_counts(warehouse)
    known = sorted({*runs, *conversations, *failures, *_configured()})
    if unknown := sorted(set(agent_ids) - set(known)):
        raise ConfigurationError(
            f"agent {', '.join(unknown)} is neither in the warehouse nor configured: "
            f"known are {', '.join(known)}"
        )
    found = []
    for agent_id in known if not agent_ids else dict.fromkeys(agent_ids):
        own = runs.get(agent_id, _AgentRuns())
        ended_at = own.success.finished_at if own.success else None
        # a clock that is behind the loader's makes nothing younger than new
        age = max(now - ended_at, timedelta(0)) if ended_at else None
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
                conversations=conversations.get(agent_id, ConversationCounts()),
                failures=failures.get(agent_id, Failures()),
                forgotten=forgotten.get(agent_id, 0),
                turns=turns.get(agent_id),
                unequal_turns=some_unequal_turns(warehouse, agent_id, SHOWN_CONVERSATIONS)
                if is_unequal
                else {},
                tables=tables.get(agent_id, {}),
            )
        )
    return Status(now, max_age, tuple(found))


def _exists(warehouse: Warehouse, table: str) -> bool:
    return bool(warehouse.rows(f"SELECT count(*) FROM {{{table}}} WHERE 1 = 0"))


def _configured() -> list[str]:
    """The configured agents, as far as they can be told without a key."""
    try:
        return [agent.agent_id for agent in resolve().agents]
    except ConfigurationError:
        return []


@dataclass(frozen=True)
class _AgentRuns:
    """What the runs of an agent tell."""

    newest: tuple[Run, ...] = ()
    unfinished: tuple[Run, ...] = ()
    success: Run | None = None
    api_count: int | None = None
    absent: int | None = None


def _runs(warehouse: Warehouse) -> dict[str, _AgentRuns]:
    """The runs that matter, by agent; a warehouse has a hundred thousand of them in a year."""
    names = [column.name for column in fields(Run)]
    try:
        warehouse.rows("SELECT given_up, absent FROM {sync_runs} WHERE 1 = 0")
    except DestinationError:
        # written by an earlier version; the next load adds the columns
        names = names[:-2]
    kinds = {
        "success": f"({complete_load_sql()})",
        "counted": "api_count IS NOT NULL",
        "swept": "absent IS NOT NULL" if "absent" in names else "1 = 0",
        "unfinished": "status = 'running'",
    }
    numbered = ", ".join(
        f"CASE WHEN {condition} THEN row_number() OVER (PARTITION BY agent_id, "
        f"CASE WHEN {condition} THEN 1 ELSE 0 END ORDER BY started_at DESC) END AS nth_{kind}"
        for kind, condition in kinds.items()
    )
    rows = warehouse.rows(
        f"""
        SELECT agent_id, nth, nth_success, nth_counted, nth_swept, nth_unfinished,
            {", ".join(names)}
        FROM (
            SELECT agent_id, {", ".join(names)}, {numbered},
                row_number() OVER (PARTITION BY agent_id ORDER BY started_at DESC) AS nth
            FROM {{sync_runs}}
        ) numbered
        WHERE nth <= {SHOWN_RUNS} OR nth_success = 1 OR nth_counted = 1 OR nth_swept = 1
        OR nth_unfinished <= {SHOWN_RUNS}
        ORDER BY agent_id, nth
        """
    )
    found: dict[str, _AgentRuns] = {}
    for agent_id in dict.fromkeys(row[0] for row in rows):
        own = [(row[1:6], Run(*map(_in_utc, row[6:]))) for row in rows if row[0] == agent_id]
        found[agent_id] = _AgentRuns(
            newest=tuple(run for (nth, *_), run in own if nth <= SHOWN_RUNS),
            unfinished=tuple(run for (*_, nth), run in own if nth is not None),
            success=next((run for nths, run in own if nths[1] == 1), None),
            api_count=next((run.api_count for nths, run in own if nths[2] == 1), None),
            absent=next((run.absent for nths, run in own if nths[3] == 1), None),
        )
    return found


def _failures(warehouse: Warehouse, given_up_until: datetime) -> dict[str, Failures]:
    """Open failures by agent; those that began up to the moment are given up."""
    not_held = dict(
        warehouse.rows(
            """
            SELECT f.agent_id, count(*) FROM {fetch_failures} f
            WHERE f.resolved_at IS NULL AND f.stage = 'detail' AND NOT EXISTS (
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
