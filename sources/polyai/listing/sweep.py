"""Sweep of a list from its newest row down to a time, in memory."""

from __future__ import annotations

from datetime import datetime

from ..api.answers import Page
from .page_reader import PageReader
from .pages import Row, keys_of, times_of


def sweep_from_head(reader: PageReader, since: datetime, max_pages: int) -> list[list[Row]] | None:
    """Reads pages from the head to the first wholly before `since`, or to the end of the list.

    Args:
        reader: Reader of the list.
        since: Time to read down to.
        max_pages: Pages after which to give up.

    Returns:
        The rows of each page, newest first, without those of an earlier page; None for too many.
    """
    pages: list[list[Row]] = []
    seen: set[str] = set()
    page: Page | None = None
    offset, count, end, repairs = 0, 0, -1, 0
    for _ in range(max_pages):
        latest, page = page, reader.page(offset)
        if latest and not page.conversations and offset == end:
            page = reader.last_rows(page, latest, seen)
            offset, is_end = page.offset, reader.is_end_seen
        else:
            is_end = not page.conversations and offset == 0
        keys = keys_of(page)
        joins = bool(keys) and (keys[0] in seen or (repairs > 2 and not seen.isdisjoint(keys)))
        if not (is_end or joins or offset == 0):
            # a gap, or a newer row that was not seen: look again from further up
            reader.gaps_repaired += 1
            repairs += 1
            deleted = max(count - page.count, 0)
            count = page.count
            edge = offset if reader.is_count_wrong else min(offset, max(count, 1))
            offset = max(0, edge - max(deleted, reader.step // 4, 1))
            continue
        repairs = 0
        rows = [row for row, key in zip(page.conversations, keys) if key not in seen]
        pages.append(rows)
        seen.update(keys)
        if rows:
            reader.made_progress()
        times = times_of(page)
        if is_end or (times and max(times) < since):
            return pages
        count, end = page.count, offset + len(keys)
        # the page beyond the stated end has to be empty
        is_stated_end = not rows if reader.is_count_wrong else end >= count
        offset = end if is_stated_end else max(end - 1, offset + 1)
    return None
