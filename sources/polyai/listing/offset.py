"""Pagination by offset over a list that shifts while it is read, without missing a row.

The Data API lists newest first and supports offsets only. New conversations shift every row to a
higher offset, a deletion shifts rows to a lower one, and plain paging then skips rows silently.
Consecutive pages therefore overlap and must join: the oldest row of a page has to be one that was
seen. Where a page does not join, the walk steps back until one does.

Ids are the truth, and order is a hint for where to look: no row whose id was not yielded yet is
left out because of its time or its neighbours. Neither the order nor the count is trusted:

- The end of the list is looked up: the page beyond it has to be empty, and the last row has to be
  the last one still in a later answer. Deletions between two answers would hide rows otherwise.
- A walk over the whole list ends with a proof: its distinct ids are as many as the list has rows.
  If it fails, the list is walked again with pages shifted by half a page, so that rows whose order
  changes between answers fall into one page. If two walks saw the same rows at the same positions,
  it is the count that is wrong, or an id is listed twice.
- A row of any answer is yielded, even if the answer only served to find a position.
- A range is read with a tolerance on both sides, which grows with the disorder that is seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import chain

from ..api.answers import Page
from .landmarks import Landmarks
from .page_reader import FetchPage, PageReader
from .pages import Row, created_at, key_of, newer_end
from .search import begins_before, start_page
from .seen_ids import MAX_WALKS, SeenIds
from .sweep import sweep_from_head
from .walk import LARGEST_INVERSION, Walk

SHORT_SWEEP_PAGES = 50
"""Pages to read from the head, in memory, before the position of `since` is searched for.

With 100 rows per page these are a day of 5,000 calls: a usual look-back window costs only its own
pages.
"""

TOLERANCE = timedelta(hours=1)
"""Disorder that the search for a range allows for from the start."""

_SHARES = (1.0, 0.5, 0.75, 0.25)
"""Share of the first page that each walk over the list uses: shifts all of its pages."""

_LENGTH_TRIES = 5
"""Attempts to find the length of a list with a wrong count while nothing arrives."""

_MAX_RESTARTS = 10
"""Restarts of a walk from the oldest row, because no row that it saw was left."""


class OffsetListing:
    """One walk over `GET /v1/agents/{agentId}/conversations`, repeated until it is proven.

    Args:
        fetch: Fetches a page.
        page_size: Rows to request; the server may return fewer, and a varying number.
        landmarks: Known positions of times; updated with every page.
        short_sweep_pages: See `SHORT_SWEEP_PAGES`.
        tolerance: See `TOLERANCE`.

    Attributes:
        undated: Ids of rows left out of a range because their `createdAt` is invalid; they may
            belong to it or to a neighbouring one.
        walks: Walks over the list.
        is_proven: Every row that was listed throughout was yielded; meaningful at the end.
        count_excess: Rows that the list counts beyond the distinct ids it has, negative for a
            capped count; None unless a walk over the whole list was proven.
    """

    def __init__(
        self,
        fetch: FetchPage,
        page_size: int,
        *,
        landmarks: Landmarks | None = None,
        short_sweep_pages: int = SHORT_SWEEP_PAGES,
        tolerance: timedelta = TOLERANCE,
    ) -> None:
        self._landmarks = Landmarks() if landmarks is None else landmarks
        self._reader = PageReader(fetch, page_size, self._landmarks)
        self._short_sweep_pages = short_sweep_pages
        self._tolerance = max(tolerance, _allowance(self._landmarks.inversion))
        self._seen = SeenIds()
        self._restarts = 0
        self.undated: set[str] = set()
        self.walks = 0
        self.is_proven = True
        self.count_excess: int | None = None

    @property
    def api_count(self) -> int | None:
        """Total stated by the newest page at offset 0, or else by the newest page.

        None where any answer stated no usable one.
        """
        if not self._reader.has_count:
            return None
        head_count = self._reader.head_count
        return self._reader.last_count if head_count is None else head_count

    @property
    def pages(self) -> int:
        """Pages received."""
        return self._reader.pages

    @property
    def gaps_repaired(self) -> int:
        """Pages that did not join the previous one, so that the walk stepped back."""
        return self._reader.gaps_repaired

    def oldest_first(
        self, since: datetime | None = None, before: datetime | None = None
    ) -> Iterator[list[Row]]:
        """Yields the rows page by page, oldest first, up to the current head; none twice.

        No row that stays listed is missed, unless `is_proven` is then false. Rows with an invalid
        `createdAt` are yielded at their position; with `before` they are counted and left out, so
        that disjoint ranges have no row in common.

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
        if since is None and before is None:
            yield from self._whole()
            return
        if since is not None and before is None:
            pages = sweep_from_head(self._reader, since, self._short_sweep_pages)
            if pages is not None:
                for row in chain.from_iterable(pages):
                    self._seen.add(key_of(row), 0)
                # rows of pages that did not join come first
                pages.append(self._strays_of(since, before)[::-1])
                while pages:
                    if rows := pages.pop():
                        yield rows[::-1]
                return
            self._reader.strays = {}
        for rows in self._range(since, before):
            if before is not None:
                rows = self._within(rows, since, before)
            if rows:
                yield rows
        is_any_order_right = before is not None or not self.is_proven
        if is_any_order_right and (strays := self._strays_of(since, before)):
            yield strays

    def _strays_of(self, since: datetime | None, before: datetime | None) -> list[Row]:
        """Returns the rows of a range that were received, and not yielded."""
        strays = self._take_strays(0)
        return [row for row in strays if _is_in_range(created_at(row), since, before)]

    def _whole(self) -> Iterator[list[Row]]:
        """Yields all rows, in as many walks as a proof takes."""
        previous: Walk | None = None
        totals: list[int | None] = []
        for number in range(MAX_WALKS):
            walk = Walk(number, self._seen, previous.top if previous else None)
            page = self._reader.oldest_page(self._reader.page(0), _SHARES[number])
            yield from self._walk_up(page, walk, None)
            self.count_excess = self._proven_excess(walk, previous, totals)
            self.is_proven = self.count_excess is not None
            # the proof of a length counts rows above the walk; a proof by the count only rows of it
            is_any_left_out = self._reader.is_count_wrong or not self.is_proven
            if is_any_left_out and (strays := self._take_strays(number)):
                yield strays
            if self.is_proven:
                return
            totals.append(None if self._reader.is_count_wrong else self.api_count)
            previous = walk

    def _proven_excess(
        self, walk: Walk, previous: Walk | None, totals: list[int | None]
    ) -> int | None:
        """Returns `count_excess` if all rows were seen that were listed throughout; else None.

        Args:
            walk: The walk that has ended.
            previous: The walk before it.
            totals: Rows of the list when each walk before it ended; None where not known.
        """
        reader = self._reader
        if not reader.is_end_seen:
            return None
        listed, count = self._seen.count(walk.number), self.api_count or 0
        if walk.is_regular and not reader.is_count_wrong and listed - walk.deleted >= count:
            return 0
        if walk.is_regular and reader.is_count_wrong:
            length = self._proven_length(walk, listed)
            if length is not None:
                return count - length
        for number, total in enumerate(totals, 1):
            # as many as were listed at that moment, seen both before and since, are all of them
            is_known = total is not None and not reader.is_count_wrong
            if is_known and self._seen.count_around(number) >= (total or 0):
                return 0
        # the same rows at the same positions, on pages that were cut elsewhere: ids are listed
        # twice, or the count is wrong; unless another row was in one of the answers
        if self._strays():
            return None
        if previous and previous.is_exact and walk.is_exact and walk.marked == previous.digest:
            return count - listed
        return None

    def _strays(self) -> dict[str, Row]:
        """Returns the rows that were received in this listing, and not yielded, by key."""
        found = self._reader.strays
        self._reader.strays = {key: row for key, row in found.items() if key not in self._seen}
        return self._reader.strays

    def _take_strays(self, walk: int) -> list[Row]:
        """Marks these rows as seen by a walk, and returns them."""
        strays = self._strays()
        for key in strays:
            self._seen.add(key, walk)
        self._reader.strays = {}
        return list(strays.values())

    def _proven_length(self, walk: Walk, listed: int) -> int | None:
        """Returns the rows of the list if they are those of the walk and those above; else None.

        Those above are among the strays, so they are yielded as well: an unseen row at the head has
        not always arrived, it may have changed its place among others of its time.
        """
        reader = self._reader
        head = reader.page(0)
        for _ in range(_LENGTH_TRIES):
            above = walk.unseen_above(head)
            oldest = reader.find_end(head)
            head = reader.page(0)
            if not walk.saw_all(oldest):
                return None
            if reader.is_end_seen and walk.unseen_above(head) == above:
                # nothing arrived while the end was looked for
                return reader.end if reader.end == listed + len(above) else None
        return None

    def _range(self, since: datetime | None, before: datetime | None) -> Iterator[list[Row]]:
        """Yields the rows of a range and of the tolerance around it, in one walk or several."""
        previous: Walk | None = None
        for number in range(MAX_WALKS):
            walk = Walk(number, self._seen)
            tolerance = self._tolerance
            start = since and since - tolerance
            page = start_page(self._reader, self._landmarks, start)
            is_from_end = not begins_before(page, start) and bool(page.conversations)
            if number and page.conversations:
                page = self._shifted(page, _SHARES[number])
            yield from self._walk_up(page, walk, before and before + tolerance)
            self._landmarks.inversion = max(self._landmarks.inversion, walk.inversion)
            self._tolerance = max(tolerance, _allowance(walk.inversion))
            is_enough = self._tolerance == tolerance
            is_same = previous and previous.is_exact and walk.is_exact and not walk.new
            if is_from_end:
                # changes while the end was looked for may have hidden the oldest rows
                oldest = self._reader.oldest_page(self._reader.page(0))
                is_enough = is_enough and self._reader.is_end_seen and walk.saw_all(oldest)
            is_regular = walk.is_regular and not walk.has_moved
            self.is_proven = is_enough and bool(is_regular or is_same)
            if self.is_proven or walk.is_disordered:
                break
            previous = walk
        self.is_proven = self.is_proven and not walk.is_disordered

    def _shifted(self, page: Page, share: float) -> Page:
        """Returns the page that begins further down by a share of a page; the same at the end."""
        if self._reader.is_at_end(page):
            return page
        further = self._reader.page(page.offset + int(self._reader.length * share))
        return further if further.conversations else self._reader.page(page.offset)

    def _walk_up(self, page: Page, walk: Walk, before: datetime | None) -> Iterator[list[Row]]:
        """Yields the new rows of the page and of those above it, oldest first."""
        self.walks += 1
        arrivals, lowest_offset = 0, page.count + 1
        while True:
            new_rows, has_unseen = walk.take(page, self._reader.total(page))
            self._reader.taken(page)
            if has_unseen:
                # no progress where at least as many rows have arrived meanwhile
                if page.offset < lowest_offset:
                    self._reader.made_progress()
                lowest_offset = page.offset
            if new_rows:
                yield new_rows
            newest = newer_end(page)
            if page.offset == 0 or (before and newest and newest >= before):
                return
            # arrivals shift seen rows to higher offsets: expect as many as last time
            offset = max(0, page.offset - max(self._reader.step - arrivals, 1))
            count = page.count
            page = self._next_page(offset, walk)
            arrivals = max(0, page.count - count)

    def _next_page(self, offset: int, walk: Walk) -> Page:
        """Returns the page at the offset, or the first one below it that joins the walk."""
        first = None
        for page in self._reader.pages_from(offset):
            first = first or page
            if walk.joins(page):
                return page
        oldest = self._reader.oldest_page(page)
        if walk.joins(oldest):
            return oldest
        if not walk.shares(oldest) and self._restarts < _MAX_RESTARTS:
            self._restarts += 1
            walk.restart()
            return oldest
        # rows change their order: go on, and walk again
        walk.is_regular = False
        return first if first and first.conversations else oldest

    def _within(self, rows: list[Row], since: datetime | None, before: datetime) -> list[Row]:
        """Returns the rows of the range; counts those with an invalid time."""
        dated = [(at, row) for row in rows if (at := created_at(row))]
        if len(dated) < len(rows):
            self.undated |= {key_of(row) for row in rows if not created_at(row)}
        return [row for at, row in dated if at < before and (since is None or at >= since)]


def _allowance(inversion: timedelta) -> timedelta:
    """Returns the tolerance for a list that is out of order by as much."""
    return min(2 * inversion, LARGEST_INVERSION)


def _is_in_range(at: datetime | None, since: datetime | None, before: datetime | None) -> bool:
    if at is None:
        return before is None
    return (since is None or at >= since) and (before is None or at < before)
