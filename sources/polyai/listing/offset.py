"""Walks an offset listing that shifts while it is read, without missing a row.

The Data API lists newest first and knows offsets only. New conversations push every row to a
higher offset, a deletion pulls them to a lower one, and plain paging then skips rows in silence.
So consecutive pages overlap and must join. A page is a contiguous slice of a sorted list: one that
holds a row already seen, or a row older than the newest one seen, holds everything from there to
its own newest end. Where a page does not join, the walk steps back until one does.

A walk can begin at any page that holds a row older than what is wanted: all that is wanted then
lies in that page or above it. Drift can make such a page a poor choice, but never a wrong one. So
landmarks that are outdated or wrong may tell where to look for it: the page tells whether it will
do. And a walk can end with any page that holds a row of its end or later: no row before that end
lies above.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from datetime import datetime
from itertools import islice
from typing import Any

from ..api.client import Page
from ..clock import timestamp_or_none
from ..errors import ListingError
from .landmarks import Bracket, Landmarks

Row = dict[str, Any]
FetchPage = Callable[[int, int], Page]
"""Fetches a page by limit and offset."""

SHORT_SWEEP_PAGES = 50
"""Pages from the head that are read in search of `since`, and held, before its place is guessed.

With 100 rows a page that is a day of 5,000 calls: the usual look-back costs its own pages only.
"""

MOST_FRUITLESS_PAGES = 1_000
"""Pages in a row that bring a walk no nearer to its end before it gives up."""

_REPEATS = 4
"""Times that two equal pages are asked for anew until that is an error."""

_RECENT_PAGES = 4
"""Pages whose ids are remembered; a step back rarely goes further, and memory stays flat."""


def created_at(row: Row) -> datetime | None:
    """The moment that the listing is sorted by; None where it is missing or unreadable.

    No other time stands in for it: one that is out of order would pass for a row's place.
    """
    return timestamp_or_none(row.get("createdAt"))


class OffsetListing:
    """One walk over `GET /v1/agents/{agentId}/conversations`.

    Args:
        fetch: Fetches a page.
        page_size: Rows to ask for; the server may give fewer, and now more, now less.
        landmarks: Where to look first for `since`; learns from every page.
        short_sweep_pages: Pages that a walk from `since` on may read and hold before it guesses.

    Attributes:
        api_count: The total that the newest page stated; None before the first one.
        gaps_repaired: Pages that missed what they were to join, so that the walk stepped back.
        pages: Pages received.
        undated: Rows that a range's pages held and that were left out, because their `createdAt`
            cannot be read: any of them may lie in the range, or in one beside it.
    """

    def __init__(
        self,
        fetch: FetchPage,
        page_size: int,
        *,
        landmarks: Landmarks | None = None,
        short_sweep_pages: int = SHORT_SWEEP_PAGES,
    ) -> None:
        self._fetch = fetch
        self._page_size = page_size
        self._landmarks = Landmarks() if landmarks is None else landmarks
        self._short_sweep_pages = short_sweep_pages
        self._length = max(page_size, 2)
        self._recent: deque[frozenset[str]] = deque(maxlen=_RECENT_PAGES)
        self._frontier: datetime | None = None
        self._last: Page | None = None
        self._fruitless = 0
        self.api_count: int | None = None
        self.gaps_repaired = 0
        self.pages = 0
        self.undated = 0

    def oldest_first(
        self, since: datetime | None = None, before: datetime | None = None
    ) -> Iterator[list[Row]]:
        """Yields the rows page by page, oldest first, up to the head as it then is.

        No row that was listed throughout is missed; one may come twice where the listing shifted
        far. Rows whose `createdAt` cannot be read are yielded where they lie, but with `before`
        they are left out and counted: ranges that do not overlap have no row in common.

        With `since` alone the pages from the head down to the first that lies wholly before it are
        read, held and turned round. Where that is too far, and with `before` at once, the place of
        `since` is guessed from landmarks, and the walk goes up from there: memory stays flat. A
        few requests find it, and at the most three for each halving of the list.

        Args:
            since: Where to begin; None for the oldest end. Rows before it may be yielded too, from
                the page that told the place, unless `before` is given.
            before: Where to end: no row of this moment or later is yielded. None for the head.

        Raises:
            ListingError: where pages repeat, cannot be joined or never end.
        """
        if since is not None and before is None:
            pages = self._swept(since)
            if pages is not None:
                while pages:
                    if rows := pages.pop():
                        yield rows[::-1]
                return
        for rows in self._upwards(self._start(since), before):
            if before is not None:
                rows = self._within(rows, since, before)
            if rows:
                yield rows

    def _swept(self, since: datetime) -> list[list[Row]] | None:
        """The pages from the head to the first wholly before `since`; None where it is too far."""
        pages: list[list[Row]] = []
        seen: set[str] = set()
        offset, count = 0, 0
        for _ in range(self._short_sweep_pages):
            page = self._page(offset)
            rows = page.conversations
            joints = [place for place, row in enumerate(rows) if _id(row) in seen]
            if joints:
                rows = rows[joints[-1] + 1 :]
            elif offset > 0:
                self.gaps_repaired += 1
                gone = count - page.count
                count = page.count
                offset = max(0, min(offset, count) - max(gone, self._step() // 4, 1))
                continue
            else:
                # the head, or all that was seen is gone from it: the sweep begins anew
                pages.clear()
                seen.clear()
            pages.append(rows)
            seen |= _ids(rows)
            if rows:
                self._fruitless = 0
            moments = _moments(page)
            if (moments and max(moments) < since) or _is_oldest(page):
                return pages
            count = page.count
            offset += self._step()
        return None

    def _start(self, since: datetime | None) -> Page:
        """The page to walk up from: one that holds a row before `since`, else the oldest."""
        if since is None:
            return self._oldest_page(self._page(0))
        count, guess = self._landmarks.count, self._landmarks.place_before(since)
        page = self._page(0 if count is None or guess is None else self._offset(guess, count))
        bracket = Bracket(page.count)
        while True:
            rows, moments, place = page.conversations, _moments(page), page.count - page.offset
            if moments and min(moments) < since:
                if page.offset == 0 or max(moments) >= since:
                    return page
                bracket.older = place
            elif _is_oldest(page):
                return page
            elif rows:
                # also where no moment can be read: from too far down the walk is right, if long
                bracket.newer = place - len(rows) + 1
            else:
                bracket.older = max(0, place)
            if bracket.newer - bracket.older < self._length:
                offset = max(0, page.count - bracket.newer)
                return self._first_from(offset, lambda page: _holds_older(page, since))
            place = bracket.next(self._landmarks.place_before(since))
            page = self._page(self._offset(place, page.count))

    def _offset(self, place: int, count: int) -> int:
        """The offset of a page in whose older half the place lies: what is newer is wanted."""
        newest = place + self._step() - self._length // 4
        return max(0, count - max(newest, self._length))

    def _upwards(self, page: Page, before: datetime | None) -> Iterator[list[Row]]:
        """Yields what is new of the page and of those above it, each oldest first."""
        arrivals, left = 0, page.count
        while True:
            if fresh := self._fresh(page):
                # new rows are no headway where at least as many arrive meanwhile
                if page.offset < left:
                    self._fruitless = 0
                left = page.offset
                yield fresh
            moments = _moments(page)
            if page.offset == 0 or (before and moments and max(moments) >= before):
                return
            # arrivals push what was seen to higher offsets: as many as lately are allowed for
            offset, count = max(0, page.offset - max(self._step() - arrivals, 1)), page.count
            page = self._first_from(offset, self._joins)
            arrivals = max(0, page.count - count)

    def _first_from(self, offset: int, fits: Callable[[Page], bool]) -> Page:
        """The first page that fits from the offset on towards the oldest end, else the oldest."""
        count, stride = self.api_count or 0, max(self._step() // 4, 1)
        page = self._page(offset)
        while not fits(page):
            if page.offset + len(page.conversations) >= page.count:
                # all that was seen is gone: the oldest end is where the walk goes on
                return self._oldest_page(page)
            self.gaps_repaired += 1
            pushed, count = max(0, page.count - count), page.count
            page = self._page(page.offset + pushed + stride)
            stride *= 2
        return page

    def _oldest_page(self, page: Page) -> Page:
        """The page that ends with the oldest row; `page` is the one received last."""
        arrivals = 0
        while not _is_oldest(page):
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
            # arrivals can push the same rows to this offset; but not to ever other ones
            for further in range(_REPEATS):
                if not _same(self._asked(before.offset + further), page):
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
        self._landmarks.learn(page.count, _ends(page))
        if page.offset != offset:
            raise ListingError(f"asked for offset {offset}, the listing gave {page.offset}")
        if self._fruitless > MOST_FRUITLESS_PAGES:
            raise ListingError(
                f"{MOST_FRUITLESS_PAGES} pages in a row brought the walk no nearer to its end: "
                "the listing does not end, or more arrives than can be read"
            )
        rows = len(page.conversations)
        if rows == 1 and offset + 1 < page.count:
            raise ListingError("the listing gives single rows, so pages cannot be joined")
        if rows > 1:
            self._length = rows
        return page

    def _joins(self, page: Page) -> bool:
        """Whether the page continues what was seen: no row can lie between."""
        ids = _ids(page.conversations)
        return any(not ids.isdisjoint(seen) for seen in self._recent) or (
            self._frontier is not None and _holds_older(page, self._frontier)
        )

    def _fresh(self, page: Page) -> list[Row]:
        """What is new of a page that joins, oldest first; moves the frontier to its newest row."""
        edge = self._frontier
        fresh = [
            row
            for row in reversed(page.conversations)
            if not any(_id(row) in seen for seen in self._recent)
            and not (edge and (at := created_at(row)) and at < edge)
        ]
        self._recent.append(_ids(page.conversations))
        moments = _moments(page)
        if moments and (edge is None or max(moments) > edge):
            self._frontier = max(moments)
        return fresh

    def _within(self, rows: list[Row], since: datetime | None, before: datetime) -> list[Row]:
        """The rows that are known to lie in the range; counts those of which it is not known."""
        dated = [(at, row) for row in rows if (at := created_at(row))]
        self.undated += len(rows) - len(dated)
        return [row for at, row in dated if at < before and (since is None or at >= since)]

    def _step(self) -> int:
        """One row less than a page, so that the next one overlaps."""
        return self._length - 1


def _is_oldest(page: Page) -> bool:
    """Whether the page ends with the oldest row, or the list is empty."""
    reaches = page.offset + len(page.conversations) >= page.count
    return reaches and (bool(page.conversations) or page.offset == 0)


def _holds_older(page: Page, moment: datetime) -> bool:
    return any(at < moment for at in _moments(page))


def _moments(page: Page) -> list[datetime]:
    return [at for row in page.conversations if (at := created_at(row))]


def _ends(page: Page) -> Iterator[tuple[datetime, int]]:
    """The oldest and the newest moment that can be read, each with its offset."""
    rows = list(enumerate(page.conversations, page.offset))
    for ordered in (reversed(rows), rows):
        yield from islice(((at, n) for n, row in ordered if (at := created_at(row))), 1)


def _same(one: Page, other: Page) -> bool:
    ids, other_ids = ([_id(row) for row in page.conversations] for page in (one, other))
    return any(ids) and ids == other_ids


def _ids(rows: list[Row]) -> frozenset[str]:
    return frozenset(known for row in rows if (known := _id(row)) is not None)


def _id(row: Row) -> str | None:
    """The row's id; None where it has none, by which nothing can be told to be the same."""
    known = row.get("conversationId")
    return str(known) if known else None
