"""The listing of the Conversations API v3: whole conversations, in windows of time.

The API gives what began within a window, newest first by all that is known, page by page with a
cursor. Here it comes oldest first, so that an interrupted load leaves no hole behind: a window
that does not end within a few pages is put aside, what lies below it is walked in windows that
hold about as much, from the oldest on, and then what was put aside follows. No page is asked for
twice. What is put aside lies on disk (`Spool`), only ids and hashes are held.

Where a window's pages turn out not to be newest first, it is read to its end instead.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from ..api.client import ConversationsV3, V3Page
from ..api.page_stream import Spool
from ..clock import Clock, timestamp_or_none
from ..errors import ListingError
from .protocol import Listed

LARGEST_PAGE = 1_000
"""What the API takes."""

MARGIN = timedelta(minutes=1)
"""How much further than what is wanted the API is asked, and how far neighbouring windows overlap.

It is not documented whether bounds belong to a window, and what it is filtered and ordered by may
be another moment than the one that is shown, though hardly by more."""

WINDOW_PAGES = 20
"""Pages of one window that are put aside at most, before what is older comes first."""

WINDOW_BYTES = 256 * 2**20
"""Bytes of the same."""

MOST_EMPTY_PAGES = 100
"""Pages in a row without anything new before a walk gives up."""

FIRST_CONVERSATIONS = datetime(2017, 1, 1, tzinfo=UTC)
"""Older than any conversation; where there is an older one all the same, it is found too.

An older moment is rather one that was never set: it tells nothing of a row's place."""

_NARROWEST = timedelta(hours=1)
"""Where the search for the oldest conversation ends."""

_SHORTEST = 4 * MARGIN
"""A shorter window would repeat the one before it more than it goes on."""

_FASTEST_GROWTH = 4
"""A window is at most so many times as long, or as short, as the one before it."""


@dataclass
class _Window:
    """What was read of a window."""

    rows: list[Listed] = field(default_factory=list)
    spool: Spool | None = None
    pages: int = 0
    size: int = 0
    oldest: datetime | None = None
    newest: datetime | None = None
    is_whole: bool = False
    is_newest_first: bool = True

    def place(self, at: datetime) -> None:
        """Takes notice of the place of the row that comes next."""
        if self.oldest and at > self.oldest + MARGIN:
            self.is_newest_first = False
        self.oldest = min(at, self.oldest or at)
        self.newest = max(at, self.newest or at)

    @property
    def spread(self) -> timedelta:
        return self.newest - self.oldest if self.newest and self.oldest else timedelta(0)


class V3Listing:
    """`GET /v3/{account_id}/{project_id}/conversations` of one environment; see `Listing`.

    Args:
        api: The agent's Conversations API v3.
        environment: live, sandbox or pre-release.
        page_size: Conversations to ask for.
        clock: What time it is.
        details: Whether each conversation's detail is read as well; then its hash differs, so that
            those without are read again.
    """

    api_count: int | None = None
    gaps_repaired: int = 0

    def __init__(
        self,
        api: ConversationsV3,
        environment: str,
        page_size: int,
        clock: Clock,
        *,
        details: bool = False,
    ) -> None:
        self.environment: str | None = environment
        self.undated = 0
        self._environment = environment
        self._api = api
        self._page_size = min(page_size, LARGEST_PAGE)
        self._clock = clock
        self._details = details
        self._nothing_before = FIRST_CONVERSATIONS

    def oldest_first(
        self, since: datetime | None = None, before: datetime | None = None
    ) -> Iterator[list[Listed]]:
        """See `Listing.oldest_first`."""
        start = since and since - MARGIN
        if before is None:
            yield from self._walked(start, None)
            return
        for rows in self._walked(start, before + MARGIN):
            dated = [row for row in rows if row.at]
            self.undated += len(rows) - len(dated)
            yield [
                row
                for row in dated
                if row.at and row.at < before and (since is None or row.at >= since)
            ]

    def _walked(self, since: datetime | None, before: datetime | None) -> Iterator[list[Listed]]:
        """The same without what neighbouring windows have in common."""
        at_bounds: set[str] = set()
        # of all there is, one page tells how much a window may hold
        most_pages = 1 if since is None else WINDOW_PAGES
        for window_end, rows in self._windows(since, before, most_pages):
            fresh = [row for row in rows if row.conversation_id not in at_bounds]
            at_bounds.update(
                row.conversation_id
                for row in fresh
                if row.at is None or not FIRST_CONVERSATIONS <= row.at < window_end - 2 * MARGIN
            )
            if fresh:
                yield fresh

    def _windows(
        self, since: datetime | None, before: datetime | None, most_pages: int = WINDOW_PAGES
    ) -> Iterator[tuple[datetime, list[Listed]]]:
        """The end of each window, and what is in it, oldest first."""
        window = self._read(since, before, most_pages)
        end = before or self._clock()
        if not window.is_whole and (edge := window.oldest):
            yield from self._below(since, edge + MARGIN, window)
        rows = sorted(window.rows, key=lambda row: row.at or end)
        for start in range(0, len(rows), self._page_size):
            yield end, rows[start : start + self._page_size]

    def _below(
        self, since: datetime | None, edge: datetime, above: _Window
    ) -> Iterator[tuple[datetime, list[Listed]]]:
        """Everything older than what was read of a window, in windows from the oldest on."""
        # by what came: it may be less than was asked for
        fits = min(WINDOW_PAGES / above.pages, WINDOW_BYTES / max(above.size, 1))
        wanted = fits * len(above.rows)
        length = max(above.spread * fits, _SHORTEST)
        start = since
        end = since or self._before_oldest(edge, length)
        end += min(length, edge - end)
        while True:
            # what would be left is not worth a window of its own
            end = edge if edge - end <= length / 4 else end
            found = 0
            for window_end, rows in self._windows(start, end):
                found += len(rows)
                yield window_end, rows
            if end == edge:
                return
            growth = wanted / found if found else _FASTEST_GROWTH
            length *= min(max(growth, 1 / _FASTEST_GROWTH), _FASTEST_GROWTH)
            length = max(length, _SHORTEST)
            start, end = end - MARGIN, end + min(length, edge - end)

    def _before_oldest(self, edge: datetime, length: timedelta) -> datetime:
        """A moment before which there is nothing, or little: a small request for each halving."""
        nothing_before, edge = self._nothing_before, max(edge, self._nothing_before)
        while edge - nothing_before > max(length / 4, _NARROWEST):
            middle = nothing_before + (edge - nothing_before) / 2
            page = self._api.conversations(
                environment=self._environment, since=None, before=middle, limit=1
            )
            if not page.rows and not page.cursor:
                nothing_before = middle
                continue
            moment = timestamp_or_none(page.rows[0].started_at) if page.rows else None
            edge = max(min(middle, moment or middle), nothing_before)
        self._nothing_before = nothing_before
        return nothing_before

    def _read(self, since: datetime | None, before: datetime | None, most_pages: int) -> _Window:
        """Reads a window to its end, or until it is too much to be put aside."""
        window = _Window()
        cursors: set[str] = set()
        seen: set[str] = set()
        cursor: str | None = None
        fruitless = 0
        while True:
            page = self._api.conversations(
                environment=self._environment,
                since=since,
                before=before,
                limit=self._page_size,
                cursor=cursor,
            )
            fruitless = 0 if self._take(page, window, seen) else fruitless + 1
            cursor = page.cursor
            if cursor is None:
                window.is_whole = True
                return window
            if cursor in cursors:
                raise ListingError(f"the listing gives the cursor {cursor[:40]!r} again")
            if fruitless > MOST_EMPTY_PAGES:
                raise ListingError(
                    f"{MOST_EMPTY_PAGES} pages in a row gave nothing new: the listing does not end"
                )
            cursors.add(cursor)
            is_much = window.pages >= most_pages or window.size >= WINDOW_BYTES
            if is_much and window.is_newest_first and self._is_divisible(window, since):
                return window

    def _is_divisible(self, window: _Window, since: datetime | None) -> bool:
        """Whether what is left of the window is a shorter one."""
        if window.oldest is None or window.spread <= 2 * MARGIN:
            return False
        return since is None or window.oldest > since + 2 * MARGIN

    def _take(self, page: V3Page, window: _Window, seen: set[str]) -> bool:
        """Adds a page to the window; whether it had anything new."""
        now = self._clock()
        window.pages += 1
        window.size += page.spool.length
        had = len(window.rows)
        if window.spool is None or window.pages <= WINDOW_PAGES:
            window.spool = page.spool
        for row in page.rows:
            if row.conversation_id in seen:
                continue
            seen.add(row.conversation_id)
            at = timestamp_or_none(row.started_at)
            if at and at >= FIRST_CONVERSATIONS:
                window.place(at)
            # of a window that is read to its end, however long, few files are kept open
            document = row.document
            if window.spool is not page.spool:
                document = window.spool.put(document.spool.read(document.offset, document.length))
            window.rows.append(
                Listed(row.conversation_id, at, self._hash(row.row_hash), now, document)
            )
        return len(window.rows) > had

    def _hash(self, row_hash: str) -> str:
        return f"{row_hash}+detail" if self._details else row_hash
