"""Results of retention, by agent and of a whole run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..console.exit_codes import ExitCode
from ..warehouse.holds import Hold
from .due import Limits


@dataclass
class AgentRetention:
    """Result, or plan, of the deletion for one agent.

    Attributes:
        agent_id: The agent.
        limits: Times before which something is too old.
        conversations: Number of deleted conversations.
        transcripts: Number of conversations whose words were deleted.
        rows: Numbers of deleted rows by table, with those of deleted recordings.
        changed_rows: Numbers of rows whose words were deleted, by table.
        recordings: Number of deleted audio files.
        locked: Number of deleted files of which the bucket keeps a version, under Object Lock.
        on_hold: Conversations that were left because of a legal hold, with its reason.
        error: Error that prevented the completion.
    """

    agent_id: str
    limits: Limits
    conversations: int = 0
    transcripts: int = 0
    rows: Counter[str] = field(default_factory=Counter)
    changed_rows: Counter[str] = field(default_factory=Counter)
    recordings: int = 0
    locked: int = 0
    on_hold: dict[str, str | None] = field(default_factory=dict)
    error: str | None = None

    def leave(self, on_hold: Mapping[str, Hold]) -> None:
        """Notes conversations that were left because of a legal hold."""
        self.on_hold |= {name: hold.reason for name, hold in on_hold.items()}


@dataclass(frozen=True)
class Retention:
    """Result, or plan, of a run.

    Attributes:
        agents: One result per agent.
        copies: Copies for readers that were made again, or would be.
        is_rewritten: True if the warehouse is files that were rewritten.
        is_interrupted: True if `stop` was set before the end.
    """

    agents: list[AgentRetention] = field(default_factory=list)
    copies: list[str] = field(default_factory=list)
    is_rewritten: bool = False
    is_interrupted: bool = False

    @property
    def errors(self) -> list[str]:
        """Errors of the agents."""
        return [one.error for one in self.agents if one.error]

    @property
    def exit_code(self) -> ExitCode:
        """Exit code of the command."""
        if self.is_interrupted:
            return ExitCode.INTERRUPTED
        if self.errors:
            return ExitCode.CONFIGURATION
        is_left = any(one.on_hold or one.locked for one in self.agents)
        return ExitCode.SOME_FAILED if is_left else ExitCode.DONE
