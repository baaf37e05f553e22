"""Status of a warehouse as values: freshness, last runs, failures, consistency of rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from ..console.exit_codes import ExitCode
from ..tables.rules import missing
from ..warehouse.counts import ConversationCounts, TableCounts, TurnCounts


@dataclass(frozen=True)
class Run:
    """Row of `sync_runs`; the fields are named like its columns."""

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
    count_excess: int | None = None
    unaccounted: int | None = None
    findings: int | None = None


@dataclass(frozen=True)
class OpenFailure:
    """Open row of `fetch_failures`; the fields are named like its columns."""

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
    """Conversations of an agent that could not be read.

    Attributes:
        open: All of them.
        given_up: Those that are too old to be retried, except by a full load.
        not_held: Those without a row in the warehouse; the others failed when they were read again.
        named: The oldest ones.
    """

    open: int = 0
    given_up: int = 0
    not_held: int = 0
    named: tuple[OpenFailure, ...] = ()

    @property
    def retried(self) -> int:
        """Number that the next load retries."""
        return self.open - self.given_up


@dataclass(frozen=True)
class AgentStatus:
    """Status of one agent.

    Attributes:
        agent_id: The agent.
        runs: The newest runs of any kind, newest first.
        unfinished: Runs without an end: still running, or killed.
        last_success: The newest load that read everything.
        age: Time since it ended; None if there is none.
        is_stale: There is none, or it is older than the maximum age.
        api_count: Conversations that the API last reported.
        absent: Loaded conversations that the last full load did not find in the listing; None
            before the first full load.
        count_excess: Conversations that the API counts beyond those that it lists; None before a
            walk over the whole list.
        conversations: Counts of the loaded conversations.
        failures: Conversations that could not be read.
        forgotten: Number of erased conversations.
        too_old: Number of conversations that the API lists and that are too old to be loaded.
        agent_name: Name of the agent; None if it is unknown.
        turns: Turns compared with `num_turns`; None if they were not compared.
        unequal_turns: Some conversations whose turns differ: `num_turns` and number of rows.
        tables: Rows by table; empty if they were not counted.
        source_api: API through which the last load read the agent; None if none has.
        last_verify: The newest verification of its recordings; None if there is none.
    """

    agent_id: str
    runs: tuple[Run, ...]
    unfinished: tuple[Run, ...]
    last_success: Run | None
    age: timedelta | None
    is_stale: bool
    api_count: int | None
    absent: int | None
    count_excess: int | None
    conversations: ConversationCounts
    failures: Failures
    forgotten: int = 0
    too_old: int = 0
    agent_name: str | None = None
    turns: TurnCounts | None = None
    unequal_turns: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    tables: Mapping[str, TableCounts] = field(default_factory=dict)
    source_api: str | None = None
    last_verify: Run | None = None

    @property
    def was_begun(self) -> bool:
        """True if it has any run or row."""
        return bool(self.runs) or self.conversations != ConversationCounts()

    @property
    def missing(self) -> int | None:
        """Conversations that the API reported and that are neither loaded, failed nor erased."""
        return missing(
            self.api_count,
            self.conversations.held,
            erased=self.forgotten,
            absent=self.absent,
            excess=self.count_excess,
            pending=self.conversations.incomplete + self.failures.not_held,
            too_old=self.too_old,
        )

    @property
    def is_consistent(self) -> bool:
        """True if no duplicate, lost or orphan row was found."""
        return not (self.turns and self.turns.unequal) and not any(
            counts.doubled or counts.orphans for counts in self.tables.values()
        )


@dataclass(frozen=True)
class Status:
    """Status of a warehouse.

    Attributes:
        checked_at: Time of the check.
        max_age: Age of the last complete load above which an agent is stale.
        agents: Status per agent.
        place: Destination and dataset, for people.
        destination: Name of the destination.
        dataset: Name of the dataset.
    """

    checked_at: datetime
    max_age: timedelta | None
    agents: tuple[AgentStatus, ...]
    place: str
    destination: str
    dataset: str

    @property
    def is_healthy(self) -> bool:
        """True if no agent is stale or inconsistent."""
        return all(agent.is_consistent and not agent.is_stale for agent in self.agents)

    @property
    def exit_code(self) -> ExitCode:
        """Exit code of the command."""
        return ExitCode.DONE if self.is_healthy else ExitCode.CONFIGURATION
