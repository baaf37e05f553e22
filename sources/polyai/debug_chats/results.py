"""What came of scenarios: each chat with its turns, what was expected, and what was there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from ..config.settings import Settings
from ..errors import AccessError
from ..shape.redaction import Redaction
from .chat import ChatSetup

Outcome = Literal["passed", "failed", "error", "skipped"]
"""How a scenario ended: every expectation was met; one was not, or the agent ended the chat too
early; something kept the chat from going on; the run ended before the scenario did."""


@dataclass(frozen=True)
class Check:
    """One expectation against the answer.

    Attributes:
        expected: What was expected, in words.
        is_met: Whether it was.
        actual: What was there; None where transcripts are not kept.
    """

    expected: str
    is_met: bool
    actual: str | None

    def __str__(self) -> str:
        return self.expected if self.actual is None else f"{self.expected}: {self.actual}"


@dataclass(frozen=True)
class TurnResult:
    """One turn that was had.

    Attributes:
        turn_index: 0 is the greeting.
        user_input: What was said; None for the greeting, and where transcripts are not kept.
        response: What the agent said; None where transcripts are not kept.
        latency_seconds: From the request to the end of the answer.
        is_delayed: Whether the agent said that its real answer is still to come.
        metadata: As the API sends it; None where transcripts are not kept.
        extra: Fields of the answer that have no place here; None where there are none.
        checks: What was expected of it.
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
        """Whether everything that was expected was met; None where nothing was."""
        return all(check.is_met for check in self.checks) if self.checks else None

    @property
    def unmet(self) -> list[Check]:
        """The expectations that were not met."""
        return [check for check in self.checks if not check.is_met]


@dataclass(frozen=True)
class ScenarioResult:
    """One scenario that was tried.

    Attributes:
        suite: Its suite's name.
        scenario: Its name.
        place: Where it stands, `file:line:column`.
        agent_id: The agent.
        setup: What the chat was begun with.
        chat_id: PolyAI's id of the conversation; None where none began.
        outcome: How it ended.
        started_at: When it began.
        finished_at: When its last answer was there.
        has_ended: Whether the agent ended the chat.
        turns: Those that were had; turn 0 is the greeting.
        failure: Why it failed although every expectation was met; None otherwise.
        error: What kept it from going on; None where it went to its end.
        error_kind: The name of that error.
        attempts: Chats that were begun; more than one where an answer was lost.
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
        """How long it took."""
        return (self.finished_at - self.started_at).total_seconds()

    @property
    def reasons(self) -> list[str]:
        """Why it did not pass, a line each."""
        unmet = [f"turn {turn.turn_index}: {check}" for turn in self.turns for check in turn.unmet]
        return [*unmet, *(why for why in (self.failure, self.error) if why)]


@dataclass(frozen=True)
class ChatsRun:
    """What came of all scenarios of one run.

    Attributes:
        run_id: The run's own id.
        label: What was tested, as the run was told.
        files: Suites by name, with their files.
        scenarios: Results in the order of the files.
        started_at: When it began.
        finished_at: When it ended.
        stopped_by: What made it end before its end: the key is refused. None: nothing did.
        is_interrupted: Whether it was told to end.
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
        """How long it took."""
        return (self.finished_at - self.started_at).total_seconds()

    @property
    def passed(self) -> bool:
        """Whether every scenario passed."""
        return self.count("passed") == len(self.scenarios)

    def count(self, outcome: Outcome) -> int:
        """Scenarios that ended so."""
        return sum(one.outcome == outcome for one in self.scenarios)


class Concealment:
    """Hides in results what the settings keep out of the warehouse.

    Args:
        settings: `pii` and `transcripts`.
    """

    def __init__(self, settings: Settings) -> None:
        self._redaction = Redaction(settings.pii, settings.pii_secret, settings.transcripts)
        self._drops_transcripts = settings.transcripts == "drop"

    def scenario(self, result: ScenarioResult) -> ScenarioResult:
        """The same result with everything hidden that is to be hidden."""
        return replace(
            result,
            turns=tuple(self._turn(turn) for turn in result.turns),
            failure=self._text(result.failure),
        )

    def _turn(self, turn: TurnResult) -> TurnResult:
        # by the names that the redaction knows spoken words by
        shown = self._redaction.applied(
            {
                "user_input": turn.user_input,
                "agent_response": turn.response,
                "metadata": turn.metadata,
                "extra": turn.extra,
                "checks": [
                    {"expected": check.expected, "content": check.actual} for check in turn.checks
                ],
            }
        )
        return replace(
            turn,
            user_input=shown.get("user_input"),
            response=shown.get("agent_response"),
            metadata=shown.get("metadata"),
            # what is not known may be words
            extra=None if self._drops_transcripts else shown["extra"],
            checks=tuple(
                replace(check, expected=hidden["expected"], actual=hidden.get("content"))
                for check, hidden in zip(turn.checks, shown["checks"])
            ),
        )

    def _text(self, text: str | None) -> str | None:
        text_: str | None = self._redaction.applied({"text": text})["text"]
        return text_
