"""Search for the position of a time in a list, by landmarks and bisection."""

from __future__ import annotations

from datetime import datetime

from ..api.answers import Page
from .landmarks import Bracket, Landmarks
from .page_reader import PageReader
from .pages import newer_end, older_end

_MAX_SEARCH = 200
"""Requests of a search for a position, which takes at most three per halving of the list."""


def start_page(reader: PageReader, landmarks: Landmarks, since: datetime | None) -> Page:
    """Finds a page with rows before `since` to walk up from, else the oldest page."""
    if since is None:
        return reader.oldest_page(reader.page(0))
    count, guess = landmarks.count, landmarks.position_before(since)
    page = reader.page(0 if count is None or guess is None else _offset(reader, guess, count))
    bracket = Bracket(reader.total(page))
    for _ in range(_MAX_SEARCH):
        if reader.is_count_wrong and reader.end is None:
            # positions are derived from the end, so it has to be known
            page = reader.find_end(page)
            bracket = Bracket(reader.total(page))
        rows, total = page.conversations, reader.total(page)
        oldest, newest, position = older_end(page), newer_end(page), total - page.offset
        if oldest and oldest < since:
            if page.offset == 0 or (newest and newest >= since):
                return page
            bracket.older = position
        elif reader.is_at_end(page):
            return reader.oldest_page(page)
        elif rows:
            # also without a valid time: a start too far down is correct, only slower
            bracket.newer = position - len(rows) + 1
        else:
            bracket.older = max(0, position)
        if bracket.newer - bracket.older < reader.length:
            offset = max(0, total - bracket.newer)
            return _first_older(reader, offset, since)
        position = bracket.next(landmarks.position_before(since))
        page = reader.page(_offset(reader, position, total))
    # positions that move all the time: from the end, which is correct, only slower
    return reader.oldest_page(reader.page(0))


def _offset(reader: PageReader, position: int, count: int) -> int:
    """Returns the offset of a page with the position in its older half."""
    length = reader.length
    newest = position + reader.step - length // 4
    return max(0, count - max(newest, length))


def _first_older(reader: PageReader, offset: int, since: datetime) -> Page:
    """Returns the first page from the offset on with rows before `since`, else the oldest."""
    for page in reader.pages_from(offset):
        if begins_before(page, since):
            return page
    return reader.oldest_page(page)


def begins_before(page: Page, moment: datetime | None) -> bool:
    """Returns whether the older end of a page is before a time; never for None."""
    oldest = older_end(page)
    return moment is not None and oldest is not None and oldest < moment
