"""What every listing of conversations gives, whichever API it reads.

A listing is one more module: it says in which environment it lists, and gives what it finds
between two moments, oldest first.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from ..api.page_stream import Document


@dataclass(frozen=True, slots=True)
class Listed:
    """One conversation as a listing gives it.

    Attributes:
        conversation_id: its id.
        at: the moment that the listing is ordered by; None where it cannot be read.
        summary_hash: tells whether it has changed since it was read.
        fetched_at: when the listing gave it.
        document: the conversation, where the listing carries it.
    """

    conversation_id: str
    at: datetime | None
    summary_hash: str
    fetched_at: datetime
    document: Document | None = None


class Listing(Protocol):
    """Conversations of one agent, as one API lists them.

    Attributes:
        environment: the only one that it lists; None for all.
        api_count: conversations that the agent has in all, where the API tells.
        gaps_repaired: pages that missed what they were to join.
        undated: rows left out of a range, because it is not known whether they lie in it.
    """

    environment: str | None
    api_count: int | None
    gaps_repaired: int
    undated: int

    def oldest_first(
        self, since: datetime | None = None, before: datetime | None = None
    ) -> Iterator[list[Listed]]:
        """Yields what is listed, oldest first, a bounded number at a time.

        No conversation that was listed throughout is missed; one may come twice.

        Args:
            since: Where to begin; None for the oldest. Older ones may be yielded too, unless
                `before` is given.
            before: Where to end; None for the newest. With it, what is yielded lies within.

        Raises:
            ListingError: The API's pages contradict each other, or never end.
            ApiError: The API refuses or does not answer.
        """
        ...
