"""Results of scenarios: chats, turns, and their checks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from ..config.settings import Settings
from ..errors import AccessError, printable
from ..shape.redaction import Redaction
from ..tables.rules import DROPPED
from .chat import ChatSetup

Outcome = Literal["passed", "failed", "error", "skipped"]
"""Outcome of a scenario: all expectations were met; one was not, or the agent ended the chat too
early; the chat was stopped by an error; the run was interrupted first."""


@dataclass(frozen=True)
class Check:
    """Result of one expectation.

    Attributes:
        expected: Description of the expectation.
        is_met: True if the answer met it.
        actual: Description of the actual value; None if transcripts are not kept.
    """

    expected: str
    is_met: bool
    actual: str | None

    def __str__(self) -> str:
        return self.expected if self.actual is None else f"{self.expected}: {self.actual}"


@dataclass(frozen=True)
class TurnResult:
    """Result of one turn.

    Attributes:
        turn_index: 0 for the greeting.
        user_input: The message; None for the greeting, and if transcripts are not kept.
        response: The agent's answer; None if transcripts are not kept.
        latency_seconds: Time from the request to the end of the answer.
        is_delayed: True if the agent announced a delayed answer.
        metadata: As sent by the API; None if transcripts are not kept.
        extra: All other fields of the answer; None if there are none.
        checks: Results of the turn's expectations.
    """

    turn_index: int
    user_input: str | None
    response: str | None
    latency_seconds: float
    is_delayed: bool
    metadata: Mapping[str, Any] | None
    extra: Mapping[str, Any] | None
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool | None:
        """True if all expectations were met; None if there are none."""
        return all(check.is_met for check in self.checks) if self.checks else None

    @property
    def unmet(self) -> list[Check]:
        """Checks that were not met."""
        return [check for check in self.checks if not check.is_met]


@dataclass(frozen=True)
class ScenarioResult:
    """Result of one scenario.

    Attributes:
        suite: Name of the suite.
        scenario: Name of the scenario.
        place: Position of its definition, `file:line:column`.
        agent_id: The agent.
        setup: Options of the chat.
        chat_id: PolyAI's id of the conversation; None if no chat was started.
        outcome: The outcome.
        started_at: Start of the scenario.
        finished_at: Time of its last answer or error.
        has_ended: True if the agent ended the chat.
        turns: Completed turns; turn 0 is the greeting.
        failure: Reason for a failure other than an expectation; None otherwise.
        error: Error that stopped the chat; None if it was completed.
        error_kind: Name of the error's class.
        attempts: Number of chats that were started; more than one if an answer was lost.
    """

    suite: str
    scenario: str
    place: str
    agent_id: str
    setup: ChatSetup
    chat_id: str | None
    outcome: Outcome
    started_at: datetime
    finished_at: datetime
    has_ended: bool
    turns: tuple[TurnResult, ...]
    failure: str | None = None
    error: str | None = None
    error_kind: str | None = None
    attempts: int = 1

    @property
    def seconds(self) -> float:
        """Duration."""
        return (self.finished_at - self.started_at).total_seconds()

    @property
    def reasons(self) -> list[str]:
        """Reasons why it did not pass, without characters that a terminal would execute."""
        unmet = [f"turn {turn.turn_index}: {check}" for turn in self.turns for check in turn.unmet]
        found = [*unmet, *(reason for reason in (self.failure, self.error) if reason)]
        return list(map(printable, found))


@dataclass(frozen=True)
class ChatsRun:
    """Result of one run.

    Attributes:
        run_id: Id of the run.
        label: Label of the tested version.
        files: Files by suite name.
        scenarios: Results in the order of the files.
        started_at: Start of the run.
        finished_at: End of the run.
        stopped_by: Refusal of the key that stopped the run; None otherwise.
        is_interrupted: True if the run was interrupted.
    """

    run_id: str
    label: str | None
    files: Mapping[str, Path]
    scenarios: tuple[ScenarioResult, ...]
    started_at: datetime
    finished_at: datetime
    stopped_by: AccessError | None = None
    is_interrupted: bool = False

    @property
    def seconds(self) -> float:
        """Duration."""
        return (self.finished_at - self.started_at).total_seconds()

    @property
    def passed(self) -> bool:
        """True if all scenarios passed."""
        return self.count("passed") == len(self.scenarios)

    def count(self, outcome: Outcome) -> int:
        """Returns the number of scenarios with this outcome."""
        return sum(one.outcome == outcome for one in self.scenarios)


_WORDS = re.compile(r"\b((?:contains?|matches|state .*? is) ).+", re.DOTALL)
"""Description of an expectation that has words of the conversation at its end."""


class ResultRedaction:
    """Redaction of results, under the same settings as the tables of conversations.

    Args:
        settings: `pii`, `pii_secret` and `transcripts`.
    """

    def __init__(self, settings: Settings) -> None:
        self._redaction = Redaction.of(settings)
        self._drops_transcripts = settings.transcripts == "drop"

    def scenario(self, result: ScenarioResult) -> ScenarioResult:
        """Returns the result with personal data and transcripts redacted."""
        return replace(
            result,
            turns=tuple(self._turn(turn) for turn in result.turns),
            failure=self._text(result.failure),
        )

    def _turn(self, turn: TurnResult) -> TurnResult:
        if self._drops_transcripts:
            checks = tuple(
                replace(check, expected=_WORDS.sub(rf"\1{DROPPED}", check.expected), actual=None)
                for check in turn.checks
            )
            return replace(
                turn, user_input=None, response=None, metadata=None, extra=None, checks=checks
            )
        redacted = self._redaction.value
        return replace(
            turn,
            user_input=redacted(turn.user_input),
            response=redacted(turn.response),
            metadata=redacted(turn.metadata),
            extra=redacted(turn.extra),
            checks=tuple(
                replace(check, expected=redacted(check.expected), actual=redacted(check.actual))
                for check in turn.checks
            ),
        )

    def _text(self, text: str | None) -> str | None:
        return None if text is None else self._redaction.text(text)
