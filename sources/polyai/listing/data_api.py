"""Listing of the Data API: rows without turns, whose details are fetched separately."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from ..api.client import DataApi
from ..clock import Clock
from .landmarks import Landmarks
from .offset import OffsetListing, created_at
from .protocol import Listed, MalformedRow
from .summary import summary_hash


class DataListing:
    """`GET /v1/agents/{agentId}/conversations`; see `Listing`.

    Args:
        api: Data API of the agent.
        page_size: Rows to request per page.
        clock: Clock for `fetched_at`.
        landmarks: Known positions of times in the list; updated with every page.
    """

    environment: str | None = None

    def __init__(
        self, api: DataApi, page_size: int, clock: Clock, landmarks: Landmarks | None = None
    ) -> None:
        self._api = api
        self._page_size = page_size
        self._clock = clock
        self._landmarks = landmarks or Landmarks()
        self.api_count: int | None = None
        self.gaps_repaired = 0
        self.undated = 0
        self.malformed: dict[str, MalformedRow] = {}

    def oldest_first(
        self, since: datetime | None = None, before: datetime | None = None
    ) -> Iterator[list[Listed]]:
        """See `Listing.oldest_first`."""
        walk = OffsetListing(
            lambda limit, offset: self._api.conversations(limit=limit, offset=offset),
            self._page_size,
            landmarks=self._landmarks,
        )
        for rows in walk.oldest_first(since, before):
            self.api_count = walk.api_count
            self.gaps_repaired = walk.gaps_repaired
            now = self._clock()
            yield [
                Listed(str(row["conversationId"]), created_at(row), summary_hash(row), now, row=row)
                for row in rows
                if row.get("conversationId")
            ]
        self.api_count = walk.api_count
        self.undated += walk.undated
