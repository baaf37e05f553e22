"""Pages of the Data API's listing: ids and times of their rows."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from itertools import islice
from typing import Any

from ..api.answers import Page
from ..clock import timestamp_or_none
from .summary import summary_hash

Row = dict[str, Any]

WITHOUT_ID = "row:"
"""Prefix of the keys of rows without an id."""

_END_ROWS = 5
"""Rows at an end of a page whose median is the time of that end, of pages with ten times as many.

Of smaller pages it is three. A median, so that a single absurd date does not mislead a search.
"""


def key_of(row: Row) -> str:
    """Returns the row's id, or else a key made from its content: the same for the same row."""
    return id_of(row) or WITHOUT_ID + summary_hash(row)


def keys_of(page: Page) -> list[str]:
    """Returns the keys of a page's rows, in its order."""
    return [key_of(row) for row in page.conversations]


def id_of(row: Row) -> str | None:
    """Returns the row's id; None without a usable one."""
    conversation_id = row.get("conversationId")
    if isinstance(conversation_id, bool) or not isinstance(conversation_id, str | int):
        return None
    return str(conversation_id) or None


def created_at(row: Row) -> datetime | None:
    """Returns the time that the listing is sorted by; None where it is missing or invalid.

    It has no substitute: another time may be out of order and would misplace the row.
    """
    return timestamp_or_none(row.get("createdAt"))


def times_of(page: Page) -> list[datetime]:
    """Returns the valid times of a page, in its order."""
    return [at for row in page.conversations if (at := created_at(row))]


def older_end(page: Page) -> datetime | None:
    """Returns the time at the older end of a page; None without a valid time."""
    found = _older_row(page)
    return found[0] if found else None


def newer_end(page: Page) -> datetime | None:
    """Returns the time at the newer end of a page; None without a valid time."""
    found = _newer_row(page)
    return found[0] if found else None


def timed_ends(page: Page) -> Iterator[tuple[datetime, int]]:
    """Yields the time of the older and of the newer end, each with the offset of its row."""
    return (found for found in (_older_row(page), _newer_row(page)) if found)


def _older_row(page: Page) -> tuple[datetime, int] | None:
    rows = sorted(_dated_end(page, from_offset=len(page.conversations) - 1, step=-1))
    return rows[len(rows) // 2] if rows else None


def _newer_row(page: Page) -> tuple[datetime, int] | None:
    rows = sorted(_dated_end(page, from_offset=0, step=1))
    return rows[(len(rows) - 1) // 2] if rows else None


def _dated_end(page: Page, *, from_offset: int, step: int) -> Iterator[tuple[datetime, int]]:
    """Yields the time and the offset of the dated rows at one end of a page."""
    rows = page.conversations
    dated = (
        (at, page.offset + index)
        for index in range(from_offset, len(rows) if step > 0 else -1, step)
        if (at := created_at(rows[index]))
    )
    return islice(dated, _END_ROWS if len(rows) >= 10 * _END_ROWS else 3)


def are_equal(one: Page, other: Page) -> bool:
    """Returns whether two pages have the same rows, with at least one id."""
    ids, other_ids = ([id_of(row) for row in page.conversations] for page in (one, other))
    return any(ids) and ids == other_ids
