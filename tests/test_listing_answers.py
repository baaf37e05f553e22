"""Whole loads from lists whose answers deviate from their documentation.

Counts that are no numbers, offsets without effect, rows of other types, dates of any kind: nothing
that is listed is lost, or the run is partial or failed and says why.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import duckdb
import pytest

from odd_server import Answer, OddServer, Request
from polyai import open_pipeline, resolve
from polyai.console.exit_codes import ExitCode, reports_exit_code, slices_exit_code
from polyai.load.backfill import backfill
from polyai.load.refetch import Span
from polyai.load.report import RunReport
from polyai.load.run import load
from polyai.warehouse.target import Target

pytestmark = pytest.mark.load

NOW = datetime(2026, 11, 1, tzinfo=UTC)
PAGE = 50


def stamp(minutes: int) -> str:
    return (NOW + timedelta(minutes=minutes)).isoformat()


def query(sql: str) -> list[tuple[Any, ...]]:
    with duckdb.connect("polyai.duckdb", read_only=True) as connection:
        return connection.execute(sql).fetchall()


def loaded() -> set[str]:
    if not Path("polyai.duckdb").exists():
        return set()
    return {row[0] for row in query("SELECT conversation_id FROM polyai.conversations")}


class OddList:
    """Data API of one agent, a conversation per minute, whose list answers can be overridden."""

    def __init__(self, conversations: int) -> None:
        self.now = NOW
        self.rows: list[Any] = [
            {"conversationId": f"CA{n:04}", "createdAt": stamp(-n - 1)}
            for n in range(conversations)
        ]
        self.pages = 0
        self.extra: dict[str, Any] = {}
        """Fields of the answer that differ; without the field where the value is `...`."""
        self.cut: Callable[[int, int], list[Any]] = lambda offset, end: self.rows[offset:end]
        """Rows of a page."""
        self.before_page: Callable[[], object] = lambda: None
        self._lock = threading.Lock()

    def arrive(self, conversations: int) -> None:
        for _ in range(conversations):
            self.now += timedelta(minutes=1)
            name = f"CB{len(self.rows):04}"
            self.rows.insert(0, {"conversationId": name, "createdAt": self.now.isoformat()})
        self.now += timedelta(minutes=1)

    @property
    def ids(self) -> set[str]:
        rows = (row for row in self.rows if isinstance(row, dict))
        return {row["conversationId"] for row in rows if row.get("conversationId")}

    def __call__(self, request: Request) -> Answer:
        url = urlsplit(request.target)
        with self._lock:
            if not url.path.endswith("/conversations"):
                name = unquote(url.path.rsplit("/", 1)[1])
                for row in self.rows:
                    if isinstance(row, dict) and row.get("conversationId") == name:
                        return Answer({**row, "turns": []})
                return Answer({"message": "not found"}, 404)
            self.pages += 1
            self.before_page()
            asked = {name: int(value) for name, value in parse_qsl(url.query)}
            offset, limit = asked["offset"], min(asked["limit"], PAGE)
            body = {
                "conversations": self.cut(offset, offset + limit),
                "count": len(self.rows),
                "limit": limit,
                "offset": offset,
                **self.extra,
            }
            return Answer({name: value for name, value in body.items() if value is not ...})

    def load(self, *, full: bool = False) -> RunReport:
        self.pages = 0
        with OddServer(self) as server:
            settings = resolve(agent_id="AGENT", api_key="k", base_url=server.url, max_attempts=2)
            (report,) = load(settings, open_pipeline(), full=full, clock=lambda: self.now)
        return report

    def loads_all(self, *, full: bool = False) -> RunReport:
        """Loads, and asserts that the run is complete and has all that is listed."""
        report = self.load(full=full)
        assert (report.status, self.ids - loaded()) == ("complete", set())
        return report


class TestCount:
    @pytest.mark.slow
    def test_an_unusable_one_is_replaced_by_two_looks_at_the_list(self) -> None:
        listing = OddList(150)
        counts: tuple[Any, ...] = (..., -5, None, "many", 10**30)
        for count, new in zip(counts, (170, 20, 20, 20, 20)):
            listing.arrive(20)
            listing.extra = {"count": count}
            report = listing.loads_all()
            assert (report.new, report.api_count, report.count_excess) == (new, None, None)
        assert listing.loads_all(full=True).new == 0

    def test_a_number_as_text(self) -> None:
        listing = OddList(170)
        listing.extra = {"count": "170"}
        report = listing.loads_all()
        assert (report.api_count, report.count_excess) == (170, 0)

    def test_an_empty_list_without_one_is_an_error(self) -> None:
        listing = OddList(0)
        listing.extra = {"count": ...}
        assert listing.load().status == "failed"

    @pytest.mark.slow
    def test_one_that_stays_too_high_is_no_failure_in_each_run(self) -> None:
        listing = OddList(120)
        listing.extra = {"count": 1_000}
        assert listing.loads_all().count_excess == 880
        listing.now += timedelta(days=2)
        assert listing.loads_all().walks == 0

    @pytest.mark.slow
    def test_the_look_back_costs_its_own_pages_where_the_count_is_too_low(self) -> None:
        listing = OddList(170)
        listing.extra = {"count": 0}
        listing.loads_all()
        listing.arrive(10)
        report = listing.loads_all()
        # four pages, one where the end was expected, the empty one beyond it, the last row again
        assert (report.new, listing.pages) == (10, 7)


class TestOffsets:
    @pytest.mark.parametrize("conversations", [30, 170])
    def test_without_effect_they_end_the_run(self, conversations: int) -> None:
        listing = OddList(conversations)
        listing.cut = lambda offset, end: listing.rows[:PAGE]
        report = listing.load()
        assert report.status == "failed"
        assert "same page at every offset" in (report.error or "")
        assert listing.pages < 20

    @pytest.mark.slow
    @pytest.mark.parametrize("index", [0, -1], ids=["newest", "oldest"])
    def test_a_list_that_loses_a_row_before_each_page(self, index: int) -> None:
        listing = OddList(300)
        listing.before_page = lambda: listing.rows.pop(index)
        report = listing.load()
        assert report.status in ("complete", "partial")
        assert listing.ids <= loaded()
        listing.before_page = lambda: None
        listing.loads_all(full=True)


class TestRows:
    def test_other_types_are_recorded_and_cost_no_neighbour(self) -> None:
        listing = OddList(120)
        odd: list[Any] = [None, 7, "text", [1], True, {}]
        for place, row in zip((0, 30, 49, 50, 51, 100), odd):
            listing.rows.insert(place, row)
        report = listing.load()
        assert (report.status, listing.ids - loaded()) == ("partial", set())
        recorded = query("SELECT stage, resolved_at FROM polyai.fetch_failures")
        assert recorded == [("listing", None)] * report.failed
        assert report.failed >= 5
        assert report.unaccounted == 0

    @pytest.mark.slow
    def test_ids_that_differ_only_in_case(self) -> None:
        listing = OddList(120)
        for row in listing.rows[1::2]:
            row["conversationId"] = f"ca{row['conversationId'][2:]}"
        for upper, lower in zip(listing.rows[::2], listing.rows[1::2]):
            lower["conversationId"] = upper["conversationId"].lower()
        assert listing.loads_all().new == 120
        assert listing.loads_all().new == 0


ODD_DATES: dict[str, Any] = {
    "before year 1": "0001-01-01T00:00:00+14:00",
    "after year 9999": "9999-12-31T23:59:59-12:00",
    "number": 1e300,
    "null": None,
    "year 9999": "9999-12-31T23:59:59Z",
    "object": {},
}


class TestDates:
    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("kinds", "share"),
        [
            pytest.param(tuple(ODD_DATES), 7, id="each in every seventh row"),
            pytest.param(tuple(ODD_DATES), 1, id="each in every row"),
            pytest.param(("null",), 1, id="null in every row"),
            *(
                pytest.param((kind,), share, id=f"{kind} only, {share}", marks=pytest.mark.matrix)
                for kind in ODD_DATES
                for share in (7, 1)
            ),
        ],
    )
    def test_no_date_costs_a_row(self, kinds: tuple[str, ...], share: int) -> None:
        listing = OddList(150)
        for row, kind in zip(listing.rows[::share], itertools.cycle(kinds)):
            row["createdAt"] = ODD_DATES[kind]
        listing.loads_all()
        listing.arrive(120)
        assert listing.loads_all().new == 120

    @pytest.mark.slow
    def test_a_row_without_one_makes_a_backfill_partial_until_it_is_loaded(self) -> None:
        listing = OddList(150)
        listing.rows[60]["createdAt"] = None
        for status, code in (("partial", ExitCode.SOME_FAILED), ("complete", ExitCode.DONE)):
            with OddServer(listing) as server:
                settings = resolve(agent_id="AGENT", api_key="k", base_url=server.url)
                span = Span(NOW - timedelta(minutes=100), NOW - timedelta(minutes=20))
                reports = backfill(
                    settings, Target(), span, slice_length=timedelta(days=1), workers=1
                )
            assert [report.status for report in reports] == [status]
            assert slices_exit_code(reports) == code
            listing.loads_all(full=True)


def v3_list(rows: list[Any], *, page_size: int) -> Callable[[Request], Answer]:
    """Serves the live environment of the Conversations API v3 with `next_offset` only."""

    def answer(request: Request) -> Answer:
        asked = dict(parse_qsl(urlsplit(request.target).query))
        since, before = asked.get("start_time", ""), asked.get("end_time", "9")
        is_live = asked["client_env"] == "live"
        found = [row for row in rows if is_live and since <= row["started_at"] <= before]
        start = int(asked.get("offset", 0))
        end = start + min(int(asked["limit"]), page_size)
        following = {"next_offset": end} if end < len(found) else {}
        return Answer({"conversations": found[start:end], **following})

    return answer


def load_v3(script: Callable[[Request], Answer]) -> RunReport:
    with OddServer(script) as server:
        settings = resolve(
            agent_id="AGENT",
            api_key="k",
            account_id="ws",
            base_url=server.url,
            api="conversations_v3",
        )
        (report,) = load(settings, open_pipeline(), clock=lambda: NOW)
    return report


class TestV3:
    def rows(self, conversations: int) -> list[Any]:
        return [{"id": f"CA{n:04}", "started_at": stamp(-n - 1)} for n in range(conversations)]

    def test_next_offset_without_a_cursor(self) -> None:
        report = load_v3(v3_list(self.rows(450), page_size=100))
        assert (report.status, len(loaded())) == ("complete", 450)

    @pytest.mark.slow
    def test_a_row_without_an_id_is_recorded_and_resolved(self) -> None:
        rows = self.rows(20)
        del rows[7]["id"]
        for attempts in (1, 2):
            report = load_v3(v3_list(rows, page_size=100))
            assert (report.status, report.failed, len(loaded())) == ("partial", 1, 19)
            assert reports_exit_code([report]) == ExitCode.SOME_FAILED
            (found,) = query(
                "SELECT conversation_id, stage, attempts, resolved_at FROM polyai.fetch_failures"
            )
            assert found[0] in report.failures
            assert found[1:] == ("listing", attempts, None)
        report = load_v3(v3_list(self.rows(20), page_size=100))
        assert (report.status, len(loaded())) == ("complete", 20)
