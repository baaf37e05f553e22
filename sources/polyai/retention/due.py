"""Conversations, recordings and words that are too old, in bounded parts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from ..clock import in_utc
from ..config.retention import Ages, limit
from ..tables.rules import ENDED_AT
from ..warehouse.holds import Hold, HoldKeys, Holds
from ..warehouse.queries import IDS_PER_QUERY, Warehouse
from ..warehouse.retention_limits import retention_limits

_BEGINNING = datetime(1, 1, 2, tzinfo=UTC)


@dataclass(frozen=True)
class Limits:
    """Times before which something is too old; None where nothing is deleted.

    Attributes:
        conversations: Limit of whole conversations, by their end.
        recordings: Limit of recordings, by the start of their conversation.
        transcripts: Limit of words, by the end of the conversation.
    """

    conversations: datetime | None
    recordings: datetime | None
    transcripts: datetime | None

    @classmethod
    def of(cls, ages: Ages, now: datetime) -> Limits:
        """Returns the limits at a time."""
        return cls(
            limit(ages.conversations, now),
            limit(ages.recordings, now),
            limit(ages.transcripts, now),
        )


class Due:
    """Conversations, recordings and words of one agent that are too old.

    Args:
        warehouse: The warehouse.
        agent_id: The agent.
        limits: The limits.
        keys: Settings by which callers on legal hold are recognized.

    Attributes:
        on_hold: Conversations that were left because of a legal hold, as far as they were read.
    """

    def __init__(self, warehouse: Warehouse, agent_id: str, limits: Limits, keys: HoldKeys) -> None:
        self._warehouse = warehouse
        self._agent_id = agent_id
        self._limits = limits
        self._holds = Holds(warehouse, agent_id, keys)
        self.on_hold: dict[str, Hold] = {}

    def conversations(self) -> Iterator[list[str]]:
        """Yields ids of conversations to delete, the oldest first."""
        if self._limits.conversations is not None:
            yield from self._ended(_BEGINNING, self._limits.conversations)

    def transcripts(self) -> Iterator[list[str]]:
        """Yields ids of conversations whose words are to be deleted, the oldest first.

        Loads drop the words of what is old already. So these are the conversations that have
        become old since the last run, or all where a legal hold was released since.
        """
        if self._limits.transcripts is not None:
            yield from self._ended(self._applied_until(), self._limits.transcripts)

    def has_recordings(self) -> bool:
        """Returns whether a recording is to be deleted."""
        if self._limits.recordings is None:
            return False
        place, last_id = _BEGINNING, ""
        while True:
            rows = self._warehouse.rows(
                "SELECT DISTINCT conversation_id, started_at FROM {recordings} "
                "WHERE agent_id = %s AND started_at < %s "
                "AND (started_at > %s OR (started_at = %s AND conversation_id > %s)) "
                f"ORDER BY started_at, conversation_id LIMIT {IDS_PER_QUERY}",
                self._agent_id,
                self._limits.recordings,
                place,
                place,
                last_id,
            )
            if self._not_on_hold([name for name, _ in rows]):
                return True
            if len(rows) < IDS_PER_QUERY:
                return False
            last_id, place = rows[-1][0], in_utc(rows[-1][1])

    def _applied_until(self) -> datetime:
        known = retention_limits(self._warehouse, self._agent_id)
        if known.transcripts_before is None or known.applied_at is None:
            return _BEGINNING
        released = self._warehouse.rows(
            "SELECT hold_id FROM {holds} WHERE agent_id = %s AND released_at >= %s LIMIT 1",
            self._agent_id,
            known.applied_at,
        )
        return _BEGINNING if released else known.transcripts_before

    def _ended(self, since: datetime, before: datetime) -> Iterator[list[str]]:
        ended_at = ENDED_AT.sql()
        last_end, last_id = since, ""
        while True:
            rows = self._warehouse.rows(
                f"SELECT conversation_id, {ended_at} FROM {{conversations}} WHERE agent_id = %s "
                f"AND {ended_at} < %s "
                f"AND ({ended_at} > %s OR ({ended_at} = %s AND conversation_id > %s)) "
                f"ORDER BY {ended_at}, conversation_id LIMIT {IDS_PER_QUERY}",
                self._agent_id,
                before,
                last_end,
                last_end,
                last_id,
            )
            if ids := self._not_on_hold([name for name, _ in rows]):
                yield ids
            if len(rows) < IDS_PER_QUERY:
                return
            last_id, last_end = rows[-1][0], in_utc(rows[-1][1])

    def _not_on_hold(self, ids: list[str]) -> list[str]:
        found = self._holds.among(self._warehouse, ids)
        self.on_hold |= found
        return [name for name in ids if name not in found]
