"""Offset pagination over a list that shifts during the walk: no row that stays listed is missed."""

from __future__ import annotations

import bisect
import itertools
import json
import math
import pickle
import random
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from drifting_list import DriftingList, at
from examples import examples
from polyai.api.answers import Page
from polyai.errors import ListingError
from polyai.listing.landmarks import MAX_LANDMARKS, Landmarks
from polyai.listing.offset import SHORT_SWEEP_PAGES, OffsetListing
from polyai.listing.page_reader import MAX_PAGES_WITHOUT_PROGRESS
from polyai.listing.pages import created_at

pytestmark = pytest.mark.unit

YEARS = timedelta(days=3 * 365)


def microseconds(seconds: float) -> int:
    """Time in the unit of landmarks."""
    return int(at(seconds).timestamp() * 1_000_000)


class HeadOnlyList(DriftingList):
    """A list that always returns its head, whatever the offset."""

    def fetch(self, limit: int, offset: int) -> Page:
        return replace(super().fetch(limit, 0), offset=offset)


def walk(
    listing: DriftingList, since: int | None = None, before: int | None = None, **options: Any
) -> list[str]:
    """Ids that the listing yields, in order; the options are those of `walks`."""
    return [name for names in walks(listing, since, before, **options) for name in names]


def walks(
    listing: DriftingList,
    since: int | None = None,
    before: int | None = None,
    *,
    page_size: int = 10,
    short_sweep_pages: int = SHORT_SWEEP_PAGES,
    landmarks: Landmarks | None = None,
) -> list[list[str]]:
    """Ids that each walk over the list yields, in order."""
    requests = len(listing.requests)
    walk = OffsetListing(
        listing.fetch,
        page_size,
        short_sweep_pages=short_sweep_pages,
        landmarks=landmarks,
        tolerance=timedelta(0),
    )
    yielded: list[list[str]] = [[] for _ in range(5)]
    for rows in walk.oldest_first(
        None if since is None else at(since), None if before is None else at(before)
    ):
        assert rows
        yielded[walk.walks] += [row["conversationId"] for row in rows]
    assert walk.pages == len(listing.requests) - requests
    return [names for names in yielded if names]


# occasionally more than several pages at once
shifts = st.sampled_from([*range(10), 30])
histories = st.fixed_dictionaries(
    {
        # few distinct seconds: bursts with one timestamp that are larger than a page
        "seconds": st.lists(st.integers(0, 12), max_size=60),
        "changes": st.lists(
            st.tuples(shifts, shifts, st.sampled_from([0, 0, 0, 3]), st.integers(2, 6)),
            max_size=25,
        ),
        "cap": st.integers(2, 6),
        "unreadable": st.sampled_from([0, 0, 2, 5]),
    }
)
moments = st.integers(-2, 16)
spans = st.integers(0, 8)

# none, outdated, another agent's, or invalid
known_landmarks = st.one_of(
    st.builds(Landmarks),
    st.builds(
        Landmarks,
        count=st.one_of(st.none(), st.integers(-5, 80), st.just(10**9)),
        points=st.lists(
            st.tuples(moments.map(microseconds), st.integers(-20, 120)),
            max_size=12,
        ),
    ),
)

WALKS = ("whole", "short sweep", "bisection", "range")


def check_history(
    kind: str, history: dict[str, Any], since: int, span: int, known: Landmarks
) -> None:
    """Walks over a history and compares the rows yielded with the rows listed."""
    listing = DriftingList(**history)
    first = None if kind == "whole" or (kind == "range" and span == 8) else since
    before = since + span if kind == "range" else None
    # bisection at once, and after a sweep that was too short
    sweep_pages = 100_000 if kind == "short sweep" else span // 2
    parts = walks(
        listing, first, before, page_size=5, short_sweep_pages=sweep_pages, landmarks=known
    )
    listed = [name for names in parts for name in names]

    wanted = {
        name
        for name in listing.stays_listed
        if (first is None or listing.seconds[name] >= first)
        and (before is None or (listing.seconds[name] < before and name in listing.readable))
    }
    assert wanted <= set(listed)
    assert len(listed) == len(set(listed))
    for names in parts:
        # late insertions among rows already read are yielded out of order, and so are rows that
        # were deleted, or are older than the range, where a sweep begins again
        positions = [
            listing.seconds[name]
            for name in names
            if name in listing.readable & listing.stays_listed
            and not name.startswith("late")
            and (first is None or listing.seconds[name] >= first)
        ]
        assert positions == sorted(positions)
    if before is not None:
        assert set(listed) <= listing.readable
        places = [listing.seconds[name] for name in listed]
        assert all(place < before and (first is None or place >= first) for place in places)


many_histories = given(history=histories, since=moments, span=spans, known=known_landmarks)


@pytest.mark.parametrize("kind", WALKS)
@example(
    # all rows of the first page are deleted: the walk begins again, before the range
    history={
        "seconds": [0, 0, 0, 0, 0, 1],
        "changes": [(0, 0, 0, 2), (4, 3, 0, 4), (0, 0, 0, 2), (0, 0, 0, 2), (0, 0, 0, 5)],
        "cap": 2,
        "unreadable": 0,
    },
    since=1,
    span=0,
    known=Landmarks(),
)
@examples(1_000)
@many_histories
def test_no_row_that_stays_listed_is_missed(
    kind: str, history: dict[str, Any], since: int, span: int, known: Landmarks
) -> None:
    check_history(kind, history, since, span, known)


@examples(1_000)
@given(
    history=histories,
    edges=st.lists(moments, min_size=2, max_size=5, unique=True).map(sorted),
    known=known_landmarks,
)
def test_slices_that_share_landmarks_have_no_row_in_common(
    history: dict[str, Any], edges: list[int], known: Landmarks
) -> None:
    listing = DriftingList(**history)
    slices = [
        set(walk(listing, since, before, page_size=5, landmarks=known))
        for since, before in itertools.pairwise(edges)
    ]
    listed = set().union(*slices)
    assert len(listed) == sum(map(len, slices))
    assert listed >= {
        name
        for name in listing.stays_listed & listing.readable
        if edges[0] <= listing.seconds[name] < edges[-1]
    }


@pytest.mark.parametrize("since", [None, -1], ids=["from the oldest end", "swept to the end"])
@given(count=st.integers(0, 50), cap=st.integers(2, 7))
def test_an_unchanged_list_is_read_once_in_order(since: int | None, count: int, cap: int) -> None:
    listing = DriftingList(list(range(count)), cap=cap)
    walk = OffsetListing(listing.fetch, page_size=7)
    ids = [
        row["conversationId"]
        for rows in walk.oldest_first(None if since is None else at(since))
        for row in rows
    ]
    assert ids == listing.ids[::-1]
    assert walk.gaps_repaired == 0
    assert walk.api_count == count
    # each page but the first adds its length minus one row of overlap
    pages = 1 if count <= cap else 1 + -(-(count - cap) // (cap - 1))
    found_the_end = since is None and count > cap
    # one more shows that nothing is beyond the end, and one that the end has not moved meanwhile
    proof = 2 if count else 0
    assert len(listing.requests) == pages + found_the_end + proof


parts_at_rest = given(
    seconds=st.lists(st.integers(0, 20), max_size=80),
    cap=st.integers(2, 7),
    unreadable=st.sampled_from([0, 4]),
    since=moments,
    span=spans,
)


class TestPartOfAnUnchangedList:
    """Exactly the requested rows, each once, in order."""

    @examples(300)
    @parts_at_rest
    def test_a_short_sweep(
        self, seconds: list[int], cap: int, unreadable: int, since: int, span: int
    ) -> None:
        listing = DriftingList(seconds, cap=cap, unreadable=unreadable)
        listed = walk(listing, since, page_size=7, short_sweep_pages=100)
        assert listed == listing.ids[: len(listed)][::-1]
        wanted = sum(second >= since for second in seconds)
        assert wanted <= len(listed)
        if not unreadable:
            # the pages from the head up to the first wholly before `since`
            pages = [listing.ids[n : n + cap] for n in range(0, max(len(seconds), 1), cap - 1)]
            needed = [page for page in pages if page[:1] and listing.seconds[page[0]] >= since]
            # the first page before `since`, or at the end an empty page and the last row again
            proof = 1 if len(needed) + 1 < len(pages) else 3
            assert len(listing.requests) <= len(needed) + proof

    @examples(300)
    @parts_at_rest
    def test_a_walk_from_a_bisected_position(
        self, seconds: list[int], cap: int, unreadable: int, since: int, span: int
    ) -> None:
        listing = DriftingList(seconds, cap=cap, unreadable=unreadable)
        listed = walk(listing, since, page_size=7, short_sweep_pages=0)
        assert listed == listing.ids[: len(listed)][::-1]
        wanted = sum(second >= since for second in seconds)
        assert wanted <= len(listed)
        if not unreadable:
            assert len(listed) <= wanted + cap

    @examples(300)
    @parts_at_rest
    def test_a_range(
        self, seconds: list[int], cap: int, unreadable: int, since: int, span: int
    ) -> None:
        listing = DriftingList(seconds, cap=cap, unreadable=unreadable)
        walk = OffsetListing(listing.fetch, page_size=7)
        pages = list(walk.oldest_first(at(since), at(since + span)))
        listed = [row["conversationId"] for rows in pages for row in rows]
        wanted = [n for n in listing.ids if since <= listing.seconds[n] < since + span]
        assert listed == [name for name in wanted[::-1] if name in listing.readable]
        hidden = set(listing.ids) - listing.readable
        assert len(hidden & set(wanted)) <= len(walk.undated) <= len(hidden)


def test_the_sweep_stops_after_the_first_page_before_the_lookback() -> None:
    listing = DriftingList(list(range(100)))
    ids = walk(listing, since=85)
    assert len(listing.requests) == 3
    assert (ids[0], ids[-1]) == ("old-27", "old-0")


@pytest.mark.parametrize("since", [100, 10_000], ids=["newer than all", "far in the future"])
def test_no_new_conversation_costs_one_page(since: int) -> None:
    listing = DriftingList(list(range(100)))
    assert walk(listing, since) == listing.ids[:10][::-1]
    assert listing.requests == [(10, 0)]


def test_the_sweep_reads_exactly_its_limit_of_pages_before_it_searches() -> None:
    for since, swept in ((64, True), (63, False)):
        listing = DriftingList(list(range(1_000, 1_100)))
        listed = walk(listing, since=1_000 + since, short_sweep_pages=5)
        assert [offset for _, offset in listing.requests[:5]] == [0, 9, 18, 27, 36]
        # page 5 has the rows 1063 down to 1054, whose landmarks give the start of the walk
        assert [offset for _, offset in listing.requests[5:6]] == ([] if swept else [29])
        assert {f"old-{n}" for n in range(100 - since)} <= set(listed)


class TestCost:
    """Part of three years with 100,000 conversations, at 100 per page."""

    bisection = math.ceil(math.log2(100_000 / 100)) + 4
    seconds: ClassVar[list[int]] = [
        int(n / 100_000 * YEARS.total_seconds()) for n in range(100_000)
    ]

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("arrivals", "deletions"),
        [
            pytest.param(0, 0, id="unchanged"),
            pytest.param(3, 0, id="three arrivals per request"),
            pytest.param(0, 3, id="three deletions per request"),
        ],
    )
    @pytest.mark.parametrize("days", [0, 30, 547, 1_087])
    def test_a_week_costs_its_own_pages_and_a_bisection(
        self, days: int, arrivals: int, deletions: int
    ) -> None:
        listing = DriftingList(self.seconds, [(arrivals, deletions, 0, 100)] * 1_000, cap=100)
        since, before = (int(timedelta(days=d).total_seconds()) for d in (days, days + 7))
        week = [name for name in listing.ids if since <= listing.seconds[name] < before]
        assert len(week) > 600
        listed = walk(listing, since, before, page_size=100)
        assert set(week) & listing.stays_listed <= set(listed)
        if not arrivals + deletions:
            assert listed == week[::-1]
        pages = math.ceil(len(week) / (99 - arrivals - deletions))
        assert len(listing.requests) <= pages + self.bisection

    @pytest.mark.parametrize(
        ("days", "requests"),
        [
            pytest.param((2_000, 2_007), 1, id="after the newest"),
            pytest.param((-14, -7), bisection, id="before the oldest"),
            pytest.param((500, 500), bisection, id="nothing"),
        ],
    )
    def test_an_empty_range_costs_no_walk(self, days: tuple[int, int], requests: int) -> None:
        listing = DriftingList(self.seconds, cap=100)
        since, before = (int(timedelta(days=d).total_seconds()) for d in days)
        assert walk(listing, since, before, page_size=100) == []
        assert len(listing.requests) <= requests

    def test_the_rest_of_an_interrupted_first_load_costs_an_additional_short_sweep(self) -> None:
        listing = DriftingList(self.seconds, cap=100)
        since = int(YEARS.total_seconds() * 0.8)
        listed = walk(listing, since, page_size=100)
        assert listed == listing.ids[: len(listed)][::-1]
        assert 20_000 <= len(listed) <= 20_100
        pages = math.ceil(20_100 / 99)
        assert len(listing.requests) <= SHORT_SWEEP_PAGES + self.bisection + pages


class TestSlices:
    """One week of three years with 300,000 conversations, in one walk or in slices of a day."""

    count = 300_000
    years = int(YEARS.total_seconds())
    day = 86_400
    halvings = math.ceil(math.log2(count / 100))

    class UnchangedList:
        """A list that does not change, whose rows are built on request."""

        def __init__(self, moments: list[int]) -> None:
            self.moments = moments
            self.requests = 0

        def fetch(self, limit: int, offset: int) -> Page:
            self.requests += 1
            count = len(self.moments)
            positions = range(count - offset, max(0, count - offset - min(limit, 100)), -1)
            rows = [
                {"conversationId": str(n), "createdAt": at(self.moments[n - 1]).isoformat()}
                for n in positions
            ]
            return Page(rows, count, 100, offset)

        def pages(self, since: int, before: int, landmarks: Landmarks) -> tuple[int, int]:
            """Pages requested, and pages needed including a row on both sides."""
            self.requests = 0
            walk = OffsetListing(self.fetch, 100, landmarks=landmarks)
            listed = sum(len(rows) for rows in walk.oldest_first(at(since), at(before)))
            first, last = (bisect.bisect_left(self.moments, edge) for edge in (since, before))
            assert listed == last - first
            return self.requests, max(1, math.ceil((listed + 1) / 99))

    @classmethod
    def sampled(cls, weight: Callable[[float], float]) -> list[int]:
        """Random times with this density."""
        random_ = random.Random(7)
        moments: list[int] = []
        while len(moments) < cls.count:
            moment = random_.random() * cls.years
            if random_.random() < weight(moment):
                moments.append(int(moment))
        return sorted(moments)

    @classmethod
    def extra_pages(cls, moments: list[int]) -> dict[str, list[int]]:
        """Pages beyond those needed: one walk, separate slices, slices sharing landmarks."""
        still, day = cls.UnchangedList(moments), cls.day
        first = cls.years // 2 // day * day
        shared = Landmarks()
        days = [(first + n * day, first + (n + 1) * day) for n in range(7)]
        return {
            "walk": [cost(still.pages(first, first + 7 * day, Landmarks()))],
            "alone": [cost(still.pages(*edges, Landmarks())) for edges in days],
            "sharing": [cost(still.pages(*edges, shared)) for edges in days],
        }

    @pytest.mark.parametrize(
        "weight",
        [
            pytest.param(lambda at: 1, id="uniform"),
            pytest.param(lambda at: 1 if 8 <= at / 3_600 % 24 < 20 else 0.05, id="day and night"),
        ],
    )
    def test_steady_traffic(self, weight: Callable[[float], float]) -> None:
        pages = self.extra_pages(self.sampled(weight))
        assert sum(pages["walk"]) <= 6
        assert all(more <= 6 for more in pages["alone"])
        assert sum(pages["sharing"]) <= 2 * 7 + 6
        assert all(more <= 1 for more in pages["sharing"][1:])

    @pytest.mark.parametrize("shape", ["growing", "gaps", "bursts", "ever denser"])
    def test_any_other_traffic_costs_at_most_three_requests_per_halving(self, shape: str) -> None:
        years, day = self.years, self.day
        if shape == "growing":
            moments = self.sampled(lambda at: 0.2 + 0.8 * at / years)
        elif shape == "gaps":
            moments = self.sampled(lambda at: at // day % 70 < 20)
        elif shape == "bursts":
            moments = sorted(
                self.sampled(lambda at: 1)[::2] + [years * n // 31 for n in range(30)] * 5_000
            )
        else:
            # one in 24 is in the older half
            moments = [int(years * (1 - (1 - n / self.count) ** 16)) for n in range(self.count)]
        pages = self.extra_pages(moments)
        for more in (*pages["walk"], *pages["alone"]):
            assert more <= 3 * self.halvings + 4
        assert sum(pages["sharing"]) <= sum(pages["alone"])

    @pytest.mark.slow
    @pytest.mark.parametrize(
        "wrong",
        [
            pytest.param(lambda at, place: (at, place // 3), id="of a smaller agent"),
            pytest.param(lambda at, place: (at, place * 3), id="of a larger agent"),
            pytest.param(lambda at, place: (at + 10**13, place), id="of another time"),
            pytest.param(lambda at, place: (at, place - 5_000), id="before a deletion"),
            pytest.param(lambda at, place: (at, 150_000 + place % 2), id="invalid"),
        ],
    )
    def test_wrong_landmarks_cost_requests_but_no_row(
        self, wrong: Callable[[int, int], tuple[int, int]]
    ) -> None:
        still, known = self.UnchangedList(self.sampled(lambda at: 1)), Landmarks()
        for since in range(0, self.years, self.years // 50):
            still.pages(since, since + self.day, known)
        landmarks = Landmarks(known.count, [wrong(*point) for point in known.points])
        for since in range(0, self.years, self.years // 20):
            assert cost(still.pages(since, since + self.day, landmarks)) <= 3 * self.halvings + 4


def cost(pages: tuple[int, int]) -> int:
    """Pages requested but not needed."""
    asked, needed = pages
    return asked - needed


def test_one_page_with_rows_on_both_sides_of_a_range_is_enough() -> None:
    listing, known = DriftingList(list(range(100))), Landmarks()
    walk(listing, 20, 30, landmarks=known)
    listing.requests.clear()
    assert walk(listing, 30, 35, landmarks=known) == [f"old-{99 - n}" for n in range(30, 35)]
    assert len(listing.requests) == 1


def test_a_row_with_an_invalid_time_is_counted_and_in_no_range() -> None:
    listing = DriftingList(list(range(40)), unreadable=4)
    slices = [OffsetListing(listing.fetch, 10) for _ in range(4)]
    listed = [
        row["conversationId"]
        for n, each in enumerate(slices)
        for rows in each.oldest_first(at(10 * n), at(10 * n + 10))
        for row in rows
    ]
    assert listed == [name for name in listing.ids[::-1] if name in listing.readable]
    # pages overlap, so that two ranges may count the same row
    assert sum(len(each.undated) for each in slices) >= 10
    whole = OffsetListing(listing.fetch, 10)
    assert sum(len(rows) for rows in whole.oldest_first()) == 40
    assert not whole.undated


class TestLandmarks:
    def test_they_can_be_pickled_and_stored_as_json(self) -> None:
        known = Landmarks()
        walk(DriftingList(list(range(100))), 20, 80, landmarks=known)
        assert known.count == 100
        assert {(microseconds(19), 20), (microseconds(98), 99)} & set(known.points)
        assert pickle.loads(pickle.dumps(known)) == known  # noqa: S301
        assert Landmarks(**json.loads(json.dumps(asdict(known)))) == known

    def test_arrivals_do_not_move_them(self) -> None:
        listing, known = DriftingList(list(range(100)), [(50, 0, 0, 10)] * 3), Landmarks()
        walk(listing, 20, 30, landmarks=known)
        assert all(microseconds(place - 1) == when for when, place in known.points if place <= 100)

    def test_positions_are_interpolated_or_extrapolated(self) -> None:
        known = Landmarks(100, [(0, 10), (10, 20), (20, 80)])
        epoch = datetime.fromtimestamp(0, UTC)
        guesses = {-10: -25, 0: 10, 5: 15, 10: 20, 15: 50, 30: 115}
        for moment, place in guesses.items():
            # before the first and after the last: extrapolated from both
            assert known.position_before(epoch + timedelta(microseconds=moment)) == place
        for unknown in (Landmarks(), Landmarks(9, [(5, 1)]), Landmarks(9, [(5, 1), (5, 9)])):
            assert unknown.position_before(epoch) is None

    def test_newer_landmarks_replace_contradicting_ones(self) -> None:
        known = Landmarks(100, [(10, 10), (20, 20), (30, 30), (40, 40)])
        known.update(Landmarks(90, [(35, 15)]))
        assert known == Landmarks(90, [(10, 10), (35, 15), (40, 40)])
        known.update(Landmarks())
        assert known.count == 90

    @given(
        known=known_landmarks,
        more=st.lists(st.tuples(st.integers(0, 9_999), st.integers(0, 9_999)), max_size=3_000),
    )
    def test_they_are_limited_and_in_order(
        self, known: Landmarks, more: list[tuple[int, int]]
    ) -> None:
        known.update(Landmarks(None, sorted(more)))
        assert len(known.points) <= MAX_LANDMARKS
        assert known.points == sorted(known.points)
        for (_, older), (_, newer) in itertools.pairwise(known.points):
            assert older < newer

    def test_the_latest_pages_have_the_densest_landmarks(self) -> None:
        known = Landmarks()
        for page in range(5_000):
            known.learn(10**6, [(at(page * 100), 10**6 - page * 100)])
        gaps = [newer - older for (_, older), (_, newer) in itertools.pairwise(known.points)]
        assert MAX_LANDMARKS / 2 <= len(known.points) <= MAX_LANDMARKS
        assert known.points[0] == (microseconds(0), 0)
        assert gaps[-1] == 100 <= max(gaps) < 500_000 / 10


class TestMemory:
    """Rows alive at a time."""

    class Counted(dict[str, Any]):
        alive = 0

        def __init__(self, row: dict[str, Any]) -> None:
            super().__init__(row)
            type(self).alive += 1

        def __del__(self) -> None:
            type(self).alive -= 1

    def most_alive(self, since: int | None, before: int | None) -> tuple[int, int]:
        """Peak number of rows in memory during the search, and while yielding."""
        listing = DriftingList(list(range(5_000)))
        peak = {False: 0, True: 0}
        yielding = False

        def fetch(limit: int, offset: int) -> Page:
            peak[yielding] = max(peak[yielding], self.Counted.alive)
            page = listing.fetch(limit, offset)
            return replace(page, conversations=[self.Counted(r) for r in page.conversations])

        walk = OffsetListing(fetch, 10, short_sweep_pages=20)
        for _ in walk.oldest_first(
            None if since is None else at(since), None if before is None else at(before)
        ):
            yielding = True
            peak[yielding] = max(peak[yielding], self.Counted.alive)
        assert walk.pages > 20
        return peak[False], peak[True]

    def test_the_sweep_is_bounded_and_released_before_the_bisection(self) -> None:
        searching, yielding = self.most_alive(since=100, before=None)
        assert 150 < searching <= 20 * 10
        assert yielding <= 4 * 10

    @pytest.mark.parametrize(("since", "before"), [(None, None), (1_000, 4_000), (None, 4_000)])
    def test_other_walks_keep_a_few_pages(self, since: int | None, before: int | None) -> None:
        assert max(self.most_alive(since, before)) <= 4 * 10


def test_a_burst_of_one_timestamp_larger_than_many_pages_is_walked_through() -> None:
    seconds = [5] * 300
    for since, before in ((None, None), (5, None), (4, 6), (5, 6)):
        listing = DriftingList(seconds)
        assert walk(listing, since, before, short_sweep_pages=2) == listing.ids[::-1]
    for since, before in ((6, 9), (1, 5)):
        assert walk(DriftingList(seconds), since, before) == []


@pytest.mark.parametrize("part", [(None, None), (30, None), (30, 70)], ids=str)
def test_a_list_that_empties_while_it_is_walked_ends_the_walk(
    part: tuple[int | None, int | None],
) -> None:
    for pages in range(12):
        listing = DriftingList(list(range(100)), [(0, 0, 0, 10)] * pages + [(0, 100, 0, 10)])
        listed = walk(listing, *part, short_sweep_pages=3)
        assert listed == sorted(set(listed), key=listing.seconds.__getitem__)
        # a bisection requests the position once more, then the head; a proof the last row
        assert len(listing.requests) <= max(pages, 1) + 3 + (part == (None, None))


@pytest.mark.parametrize("since", [None, -1, -2], ids=["whole", "bisection", "sweep"])
def test_a_long_walk_is_not_taken_for_an_endless_one(since: int | None) -> None:
    listing = DriftingList(list(range(2_500)), cap=3)
    sweep_pages = 2_000 if since == -2 else 0
    assert walk(listing, since, short_sweep_pages=sweep_pages) == listing.ids[::-1]
    assert len(listing.requests) > MAX_PAGES_WITHOUT_PROGRESS


def test_the_walk_steps_back_in_longer_strides_when_deletions_hide_arrivals_from_the_count() -> (
    None
):
    listing = DriftingList(list(range(10_000)))
    walk = OffsetListing(listing.fetch, 10)
    pages = walk.oldest_first(at(5_000), at(9_000))
    names = [row["conversationId"] for _ in range(5) for row in next(pages)]
    listing.rows[:0] = [{"conversationId": f"new-{n}"} for n in range(2_000)]
    del listing.rows[-2_000:]
    names += [row["conversationId"] for rows in pages for row in rows if "createdAt" in row]
    assert set(names) == {f"old-{n}" for n in range(1_000, 5_000)}
    assert walk.gaps_repaired <= 10


@examples(300)
@given(
    changes=st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 3), st.just(0), st.integers(8, 10)),
        max_size=30,
    ),
    since=st.sampled_from([None, 4, 5]),
)
def test_small_shifts_yield_no_row_twice(
    changes: list[tuple[int, int, int, int]], since: int | None
) -> None:
    # one timestamp for all rows, so that only ids identify the rows seen
    listing = DriftingList([5] * 80, changes)
    listed = walk(listing, since, short_sweep_pages=0)
    assert len(listed) == len(set(listed))
    assert listing.stays_listed <= set(listed)


def test_many_arrivals_during_a_pause_are_caught_up_with_at_once() -> None:
    # the walk continues at the rows seen, neither far below them nor row by row
    changes = [(0, 0, 0, 10)] * 5 + [(1_000, 0, 0, 10)]
    listing = DriftingList(list(range(100)), changes)
    listed = walk(listing)
    assert listed == listing.ids[::-1]
    # three pages prove the end, one does not join, the next one overlaps more; then 9 rows per page
    assert len(listing.requests) <= 5 + math.ceil(1_100 / 9)


def test_a_changing_head_is_not_taken_for_a_server_that_ignores_offsets() -> None:
    # at first, each page has the same rows as the previous one at another offset
    listing = DriftingList(list(range(40)))
    there, head = listing.ids, [{"conversationId": f"new-{n}"} for n in range(9)]

    def fetch(limit: int, offset: int) -> Page:
        request = len(listing.requests)
        if 1 <= request <= 12:
            listing.rows[: 0 if request % 2 else 9] = head if request % 2 else []
        return listing.fetch(limit, offset)

    rows = [row for page in OffsetListing(fetch, 10).oldest_first(at(-1)) for row in page]
    assert {row["conversationId"] for row in rows} >= set(there)


@pytest.mark.parametrize("sweep_pages", [0, SHORT_SWEEP_PAGES])
@pytest.mark.parametrize("part", [(None, None), (5, None), (5, 50)], ids=str)
def test_rows_without_an_id_are_never_treated_as_equal(
    part: tuple[int | None, int | None], sweep_pages: int
) -> None:
    # pages that do not join must not appear to
    listing = DriftingList(list(range(60)), [(0, 0, 0, 10)] * 4 + [(30, 9, 0, 10)] * 3)

    def fetch(limit: int, offset: int) -> Page:
        page = listing.fetch(limit, offset)
        rows = [
            row | {"conversationId": None, "name": row["conversationId"]}
            for row in page.conversations
        ]
        return replace(page, conversations=rows)

    since, before = part
    pages = OffsetListing(fetch, 10, short_sweep_pages=sweep_pages).oldest_first(
        None if since is None else at(since), None if before is None else at(before)
    )
    names = {row["name"] for rows in pages for row in rows}
    assert names >= {
        name
        for name in listing.stays_listed
        if (since is None or listing.seconds[name] >= since)
        and (before is None or listing.seconds[name] < before)
    }


PARTS = pytest.mark.parametrize(
    ("since", "sweep_pages", "before"),
    [
        pytest.param(None, 0, None, id="whole"),
        pytest.param(-5, SHORT_SWEEP_PAGES, None, id="short sweep"),
        pytest.param(-5, 0, None, id="bisection"),
        pytest.param(-5, 0, 10_000, id="range"),
    ],
)


@PARTS
class TestInvalidServers:
    def test_one_that_ignores_the_offset_is_detected(
        self, since: int | None, sweep_pages: int, before: int | None
    ) -> None:
        listing = HeadOnlyList(list(range(40)))
        with pytest.raises(ListingError, match="same page"):
            walk(listing, since, before, short_sweep_pages=sweep_pages)

    @pytest.mark.parametrize("arrivals", [6, 9, 30])
    def test_a_list_that_never_ends_is_abandoned(
        self, since: int | None, sweep_pages: int, before: int | None, arrivals: int
    ) -> None:
        changes = [(arrivals, 0, 0, 6)] * 5_000
        listing = DriftingList(list(range(40)), changes, cap=6)
        with pytest.raises(ListingError, match="does not end"):
            walk(
                listing,
                since,
                None if before is None else 1_000_000,
                page_size=6,
                short_sweep_pages=sweep_pages,
            )

    def test_pages_of_one_row_cannot_be_joined(
        self, since: int | None, sweep_pages: int, before: int | None
    ) -> None:
        listing = DriftingList(list(range(4)), cap=1)
        with pytest.raises(ListingError, match="single rows"):
            walk(listing, since, before, short_sweep_pages=sweep_pages)

    def test_an_empty_list_costs_one_request(
        self, since: int | None, sweep_pages: int, before: int | None
    ) -> None:
        listing = DriftingList([])
        assert walk(listing, since, before, page_size=5, short_sweep_pages=sweep_pages) == []
        assert len(listing.requests) == 1


def test_each_yielded_page_is_oldest_first() -> None:
    listing = DriftingList(list(range(50)))
    walk = OffsetListing(listing.fetch, 10)
    for since, before in ((None, None), (at(20), None), (at(20), at(40))):
        pages = list(walk.oldest_first(since, before))
        walk = OffsetListing(listing.fetch, 10)
        for one, other in itertools.pairwise(pages):
            assert [created_at(row) for row in one] == sorted(filter(None, map(created_at, one)))
            assert one[-1]["createdAt"] < other[0]["createdAt"]
