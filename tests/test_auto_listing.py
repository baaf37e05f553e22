"""Loads with `api = "auto"`: the choice of a listing, and what happens when one is gone."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import chdir
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest

from polyai import open_pipeline, resolve
from polyai.jobs.backfill import backfill
from polyai.load.refetch import Span
from polyai.load.report import RunReport
from polyai.load.run import load
from polyai.sandbox import Sandbox, SandboxConfig, serve
from polyai.sandbox.faults import DATA_LISTING
from polyai.tables.registry import conversation_tables
from warehouse_rows import (
    NOT_SERVED,
    Rows,
    assert_equals_rows,
    assert_equals_truth,
    from_duckdb,
    rows_by_table,
)

pytestmark = pytest.mark.load

AGENT = "PROJECT-BOOKINGS"
ACCOUNT = "ws-sandbox"
V3, DATA = "conversations_v3", "data"
LISTINGS = {DATA: DATA_LISTING, V3: "^/v3/"}
_REQUESTS = {DATA: r" /v1/agents/[^/]+/conversations\?", V3: " /v3/"}
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


class Site:
    """Served sandbox, and loads from it at the time of its clock."""

    def __init__(self, sandbox: Sandbox, base_url: str) -> None:
        self.sandbox = sandbox
        self.base_url = base_url

    def settings(self, **options: object) -> Any:
        defaults = {
            "agent_id": AGENT,
            "api_key": "sandbox-key",
            "account_id": ACCOUNT,
            "base_url": self.base_url,
        }
        return resolve(**(defaults | options))

    def load(self, full: Any = False, **options: Any) -> RunReport:
        """Runs a load, after clearing the recorded requests of earlier ones."""
        self.sandbox.requests.clear()
        (report,) = load(
            self.settings(**options), open_pipeline(), full=full, clock=lambda: self.sandbox.now
        )
        return report

    def remove(self, api: str, **options: Any) -> None:
        """Removes the route of a listing."""
        self.sandbox.faults.add("no_route", path=LISTINGS[api], **options)

    def listed(self, api: str) -> int:
        """Counts the requests of the last run to a listing."""
        return self.sandbox.requests.count(_REQUESTS[api])


@pytest.fixture
def site() -> Iterator[Site]:
    # with oddities, v3 fills what the Data API leaves empty
    config = SandboxConfig(conversations=60, span=timedelta(days=5), oddities=False)
    sandbox = Sandbox(config)
    with serve(sandbox) as base_url:
        yield Site(sandbox, base_url)


def query(sql: str) -> list[tuple[Any, ...]]:
    with duckdb.connect("polyai.duckdb", read_only=True) as connection:
        return connection.execute(sql).fetchall()


def comparable(database: Path | str = "polyai.duckdb") -> dict[str, Rows]:
    """Returns all rows, without what only v3 sends."""
    rows = rows_by_table(from_duckdb(database))
    for table in conversation_tables():
        ignored = {*NOT_SERVED, "source_api", *table.unknown_to(frozenset({DATA}))}
        rows[table.name] = {
            key: {name: value for name, value in row.items() if name not in ignored}
            for key, row in rows[table.name].items()
        }
    for row in rows["conversations"].values():
        if not row["num_turns"]:
            # only v3 sends these; the Data API's are counted from turns
            row |= {"num_silences": None, "num_ood": None}
    return rows


class TestKnownAgent:
    @pytest.mark.parametrize("api", [pytest.param(DATA, marks=pytest.mark.matrix), V3])
    @pytest.mark.matrix
    def test_goes_on_through_the_listing_it_was_loaded_with(self, api: str, site: Site) -> None:
        site.load(api=api)
        site.sandbox.advance(HOUR, arrivals=3)
        report = site.load()
        assert (report.status, report.source_api, report.new) == ("complete", api, 3)
        assert site.listed(V3 if api == DATA else DATA) == 0
        # the choice costs no request
        requests = site.load().traffic.requests
        assert requests == site.load(api=api).traffic.requests
        read = (api,) * 2
        assert_equals_truth(site.sandbox, AGENT, from_duckdb(), apis=read)

    @pytest.mark.matrix
    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("first", "details"),
        [
            pytest.param(DATA, False, id="data to v3", marks=pytest.mark.matrix),
            pytest.param(V3, True, id="v3 to data"),
        ],
    )
    def test_goes_on_through_the_other_listing_with_equal_rows(
        self,
        first: str,
        details: bool,
        site: Site,
        caplog: pytest.LogCaptureFixture,
        tmp_path_factory: pytest.TempPathFactory,
    ) -> None:
        caplog.set_level(logging.WARNING, logger="polyai")
        other = V3 if first == DATA else DATA
        reference = tmp_path_factory.mktemp("reference")

        def load_reference() -> None:
            """Loads another warehouse at the same time, through the Data API."""
            site.sandbox.faults.clear()
            with chdir(reference):
                site.load(api=DATA)
            caplog.clear()

        site.load(api=first, details=details)
        load_reference()
        # the second run asks once whether the listing is back
        for arrivals, requests in ((5, 2), (2, 1)):
            site.sandbox.advance(HOUR, arrivals=arrivals)
            site.remove(first)
            report = site.load()
            assert (report.status, report.source_api, report.new) == ("complete", other, arrivals)
            assert report.replaced_api == first
            assert site.listed(first) == requests
            assert len([text for text in caplog.messages if f"api = '{other}'" in text]) == 1
            load_reference()
        assert comparable() == comparable(reference / "polyai.duckdb")

    @pytest.mark.slow
    def test_a_listing_that_vanishes_during_a_run_loses_and_doubles_nothing(
        self, site: Site
    ) -> None:
        site.remove(DATA, after=3)
        report = site.load(page_size=20, chunk_size=30)
        assert (report.status, report.source_api) == ("complete", V3)
        assert query(
            "SELECT count(*), count(DISTINCT conversation_id) FROM polyai.conversations"
        ) == [(60, 60)]

    @pytest.mark.matrix
    def test_the_setting_data_switches_back_from_v3_with_one_row_each(
        self, site: Site, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, logger="polyai")
        site.load(api_key="sandbox-v3-key")
        keys = {"v3_api_key": "sandbox-v3-key"}
        for options, told in ((keys, 1), (keys | {"api": V3}, 0)):
            caplog.clear()
            report = site.load(**options)
            assert report.source_api == V3
            messages = [text for text in caplog.messages if "api = 'data' (POLYAI_API)" in text]
            assert len(messages) == told
        report = site.load(**keys, api=DATA, full=True)
        assert (report.source_api, report.status, report.changed) == (DATA, "complete", 60)
        # duplicate keys are an error of it
        assert_equals_truth(site.sandbox, AGENT, from_duckdb(), apis=(V3, DATA))
        assert site.load(**keys).source_api == DATA
        assert site.listed(V3) == 0

    @pytest.mark.matrix
    def test_a_refused_key_is_no_reason_to_change_the_listing(self, site: Site) -> None:
        site.load()
        report = site.load(api_key="expired", v3_api_key="sandbox-key")
        assert report.status == "failed"
        assert "HTTP 401" in str(report.error)
        assert site.listed(V3) == 0

    @pytest.mark.matrix
    def test_without_what_the_other_listing_needs_the_error_names_it(self, site: Site) -> None:
        site.load()
        site.remove(DATA)
        report = site.load(account_id=None)
        assert report.status == "failed"
        assert "account_id" in str(report.error)
        assert "no Route matched" in str(report.error)
        report = site.load(v3_api_key="wrong")
        assert report.status == "failed"
        assert "no Route matched" in str(report.error)
        assert "HTTP 401" in str(report.error)


@pytest.fixture
def everywhere() -> Iterator[Site]:
    """Site with conversations of environments that v3 does not list."""
    config = SandboxConfig(conversations=60, span=timedelta(days=5), all_environments=True)
    sandbox = Sandbox(config)
    with serve(sandbox) as base_url:
        yield Site(sandbox, base_url)


class TestFallback:
    @pytest.mark.matrix
    def test_one_answer_without_a_route_changes_nothing(self, everywhere: Site) -> None:
        assert everywhere.load().new == 60
        for path in (DATA_LISTING, "^/v1/agents/[^/]+/conversations/"):
            everywhere.sandbox.faults.add("no_route", path=path, times=1)
        everywhere.sandbox.advance(DAY, arrivals=30)
        report = everywhere.load()
        assert (report.status, report.source_api, report.new) == ("complete", DATA, 30)
        assert everywhere.sandbox.faults.hits == 2

    @pytest.mark.matrix
    @pytest.mark.slow
    def test_is_partial_and_ends_with_all_that_arrived_in_between(
        self, everywhere: Site, caplog: pytest.LogCaptureFixture
    ) -> None:
        everywhere.load()
        everywhere.remove(DATA)
        for full in (False, True):
            caplog.clear()
            everywhere.sandbox.advance(DAY, arrivals=30)
            report = everywhere.load(full=full)
            assert (report.status, report.source_api) == ("partial", V3)
            assert report.replaced_api == DATA
            assert report.new < 30
            assert set(report.unlisted) <= {"draft", "test", "scenarios"}
            assert report.unlisted
            (warning,) = [text for text in caplog.messages if "going on through" in text]
            assert "live, sandbox, pre-release" in warning
        everywhere.sandbox.faults.clear()
        everywhere.sandbox.advance(3 * DAY, arrivals=30)
        report = everywhere.load()
        assert (report.status, report.source_api, report.replaced_api) == ("complete", DATA, None)
        assert query(
            "SELECT count(*), count(DISTINCT conversation_id) FROM polyai.conversations"
        ) == [(150, 150)]
        listed = everywhere.listed(DATA)
        assert everywhere.load().status == "complete"
        assert everywhere.listed(DATA) <= listed
        assert query("SELECT source_api, replaced_api FROM polyai.sync_runs ORDER BY started_at")[
            1:4
        ] == [(V3, DATA), (V3, DATA), (DATA, None)]

    @pytest.mark.matrix
    def test_a_listing_that_vanishes_leaves_what_it_counted_as_missing(
        self, everywhere: Site
    ) -> None:
        everywhere.remove(DATA, after=1)
        report = everywhere.load(page_size=20)
        missing = 60 - report.new
        assert missing > 0
        assert (report.status, report.missing, report.api_count) == ("partial", missing, 60)
        # new ones do not stand in for them
        everywhere.sandbox.advance(DAY, arrivals=30)
        report = everywhere.load()
        assert (report.status, report.missing) == ("partial", missing)
        everywhere.sandbox.faults.clear()
        assert everywhere.load().status == "complete"
        assert query("SELECT count(*) FROM polyai.conversations") == [(90,)]

    @pytest.mark.matrix
    def test_goes_on_without_details_while_they_are_gone_too(
        self,
        site: Site,
        caplog: pytest.LogCaptureFixture,
        tmp_path_factory: pytest.TempPathFactory,
    ) -> None:
        caplog.set_level(logging.WARNING, logger="polyai")
        reference = tmp_path_factory.mktemp("reference")

        def load_reference() -> None:
            """Loads another warehouse at the same time, through the Data API."""
            site.sandbox.faults.clear()
            with chdir(reference):
                site.load(api=DATA)

        site.load()
        load_reference()
        held = rows_by_table(from_duckdb("polyai.duckdb"))
        site.sandbox.faults.add("no_route", path="^/v1/")
        site.sandbox.advance(HOUR, arrivals=5)
        report = site.load()
        assert (report.status, report.source_api, report.new) == ("complete", V3, 5)
        (warning,) = [text for text in caplog.messages if "going on through" in text]
        assert "without details" in warning
        rows = rows_by_table(from_duckdb("polyai.duckdb"))
        names = ("note", "summary", "csat_score", "handoff_reason")
        for key, row in held["conversations"].items():
            for name in names:
                assert rows["conversations"][key].get(name) == row.get(name)
        assert held["function_events"].keys() <= rows["function_events"].keys()
        load_reference()
        site.sandbox.advance(3 * DAY, arrivals=1)
        report = site.load()
        assert (report.status, report.source_api, report.new) == ("complete", DATA, 1)
        load_reference()
        loaded, expected = comparable(), comparable(reference / "polyai.duckdb")
        for name in ("conversations", "turns", "function_events", "metrics"):
            assert loaded[name] == expected[name]
        assert loaded["annotations"].keys() == expected["annotations"].keys()

    @pytest.mark.matrix
    def test_after_a_backfill_of_everything_does_not_list_it_again_each_time(
        self, site: Site, caplog: pytest.LogCaptureFixture
    ) -> None:
        site.remove(DATA)
        end = site.sandbox.now
        backfill(
            Span(end - 6 * DAY, end + DAY),
            settings=site.settings(),
            slice_length=7 * DAY,
            workers=1,
            resume=False,
        )
        first, second = site.load(), site.load()
        assert (first.status, second.status) == ("complete", "complete")
        assert (first.listed, first.new + second.new) == (60, 0)
        assert second.listed < 60
        site.sandbox.advance(HOUR, arrivals=5)
        assert site.load().new == 5
        assert query("SELECT count(*) FROM polyai.conversations") == [(65,)]

    @pytest.mark.matrix
    def test_of_a_backfill_in_several_processes_is_logged_once(
        self, site: Site, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # a worker of pytest-xdist has none, and multiprocessing looks it up
        monkeypatch.setattr(sys.modules["__main__"], "__spec__", None, raising=False)
        caplog.set_level(logging.WARNING, logger="polyai")
        site.remove(DATA)
        end = datetime(2026, 11, 2, tzinfo=UTC)
        backfill(
            Span(end - 6 * DAY, end),
            settings=site.settings(),
            slice_length=DAY,
            workers=2,
            resume=False,
        )
        assert len([text for text in caplog.messages if "going on through" in text]) == 1

    @pytest.mark.slow
    def test_of_a_killed_run_ends_with_the_next_one(self, everywhere: Site) -> None:
        everywhere.load()
        everywhere.remove(DATA)
        everywhere.sandbox.advance(DAY, arrivals=30)
        everywhere.load()
        with duckdb.connect("polyai.duckdb") as connection:
            # as it is written at the start
            connection.execute(
                "UPDATE polyai.sync_runs SET status = 'running', replaced_api = NULL, "
                f"source_api = '{DATA}', finished_at = NULL WHERE replaced_api IS NOT NULL"
            )
        everywhere.sandbox.faults.clear()
        report = everywhere.load()
        assert (report.status, report.source_api) == ("complete", DATA)
        assert query("SELECT count(*) FROM polyai.conversations") == [(90,)]

    @pytest.mark.matrix
    def test_of_a_backfill_is_partial(self, everywhere: Site) -> None:
        everywhere.load()
        everywhere.remove(DATA)
        everywhere.sandbox.advance(DAY, arrivals=30)
        span = Span(everywhere.sandbox.now - 2 * DAY, everywhere.sandbox.now)
        result = backfill(
            span, settings=everywhere.settings(), slice_length=DAY, workers=1, resume=False
        )
        assert {one.status for one in result.slices} == {"partial"}
        everywhere.sandbox.faults.clear()
        report = everywhere.load()
        assert (report.status, report.source_api) == ("complete", DATA)
        assert query("SELECT count(*) FROM polyai.conversations") == [(90,)]


class TestOddities:
    """Switches of the listing while answers deviate as recorded."""

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("first", "details"),
        [
            pytest.param(DATA, True, id="data to v3"),
            pytest.param(V3, True, id="v3 with details to data", marks=pytest.mark.matrix),
            pytest.param(V3, False, id="v3 alone to data", marks=pytest.mark.matrix),
        ],
    )
    def test_rows_equal_what_the_apis_sent_of_each(self, first: str, details: bool) -> None:
        sandbox = Sandbox(SandboxConfig(conversations=250, span=timedelta(days=5)))
        with serve(sandbox) as base_url:
            site = Site(sandbox, base_url)
            site.load(api=first, details=details)
            of_first = {row[0] for row in query("SELECT conversation_id FROM polyai.conversations")}
            site.remove(first)
            sandbox.advance(HOUR, arrivals=25)
            # v3 is listed as a whole, so that each conversation has been read through both
            site.load(full=True)
            sandbox.advance(HOUR, arrivals=10)
            site.load()
            # past the last re-fetch age, so that notes have arrived that v3 does not list
            sandbox.advance(timedelta(days=32))
            report = site.load()
        other = V3 if first == DATA else DATA
        assert (report.status, report.source_api) == ("complete", other)
        truth = [
            both if other == V3 or both["conversations"][0]["conversation_id"] in of_first else data
            for both, data in zip(
                sandbox.truth(AGENT, (V3, DATA)), sandbox.truth(AGENT), strict=True
            )
        ]
        for conversation in truth:
            conversation["conversations"][0]["source_api"] = other
        assert_equals_rows(truth, from_duckdb())


class TestNewAgent:
    def test_is_read_through_the_data_api_where_it_answers(self, site: Site) -> None:
        report = site.load()
        assert (report.status, report.source_api, site.listed(V3)) == ("complete", DATA, 0)

    @pytest.mark.parametrize(
        ("keys", "requests"),
        [
            pytest.param({"api_key": None, "v3_api_key": "sandbox-v3-key"}, 0, id="v3_api_key"),
            pytest.param({"api_key": "sandbox-v3-key"}, 1, id="api_key", marks=pytest.mark.slow),
        ],
    )
    def test_is_read_through_v3_with_a_key_of_v3_alone(
        self, keys: dict[str, str | None], requests: int, site: Site
    ) -> None:
        report = site.load(**keys)
        assert (report.status, report.source_api, report.new) == ("complete", V3, 60)
        assert site.listed(DATA) == requests
        assert_equals_truth(site.sandbox, AGENT, from_duckdb(), apis=(V3,))
        assert site.load(**keys).status == "complete"
        assert site.listed(DATA) == 0

    @pytest.mark.matrix
    def test_of_two_refusals_both_are_reported(self, site: Site) -> None:
        report = site.load(api_key="one", v3_api_key="two")
        assert report.status == "failed"
        assert str(report.error).count("HTTP 401") == 2

    @pytest.mark.matrix
    def test_with_a_v3_key_alone_data_is_refused_before_any_request(self, site: Site) -> None:
        report = site.load(api_key=None, v3_api_key="sandbox-v3-key", api=DATA)
        assert report.status == "failed"
        assert "api_key of agent" in str(report.error)
        assert site.sandbox.requests.count() == 0


class TestBackfill:
    @pytest.mark.matrix
    def test_finds_out_once_that_the_listing_is_gone(self, site: Site) -> None:
        site.load()
        site.remove(DATA)
        site.sandbox.requests.clear()
        end = datetime(2026, 11, 2, tzinfo=UTC)
        result = backfill(
            Span(end - timedelta(days=7), end),
            settings=site.settings(),
            slice_length=timedelta(days=1),
            workers=1,
            resume=False,
        )
        assert {one.status for one in result.slices} == {"complete"}
        assert site.listed(DATA) == 2
        assert query("SELECT count(*) FROM polyai.conversations") == [(60,)]
