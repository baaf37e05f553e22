"""Protocol of a listing: conversations between two times, oldest first, from any API."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol, Self

from ..api.page_stream import Document, row_hash

_HASH_LENGTH = 32
"""Length of a hash; a listing can append what else it depends on."""


@dataclass(frozen=True, slots=True)
class Listed:
    """One listed conversation.

    Attributes:
        conversation_id: The conversation.
        at: Time that the listing is sorted by; None where it is missing or invalid.
        summary_hash: Hash of the row, to detect changes.
        fetched_at: Time of the listing's answer.
        document: The conversation itself, where the listing contains it.
        row: The list row, where it is not a whole conversation.
    """

    conversation_id: str
    at: datetime | None
    summary_hash: str
    fetched_at: datetime
    document: Document | None = None
    row: Mapping[str, Any] | None = None

    def has_hash(self, stored: str | None) -> bool:
        """Checks for equality with a stored hash, also with one that version 0.1 stored.

        That one covered all of the row, so that signed URLs changed it.
        """
        if stored == self.summary_hash:
            return True
        if not stored:
            return False
        row = self.row if self.document is None else self.document.read()
        return row is not None and stored == row_hash(row) + self.summary_hash[_HASH_LENGTH:]


@dataclass(frozen=True, slots=True)
class MalformedRow:
    """A list row that cannot be loaded, such as one without an id; its page is loaded without it.

    Attributes:
        key: Stable key, recorded in place of a conversation id: equal rows have equal keys.
        message: Reason.
    """

    key: str
    message: str

    @classmethod
    def of(cls, row_hash: str, message: str) -> Self:
        """Builds the record of a row from its hash; see `row_hash`."""
        return cls(f"malformed-{row_hash}", message)


class Listing(Protocol):
    """Listing of one agent's conversations through one API.

    Attributes:
        source_api: API of the listing.
        environment: Environment that is listed; None for all.
        has_count: The API reports the number of conversations, so that a walk over the whole list
            can be proven.
        api_count: Total number of the agent's conversations, where the API reports it.
        count_excess: Conversations that `api_count` has beyond those listed; None unless the last
            walk was over the whole list, and was proven.
        is_proven: The last walk yielded everything that was listed throughout.
        walks: Walks over the list that the last call took.
        gaps_repaired: Pages that did not join the previous one, so that the walk stepped back.
        undated: Ids of rows left out of a range because their time is invalid.
        malformed: Rows that cannot be loaded, by key; to be recorded as failures of the listing.
    """

    source_api: str
    environment: str | None
    has_count: bool
    api_count: int | None
    count_excess: int | None
    is_proven: bool
    walks: int
    gaps_repaired: int
    undated: set[str]
    malformed: dict[str, MalformedRow]

    def oldest_first(
        self, since: datetime | None = None, before: datetime | None = None
    ) -> Iterator[list[Listed]]:
        """Yields the listed conversations, oldest first, in bounded lists.

        No conversation that stays listed during the walk is missed, unless `is_proven` is false at
        its end; one may be yielded twice.

        Args:
            since: Start of the range (inclusive); None for the oldest conversation. Without
                `before`, older ones may be yielded too.
            before: End of the range (exclusive); None for the newest conversation.

        Raises:
            ListingError: The pages contradict each other, or never end.
            ApiError: The API rejects a request or does not answer.
        """
        ...
