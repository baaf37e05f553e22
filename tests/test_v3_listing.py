"""Listing of the Conversations API v3: oldest first, complete, no page requested twice."""

from __future__ import annotations

import gzip
import itertools
import json
import random
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from typing import Any, Literal, cast
from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from examples import examples
from odd_server import Answer, OddServer, Request, Script, in_turn
from polyai.api.answers import V3Page, V3Row
from polyai.api.client import ConversationsV3
from polyai.api.page_stream import Document, Spool
from polyai.config.agent import Agent
from polyai.errors import ApiError, ListingError, UnavailableError
from polyai.listing import v3 as v3_listing
from polyai.listing.protocol import Listed
from polyai.listing.v3 import MAX_EMPTY_PAGES, V3Listing
from polyai.sandbox import Sandbox, SandboxConfig, serve

pytestmark = pytest.mark.unit

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
DAY = timedelta(days=1)
YEAR = 365 * DAY
NEVER_SET = "0001-01-01T00:00:00Z"
"""Time that a server shows where none was set."""

Order = Literal["newest", "oldest", "shuffled"]


@dataclass(frozen=True, slots=True)
class Row:
    """A conversation of the fake API.

    Attributes:
        name: Its id.
        at: Time for filters and order.
        shown: Its `started_at`.
        rank: Order among conversations of the same time, or in a shuffled list.
    """

    name: str
    at: datetime
    shown: Any
    rank: float

    @property
    def shown_at(self) -> datetime | None:
        is_valid = isinstance(self.shown, str) and self.shown not in ("", "soon", NEVER_SET)
        return datetime.fromisoformat(self.shown) if is_valid else None


@dataclass(frozen=True)
class Behaviour:
    """Behaviour of the fake API.

    Attributes:
        order: Order of the rows.
        has_start: Whether a row at `start_time` belongs to the window.
        has_end: Whether a row at `end_time` belongs to the window.
        caps: Maximum rows of successive pages; 0 is an empty page with a cursor.
        arrivals: Conversations that start with each request.
        is_light: Whether rows have no documents.
    """

    order: Order = "newest"
    has_start: bool = True
    has_end: bool = False
    caps: tuple[int, ...] = (1_000,)
    arrivals: int = 0
    is_light: bool = False


class Api:
    """Conversations API v3 over a synthetic history; cursors stay valid while rows arrive."""

    largest_page = 1_000

    def __init__(self, rows: Sequence[Row], behaviour: Behaviour) -> None:
        self.rows = sorted(rows, key=attrgetter("at", "rank"))
        self.behaviour = behaviour
        self.now = max([row.at for row in rows], default=NOW) + SECOND
        self.requests: list[tuple[datetime | None, datetime | None, int, str | None]] = []
        self._windows: dict[Any, list[Row]] = {}
        self._cursors: dict[str, tuple[Any, int]] = {}

    def clock(self) -> datetime:
        return self.now

    def conversations(
        self,
        *,
        environment: str,
        since: datetime | None,
        before: datetime | None,
        limit: int,
        cursor: str | None = None,
        offset: int | None = None,
        max_timeouts: int | None = None,
    ) -> V3Page:
        assert environment == "live"
        assert 1 <= limit <= 1_000
        # an offset means another page as soon as rows arrive
        place = cursor if offset is None else f"offset {offset} of {len(self.rows)}"
        request = (since, before, limit, place)
        assert request not in self.requests[-200:], "requested twice"
        self.requests.append(request)
        if cursor is None:
            # later arrivals are not in the window
            window, start = self._window(since, before), offset or 0
        else:
            (asked, window), start = self._cursors.pop(cursor)
            assert asked == (since, before)
        length = min(limit, self.behaviour.caps[len(self.requests) % len(self.behaviour.caps)])
        found = window[start : start + length]
        following = None
        if start + length < len(window):
            following = f"cursor-{len(self.requests)}"
            self._cursors[following] = ((since, before), window), start + length
        self._arrive()
        return page(found, following, is_light=self.behaviour.is_light)

    def _window(self, since: datetime | None, before: datetime | None) -> list[Row]:
        found = [
            row
            for row in self.rows
            if (since is None or row.at > since or (self.behaviour.has_start and row.at == since))
            and (before is None or row.at < before or (self.behaviour.has_end and row.at == before))
        ]
        if self.behaviour.order == "newest":
            found.reverse()
        elif self.behaviour.order == "shuffled":
            found.sort(key=attrgetter("rank"))
        return found

    def _arrive(self) -> None:
        for _ in range(self.behaviour.arrivals):
            self.now += SECOND
            number = len(self.rows)
            self.rows.append(Row(f"new-{number}", self.now, zulu(self.now), number % 7))

    def pages(self, limit: int) -> int:
        return sum(asked == limit for _, _, asked, _ in self.requests)


def page(rows: Sequence[Row], cursor: str | None, *, is_light: bool = False) -> V3Page:
    spool = Spool()
    return V3Page(
        [
            V3Row(
                row.name,
                row.shown,
                f"hash of {row.name}",
                Document(spool, 0, 0)
                if is_light
                else spool.put(json.dumps({"id": row.name}).encode()),
            )
            for row in rows
        ],
        spool,
        cursor,
    )


def zulu(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


def history(
    segments: Sequence[tuple[int, float]], *, odd: Sequence[Any] = (), lag: float = 0, seed: int = 1
) -> list[Row]:
    """Rows backwards from now, by segment: a number of rows at an interval of seconds.

    Args:
        segments: the newest first.
        odd: Value shown instead of every seventh time.
        lag: Maximum difference in seconds between shown and filtered times.
        seed: of all that is by chance.
    """
    draw = random.Random(seed)
    at, rows = NOW, list[Row]()
    for count, gap in segments:
        for _ in range(count):
            at = max(at - timedelta(seconds=gap), NOW - 30 * YEAR)
            number = len(rows)
            shown: Any = zulu(at + timedelta(seconds=round(draw.uniform(-lag, lag), 3)))
            if odd and number % 7 == 3:
                shown = odd[number // 7 % len(odd)]
            rows.append(Row(f"CA{number}", at, shown, draw.random()))
    return rows


@contextmanager
def windows_of(pages: int) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(v3_listing, "WINDOW_PAGES", pages)
        yield


def listing_of(api: Api, page_size: int, *, details: bool = False) -> V3Listing:
    known = cast(ConversationsV3, api)
    return V3Listing(known, "live", page_size, api.clock, details=details)


def names(lists: Sequence[Sequence[Listed]]) -> list[str]:
    return [row.conversation_id for rows in lists for row in rows]


ODD_MOMENTS = (None, "", "soon", {"at": 1}, NEVER_SET, 0)
gaps = st.sampled_from([0, 0, 0.001, 1, 7, 30, 60, 61, 121, 600, 3_600, 86_400, 2 * 31_536_000])
segments = st.lists(st.tuples(st.sampled_from([1, 2, 3, 10, 60, 300]), gaps), max_size=7)
behaviours = st.builds(
    Behaviour,
    order=st.sampled_from(["newest", "newest", "newest", "oldest"]),
    has_start=st.booleans(),
    has_end=st.booleans(),
    caps=st.sampled_from([(1_000,), (1_000,), (3,), (1,), (5, 0, 2), (0, 0, 7), (50, 4)]),
    arrivals=st.sampled_from([0, 0, 1, 5]),
)
odds = st.sampled_from([(), (), ODD_MOMENTS, (None,), (NEVER_SET,)])
lags = st.sampled_from([0, 0, 0, 29])

histories = given(
    segments=segments,
    behaviour=behaviours,
    odd=odds,
    lag=lags,
    page_size=st.sampled_from([2, 3, 10, 25, 100]),
    window_pages=st.sampled_from([1, 2, 3, 20]),
    since=st.none() | st.tuples(st.integers(0, 2_000), st.sampled_from([-1, 0, 1])),
)


def check_walk(
    segments: list[tuple[int, float]],
    behaviour: Behaviour,
    odd: tuple[Any, ...],
    lag: float,
    page_size: int,
    window_pages: int,
    since: tuple[int, int] | None,
) -> None:
    # where more conversations begin than are read, the walk ends with an error
    rows_per_page = sum(min(cap, page_size) for cap in behaviour.caps) / len(behaviour.caps)
    assume(behaviour.arrivals < max(rows_per_page, 1))
    rows = history(segments, odd=odd, lag=lag)
    start = None
    if since and rows:
        start = rows[since[0] % len(rows)].at + since[1] * SECOND
    api = Api(rows, behaviour)
    listing = listing_of(api, page_size)
    wanted = [row for row in rows if start is None or row.at >= start]
    # in order: wherever the walk ends, everything older than its last row has been yielded
    by_moment = sorted(
        (row.shown_at or NOW, row.name)
        for row in wanted
        if row.shown_at and row.shown_at.year > 2016
    )
    is_in_order = behaviour.order == "newest" and not lag
    seen: dict[str, Listed] = {}
    checked = 0
    with windows_of(window_pages):
        for some in listing.oldest_first(start):
            assert 0 < len(some) <= page_size
            moments = [row.at for row in some if row.at]
            assert moments == sorted(moments)
            for row in some:
                assert row.conversation_id not in seen
                seen[row.conversation_id] = row
            placed = [at for at in moments if at.year > 2016]
            while is_in_order and placed and checked < len(by_moment):
                at, name = by_moment[checked]
                if at >= placed[-1] - SECOND:
                    break
                assert name in seen
                checked += 1
    assert {row.name for row in wanted} <= set(seen)
    assert not listing.undated
    for name in (row.name for row in wanted):
        listed = seen[name]
        assert listed.document
        assert listed.document.read() == {"id": name}
        assert listed.summary_hash == f"hash of {name}"
    assert len(api.requests) == len(set(api.requests)), "a page was requested twice"


@examples(80)
@histories
def test_conversations_that_stay_listed_are_yielded_once_and_oldest_first(**chosen: Any) -> None:
    check_walk(**chosen)


@examples(25)
@given(
    count=st.integers(0, 1_500),
    gap=st.sampled_from([61, 300, 86_400]),
    seed=st.integers(0),
    odd=odds,
    page_size=st.sampled_from([30, 100]),
    window_pages=st.sampled_from([1, 3]),
)
def test_an_unsorted_listing_is_yielded_oldest_first(
    count: int, gap: int, seed: int, odd: Any, page_size: int, window_pages: int
) -> None:
    api = Api(history([(count, gap)], odd=odd, seed=seed), Behaviour(order="shuffled"))
    with windows_of(window_pages):
        lists = list(listing_of(api, page_size).oldest_first())
    assert sorted(names(lists)) == sorted(row.name for row in api.rows)
    moments = [row.at for rows in lists for row in rows if row.at]
    assert moments == sorted(moments)
    # read to its end at once; what follows a full last page is asked for
    has_full_end = count > 0 and count % page_size == 0
    assert len(api.requests) == max(-(-count // page_size), 1) + has_full_end


@examples(60)
@given(
    segments=segments,
    behaviour=behaviours,
    odd=odds,
    page_size=st.sampled_from([3, 25]),
    window_pages=st.sampled_from([1, 3]),
    cuts=st.lists(
        st.tuples(st.integers(0, 2_000), st.sampled_from([-1, 0, 0, 1])), min_size=1, max_size=4
    ),
)
def test_adjacent_ranges_are_exact_and_complete(
    segments: list[tuple[int, float]],
    behaviour: Behaviour,
    odd: Any,
    page_size: int,
    window_pages: int,
    cuts: list[tuple[int, int]],
) -> None:
    rows = history(segments, odd=odd)
    bounds = sorted({rows[n % len(rows)].at + s * SECOND for n, s in cuts} if rows else {NOW})
    edges: list[datetime | None] = [None, *bounds, NOW + DAY]
    found: list[str] = []
    with windows_of(window_pages):
        for since, before in itertools.pairwise(edges):
            assert before
            listing = listing_of(Api(rows, replace(behaviour, arrivals=0)), page_size)
            lists = list(listing.oldest_first(since, before))
            for some in lists:
                moments = [row.at for row in some if row.at]
                assert moments == sorted(moments)
                assert all(
                    at < before and (since is None or at >= since)
                    for at in moments
                    if at.year > 2016
                )
            found += names(lists)
            assert not listing.undated
    # a row without a plausible time is in each range whose margin it may be in
    plausible = {row.name for row in rows if row.shown_at and row.shown_at.year > 2016}
    assert set(found) == {row.name for row in rows}
    assert sum(name in plausible for name in found) == len(plausible)


@pytest.mark.parametrize("odd", [(), (None,)], ids=["dated", "undated"])
def test_details_change_the_hash_and_an_empty_list_is_an_empty_walk(odd: Any) -> None:
    api = Api(history([(3, 60)], odd=odd), Behaviour())
    (rows,) = listing_of(api, 10, details=True).oldest_first()
    assert {row.summary_hash for row in rows} == {f"hash of CA{n}+detail" for n in range(3)}
    assert list(listing_of(Api([], Behaviour()), 10).oldest_first()) == []
    assert list(listing_of(Api([], Behaviour()), 10).oldest_first(NOW, NOW + DAY)) == []


class TestOddities:
    """Cases too rare for random histories."""

    @pytest.mark.parametrize("order", ["newest", "oldest"])
    def test_rows_older_than_2017_are_found(self, order: Order) -> None:
        segments = [(50, 3_600), (1, 20 * YEAR.total_seconds()), (300, 7_200)]
        api = Api(history(segments), Behaviour(order=order))
        with windows_of(2):
            lists = list(listing_of(api, 20).oldest_first())
        found = names(lists)
        assert sorted(found) == sorted(row.name for row in api.rows)
        moments = [row.at for rows in lists for row in rows if row.at]
        assert moments == sorted(moments)

    @pytest.mark.parametrize("never", [NEVER_SET, 0])
    def test_a_time_that_was_never_set_gives_no_position(self, never: Any) -> None:
        rows = history([(500, 3_600)])
        for place in (9, 19, 59, 200):
            rows[place] = replace(rows[place], shown=never)
        api = Api(rows, Behaviour())
        with windows_of(2):
            found = names(list(listing_of(api, 10).oldest_first()))
        assert sorted(found) == sorted(row.name for row in rows)
        assert api.pages(10) < 50 * 1.5

    @pytest.mark.parametrize("lag", [-59, -20, 20, 59])
    def test_the_shown_time_may_differ_from_the_filtered_time(self, lag: int) -> None:
        rows = [replace(row, shown=zulu(row.at + lag * SECOND)) for row in history([(2_000, 13.0)])]
        api = Api(rows, Behaviour())
        with windows_of(2):
            found = names(list(listing_of(api, 50).oldest_first()))
        assert sorted(found) == sorted(row.name for row in rows)

    def test_a_long_unsorted_listing_keeps_few_files_open(self) -> None:
        api = Api(history([(2_000, 600)]), Behaviour(order="oldest"))
        lists = list(listing_of(api, 10).oldest_first())
        listed = [row for rows in lists for row in rows]
        assert len(api.requests) == 201
        assert len({id(row.document.spool) for row in listed if row.document}) <= 20
        for row in listed:
            assert row.document
            assert row.document.read() == {"id": row.conversation_id}

    def test_a_server_with_small_pages_is_not_spooled_as_a_whole(self) -> None:
        api = Api(history([(5_000, 600)]), Behaviour(caps=(10,)))
        most = 0
        with windows_of(4):
            walk = listing_of(api, 100).oldest_first()
            first = next(walk)
            most = len(api.requests)
            rest = list(walk)
        assert len(first) + sum(map(len, rest)) == 5_000
        # a probe per halving, and a few windows
        assert most < 40
        assert api.pages(100) < 500 * 1.4

    def test_empty_years_cost_a_few_requests(self) -> None:
        api = Api(history([(3, 60), (1, 4 * YEAR.total_seconds()), (40, 60)]), Behaviour())
        with windows_of(2):
            found = names(list(listing_of(api, 2).oldest_first()))
        assert len(found) == 44
        assert api.pages(2) < 22 + 30

    @pytest.mark.parametrize("count", [1_000, 3_000])
    def test_a_burst_costs_its_pages_and_a_few_more(self, count: int) -> None:
        api = Api(history([(300, 600), (count, 0), (300, 600)]), Behaviour())
        with windows_of(3):
            found = names(list(listing_of(api, 20).oldest_first()))
        assert len(found) == len(set(found)) == count + 600
        # it may be in the overlap of two windows, and again in one that is closed
        assert api.pages(20) < 3 * count // 20 + 30 * 2


YEARS: dict[str, Callable[[float], float]] = {
    "evenly": lambda share: share,
    "more and more": lambda share: share**0.25,
    "less and less": lambda share: share**4,
    "begun lately": lambda share: 0.97 + share * 0.03,
    "ended long ago": lambda share: 0.03 * share,
    "with a year of nothing": lambda share: share * 0.4 if share < 0.5 else 0.6 + share * 0.4,
}


class TestCost:
    """100,000 conversations, 1,000 per page."""

    def walked(self, spread: Callable[[float], float], order: Order = "newest") -> Api:
        start, length = NOW - 3 * YEAR, 3 * YEAR
        moments = sorted(start + length * spread(n / 100_000) for n in range(100_000))
        rows = [Row(f"CA{n}", at, zulu(at), n) for n, at in enumerate(moments)]
        api = Api(rows, Behaviour(order=order, is_light=True))
        seen: set[str] = set()
        for some in listing_of(api, 1_000).oldest_first():
            seen.update(row.conversation_id for row in some)
        assert len(seen) == 100_000
        assert len(api.requests) == len(set(api.requests))
        return api

    @pytest.mark.slow
    @pytest.mark.parametrize("spread", ["evenly", "more and more"])
    def test_a_first_load_costs_its_pages(self, spread: str) -> None:
        api = self.walked(YEARS[spread])
        # 100, and the newest pages of divided windows again
        assert api.pages(1_000) <= 115
        assert api.pages(1) <= 20

    @pytest.mark.matrix
    @pytest.mark.parametrize("spread", YEARS.values(), ids=YEARS.keys())
    def test_a_first_load_of_any_shape_costs_little_more(
        self, spread: Callable[[float], float]
    ) -> None:
        api = self.walked(spread)
        # a divided window is read again from its oldest time to its end, whatever order it has
        assert api.pages(1_000) <= 190
        assert api.pages(1) <= 20

    @pytest.mark.matrix
    def test_an_unsorted_listing_costs_its_pages(self) -> None:
        api = self.walked(YEARS["evenly"], "oldest")
        # the last one proves the end
        assert (api.pages(1_000), api.pages(1)) == (101, 0)

    def test_new_conversations_cost_their_pages(self) -> None:
        api = Api(history([(5_000, 60)]), Behaviour())
        found = names(list(listing_of(api, 100).oldest_first(NOW - timedelta(hours=10))))
        assert len(found) >= 600
        assert len(api.requests) <= 7


class Endless(Api):
    """Endless pages, produced by `give`."""

    give: Callable[[int], tuple[list[Row], str]]

    def conversations(self, **asked: Any) -> V3Page:
        self.requests.append((asked["since"], asked["before"], asked["limit"], asked["cursor"]))
        return page(*self.give(len(self.requests)))


class TestDisorder:
    """Rows whose time says nothing about their place in the list."""

    def walked(self, rows: list[Row], *, pages: int = 2) -> tuple[list[str], Api]:
        api = Api(rows, Behaviour())
        with windows_of(pages):
            return names(list(listing_of(api, 10).oldest_first())), api

    @pytest.mark.parametrize("shown", ["2030-01-01T00:00:00Z", "2018-01-01T00:00:00Z"])
    @pytest.mark.parametrize("place", [0, 9, 10, 19, 150, 299])
    def test_an_absurd_time_costs_no_row(self, shown: str, place: int) -> None:
        rows = history([(300, 600)])
        rows[place] = replace(rows[place], shown=shown)
        found, _ = self.walked(rows)
        assert set(found) == {row.name for row in rows}

    @pytest.mark.parametrize("place", [9, 150, 299])
    def test_a_filter_by_another_time_than_that_of_the_order_costs_no_row(self, place: int) -> None:
        """The row is in the list by its place, and in a window by what it shows."""

        class Unlike(Api):
            def _window(self, since: datetime | None, before: datetime | None) -> list[Row]:
                return [
                    row
                    for row in reversed(self.rows)
                    if (at := row.shown_at)
                    and (since is None or at >= since)
                    and (before is None or at < before)
                ]

        rows = history([(300, 600)])
        rows[place] = replace(rows[place], shown="2030-01-01T00:00:00Z")
        api = Unlike(rows, Behaviour())
        with windows_of(2):
            found = names(list(listing_of(api, 10).oldest_first()))
        assert set(found) == {row.name for row in rows}

    @pytest.mark.parametrize("since", [None, NOW - DAY])
    def test_the_same_row_on_every_page_costs_no_other_one(self, since: datetime | None) -> None:
        class Repeating(Api):
            def conversations(self, **asked: Any) -> V3Page:
                found = super().conversations(**asked)
                again = page([self.rows[-1]], None)
                return V3Page([*again.rows, *found.rows], found.spool, found.cursor)

        api = Repeating(history([(200, 60)]), Behaviour())
        with windows_of(2):
            found = names(list(listing_of(api, 10).oldest_first(since)))
        assert set(found) == {row.name for row in api.rows}


class ByOffset(Api):
    """Answers `next_offset` only; deletes rows, or lets rows arrive, before some requests."""

    events: dict[int, int]
    """Rows that arrive (or are deleted, if negative) by number of the request."""
    has_next_offset = True
    respects_offset = True

    def conversations(self, **asked: Any) -> V3Page:
        for _ in range(self.events.get(len(self.requests), 0)):
            self.now += SECOND
            self.rows.append(Row(f"new-{len(self.rows)}", self.now, zulu(self.now), 0))
        for _ in range(-self.events.get(len(self.requests), 0)):
            self.rows.pop()
        offset = asked["offset"] or 0
        self.requests.append((asked["since"], asked["before"], asked["limit"], f"{offset}"))
        if not self.respects_offset:
            offset = 0
        window = self._window(asked["since"], asked["before"])
        end = offset + min(asked["limit"], 100)
        found = page(window[offset:end], None)
        has_next = self.has_next_offset and end < len(window)
        return replace(found, next_offset=end if has_next else None)


class TestOffsets:
    """Pages with `next_offset`, and without `cursor`."""

    def listed(self, api: ByOffset, page_size: int = 1_000) -> tuple[list[str], V3Listing]:
        listing = listing_of(api, page_size)
        return names(list(listing.oldest_first(NOW - 30 * DAY))), listing

    def api(self, events: dict[int, int] | None = None) -> ByOffset:
        api = ByOffset(history([(450, 60)]), Behaviour())
        api.events = events or {}
        return api

    def test_they_are_followed_to_the_end(self) -> None:
        api = self.api()
        found, listing = self.listed(api)
        assert sorted(found) == sorted(row.name for row in api.rows)
        assert [cursor for *_, cursor in api.requests] == ["0", "99", "198", "297", "396"]
        assert listing.gaps_repaired == 0

    @pytest.mark.parametrize("events", [{1: 7}, {1: 150}, {1: -7}, {1: -150, 3: -60}, {4: -99}])
    def test_rows_that_stay_are_found_while_others_come_and_go(self, events: Any) -> None:
        api = self.api(events)
        before = {row.name for row in api.rows}
        found, listing = self.listed(api)
        assert {row.name for row in api.rows if row.name in before} <= set(found)
        assert (listing.gaps_repaired > 0) is any(count < 0 for count in events.values())

    def test_a_full_page_that_names_no_next_one_is_not_the_end(self) -> None:
        api = self.api()
        api.has_next_offset = False
        found, _ = self.listed(api, page_size=100)
        assert sorted(found) == sorted(row.name for row in api.rows)

    def test_an_offset_without_effect_is_an_error_that_says_what_to_do(self) -> None:
        api = self.api()
        api.respects_offset = False
        with pytest.raises(ListingError, match=r"page_size to 1000.*POLYAI_API"):
            self.listed(api)
        assert len(api.requests) == 2

    def test_a_full_page_where_offsets_have_no_effect_is_the_end(self) -> None:
        api = self.api()
        api.has_next_offset = api.respects_offset = False
        found, _ = self.listed(api, page_size=100)
        assert len(found) == 100
        assert len(api.requests) == 2


class TestEndless:
    """Listings that never end."""

    def walk(self, give: Callable[[int], tuple[list[Row], str]], words: str) -> int:
        api = Endless([], Behaviour())
        api.give = give
        with pytest.raises(ListingError, match=words):
            list(listing_of(api, 10).oldest_first())
        return len(api.requests)

    def test_a_repeated_cursor(self) -> None:
        rows = history([(10, 0)])
        assert self.walk(lambda n: (rows[n : n + 1], f"c{n % 3}"), "the cursor 'c1'") == 4

    def test_a_cursor_of_the_same_page(self) -> None:
        assert self.walk(lambda n: ([], "x" * 1_000), f"the cursor '{'x' * 40}'") == 2

    def test_the_same_rows_endlessly(self) -> None:
        rows = history([(10, 0)])
        words = f"{MAX_EMPTY_PAGES} consecutive pages .*does not end"
        assert self.walk(lambda n: (rows, str(n)), words) == MAX_EMPTY_PAGES + 2

    def test_empty_pages_endlessly(self) -> None:
        assert self.walk(lambda n: ([], str(n)), "does not end") == MAX_EMPTY_PAGES + 1

    def test_a_hundred_consecutive_empty_pages_are_tolerated(self) -> None:
        rows = history([(30, 60)])
        api = Api(rows, Behaviour(caps=(10, *[0] * MAX_EMPTY_PAGES)))
        assert len(names(list(listing_of(api, 10).oldest_first(NOW - DAY)))) == 30


AGENT = "PROJECT-BOOKINGS"
KEY = "sandbox-key"
V3_PAGE = r"/v3/[^?]+\?"
BROKEN: dict[str, dict[str, Any]] = {
    "broken off": {"kind": "truncated"},
    "truncated JSON": {"kind": "truncated_json"},
    "reset": {"kind": "reset"},
    "empty": {"kind": "empty"},
    "envelope though 200": {"kind": "envelope"},
    "429 with a time": {"kind": "status", "status": 429, "retry_after": "0"},
    "429 without": {"kind": "status", "status": 429},
    "503": {"kind": "status", "status": 503},
    "502 html": {"kind": "html", "status": 502},
}


def agent_at(url: str) -> Agent:
    return Agent(
        AGENT,
        api_key=KEY,
        region="us",
        account_id="ws-sandbox",
        base_url="http://127.0.0.1:9",
        v3_base_url=url,
    )


@contextmanager
def api_at(url: str, **options: Any) -> Iterator[ConversationsV3]:
    quick = {
        "backoff_seconds": 0.01,
        "max_attempts": 3,
        "request_timeout": 5,
        "rate_limit_seconds": 0.05,
    }
    with ConversationsV3(agent_at(url), **{**quick, **options}) as api:
        yield api


def one_page(api: ConversationsV3, cursor: str | None = None) -> V3Page:
    return api.conversations(environment="live", since=None, before=None, limit=20, cursor=cursor)


@pytest.fixture(scope="module")
def served_sandbox() -> Iterator[tuple[Sandbox, str]]:
    sandbox = Sandbox(SandboxConfig(conversations=150, detail="small"))
    with serve(sandbox) as url:
        yield sandbox, url


@pytest.fixture
def url(served_sandbox: tuple[Sandbox, str]) -> str:
    return served_sandbox[1]


@pytest.fixture
def sandbox(served_sandbox: tuple[Sandbox, str]) -> Sandbox:
    served_sandbox[0].faults.clear()
    served_sandbox[0].requests.clear()
    return served_sandbox[0]


class TestSandbox:
    """Listing of the sandbox over HTTP."""

    def live(self, sandbox: Sandbox) -> dict[str, datetime]:
        """Start of each conversation."""
        return {
            traits.conversation_id: sandbox.conversation(AGENT, index).created_at
            for index in sandbox.listed(AGENT)
            if (traits := sandbox.traits(AGENT, index)).environment == "live"
        }

    def check_complete(self, lists: list[list[Listed]], sandbox: Sandbox) -> None:
        live = self.live(sandbox)
        assert sorted(names(lists)) == sorted(live)
        moments = [row.at for rows in lists for row in rows]
        assert moments == sorted(live.values())

    def listed(self, api: ConversationsV3, sandbox: Sandbox) -> list[list[Listed]]:
        clock: Callable[[], datetime] = lambda: sandbox.config.now  # noqa: E731
        with windows_of(2):
            return list(V3Listing(api, "live", 10, clock).oldest_first())

    def test_all_conversations_are_yielded_oldest_first(self, sandbox: Sandbox, url: str) -> None:
        with api_at(url) as api:
            lists = self.listed(api, sandbox)
        self.check_complete(lists, sandbox)
        targets = sandbox.requests.paths(V3_PAGE)
        assert len(targets) == len(set(targets))
        assert sandbox.requests.kinds == {"v3": len(targets)}
        assert all("include_latency=true" in target for target in targets)
        for row in (row for rows in lists for row in rows):
            assert row.document
            document = row.document.read()
            assert document["id"] == row.conversation_id
            assert datetime.fromisoformat(document["started_at"]) == row.at

    @pytest.mark.parametrize("order", BROKEN.values(), ids=BROKEN.keys())
    def test_a_failed_page_is_retried(
        self, sandbox: Sandbox, url: str, order: dict[str, Any]
    ) -> None:
        for place in ("limit=10&", "cursor=", "limit=1&"):
            sandbox.faults.add(**order, path=place, times=2)
        with api_at(url) as api:
            lists = self.listed(api, sandbox)
        self.check_complete(lists, sandbox)
        assert sandbox.faults.hits == 6
        assert (api.traffic.retries, api.traffic.requests) == (6, sandbox.requests.count(V3_PAGE))

    @pytest.mark.parametrize("order", BROKEN.values(), ids=BROKEN.keys())
    def test_a_page_that_keeps_failing_ends_the_walk(
        self, sandbox: Sandbox, url: str, order: dict[str, Any]
    ) -> None:
        if order.get("status") == 429:
            order = {**order, "retry_after": None}
        live = self.live(sandbox)
        yielded: list[list[Listed]] = []

        def with_fault(walk: Iterator[list[Listed]]) -> Iterator[list[Listed]]:
            for number, rows in enumerate(walk):
                yield rows
                if number == 5:
                    sandbox.requests.clear()
                    sandbox.faults.add(**order, path="/v3/")

        with api_at(url) as api, windows_of(2):
            walk = V3Listing(api, "live", 10, lambda: sandbox.config.now).oldest_first()
            with pytest.raises(UnavailableError, match="3 attempts"):
                yielded.extend(with_fault(walk))
        found = {row.conversation_id: row.at for rows in yielded for row in rows}
        newest = max(at for at in found.values() if at)
        assert {name for name, at in live.items() if at < newest} <= set(found) != set(live)
        assert sandbox.requests.count(V3_PAGE) == 3

    def test_an_incomplete_page_is_never_returned(self, sandbox: Sandbox, url: str) -> None:
        sandbox.faults.add("truncated", path="/v3/")
        with api_at(url) as api, pytest.raises(UnavailableError, match=r"connection to .* broke"):
            one_page(api)
        assert sandbox.requests.count(V3_PAGE) == 3
        assert api.traffic.answers == 0
        assert api.traffic.bytes_received > 0

    def test_a_retry_after_beyond_the_limit_ends_the_walk(self, sandbox: Sandbox, url: str) -> None:
        sandbox.faults.add("status", status=429, retry_after="100000", path="/v3/")
        with api_at(url) as api, pytest.raises(UnavailableError, match="100000 s"):
            one_page(api)
        assert sandbox.requests.count(V3_PAGE) == 1

    def test_a_malformed_cursor_is_rejected_at_once(self, sandbox: Sandbox, url: str) -> None:
        with api_at(url) as api, pytest.raises(ApiError) as caught:
            one_page(api, cursor="ü&limit=1")
        assert not isinstance(caught.value, UnavailableError)
        assert (caught.value.status, caught.value.error_code) == (400, "INVALID_CURSOR")
        assert sandbox.requests.count(V3_PAGE) == 1


def served_rows(rows: Sequence[dict[str, Any]]) -> Script:
    """Serves pages by offset, and fails with 504 for more than 250 conversations."""

    def answer(request: Request) -> Answer:
        asked = dict(parse_qsl(urlsplit(request.target).query))
        if int(asked["limit"]) > 250:
            return Answer(b"<html>", 504, {"Content-Type": "text/html"})
        start = int(asked.get("offset", 0))
        end = start + int(asked["limit"])
        following = {"next_offset": end} if end < len(rows) else {}
        return Answer({"conversations": rows[start:end], "cursor": None, **following})

    return answer


class TestPageSize:
    def test_pages_that_time_out_are_halved_for_the_rest_of_the_run(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        rows = [{"id": f"CA{n}", "started_at": zulu(NOW - n * SECOND)} for n in range(600)]
        with served(served_rows(rows)) as (api, server):
            for environment in ("live", "sandbox"):
                listing = V3Listing(api, environment, 1_000, lambda: NOW)
                assert len(names(list(listing.oldest_first(NOW - DAY)))) == 600
        limits = [int(found) for found in re.findall(r"limit=(\d+)", " ".join(server.targets))]
        # two attempts each, and then only pages that work, in the next environment too
        assert limits == [1000, 1000, 500, 500, *[250] * 6]
        (record,) = [r for r in caplog.records if "rest of the run" in r.message]
        assert "1000" in record.message
        assert "250" in record.message

    def test_an_outage_is_not_taken_for_a_page_that_is_too_large(self) -> None:
        with served(in_turn(Answer(b"", 503))) as (api, server), pytest.raises(UnavailableError):
            list(V3Listing(api, "live", 40, lambda: NOW).oldest_first(NOW - DAY))
        assert len(server.requests) == 6


class TestMalformedRows:
    ROWS = (
        *({"id": f"CA{n}", "started_at": zulu(NOW - n * SECOND)} for n in range(19)),
        {"name": "without an id"},
    )

    @pytest.mark.parametrize(
        "bad", [{"name": "no id"}, {"id": ""}, {"id": 7}, {"id": None}, 7, None, [{"id": "CA1"}]]
    )
    def test_a_malformed_row_costs_only_itself(self, bad: Any) -> None:
        keys = []
        for place in (0, 10, 19):
            rows = list(self.ROWS[:19])
            rows.insert(place, bad)
            with served(in_turn(Answer({"conversations": rows, "cursor": None}))) as (api, _):
                listing = V3Listing(api, "live", 1_000, lambda: NOW)
                found = names(list(listing.oldest_first(NOW - DAY)))
            assert sorted(found) == sorted(f"CA{n}" for n in range(19))
            (malformed,) = listing.malformed.values()
            keys.append(malformed.key)
        assert len(set(keys)) == 1
        assert keys[0].startswith("malformed-")

    def test_a_row_beyond_max_body_is_malformed(self) -> None:
        rows = [*self.ROWS[:2], {"id": "large", "text": "x" * 200_000}]
        answer = in_turn(Answer({"conversations": rows, "cursor": None}))
        with OddServer(answer) as server, api_at(server.url, max_body=100_000) as api:
            found = one_page(api)
        assert [row.conversation_id for row in found.rows] == ["CA0", "CA1"]
        assert list(found.malformed.values()) == ["is longer than 100,000 characters"]

    def test_a_row_that_is_nested_too_deeply_is_malformed(self) -> None:
        deep = b'{"a":' * 3_000 + b"1" + b"}" * 3_000
        body = b'{"conversations": [{"id": "CA0"}, {"id": "deep", "x": ' + deep + b"}]}"
        with served(in_turn(Answer(body))) as (api, _):
            found = one_page(api)
        assert [row.conversation_id for row in found.rows] == ["CA0"]
        assert list(found.malformed.values()) == ["is nested too deeply"]


BODY = json.dumps(
    {"conversations": [{"id": f"CA{n}", "text": "é" * 20_000} for n in range(30)], "cursor": ""}
).encode()
INVALID = b"<html>" + bytes(4 * 2**20)


@contextmanager
def served(script: Script) -> Iterator[tuple[ConversationsV3, OddServer]]:
    with OddServer(script) as server, api_at(server.url) as api:
        yield api, server


class TestConnections:
    """Reuse of connections, and counters of traffic."""

    @pytest.mark.parametrize(
        "whole",
        [
            Answer(BODY),
            Answer(BODY, is_chunked=True),
            Answer(gzip.compress(BODY), headers={"Content-Encoding": "gzip"}),
            Answer(gzip.compress(BODY), headers={"Content-Encoding": "gzip"}, is_chunked=True),
        ],
        ids=["plain", "chunked", "compressed", "compressed and chunked"],
    )
    def test_a_complete_page_keeps_its_connection_open(self, whole: Answer) -> None:
        with served(in_turn(whole)) as (api, server):
            pages = [one_page(api) for _ in range(3)]
            assert server.connections == 1
            assert [row.conversation_id for row in pages[2].rows] == [f"CA{n}" for n in range(30)]
            assert pages[0].cursor is None
        assert api.traffic.bytes_received >= 3 * len(whole.body)
        assert api.traffic.bytes_received < 3 * len(whole.body) + 1_000
        assert api.traffic.answers == 3

    @pytest.mark.parametrize(
        "broken",
        [
            Answer(BODY, cut=100, then="close"),
            Answer(BODY, cut=100, then="reset"),
            Answer(BODY, cut=100, then="close", is_chunked=True),
            Answer(INVALID),
            Answer(INVALID, is_chunked=True),
        ],
        ids=["closed", "reset", "chunked", "not read to its end", "the same chunked"],
    )
    def test_a_broken_page_closes_its_connection(self, broken: Answer) -> None:
        with served(in_turn(broken, Answer(BODY))) as (api, server):
            assert len(one_page(api).rows) == 30
            assert server.connections == 2
            assert len(one_page(api).rows) == 30
            assert server.connections == 2
        assert (api.traffic.requests, api.traffic.answers, api.traffic.retries) == (3, 2, 1)
        assert api.traffic.bytes_received >= 2 * len(BODY)

    @pytest.mark.parametrize("status", [429, 502, 503])
    def test_a_refusal_keeps_its_connection_open(self, status: int) -> None:
        refusal = Answer({"success": False}, status, {"Retry-After": "0"})
        with served(in_turn(refusal, Answer(BODY))) as (api, server):
            assert len(one_page(api).rows) == 30
            assert server.connections == 1

    @pytest.mark.parametrize(
        "body",
        [
            {"conversations": [], "cursor": 7},
            {"conversations": [], "next_offset": "7"},
            {"conversations": None},
            {"success": False, "conversations": []},
            [],
        ],
        ids=str,
    )
    def test_a_page_of_another_shape_is_retried_until_the_attempts_are_used_up(
        self, body: Any
    ) -> None:
        with served(in_turn(Answer(body))) as (api, server), pytest.raises(UnavailableError):
            one_page(api)
        assert len(server.requests) == 3

    def test_a_row_keeps_only_its_document(self) -> None:
        rows = [{"id": "a\0b"}, {"id": "c\ud800"}]
        answer = Answer({"conversations": rows, "cursor": "\ud800\0"})
        with served(in_turn(answer)) as (api, _):
            found = one_page(api)
        assert [row.conversation_id for row in found.rows] == ["ab", "c\ufffd"]
        assert [row.document.read()["id"] for row in found.rows] == ["ab", "c\ufffd"]
        assert found.cursor == "\ufffd"
