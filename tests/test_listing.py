"""The walk over a listing that drifts under it: nothing that was there throughout is missed."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from polyai.client import Page
from polyai.errors import ListingError
from polyai.listing import OffsetListing

START = datetime(2026, 9, 1, tzinfo=UTC)


class DriftingList:
    """A listing, newest first, that is changed before each page is cut."""

    def __init__(self, seconds: list[int], changes: list[tuple[int, int, int]], cap: int) -> None:
        self.rows = [self._row(f"old-{n}", s) for n, s in enumerate(sorted(seconds, reverse=True))]
        self.newest = max(seconds, default=0)
        self.changes = list(changes)
        self.cap = cap
        self.requests: list[tuple[int, int]] = []
        self.throughout = {row["conversationId"] for row in self.rows}
        self.arrivals = 0

    @staticmethod
    def _row(conversation_id: str, seconds: int) -> dict[str, Any]:
        at = START + timedelta(seconds=seconds)
        return {"conversationId": conversation_id, "createdAt": at.isoformat()}

    def fetch(self, limit: int, offset: int) -> Page:
        self.requests.append((limit, offset))
        cap = self.cap
        if self.changes:
            arrivals, deletions, cap = self.changes.pop(0)
            for _ in range(arrivals):
                self.arrivals += 1
                # bursts: every other arrival shares the newest timestamp
                self.newest += self.arrivals % 2
                self.rows.insert(0, self._row(f"new-{self.arrivals}", self.newest))
            for n in range(deletions):
                if self.rows:
                    gone = self.rows.pop((n * 7 + offset) % len(self.rows))
                    self.throughout.discard(gone["conversationId"])
        rows = self.rows[offset : offset + min(limit, cap)]
        return Page(rows, len(self.rows), min(limit, cap), offset)


histories = st.fixed_dictionaries(
    {
        # few distinct seconds: bursts with one timestamp that are larger than a page
        "seconds": st.lists(st.integers(0, 12), max_size=60),
        "changes": st.lists(
            st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(2, 6)), max_size=25
        ),
        "cap": st.integers(2, 6),
    }
)


@pytest.mark.parametrize("direction", ["newest_first", "oldest_first"])
@settings(max_examples=1_000, deadline=None, suppress_health_check=list(HealthCheck))
@given(history=histories)
def test_no_row_that_was_there_throughout_is_missed(
    direction: str, history: dict[str, Any]
) -> None:
    listing = DriftingList(**history)
    walk = OffsetListing(listing.fetch, page_size=5)
    listed = {row["conversationId"] for rows in getattr(walk, direction)() for row in rows}
    assert listing.throughout <= listed


@pytest.mark.parametrize("direction", ["newest_first", "oldest_first"])
@given(count=st.integers(0, 50), cap=st.integers(2, 7))
def test_a_list_at_rest_is_read_once_in_order(direction: str, count: int, cap: int) -> None:
    listing = DriftingList(list(range(count)), [], cap)
    walk = OffsetListing(listing.fetch, page_size=7)
    ids = [row["conversationId"] for rows in getattr(walk, direction)() for row in rows]
    expected = [row["conversationId"] for row in listing.rows]
    assert ids == (expected if direction == "newest_first" else expected[::-1])
    assert walk.gaps_repaired == 0
    assert walk.api_count == count
    # each page but the first brings its length less the one row of overlap
    pages = 1 if count <= cap else 1 + -(-(count - cap) // (cap - 1))
    found_the_end = direction == "oldest_first" and count > cap
    assert len(listing.requests) == pages + found_the_end


def test_the_sweep_stops_behind_the_first_page_before_the_lookback() -> None:
    listing = DriftingList(list(range(100)), [], cap=10)
    walk = OffsetListing(listing.fetch, page_size=10)
    rows = [row for page in walk.newest_first(until=START + timedelta(seconds=85)) for row in page]
    assert len(listing.requests) == 3
    assert rows[-1]["conversationId"] == "old-27"


def test_a_server_that_ignores_the_offset_is_found_out() -> None:
    listing = DriftingList(list(range(40)), [], cap=10)
    walk = OffsetListing(
        lambda limit, offset: replace(listing.fetch(limit, 0), offset=offset), page_size=10
    )
    with pytest.raises(ListingError, match="same page"):
        list(walk.newest_first())


def test_a_list_that_never_ends_is_given_up() -> None:
    def fetch(limit: int, offset: int) -> Page:
        listing.changes = [(9, 0, 6)]
        return listing.fetch(limit, offset)

    listing = DriftingList(list(range(40)), [], cap=6)
    with pytest.raises(ListingError, match="does not end"):
        list(OffsetListing(fetch, page_size=6).newest_first())


def test_pages_of_one_row_cannot_be_joined() -> None:
    listing = DriftingList(list(range(4)), [], cap=1)
    with pytest.raises(ListingError, match="single rows"):
        list(OffsetListing(listing.fetch, page_size=10).newest_first())


@pytest.mark.parametrize("direction", ["newest_first", "oldest_first"])
def test_an_empty_list_costs_one_request(direction: str) -> None:
    listing = DriftingList([], [], cap=5)
    assert list(getattr(OffsetListing(listing.fetch, 5), direction)()) == []
    assert len(listing.requests) == 1
