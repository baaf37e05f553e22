"""One conversation as the API answered it, with its rows that are already in the warehouse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from ..config.agent import DATA
from .values import text

Json = dict[str, Any]


@dataclass(frozen=True)
class LoadedConversation:
    """Rows of a conversation in the warehouse that a new answer must not erase."""

    num_turns: int | None
    num_silences: int | None
    num_ood: int | None
    note: str | None
    source_api: str = DATA
    columns: Mapping[str, Any] = field(default_factory=dict)
    """All columns of its row in `conversations`, as the destination returns them."""
    children: dict[str, dict[tuple[Any, ...], Mapping[str, Any]]] = field(default_factory=dict)
    """Rows of child tables by table and key (after agent_id and conversation_id), for tables that
    the APIs of the new answer fill only partly."""


@dataclass(frozen=True)
class NoteVersion:
    """One version of a note; `valid_to` of the current one is None."""

    note: str
    valid_from: datetime
    valid_to: datetime | None = None


@dataclass(frozen=True)
class Answer:
    """One conversation as the API answered it.

    Attributes:
        conversation_id: The conversation.
        detail: The answer, with the field names of the Data API.
        summary_hash: Hash of the list row, to detect changes.
        fetched_at: Time of the answer.
        loaded: Its rows that are already in the warehouse.
        apis: APIs that answered.
        source_api: API that listed it.
    """

    conversation_id: str
    detail: Json
    summary_hash: str
    fetched_at: datetime
    loaded: LoadedConversation | None = None
    apis: frozenset[str] = frozenset({DATA})
    source_api: str = DATA
    may_be_partially_loaded: bool = False
    """True if a killed run may have left rows of its child tables without a row of its own."""
    note_history: Sequence[NoteVersion] = ()
    """Loaded versions of the note, oldest first; only read where the note has changed."""

    def with_note_history(self, history: Sequence[NoteVersion]) -> Answer:
        """Returns the answer with the loaded versions of its note."""
        return replace(self, note_history=history) if history else self

    @property
    def may_have_rows(self) -> bool:
        """True if child tables may have rows to delete where this answer has none."""
        return self.loaded is not None or self.may_be_partially_loaded

    @property
    def keeps_extra(self) -> bool:
        """True if the loaded `extra` may contain fields that only another API sends."""
        loaded = self.loaded
        return loaded is not None and (
            DATA not in self.apis or loaded.source_api != self.source_api
        )

    @property
    def note(self) -> str | None:
        """The current note."""
        return text(self.detail.get("note"))

    @property
    def has_changed_note(self) -> bool:
        """True if the warehouse may contain another note than this answer."""
        if DATA not in self.apis:
            return False  # only the Data API sends notes
        return self.may_be_partially_loaded or (
            self.loaded is not None and self.loaded.note != self.note
        )

    def note_versions(self) -> list[NoteVersion]:
        """Returns the whole history of a changed note, for the merge to replace; else nothing."""
        note = self.note
        if DATA not in self.apis or (self.loaded and not self.has_changed_note):
            return []
        history = list(self.note_history)
        if history and history[-1].valid_to is None:
            if history[-1].note == note:
                return history
            last = history.pop()
            history.append(NoteVersion(last.note, last.valid_from, self.fetched_at))
        if note:
            history.append(NoteVersion(note, self.fetched_at))
        return history
