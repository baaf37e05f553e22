"""Plans and results of erasures, by agent and of a whole run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from ..console.exit_codes import ExitCode
from ..shape.forgotten_callers import ForgottenCaller
from ..warehouse.holds import Hold
from ..warehouse.s3_objects import Locked
from .recording_files import DeletedFile
from .selection import Selection


@dataclass
class Erasure:
    """Result, or plan, of the erasure for one agent.

    Attributes:
        agent_id: The agent.
        conversations: Conversations with rows in the warehouse.
        not_held: Conversations without rows, which are not loaded later.
        callers: Number of callers whose earlier conversations are not loaded again.
        mentions: Conversations of others in which a caller is mentioned, with the places (such as
            `turns.user_input`). With `mentions="erase"` they are in `conversations` too.
        rows: Number of deleted rows by table.
        recordings: Number of deleted audio files.
        not_found: Callers without a conversation; by caller, those of the warehouse that come near.
        on_hold: Conversations that were left because of a legal hold, with its reason.
        callers_on_hold: Callers that were left for that reason, likewise.
        error: Error that prevented the completion.
        locked: Deleted files of which the bucket keeps a version, under Object Lock. The erasure
            is complete when a later run has deleted them.
        run_id: Run that erased, as in `sync_runs`; empty for a plan.
        requested_at: Start of the run.
        finished_at: End of the run.
        files: Deleted audio files.
        hashes: Callers as they are kept.
    """

    agent_id: str
    conversations: list[str]
    not_held: list[str]
    callers: int
    mentions: dict[str, list[str]] = field(default_factory=dict)
    rows: Counter[str] = field(default_factory=Counter)
    recordings: int = 0
    not_found: dict[str, list[str]] = field(default_factory=dict)
    on_hold: dict[str, str | None] = field(default_factory=dict)
    callers_on_hold: dict[str, str | None] = field(default_factory=dict)
    error: str | None = None
    locked: list[Locked] = field(default_factory=list)
    run_id: str = ""
    requested_at: datetime | None = None
    finished_at: datetime | None = None
    files: Sequence[DeletedFile] = ()
    hashes: Sequence[ForgottenCaller] = ()

    def leave(self, on_hold: Mapping[str, Hold]) -> None:
        """Notes conversations that were not erased because of a legal hold."""
        self.on_hold |= {name: hold.reason for name, hold in on_hold.items()}
        self.conversations = [name for name in self.conversations if name not in on_hold]
        self.not_held = [name for name in self.not_held if name not in on_hold]

    @classmethod
    def of(cls, selection: Selection) -> Erasure:
        """Returns the plan to erase a selection."""
        conversations = selection.conversations
        return cls(
            selection.agent_id,
            sorted(name for name, times in conversations.items() if times),
            sorted(name for name, times in conversations.items() if not times),
            len(selection.callers),
            selection.mentions,
            not_found=selection.not_found,
            on_hold=selection.on_hold,
            callers_on_hold=selection.callers_on_hold,
        )


@dataclass(frozen=True)
class Erasures:
    """Result, or plan, of a run.

    Attributes:
        agents: One erasure per agent.
        is_rewritten: True if the warehouse is files (DuckDB, DuckLake, SQLite) that were rewritten.
        error: Reason why the published copy still contains the erased data.
        copies: Published copies that were made again.
        is_interrupted: True if `stop` was set before the last agent.
    """

    agents: list[Erasure]
    is_rewritten: bool = False
    error: str | None = None
    copies: Sequence[str] = ()
    is_interrupted: bool = False

    @classmethod
    def planned(cls, selections: Sequence[Selection]) -> Erasures:
        """Returns what a run would erase."""
        return cls([Erasure.of(selection) for selection in selections])

    @property
    def is_complete(self) -> bool:
        """True if all that was found is erased."""
        return not (self.is_interrupted or self.problems)

    @property
    def problems(self) -> list[str]:
        """Errors and locked files, each once."""
        errors = [self.error, *(one.error for one in self.agents)]
        locked = [str(file) for one in self.agents for file in one.locked]
        return list(dict.fromkeys([*filter(None, errors), *locked]))

    @property
    def exit_code(self) -> ExitCode:
        """Exit code of the command."""
        if self.is_interrupted:
            return ExitCode.INTERRUPTED
        if self.error or any(one.error for one in self.agents):
            return ExitCode.CONFIGURATION
        is_left = any(one.on_hold or one.callers_on_hold or one.locked for one in self.agents)
        return ExitCode.SOME_FAILED if self.not_found or is_left else ExitCode.DONE

    @property
    def is_only_on_hold(self) -> bool:
        """True if there is nothing to erase but what is on legal hold."""
        return bool(self.agents) and not any(
            one.conversations or one.not_held or one.callers or one.not_found for one in self.agents
        )

    @property
    def not_found(self) -> dict[str, list[str]]:
        """Callers that no agent has a conversation of; by caller, those that come near."""
        callers = {caller for one in self.agents for caller in one.not_found}
        return {
            caller: list(
                dict.fromkeys(near for one in self.agents for near in one.not_found[caller])
            )
            for caller in sorted(callers)
            if all(caller in one.not_found for one in self.agents)
        }
