"""Listing of the Data API: rows without turns, whose details are fetched separately."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from ..api.answers import Page
from ..api.client import DataApi
from ..clock import Clock
from ..config.agent import DATA
from .landmarks import Landmarks
from .offset import OffsetListing
from .pages import Row, created_at, id_of
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

    source_api: str = DATA
    environment: str | None = None
    has_count: bool = True

    def __init__(
        self, api: DataApi, page_size: int, clock: Clock, landmarks: Landmarks | None = None
    ) -> None:
        self._api = api
        self._page_size = page_size
        self._clock = clock
        self._landmarks = landmarks or Landmarks()
        self._offsets: dict[str, int] = {}
        self.api_count: int | None = None
        self.count_excess: int | None = None
        self.is_proven = True
        self.walks = 0
        self.gaps_repaired = 0
        self.undated: set[str] = set()
        self.malformed: dict[str, MalformedRow] = {}

    def oldest_first(
        self, since: datetime | None = None, before: datetime | None = None
    ) -> Iterator[list[Listed]]:
        """See `Listing.oldest_first`."""
        walk = OffsetListing(self._page, self._page_size, landmarks=self._landmarks)
        gaps_repaired = self.gaps_repaired
        for rows in walk.oldest_first(since, before):
            self.api_count = walk.api_count
            self.gaps_repaired = gaps_repaired + walk.gaps_repaired
            now = self._clock()
            listed = []
            for row in rows:
                conversation_id = id_of(row)
                if conversation_id is None:
                    self._add_malformed(row)
                else:
                    listed.append(
                        Listed(conversation_id, created_at(row), summary_hash(row), now, row=row)
                    )
            yield listed
        self.api_count = walk.api_count
        self.gaps_repaired = gaps_repaired + walk.gaps_repaired
        self.undated |= walk.undated
        self.is_proven = walk.is_proven
        self.walks = walk.walks
        self.count_excess = walk.count_excess if walk.api_count is not None else None

    def _page(self, limit: int, offset: int) -> Page:
        page = self._api.conversations(limit=limit, offset=offset)
        for place, row in enumerate(page.conversations, offset):
            if id_of(row) is None:
                self._offsets[summary_hash(row)] = place
        return page

    def _add_malformed(self, row: Row) -> None:
        hashed = summary_hash(row)
        fields = ", ".join(sorted(name for name, value in row.items() if value is not None))
        found = MalformedRow.of(
            hashed,
            f"the list row at offset {self._offsets.get(hashed)} has no conversationId, only "
            f"{fields or 'nothing'}",
        )
        self.malformed[found.key] = found
