"""Listing of the Conversations API v3: whole conversations, in time windows with cursors.

The API returns the conversations that started within a window, as far as is known newest first, in
pages with a cursor. The listing yields them oldest first, so that an interrupted load leaves no
gap. If a window does not end within a few pages, its pages are spooled to disk (`Spool`), with only
ids and hashes in memory; the time before them is then walked in windows of about that size, oldest
first, and the spooled conversations follow. No page is requested twice.

A window whose pages are not sorted newest first is read to its end instead. The order of the API is
only a hint, though: once everything older has been walked, a window that did not end is read from
its oldest time to its end. Each conversation is then in a window that was read to its end, whatever
time the API filters and sorts by.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from ..api.answers import V3Page
from ..api.client import ConversationsV3
from ..api.page_stream import Spool
from ..clock import Clock, timestamp_or_none
from ..config.agent import V3
from ..errors import ListingError
from .protocol import Listed, MalformedRow
from .v3_pages import V3Pages, row_keys

WITH_DETAIL = "+detail"
"""Ending of the hash of a conversation whose detail is read too."""

MARGIN = timedelta(minutes=1)
"""Margin of requested windows around the wanted range, and overlap of adjacent windows.

The documentation does not say whether bounds are inclusive, and the time that the API filters and
sorts by may differ slightly from the one that it shows."""

WINDOW_PAGES = 20
"""Limit of spooled pages per window, before older windows are read first."""

WINDOW_BYTES = 256 * 2**20
"""Limit of spooled bytes per window."""

MAX_EMPTY_PAGES = 100
"""Consecutive pages without a new conversation after which a walk gives up."""

FIRST_CONVERSATIONS = datetime(2017, 1, 1, tzinfo=UTC)
"""Lower bound of plausible times; conversations with earlier times are listed too.

An earlier time was probably never set, and says nothing about the position of a row."""

_MIN_SEARCH_RANGE = timedelta(hours=1)
"""Precision of the search for the oldest conversation."""

_MIN_WINDOW = 4 * MARGIN
"""Shortest window: a shorter one would mostly overlap the previous one."""

_TOLERANCE = 4
"""Factor by which a window may exceed its intended length before it is divided: the pages read so
far of a divided one are requested again at its end."""

_PAGES_TO_ESTIMATE = 2
"""Pages from which the length of a window is estimated."""

_MAX_GROWTH = 4
"""Largest factor between the lengths of consecutive windows."""


@dataclass
class _Window:
    """Conversations read from a window."""

    rows: list[Listed] = field(default_factory=list)
    spool: Spool | None = None
    pages: int = 0
    size: int = 0
    oldest: datetime | None = None
    newest: datetime | None = None
    is_complete: bool = False
    is_newest_first: bool = True
    seen: set[str] = field(default_factory=set)
    """Keys of its rows; see `row_keys`."""

    def merge(self, other: _Window) -> None:
        """Adds the rows of another window; of two with the same id, the other one's stays."""
        rows = {row.conversation_id: row for row in (*self.rows, *other.rows)}
        self.rows = list(rows.values())

    def add_time(self, at: datetime) -> None:
        """Adds the time of the next row."""
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
        api: Conversations API v3 of the agent.
        environment: live, sandbox or pre-release.
        page_size: Conversations to request per page.
        clock: Clock for `fetched_at` and open windows.
        details: Whether details are fetched too. Hashes then differ, so that conversations loaded
            without their details are fetched again.
    """

    source_api: str = V3
    has_count: bool = False
    api_count: int | None = None
    count_excess: int | None = None
    is_proven: bool = True
    walks: int = 1

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
        self.undated: set[str] = set()
        self.gaps_repaired = 0
        self.malformed: dict[str, MalformedRow] = {}
        self._environment = environment
        self._api = api
        self._page_size = page_size
        self._pages = V3Pages(api, environment, page_size)
        self._clock = clock
        self._details = details
        self._nothing_before = FIRST_CONVERSATIONS

    def oldest_first(
        self, since: datetime | None = None, before: datetime | None = None
    ) -> Iterator[list[Listed]]:
        """See `Listing.oldest_first`."""
        start = since and since - MARGIN
        if before is None:
            yield from self._deduplicated(start, None)
            return
        for rows in self._deduplicated(start, before + MARGIN):
            yield [row for row in rows if not _is_in_margin(row.at, since, before)]

    def _deduplicated(
        self, since: datetime | None, before: datetime | None
    ) -> Iterator[list[Listed]]:
        """Yields the conversations of all windows, without the overlap of adjacent windows."""
        at_bounds: set[str] = set()
        # of an unbounded range, one page is enough to estimate the length of windows
        max_pages = 1 if since is None else WINDOW_PAGES
        for window_end, rows in self._windows(since, before, max_pages):
            new_rows = [row for row in rows if row.conversation_id not in at_bounds]
            at_bounds.update(
                row.conversation_id
                for row in new_rows
                if row.at is None or not FIRST_CONVERSATIONS <= row.at < window_end - 4 * MARGIN
            )
            if new_rows:
                yield new_rows

    def _windows(
        self, since: datetime | None, before: datetime | None, max_pages: int = WINDOW_PAGES
    ) -> Iterator[tuple[datetime, list[Listed]]]:
        """Yields the end and the conversations of each window, oldest first."""
        window = self._read_window(since, before, max_pages)
        end = before or self._clock()
        if not window.is_complete and (edge := window.oldest):
            yield from self._older_windows(since, edge + MARGIN, window)
            window.merge(self._read_window(edge - MARGIN, before))
        rows = sorted(window.rows, key=lambda row: row.at or end)
        for start in range(0, len(rows), self._page_size):
            yield end, rows[start : start + self._page_size]

    def _older_windows(
        self, since: datetime | None, edge: datetime, above: _Window
    ) -> Iterator[tuple[datetime, list[Listed]]]:
        """Yields everything older than the pages of `above`, in windows, oldest first."""
        # based on the rows received, which may be fewer than requested
        fits = min(WINDOW_PAGES / above.pages, WINDOW_BYTES / max(above.size, 1))
        wanted = fits * len(above.rows)
        length = max(above.spread * fits, _MIN_WINDOW)
        start = since
        end = since or self._search_start(edge, length)
        end += min(length, edge - end)
        while True:
            # a short remainder is not worth a window of its own
            end = edge if edge - end <= length / 4 else end
            found = 0
            for window_end, rows in self._windows(start, end, _TOLERANCE * WINDOW_PAGES):
                found += len(rows)
                yield window_end, rows
            if end == edge:
                return
            growth = wanted / found if found else _MAX_GROWTH
            length *= min(max(growth, 1 / _MAX_GROWTH), _MAX_GROWTH)
            length = max(length, _MIN_WINDOW)
            start, end = end - MARGIN, end + min(length, edge - end)

    def _search_start(self, edge: datetime, length: timedelta) -> datetime:
        """Finds a time with hardly any conversation before it, by bisection with small requests."""
        nothing_before, edge = self._nothing_before, max(edge, self._nothing_before)
        while edge - nothing_before > max(length / 4, _MIN_SEARCH_RANGE):
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

    def _read_window(
        self, since: datetime | None, before: datetime | None, max_pages: int | None = None
    ) -> _Window:
        """Reads a window to its end, or up to the limits of spooled pages and bytes.

        Args:
            since: Start of the window.
            before: End of the window.
            max_pages: Limit of pages, and in proportion of bytes; none where None.
        """
        window = _Window()
        idle_pages = 0
        for page in self._pages.of_window(since, before, window.seen):
            idle_pages = 0 if self._add_page(page, window) else idle_pages + 1
            if idle_pages > MAX_EMPTY_PAGES:
                raise ListingError(
                    f"{MAX_EMPTY_PAGES} consecutive pages without a new conversation: the "
                    "listing does not end"
                )
            may_be_last = page.cursor is None and page.next_offset is None
            if max_pages is None or may_be_last:
                continue
            if self._is_too_long(window, since, max_pages):
                return window
        window.is_complete = True
        return window

    def _is_too_long(self, window: _Window, since: datetime | None, max_pages: int) -> bool:
        """Returns whether older windows should be read first, and whether they are shorter."""
        if window.oldest is None or not window.is_newest_first or window.spread <= 2 * MARGIN:
            return False
        rest = window.oldest - (since or self._nothing_before)
        if since is not None and rest <= 2 * MARGIN:
            return False
        max_bytes = WINDOW_BYTES * max(max_pages // WINDOW_PAGES, 1)
        growth = 1.0
        if window.pages == _PAGES_TO_ESTIMATE and max_pages > WINDOW_PAGES:
            # early, because the pages read so far will be requested again; only where the length
            # was chosen here, as rows may be anywhere in a window that was asked for
            growth += max(rest / window.spread, 0)
        return window.pages * growth >= max_pages or window.size * growth >= max_bytes

    def _add_page(self, page: V3Page, window: _Window) -> bool:
        """Adds a page to the window; returns whether it had a new row."""
        now = self._clock()
        window.pages += 1
        window.size += page.spool.length
        if window.spool is None or window.pages <= WINDOW_PAGES:
            window.spool = page.spool
        keys = row_keys(page)
        has_new = not keys <= window.seen
        for row in page.rows:
            if row.conversation_id in window.seen:
                continue
            window.seen.add(row.conversation_id)
            at = timestamp_or_none(row.started_at)
            if at and at >= FIRST_CONVERSATIONS:
                window.add_time(at)
            # limits the open files of a long window that is read to its end
            document = row.document
            if window.spool is not page.spool:
                document = window.spool.put(document.spool.read(document.offset, document.length))
            window.rows.append(
                Listed(row.conversation_id, at, self._hash(row.row_hash), now, document)
            )
        window.seen |= keys
        self.gaps_repaired = self._pages.gaps_repaired
        for row_hash, reason in page.malformed.items():
            malformed = MalformedRow.of(row_hash, f"a conversation of the listing {reason}")
            self.malformed[malformed.key] = malformed
        return has_new

    def _hash(self, row_hash: str) -> str:
        return f"{row_hash}{WITH_DETAIL}" if self._details else row_hash


def _is_in_margin(at: datetime | None, since: datetime | None, before: datetime) -> bool:
    """Returns whether a row is in the margin around a range, which an adjacent range contains.

    A row whose time is missing or elsewhere stays: the API's filter has found it in the range.
    """
    if at is None:
        return False
    return before <= at <= before + MARGIN or (since is not None and since - MARGIN <= at < since)
