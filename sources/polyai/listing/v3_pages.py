"""Pages of one window of the Conversations API v3, by cursor or by offset, in a size that works."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from datetime import datetime
from http import HTTPStatus

from ..api.answers import V3Page
from ..api.client import ConversationsV3
from ..errors import ApiError, ListingError, UnavailableError

logger = logging.getLogger("polyai")

SMALLEST_PAGE = 25
"""Page size that is not halved further, although the service fails with it."""

_MAX_TIMEOUTS = 2
"""Time-outs of one page after which its size is halved: each may take minutes."""


class V3Pages:
    """Reads windows of one environment page by page.

    Pages continue with `cursor`, or with `next_offset` where a page has no cursor. Pages by offset
    overlap and have to join, because deletions shift rows to lower offsets.

    Args:
        api: Conversations API v3 of the agent; it keeps the page size that works.
        environment: live, sandbox or pre-release.
        page_size: Conversations to request per page.

    Attributes:
        gaps_repaired: Pages by offset that did not join the previous ones.
    """

    def __init__(self, api: ConversationsV3, environment: str, page_size: int) -> None:
        self._api = api
        self._environment = environment
        self._page_size = page_size
        self.gaps_repaired = 0

    def of_window(
        self, since: datetime | None, before: datetime | None, seen: AbstractSet[str]
    ) -> Iterator[V3Page]:
        """Yields the pages of a window to its end.

        Args:
            since: Start of the window; None for no lower bound.
            before: End of the window; None for now.
            seen: Keys of the rows so far. The caller adds those of each page.

        Raises:
            ListingError: A cursor or an offset repeats, or there is no way to the next page.
            ApiError: The API rejects a request or does not answer.
        """
        cursors: set[str] = set()
        cursor: str | None = None
        offset: int | None = None
        first: frozenset[str] = frozenset()
        end = largest = 0
        while True:
            page = self._page(since, before, cursor, offset)
            if offset is not None:
                if first and row_keys(page) == first and page.next_offset is not None:
                    raise ListingError(
                        "the listing has more conversations than one page, but neither returns a "
                        "cursor nor respects `offset`. Set page_size to 1000 (POLYAI_PAGE_SIZE), "
                        'or api = "data" (POLYAI_API)'
                    )
                offset, page = self._joined(since, before, offset, page, seen)
            has_new = not row_keys(page) <= seen
            yield page
            count = _count(page)
            end = (end if offset is None else offset) + count
            first = first or row_keys(page)
            # pages of one row cannot overlap
            is_full = has_new and count >= max(min(self._limit, largest or self._limit), 2)
            largest = max(largest, count)
            if page.cursor is not None:
                cursor, offset = page.cursor, None
                if cursor in cursors:
                    raise ListingError(f"the listing returned the cursor {cursor[:40]!r} twice")
                cursors.add(cursor)
            elif page.next_offset is not None:
                last_offset = offset or 0
                if page.next_offset <= last_offset:
                    raise ListingError(f"the listing returned the offset {page.next_offset} twice")
                # the last row once more; but a page of a single one would never end
                cursor, offset = None, max(page.next_offset - 1, last_offset + 1)
            elif is_full and (rest := self._beyond(since, before, end, seen)):
                yield rest
                cursor, offset = None, max(end + _count(rest) - 2, end)
            else:
                return

    def _beyond(
        self, since: datetime | None, before: datetime | None, end: int, seen: AbstractSet[str]
    ) -> V3Page | None:
        """Requests what follows a full page that names no next one; None if it is the last one."""
        try:
            page = self._page(since, before, None, end - 1)
        except ApiError as error:
            if error.status in (HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY):
                return None  # there are no offsets: the missing cursor is all there is to go by
            raise
        return None if row_keys(page) <= seen else page

    def _joined(
        self,
        since: datetime | None,
        before: datetime | None,
        offset: int,
        page: V3Page,
        seen: AbstractSet[str],
    ) -> tuple[int, V3Page]:
        """Steps back until a page by offset has a row in common with the ones before it."""
        step = max(_count(page) // 2, 1)
        while offset > 0 and not row_keys(page) & seen:
            self.gaps_repaired += 1
            offset, step = max(0, offset - step), step * 2
            page = self._page(since, before, None, offset)
        return offset, page

    @property
    def _limit(self) -> int:
        """Conversations to request per page."""
        return min(self._page_size, self._api.largest_page)

    def _page(
        self,
        since: datetime | None,
        before: datetime | None,
        cursor: str | None,
        offset: int | None,
    ) -> V3Page:
        """Requests a page; where the service fails with its size, a smaller one from then on."""
        wanted = self._limit
        while True:
            limit = self._limit
            try:
                page = self._api.conversations(
                    environment=self._environment,
                    since=since,
                    before=before,
                    limit=limit,
                    cursor=cursor,
                    offset=offset,
                    max_timeouts=_MAX_TIMEOUTS if limit > SMALLEST_PAGE else None,
                )
            except UnavailableError as error:
                if limit <= SMALLEST_PAGE or not error.is_overload:
                    raise
                self._api.largest_page = max(limit // 2, SMALLEST_PAGE)
                failure = error
                continue
            if limit < wanted:
                logger.warning(
                    "pages of %d conversations fail (%s): requesting %d per page for the rest of "
                    "the run",
                    wanted,
                    failure,
                    limit,
                )
            return page


def row_keys(page: V3Page) -> frozenset[str]:
    """Returns what identifies the rows of a page: ids, and hashes of malformed rows."""
    return frozenset(row.conversation_id for row in page.rows) | page.malformed.keys()


def _count(page: V3Page) -> int:
    return len(page.rows) + len(page.malformed)
