"""A conversation as the API answered it, and what the warehouse holds of it already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from .values import text

Json = dict[str, Any]

DATA = "data"
V3 = "conversations_v3"


@dataclass(frozen=True)
class Held:
    """What the warehouse holds of a conversation, as far as a new answer has to respect it."""

    num_turns: int | None
    num_silences: int | None
    num_ood: int | None
    poly_score: float | None
    poly_score_scale: str | None
    note: str | None
    source_api: str = DATA
    columns: Mapping[str, Any] = field(default_factory=dict)
    """All columns of its row, as the destination gives them."""
    children: dict[str, dict[tuple[Any, ...], Mapping[str, Any]]] = field(default_factory=dict)
    """Rows of child tables by their key behind the conversation's: those of which the new answer
    does not tell everything."""


@dataclass(frozen=True)
class NoteVersion:
    """One version of a note; `valid_to` is None while it is the current one."""

    note: str
    valid_from: datetime
    valid_to: datetime | None = None


@dataclass(frozen=True)
class Answer:
    """One conversation as the API answered it.

    Attributes:
        conversation_id: its id.
        detail: what was answered, in the words of the Data API.
        summary_hash: tells whether what is listed of it has changed since.
        fetched_at: when it was answered.
        held: what there is of it already.
        apis: the APIs that were asked.
        source_api: the one that listed it.
    """

    conversation_id: str
    detail: Json
    summary_hash: str
    fetched_at: datetime
    held: Held | None = None
    apis: frozenset[str] = frozenset({DATA})
    source_api: str = DATA
    may_be_torn: bool = False
    """A run that was killed may have left rows of its child tables, and none of its own."""
    note_history: Sequence[NoteVersion] = ()
    """Held versions of the note, oldest first; only read where the note has changed."""

    def with_note_history(self, history: Sequence[NoteVersion]) -> Answer:
        """The same answer, knowing the held versions of its note."""
        return replace(self, note_history=history) if history else self

    @property
    def may_have_rows(self) -> bool:
        """Whether child tables may have rows that have to go where this answer has none."""
        return self.held is not None or self.may_be_torn

    @property
    def keeps_extra(self) -> bool:
        """Whether fields without a column may be held that only another API sends."""
        held = self.held
        return held is not None and (DATA not in self.apis or held.source_api != self.source_api)

    @property
    def note(self) -> str | None:
        """The note as it is now."""
        return text(self.detail.get("note"))

    @property
    def has_other_note(self) -> bool:
        """Whether a note may be held that is not, or no longer, the one of this answer."""
        if DATA not in self.apis:
            return False  # it says nothing of notes
        return self.may_be_torn or (self.held is not None and self.held.note != self.note)

    def note_versions(self) -> list[NoteVersion]:
        """Its whole history where it changed, so that the merge replaces it; else nothing."""
        note = self.note
        if DATA not in self.apis or (self.held and not self.has_other_note):
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
