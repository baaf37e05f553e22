"""Pagination by offset over a list that shifts while it is read, without missing a row.

The Data API lists newest first and supports offsets only. New conversations shift every row to a
higher offset, a deletion shifts rows to a lower one, and plain paging then skips rows silently.
Consecutive pages therefore overlap and must join. A page is a contiguous slice of a sorted list: if
it contains a row already seen, or a row older than the newest one seen, it contains all rows from
there to its own newest one. Where a page does not join, the walk steps back until one does.

A walk can start at any page with a row older than the start of the range: all rows of the range are
then in that page or at lower offsets. Drift can make such a page an inefficient start, but not a
wrong one, so outdated landmarks are good enough to search for it: the page itself shows whether it
fits. A walk can end with any page that has a row at or after the end of the range.
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
"""Pages to read from the head, in memory, before the position of `since` is searched for.

With 100 rows per page these are a day of 5,000 calls: a usual look-back window costs only its own
pages.
"""

MAX_PAGES_WITHOUT_PROGRESS = 1_000
"""Consecutive pages without progress after which a walk gives up."""

_EQUAL_PAGE_RETRIES = 4
"""Retries of two equal pages at different offsets before they are an error."""

_RECENT_PAGES = 4
"""Pages whose ids are kept: a step back rarely goes further, and memory stays bounded."""


def created_at(row: Row) -> datetime | None:
    """Returns the time that the listing is sorted by; None where it is missing or invalid.

    It has no substitute: another time may be out of order and would misplace the row.
    """
    return timestamp_or_none(row.get("createdAt"))


class OffsetListing:
    """One walk over `GET /v1/agents/{agentId}/conversations`.

    Args:
        fetch: Fetches a page.
        page_size: Rows to request; the server may return fewer, and a varying number.
        landmarks: Known positions of times; updated with every page.
        short_sweep_pages: See `SHORT_SWEEP_PAGES`.

    Attributes:
        api_count: Total of the latest page; None before the first one.
        gaps_repaired: Pages that did not join the previous one, so that the walk stepped back.
        pages: Pages received.
        undated: Rows left out of a range because their `createdAt` is invalid; they may belong to
            it or to a neighbouring one.
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
        self._pages_without_progress = 0
        self.api_count: int | None = None
        self.gaps_repaired = 0
        self.pages = 0
        self.undated = 0

    def oldest_first(
        self, since: datetime | None = None, before: datetime | None = None
    ) -> Iterator[list[Row]]:
        """Yields the rows page by page, oldest first, up to the current head.

        No row that stays listed is missed; one may be yielded twice if the list shifts far. Rows
        with an invalid `createdAt` are yielded at their position; with `before` they are counted
        and left out, so that disjoint ranges have no row in common.

        With `since` alone, the pages from the head to the first one wholly before `since` are read
        into memory and reversed. Where these are too many, and always with `before`, the position
        of `since` is searched with the landmarks and the walk goes up from there, in bounded
        memory. The search takes a few requests, and at most three per halving of the list.

        Args:
            since: Start of the range (inclusive); None for the oldest row. Without `before`, older
                rows of the first page may be yielded too.
            before: End of the range (exclusive); None for the head.

        Raises:
            ListingError: Pages repeat, cannot be joined or never end.
        """
        if since is not None and before is None:
            pages = self._sweep_from_head(since)
            if pages is not None:
                while pages:
                    if rows := pages.pop():
                        yield rows[::-1]
                return
        for rows in self._walk_up(self._start_page(since), before):
            if before is not None:
                rows = self._within(rows, since, before)
            if rows:
                yield rows

    def _sweep_from_head(self, since: datetime) -> list[list[Row]] | None:
        """Reads pages from the head to the first wholly before `since`; None for too many."""
        pages: list[list[Row]] = []
        seen: set[str] = set()
        offset, count = 0, 0
        for _ in range(self._short_sweep_pages):
            page = self._checked_page(offset)
            rows = page.conversations
            joints = [index for index, row in enumerate(rows) if _id(row) in seen]
            if joints:
                rows = rows[joints[-1] + 1 :]
            elif offset > 0:
                self.gaps_repaired += 1
                deleted = count - page.count
                count = page.count
                offset = max(0, min(offset, count) - max(deleted, self._step() // 4, 1))
                continue
            else:
                # the head itself, or all rows seen were deleted: restart the sweep
                pages.clear()
                seen.clear()
            pages.append(rows)
            seen |= _ids(rows)
            if rows:
                self._pages_without_progress = 0
            times = _times(page)
            if (times and max(times) < since) or _ends_with_oldest(page):
                return pages
            count = page.count
            offset += self._step()
        return None

    def _start_page(self, since: datetime | None) -> Page:
        """Finds a page with a row before `since` to walk up from, else the oldest page."""
        if since is None:
            return self._oldest_page(self._checked_page(0))
        count, guess = self._landmarks.count, self._landmarks.position_before(since)
        page = self._checked_page(
            0 if count is None or guess is None else self._offset(guess, count)
        )
        bracket = Bracket(page.count)
        while True:
            rows, times, position = page.conversations, _times(page), page.count - page.offset
            if times and min(times) < since:
                if page.offset == 0 or max(times) >= since:
                    return page
                bracket.older = position
            elif _ends_with_oldest(page):
                return page
            elif rows:
                # also without a valid time: a start too far down is correct, only slower
                bracket.newer = position - len(rows) + 1
            else:
                bracket.older = max(0, position)
            if bracket.newer - bracket.older < self._length:
                offset = max(0, page.count - bracket.newer)
                return self._first_from(offset, lambda page: _has_older(page, since))
            position = bracket.next(self._landmarks.position_before(since))
            page = self._checked_page(self._offset(position, page.count))

    def _offset(self, position: int, count: int) -> int:
        """Returns the offset of a page with the position in its older half."""
        newest = position + self._step() - self._length // 4
        return max(0, count - max(newest, self._length))

    def _walk_up(self, page: Page, before: datetime | None) -> Iterator[list[Row]]:
        """Yields the new rows of the page and of those above it, oldest first."""
        arrivals, lowest_offset = 0, page.count
        while True:
            if new_rows := self._new_rows(page):
                # no progress where at least as many rows have arrived meanwhile
                if page.offset < lowest_offset:
                    self._pages_without_progress = 0
                lowest_offset = page.offset
                yield new_rows
            times = _times(page)
            if page.offset == 0 or (before and times and max(times) >= before):
                return
            # arrivals shift seen rows to higher offsets: expect as many as last time
            offset, count = max(0, page.offset - max(self._step() - arrivals, 1)), page.count
            page = self._first_from(offset, self._joins)
            arrivals = max(0, page.count - count)

    def _first_from(self, offset: int, fits: Callable[[Page], bool]) -> Page:
        """Returns the first page that fits, from the offset to the oldest row; else the oldest."""
        count, stride = self.api_count or 0, max(self._step() // 4, 1)
        page = self._checked_page(offset)
        while not fits(page):
            if page.offset + len(page.conversations) >= page.count:
                # all rows seen were deleted: the walk continues from the oldest row
                return self._oldest_page(page)
            self.gaps_repaired += 1
            pushed, count = max(0, page.count - count), page.count
            page = self._checked_page(page.offset + pushed + stride)
            stride *= 2
        return page

    def _oldest_page(self, page: Page) -> Page:
        """Fetches the page that ends with the oldest row; `page` is the latest one."""
        arrivals = 0
        while not _ends_with_oldest(page):
            # arrivals shift the oldest row further during the request: aim beyond it by a margin
            margin = min(2 * arrivals, self._step() - 1)
            count = page.count
            page = self._checked_page(max(0, count - self._length + margin))
            arrivals = max(0, page.count - count)
        return page

    def _checked_page(self, offset: int) -> Page:
        page = self._fetch_page(offset)
        previous, self._last = self._last, page
        if previous is not None and previous.offset != offset and _are_equal(previous, page):
            # arrivals can shift the same rows to this offset, but not to further offsets each time
            for further in range(_EQUAL_PAGE_RETRIES):
                if not _are_equal(self._fetch_page(previous.offset + further), page):
                    return page
                page = self._fetch_page(offset)
            raise ListingError(
                f"the listing returns the same page at every offset, such as {previous.offset} and "
                f"{offset}"
            )
        return page

    def _fetch_page(self, offset: int) -> Page:
        page = self._fetch(self._page_size, offset)
        self.pages += 1
        self._pages_without_progress += 1
        self.api_count = page.count
        self._landmarks.learn(page.count, _ends(page))
        if page.offset != offset:
            raise ListingError(f"the listing returned offset {page.offset} instead of {offset}")
        if self._pages_without_progress > MAX_PAGES_WITHOUT_PROGRESS:
            raise ListingError(
                f"{MAX_PAGES_WITHOUT_PROGRESS} consecutive pages without progress: the listing "
                "does not end, or conversations arrive faster than they can be read"
            )
        rows = len(page.conversations)
        if rows == 1 and offset + 1 < page.count:
            raise ListingError("the listing returns single rows, so that pages cannot be joined")
        if rows > 1:
            self._length = rows
        return page

    def _joins(self, page: Page) -> bool:
        """Returns whether the page joins the rows seen, so that no row can be between them."""
        ids = _ids(page.conversations)
        return any(not ids.isdisjoint(seen) for seen in self._recent) or (
            self._frontier is not None and _has_older(page, self._frontier)
        )

    def _new_rows(self, page: Page) -> list[Row]:
        """Returns the new rows of a page, oldest first; moves the frontier to its newest row."""
        frontier = self._frontier
        new_rows = [
            row
            for row in reversed(page.conversations)
            if not any(_id(row) in seen for seen in self._recent)
            and not (frontier and (at := created_at(row)) and at < frontier)
        ]
        self._recent.append(_ids(page.conversations))
        times = _times(page)
        if times and (frontier is None or max(times) > frontier):
            self._frontier = max(times)
        return new_rows

    def _within(self, rows: list[Row], since: datetime | None, before: datetime) -> list[Row]:
        """Returns the rows of the range; counts those with an invalid time."""
        dated = [(at, row) for row in rows if (at := created_at(row))]
        self.undated += len(rows) - len(dated)
        return [row for at, row in dated if at < before and (since is None or at >= since)]

    def _step(self) -> int:
        """Returns one row less than a page, so that consecutive pages overlap."""
        return self._length - 1


def _ends_with_oldest(page: Page) -> bool:
    """Returns whether the page ends with the oldest row, or the list is empty."""
    reaches_end = page.offset + len(page.conversations) >= page.count
    return reaches_end and (bool(page.conversations) or page.offset == 0)


def _has_older(page: Page, moment: datetime) -> bool:
    return any(at < moment for at in _times(page))


def _times(page: Page) -> list[datetime]:
    return [at for row in page.conversations if (at := created_at(row))]


def _ends(page: Page) -> Iterator[tuple[datetime, int]]:
    """Yields the oldest and the newest valid time, each with its offset."""
    rows = list(enumerate(page.conversations, page.offset))
    for ordered in (reversed(rows), rows):
        yield from islice(((at, n) for n, row in ordered if (at := created_at(row))), 1)


def _are_equal(one: Page, other: Page) -> bool:
    ids, other_ids = ([_id(row) for row in page.conversations] for page in (one, other))
    return any(ids) and ids == other_ids


def _ids(rows: list[Row]) -> frozenset[str]:
    return frozenset(known for row in rows if (known := _id(row)) is not None)


def _id(row: Row) -> str | None:
    """Returns the row's id; None without one, in which case rows cannot be compared."""
    conversation_id = row.get("conversationId")
    return str(conversation_id) if conversation_id else None
