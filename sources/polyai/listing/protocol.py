"""Protocol of a listing: conversations between two times, oldest first, from any API."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from ..api.page_stream import Document


@dataclass(frozen=True, slots=True)
class Listed:
    """One listed conversation.

    Attributes:
        conversation_id: The conversation.
        at: Time that the listing is sorted by; None where it is missing or invalid.
        summary_hash: Hash of the row, to detect changes.
        fetched_at: Time of the listing's answer.
        document: The conversation itself, where the listing contains it.
    """

    conversation_id: str
    at: datetime | None
    summary_hash: str
    fetched_at: datetime
    document: Document | None = None


class Listing(Protocol):
    """Listing of one agent's conversations through one API.

    Attributes:
        environment: Environment that is listed; None for all.
        api_count: Total number of the agent's conversations, where the API reports it.
        gaps_repaired: Pages that did not join the previous one, so that the walk stepped back.
        undated: Rows left out of a range because their time is invalid.
    """

    environment: str | None
    api_count: int | None
    gaps_repaired: int
    undated: int

    def oldest_first(
        self, since: datetime | None = None, before: datetime | None = None
    ) -> Iterator[list[Listed]]:
        """Yields the listed conversations, oldest first, in bounded lists.

        No conversation that stays listed during the walk is missed; one may be yielded twice.

        Args:
            since: Start of the range (inclusive); None for the oldest conversation. Without
                `before`, older ones may be yielded too.
            before: End of the range (exclusive); None for the newest conversation.

        Raises:
            ListingError: The pages contradict each other, or never end.
            ApiError: The API rejects a request or does not answer.
        """
        ...
