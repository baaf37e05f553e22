"""Reader of pages by offset, and of the true end of the list."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ..api.answers import Page
from ..errors import ListingError
from .landmarks import Landmarks
from .pages import Row, are_equal, key_of, keys_of, timed_ends

FetchPage = Callable[[int, int], Page]
"""Fetches a page by limit and offset."""

MAX_PAGES_WITHOUT_PROGRESS = 1_000
"""Consecutive pages without progress after which a walk gives up."""

_EQUAL_PAGE_RETRIES = 4
"""Retries of two equal pages at different offsets before they are an error."""

_MAX_SINGLE_ROWS = 8
"""Consecutive pages of a single row, not at the end, after which they are an error."""

_END_TRIES = 8
"""Attempts to see an empty page beyond the end while conversations arrive."""

_MAX_END_SEARCH = 200
"""Requests of a search for the end of a list with a wrong count."""


class PageReader:
    """Reads pages, checks them against each other and against the count.

    The count is a hint. An answer with rows beyond it, or with none before it, shows that it is
    wrong (capped, late, or too high); positions are then derived from the end that was found by
    looking.

    Args:
        fetch: Fetches a page.
        page_size: Rows to request; the server may return fewer, and a varying number.
        landmarks: Known positions of times; updated with every page.

    Attributes:
        pages: Pages received.
        gaps_repaired: Pages that did not join the previous one, so that the reading stepped back.
        has_count: All answers have had a usable count.
        head_count: Count stated by the newest page at offset 0; None before the first one.
        last_count: Count stated by the newest page; None before the first one.
        length: Rows to expect per page.
        is_count_wrong: An answer has contradicted its count.
        end: Rows of the list as found by looking; None while the count was not contradicted.
        is_end_seen: The last search for the end saw an empty page beyond it, and then the last row
            once more.
        strays: Rows that were received and not yet marked with `taken`, by key.
    """

    def __init__(self, fetch: FetchPage, page_size: int, landmarks: Landmarks) -> None:
        self._fetch = fetch
        self._page_size = page_size
        self._landmarks = landmarks
        self._last: Page | None = None
        self._pages_without_progress = 0
        self._single_rows = 0
        self.strays: dict[str, Row] = {}
        self.has_count = True
        self.pages = 0
        self.gaps_repaired = 0
        self.head_count: int | None = None
        self.last_count: int | None = None
        self.length = max(page_size, 2)
        self.is_count_wrong = False
        self.end: int | None = None
        self.is_end_seen = False

    @property
    def step(self) -> int:
        """One row less than a page, so that consecutive pages overlap."""
        return self.length - 1

    def made_progress(self) -> None:
        """Resets the limit of pages without progress."""
        self._pages_without_progress = 0

    def total(self, page: Page) -> int:
        """Returns the rows of the list when the page was read, as far as is known."""
        if self.end is not None:
            return max(self.end, page.offset + len(page.conversations))
        return page.count

    def is_at_end(self, page: Page) -> bool:
        """Returns whether no row is expected beyond the page."""
        return page.offset + len(page.conversations) >= self.total(page)

    def page(self, offset: int) -> Page:
        """Fetches a page.

        Raises:
            ListingError: The listing returns the same page at every offset, or single rows, or it
                does not end.
        """
        page = self._fetch_page(offset)
        previous, self._last = self._last, page
        if previous is not None and previous.offset != offset and are_equal(previous, page):
            # arrivals can shift the same rows to this offset, but not to further offsets each time
            for further in range(_EQUAL_PAGE_RETRIES):
                if not are_equal(self._fetch_page(previous.offset + further), page):
                    return page
                page = self._fetch_page(offset)
            raise ListingError(
                f"the listing returns the same page at every offset, such as {previous.offset} and "
                f"{offset}"
            )
        return page

    def taken(self, page: Page) -> None:
        """Marks the rows of a page as part of the walk."""
        for row in page.conversations:
            self.strays.pop(key_of(row), None)

    def _fetch_page(self, offset: int) -> Page:
        page = self._fetch(self._page_size, offset)
        rows, end = len(page.conversations), offset + len(page.conversations)
        self.pages += 1
        self._pages_without_progress += 1
        self.last_count = page.count
        if offset == 0:
            self.head_count = page.count
        if page.offset != offset:
            raise ListingError(f"the listing returned offset {page.offset} instead of {offset}")
        if self._pages_without_progress > MAX_PAGES_WITHOUT_PROGRESS:
            raise ListingError(
                f"{MAX_PAGES_WITHOUT_PROGRESS} consecutive pages without progress: the listing "
                "does not end, or conversations arrive faster than they can be read"
            )
        self.has_count = self.has_count and page.has_count
        is_contradicted = (rows and end > page.count) or (not rows and offset < page.count)
        if is_contradicted or not page.has_count:
            self.is_count_wrong = True
        for row in page.conversations:
            self.strays[key_of(row)] = row
        self._landmarks.learn(self.total(page), timed_ends(page))
        self._check_length(page)
        return page

    def _check_length(self, page: Page) -> None:
        rows = len(page.conversations)
        is_at_end = self.is_at_end(page)
        if rows == 1 and not is_at_end:
            self._single_rows += 1
            if self._single_rows > _MAX_SINGLE_ROWS:
                self._single_rows = 0
                if not self._fetch_page(page.offset + 1).conversations:
                    return  # the last row, in spite of the count
                raise ListingError(
                    "the listing returns single rows, so that pages cannot be joined"
                )
        elif rows > 1:
            self._single_rows = 0
            # the last page may be shorter than the others
            self.length = rows if not is_at_end else max(rows, self.length)

    def oldest_page(self, page: Page, share: float = 1.0) -> Page:
        """Returns a page that ends with the oldest row.

        `is_end_seen` reports whether it was seen that no row follows.

        Args:
            page: The latest page.
            share: Share of a page's rows to return, 0 to 1: shifts the pages of a walk.
        """
        self.is_end_seen = False
        if not page.conversations and page.offset == 0:
            self.is_end_seen = True
            return page
        if not self.is_count_wrong and (oldest := self._stated_oldest_page(page, share)):
            return oldest
        oldest = self.find_end(page)
        rows = self._rows(share)
        if self.end and len(oldest.conversations) != rows:
            oldest = self.page(max(0, self.end - rows))
        return self._confirmed(oldest)

    def _stated_oldest_page(self, page: Page, share: float) -> Page | None:
        """Returns the page where the count places it; None where the count is wrong."""
        arrivals = 0
        while not (page.conversations and page.offset + len(page.conversations) >= page.count):
            # arrivals shift the oldest row further during the request: aim beyond it by a margin
            rows = self._rows(share)
            margin = min(2 * arrivals, rows - 1)
            count = page.count
            page = self.page(max(0, count - rows + margin))
            if self.is_count_wrong:
                return None
            if not page.conversations and page.offset == 0:
                self.is_end_seen = True
                return page
            arrivals = max(0, page.count - count)
        oldest = self._confirmed(page)
        return None if self.is_count_wrong else oldest

    def _confirmed(self, oldest: Page) -> Page:
        """Looks for the end behind a page; returns the page, or one with older rows.

        An empty page proves nothing by itself: deletions since the page was read leave one as well,
        and have moved the rows behind the page into it. See `last_rows`.
        """
        self.is_end_seen, known = False, set(keys_of(oldest))
        edge, latest, shift = oldest.offset + len(oldest.conversations), oldest, 0
        for _ in range(_END_TRIES):
            # where conversations arrive all the time, the list ends further away each time
            target = edge if self.is_count_wrong else max(edge, latest.count + shift)
            page = self.page(target)
            if not page.conversations and target in (edge, page.count):
                page = self.last_rows(page, latest, known)
                if self.is_end_seen:
                    break
                edge = page.offset
            shift, latest = page.count - latest.count, page
            if page.conversations:
                edge = page.offset + len(page.conversations)
                keys = set(keys_of(page))
                if not keys <= known:
                    # older rows, and not those of the page that arrivals have moved
                    self.is_count_wrong = True
                    oldest, known = page, keys
        if self.is_count_wrong:
            self.end = max(self.end or 0, oldest.offset + len(oldest.conversations))
        return oldest

    def last_rows(self, beyond: Page, latest: Page, known: set[str]) -> Page:
        """Requests the last row once more, after an empty page; sets `is_end_seen`.

        The end is seen if the answer is shorter than a page and has only rows that are known.

        Args:
            beyond: The empty page.
            latest: The page before it.
            known: Keys of the rows that were received at the end.

        Returns:
            The answer.
        """
        self.is_end_seen = False
        for _ in range(_END_TRIES):
            end = beyond.offset if self.is_count_wrong else min(beyond.offset, beyond.count)
            # as many may be deleted again; but the answer has to be shorter than a page
            fall = latest.count - beyond.count
            margin = max(0, min(fall, self.length - 2, len(known) - 1))
            page = self.page(max(0, end - 1 - margin))
            if page.conversations or page.offset == 0:
                is_short = len(page.conversations) < self.length
                self.is_end_seen = is_short and known.issuperset(keys_of(page))
                break
            latest, beyond = beyond, page
        return page

    def _rows(self, share: float) -> int:
        return max(1, int(self.length * share))

    def pages_from(self, offset: int) -> Iterator[Page]:
        """Yields the page at an offset, then pages in longer and longer strides down to the end."""
        count, stride = self.last_count or 0, max(self.step // 4, 1)
        page = self.page(offset)
        yield page
        while not self.is_at_end(page):
            self.gaps_repaired += 1
            pushed, count = max(0, page.count - count), page.count
            page = self.page(page.offset + pushed + stride)
            stride *= 2
            yield page

    def find_end(self, page: Page) -> Page:
        """Finds the end of the list by looking, whatever the count; sets `end`.

        Gallops from where the end is expected, then bisects, until a page with rows and an empty
        one meet. Deletions in between leave an empty page as well, so the oldest row is then
        requested once more: it has to be alone in its page.

        Args:
            page: The latest page.

        Returns:
            The page that ends with the oldest row.
        """
        last = page if page.conversations else self.page(0)
        low, high = last.offset + len(last.conversations), None
        expected = self.end if self.end is not None else self.last_count or 0
        offset, stride = max(low, expected), self.length
        self.is_end_seen = False
        for _ in range(_MAX_END_SEARCH):
            page = self.page(offset)
            rows = len(page.conversations)
            if not rows:
                high = offset
            elif offset + rows >= low:
                last, low = page, offset + rows
            if high is not None and high < low:
                if rows:
                    high = None  # arrivals have moved the end
                else:  # deletions have moved it
                    last, low, stride = page, 0, self.length
            if high == low:
                again = self.page(max(0, low - 1))
                rows = len(again.conversations)
                if keys_of(again) == keys_of(last)[-1:]:
                    self.is_end_seen = True
                    break
                last, low, high = again, again.offset + rows, None
                if not rows:
                    low, high = 0, again.offset
                stride = self.length
            if high is None:
                offset = low if rows < self.length else low + stride
            elif high - low <= self.length:
                offset = low
            else:
                offset = (low + high) // 2 if rows else max(low, high - stride)
            stride *= 2
        self.end = low
        return last
