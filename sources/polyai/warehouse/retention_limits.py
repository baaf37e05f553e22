"""Limits of retention: times before which conversations and their words were deleted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ..clock import in_utc, timestamp_or_none
from ..config.retention import Ages, limit
from ..tables.conversations import CONVERSATIONS
from ..tables.rules import ENDED_AT
from .queries import Warehouse

_FIELDS = CONVERSATIONS.fields("")
"""Field of the Data API by column."""


@dataclass(frozen=True)
class RetentionLimits:
    """Limits for one agent.

    Attributes:
        conversations_before: Conversations that ended before are deleted and not loaded again.
        transcripts_before: Of conversations that ended before, words are deleted and not loaded.
        too_old: Conversations that the API counts and that are not loaded because they are too old.
        applied_at: Start of the run that applied them last.
    """

    conversations_before: datetime | None = None
    transcripts_before: datetime | None = None
    too_old: int = 0
    applied_at: datetime | None = None

    def at(self, ages: Ages, now: datetime) -> RetentionLimits:
        """Returns the limits at a time: those of the settings, but never earlier than these."""
        return RetentionLimits(
            _later(self.conversations_before, limit(ages.conversations, now)),
            _later(self.transcripts_before, limit(ages.transcripts, now)),
            self.too_old,
            self.applied_at,
        )

    def is_too_old(self, conversation: Mapping[str, Any]) -> bool:
        """Returns whether a conversation is not to be loaded.

        Args:
            conversation: List row or detail, with the names of either API's fields.
        """
        return _is_before(conversation, self.conversations_before)

    def has_old_words(self, conversation: Mapping[str, Any]) -> bool:
        """Returns whether a conversation is to be loaded without its words."""
        return _is_before(conversation, self.transcripts_before)


def retention_limits(warehouse: Warehouse, agent_id: str) -> RetentionLimits:
    """Returns the limits that were applied to an agent."""
    rows = warehouse.rows(
        "SELECT conversations_before, transcripts_before, too_old, applied_at FROM {retention} "
        "WHERE agent_id = %s",
        agent_id,
    )
    if not rows:
        return RetentionLimits()
    conversations_before, transcripts_before, too_old, applied_at = rows[0]
    return RetentionLimits(
        in_utc(conversations_before),
        in_utc(transcripts_before),
        int(too_old or 0),
        in_utc(applied_at),
    )


def _later(one: datetime | None, other: datetime | None) -> datetime | None:
    return max((time for time in (one, other) if time is not None), default=None)


def _is_before(conversation: Mapping[str, Any], before: datetime | None) -> bool:
    if before is None:
        return False
    times = {
        column: timestamp_or_none(conversation.get(_FIELDS[column]) or conversation.get(column))
        for column in ENDED_AT.columns
    }
    ended_at = ENDED_AT.of(times)
    return ended_at is not None and ended_at < before
