"""Walks an offset listing that shifts while it is read, without missing a row.

The Data API lists newest first and knows offsets only. New conversations push every row to a
higher offset, a deletion pulls them to a lower one, and plain paging then skips rows in silence.
So consecutive pages overlap and must join. A page is a contiguous slice of a sorted list: one that
holds a row already seen, or that reaches across the walk's frontier, holds everything from there to
its own end. Where a page does not join, the walk steps back until one does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

from .client import Page
from .errors import ListingError
from .values import UnfitError, timestamp

Row = dict[str, Any]
FetchPage = Callable[[int, int], Page]
"""Fetches a page by limit and offset."""

MOST_FRUITLESS_PAGES = 1_000
"""Pages in a row without a new row before the walk gives up: more arrives than it can read."""

_REPEATS = 4
"""Times that two equal pages are asked for again until that is an error."""

_RECENT_PAGES = 4
"""Pages whose ids are remembered; a step back rarely goes further, and memory stays flat."""


def created_at(row: Row) -> datetime | None:
    """When the row's conversation was created; its start where that is missing or unreadable."""
    for name in ("createdAt", "startedAt"):
        try:
            if moment := timestamp(row.get(name)):
                return moment
        except UnfitError:
            continue
    return None


class OffsetListing:
    """One walk over `GET /v1/agents/{agentId}/conversations`.

    A row may be yielded twice where the listing shifted far; none that was listed throughout is
    missed. Both walks raise `ListingError` where pages repeat, cannot be joined or never end.

    Attributes:
        api_count: The total that the newest page stated; None before the first one.
        gaps_repaired: Pages that did not join, so that the walk stepped back.
        pages: Pages received.
    """

    def __init__(self, fetch: FetchPage, page_size: int) -> None:
        self._fetch = fetch
        self._page_size = page_size
        self._length = max(page_size, 2)
        self._recent: deque[frozenset[str]] = deque(maxlen=_RECENT_PAGES)
        self._frontier: datetime | None = None
        self._last: Page | None = None
        self._fruitless = 0
        self.api_count: int | None = None
        self.gaps_repaired = 0
        self.pages = 0

    def newest_first(self, until: datetime | None = None) -> Iterator[list[Row]]:
        """Yields the rows page by page, newest first.

        Args:
            until: Stop behind the first page that lies wholly before this moment; None for all.
        """
        offset, count = 0, None
        while True:
            page = self._page(offset)
            rows = page.conversations
            if offset > 0 and not self._joins(rows, rows[:1], newer=True):
                self.gaps_repaired += 1
                gone = (count or 0) - page.count
                offset = max(0, min(offset, page.count) - max(gone + 1, self._step() // 4, 1))
                continue
            yield from self._fresh(rows, frontier=rows[-1:], beyond=lambda at, edge: at > edge)
            moments = [at for row in rows if (at := created_at(row))]
            if until is not None and moments and max(moments) < until:
                return
            if offset + len(rows) >= page.count:
                return
            count = page.count
            offset += self._step()

    def oldest_first(self) -> Iterator[list[Row]]:
        """Yields the rows page by page from the oldest end on, each page oldest first."""
        page = self._oldest_page()
        arrivals = 0
        while True:
            yield from self._fresh(
                page.conversations[::-1],
                frontier=page.conversations[:1],
                beyond=lambda at, edge: at < edge,
            )
            if page.offset == 0:
                return
            last = page
            # arrivals push what was seen to higher offsets: as many as lately are allowed for
            page = self._page(max(0, last.offset - max(self._step() - arrivals, 1)))
            while not self._joins(page.conversations, page.conversations[-1:], newer=False):
                if page.offset + len(page.conversations) >= page.count:
                    break  # all that was seen is gone: the oldest end is where the walk goes on
                self.gaps_repaired += 1
                pushed = page.count - last.count
                aim = last.offset + 2 * pushed - self._step()
                page = self._page(max(aim, page.offset + max(self._step() // 4, 1)))
            arrivals = max(0, page.count - last.count)
            if not page.conversations and page.offset > 0:
                page = self._oldest_page()

    def _oldest_page(self) -> Page:
        """The page that ends with the oldest row."""
        page = self._page(0)
        arrivals = 0
        while page.offset + len(page.conversations) < page.count or not (
            page.conversations or page.offset == 0
        ):
            # arrivals push the oldest row further while it is asked for; less of a page reaches it
            margin = min(2 * arrivals, self._step() - 1)
            count = page.count
            page = self._page(max(0, count - self._length + margin))
            arrivals = max(0, page.count - count)
        return page

    def _page(self, offset: int) -> Page:
        page = self._asked(offset)
        before, self._last = self._last, page
        if before is not None and before.offset != offset and _same(before, page):
            # arrivals can push the same rows to this offset; then they have left the one before
            for _ in range(_REPEATS):
                if not _same(self._asked(before.offset), page):
                    return page
                page = self._asked(offset)
            raise ListingError(
                f"the listing gives the same page for every offset, such as {before.offset} and "
                f"{offset}"
            )
        return page

    def _asked(self, offset: int) -> Page:
        page = self._fetch(self._page_size, offset)
        self.pages += 1
        self._fruitless += 1
        self.api_count = page.count
        if page.offset != offset:
            raise ListingError(f"asked for offset {offset}, the listing gave {page.offset}")
        if self._fruitless > MOST_FRUITLESS_PAGES:
            raise ListingError(
                f"{MOST_FRUITLESS_PAGES} pages in a row brought no new conversation: "
                "the listing does not end, or more arrives than can be read"
            )
        rows = len(page.conversations)
        if rows == 1 and offset + 1 < page.count:
            raise ListingError("the listing gives single rows, so pages cannot be joined")
        if rows > 1:
            self._length = rows
        return page

    def _joins(self, rows: list[Row], nearest: list[Row], *, newer: bool) -> bool:
        """Whether the page continues what was seen: no row can lie between."""
        if any(_id(row) in ids for ids in self._recent for row in rows):
            return True
        moment = created_at(nearest[0]) if nearest else None
        if moment is None or self._frontier is None:
            return False
        return moment > self._frontier if newer else moment < self._frontier

    def _fresh(
        self,
        rows: list[Row],
        *,
        frontier: list[Row],
        beyond: Callable[[datetime, datetime], bool],
    ) -> Iterator[list[Row]]:
        """Yields what is new of a page that joins, and moves the frontier to its far end."""
        edge = self._frontier
        fresh = [
            row
            for row in rows
            if not any(_id(row) in ids for ids in self._recent)
            and not (edge and (at := created_at(row)) and beyond(at, edge))
        ]
        self._recent.append(frozenset(map(_id, rows)))
        moment = created_at(frontier[0]) if frontier else None
        if moment and (edge is None or not beyond(moment, edge)):
            self._frontier = moment
        if fresh:
            self._fruitless = 0
            yield fresh

    def _step(self) -> int:
        """One row less than a page, so that the next one overlaps."""
        return self._length - 1


def _same(one: Page, other: Page) -> bool:
    ids, other_ids = ([_id(row) for row in page.conversations] for page in (one, other))
    return bool(ids) and ids == other_ids


def _id(row: Row) -> str:
    return str(row.get("conversationId"))
