"""Listings that cannot be trusted: disorder, ties in any order, duplicates and wrong counts.

Every conversation that stays listed is yielded, or the walk reports that it is not proven.
"""

from __future__ import annotations

import tracemalloc
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from drifting_list import MisbehavingList, at
from examples import examples
from polyai.api.answers import Page
from polyai.listing.landmarks import Landmarks
from polyai.listing.offset import OffsetListing
from polyai.listing.seen_ids import MAX_WALKS, SeenIds

pytestmark = pytest.mark.unit

# occasionally more than several pages at once
shifts = st.sampled_from([0, 0, 0, 0, 1, 1, 2, 3, 5, 9, 30])
changes = st.lists(
    st.tuples(shifts, shifts, st.sampled_from([0, 0, 0, 0, 1, 3]), st.integers(1, 6)), max_size=25
)
histories = st.fixed_dictionaries(
    {
        "seconds": st.lists(st.integers(0, 12), max_size=60),
        "changes": st.one_of(st.just([]), changes),
        "cap": st.integers(2, 6),
        "unreadable": st.sampled_from([0, 0, 0, 5]),
        "shuffles_ties": st.booleans(),
        "displaced": st.one_of(st.just([]), st.lists(st.integers(-6, 0), max_size=7)),
        "absurd": st.one_of(
            st.none(),
            st.tuples(
                st.integers(0, 60), st.sampled_from(["2030-01-01T00:00:00Z", "1970-01-01T00:00Z"])
            ),
        ),
        "duplicates": st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=2),
        "count": st.sampled_from(["right", "right", "capped", "late", "low", "high"]),
    }
)


def history(**values: Any) -> dict[str, Any]:
    """Returns a history in which only these values are unusual."""
    return {
        "seconds": [],
        "changes": [],
        "cap": 4,
        "unreadable": 0,
        "shuffles_ties": False,
        "displaced": [],
        "absurd": None,
        "duplicates": [],
        "count": "right",
        **values,
    }


NOTHING = (0, 0, 0, 4)
SHRINKING_AT_THE_END = history(
    seconds=[0],
    changes=[
        (30, 0, 0, 4),
        (0, 0, 0, 5),
        NOTHING,
        (0, 9, 0, 4),
        *[NOTHING] * 9,
        (30, 0, 0, 4),
        (0, 30, 0, 4),
    ],
    count="low",
)
"""Deletions between the page with the last rows and the empty page beyond it."""

ONLY_IN_A_PROBE = history(
    seconds=[0, 0], cap=2, shuffles_ties=True, duplicates=[(1, 1)], count="late"
)
"""One row is only in the pages that search for the end, and another one twice in all others."""

DELETED_AT_THE_END = history(
    seconds=[0] * 6,
    changes=[(0, 0, 3, 4), (0, 9, 0, 1)],
    cap=2,
    duplicates=[(0, 0), (2, 0)],
    count="low",
)
"""A page that ends where the low count says, and deletions that empty the page beyond it."""

AT_THE_HEAD_AFTER_THE_WALK = history(
    seconds=[0] * 3, changes=[(0, 0, 0, 1), (0, 0, 0, 1)], cap=2, shuffles_ties=True
)
"""An old row that is only in the page that looks for arrivals once the walk has ended."""


def yielded(walk: OffsetListing, since: float | None, before: float | None) -> list[str]:
    return [
        row["conversationId"]
        for rows in walk.oldest_first(
            None if since is None else at(since), None if before is None else at(before)
        )
        for row in rows
    ]


@examples(1_000)
@given(history=histories)
@example(history=ONLY_IN_A_PROBE)
@example(history=SHRINKING_AT_THE_END)
@example(history=DELETED_AT_THE_END)
@example(history=AT_THE_HEAD_AFTER_THE_WALK)
def test_a_whole_walk_misses_no_row_or_is_not_proven(history: dict[str, Any]) -> None:
    listing = MisbehavingList(**history)
    walk = OffsetListing(listing.fetch, 5)
    listed = yielded(walk, None, None)
    assert len(listed) == len(set(listed))
    assert walk.walks <= MAX_WALKS
    assert (walk.count_excess is not None) == walk.is_proven
    if walk.is_proven:
        assert listing.stays_listed <= set(listed)


@pytest.mark.parametrize("since", [None, -1], ids=["from the oldest end", "swept to the end"])
@pytest.mark.parametrize("first", [0, 8, 16])
@pytest.mark.parametrize(
    ("count", "length", "deletions"), [("capped", 21, 1), ("low", 27, 7), ("low", 27, 9)]
)
def test_deletions_before_the_empty_page_hide_no_row(
    since: int | None, first: int, count: str, length: int, deletions: int
) -> None:
    # the count names 20 rows, and the page at 20 is empty once the others are deleted
    listing = MisbehavingList(list(range(length)), cap=20 if since else 5, count=count)

    def fetch(limit: int, offset: int) -> Page:
        if offset == 20:
            deleted = listing.ids[first : first + deletions] if len(listing.ids) == length else []
            listing.rows = [row for row in listing.rows if row["conversationId"] not in deleted]
            listing.stays_listed -= set(deleted)
        return listing.fetch(limit, offset)

    walk = OffsetListing(fetch, 20 if since else 5)
    listed = yielded(walk, since, None)
    assert len(listed) == len(set(listed))
    assert listing.stays_listed <= set(listed)


@examples(1_000)
@given(history=histories)
def test_a_list_at_rest_is_proven(history: dict[str, Any]) -> None:
    history = history | {"changes": [], "shuffles_ties": False, "cap": max(history["cap"], 3)}
    listing = MisbehavingList(**history)
    walk = OffsetListing(listing.fetch, 5)
    listed = yielded(walk, None, None)
    assert walk.is_proven
    assert set(listed) == set(listing.ids)
    assert walk.api_count is not None
    assert walk.count_excess == walk.api_count - len(set(listing.ids))


@examples(1_000)
@given(history=histories, since=st.integers(-2, 16), span=st.integers(0, 8))
@example(history=SHRINKING_AT_THE_END, since=0, span=1)
def test_a_range_misses_no_row_or_is_not_proven(
    history: dict[str, Any], since: int, span: int
) -> None:
    # the search takes the median of three rows at the end of a page, so one may be absurd; and a
    # range has no count that would show that one of two copies took the place of another row
    history = history | {"cap": max(history["cap"], 4)}
    is_odd = history["absurd"] or history["shuffles_ties"]
    history["duplicates"] = [] if is_odd else history["duplicates"][:1]
    history["changes"] = [(*change[:3], max(change[3], 4)) for change in history["changes"]]
    listing = MisbehavingList(**history)
    known = Landmarks()
    walk = OffsetListing(listing.fetch, 6, landmarks=known, tolerance=timedelta(seconds=7))
    listed = yielded(walk, since, since + span)
    assert len(listed) == len(set(listed))
    wanted = {
        name
        for name in listing.stays_listed & listing.readable
        if since <= listing.seconds[name] < since + span
    }
    if walk.is_proven:
        assert wanted <= set(listed)


class TestSeenIds:
    def test_it_tells_walks_apart(self) -> None:
        seen = SeenIds()
        assert seen.add("a", 0) == (True, True)
        assert seen.add("a", 0) == (False, False)
        assert seen.add("a", 1) == (False, True)
        assert seen.add("b", 1) == (True, True)
        assert (len(seen), seen.count(0), seen.count(1)) == (2, 1, 2)
        assert (seen.has("b", 0), seen.has("b", 1), seen.has("c", 1)) == (False, True, False)
        assert (seen.count_around(1), seen.count_around(2)) == (1, 0)

    @examples(100)
    @given(st.lists(st.tuples(st.text(), st.integers(0, MAX_WALKS - 1)), max_size=2_000))
    def test_it_equals_a_set_per_walk(self, added: list[tuple[str, int]]) -> None:
        seen = SeenIds()
        sets: list[set[str]] = [set() for _ in range(MAX_WALKS)]
        for key, walk in added:
            before = set().union(*sets)
            assert seen.add(key, walk) == (key not in before, key not in sets[walk])
            sets[walk].add(key)
        assert len(seen) == len(set().union(*sets))
        for number in range(1, MAX_WALKS):
            before, since = set().union(*sets[:number]), set().union(*sets[number:])
            assert seen.count_around(number) == len(before & since)

    def test_a_slot_of_eight_bytes_per_id_and_room_to_grow(self) -> None:
        tracemalloc.start()
        seen = SeenIds()
        for number in range(50_000):
            seen.add(f"CA{number:032x}", 0)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert len(seen) == 50_000
        assert peak < 50_000 * 40
