"""Loads through the Conversations API v3: the same tables, and no loss when switching APIs."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import dlt
import duckdb
import pytest

import kpis
from loaded import put_loaded, put_made
from polyai import open_pipeline, resolve
from polyai.config.settings import Settings
from polyai.load.report import RunReport
from polyai.load.run import load
from polyai.sandbox import Key, Sandbox, SandboxConfig, serve
from polyai.sandbox.world import World
from polyai.views import PIPELINE_NAME, create_views
from warehouse_rows import assert_equals_truth, from_duckdb

pytestmark = pytest.mark.load

AGENT = "PROJECT-BOOKINGS"
ACCOUNT = "ws-sandbox"
PAGE = rf"/v3/{ACCOUNT}/{AGENT}/conversations\?"
V3, DATA = "conversations_v3", "data"
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


class Site:
    """Served sandbox, and loads from it at the time of its clock."""

    def __init__(self, sandbox: Sandbox, base_url: str) -> None:
        self.sandbox = sandbox
        self.base_url = base_url

    def load(self, api: str = V3, *, full: bool = False, **options: object) -> RunReport:
        """Runs a load, after clearing the recorded requests of earlier ones."""
        self.sandbox.requests.clear()
        (report,) = load(
            self.settings(api, **options),
            open_pipeline(),
            full=full,
            clock=lambda: self.sandbox.now,
        )
        return report

    def settings(self, api: str = V3, **options: object) -> Settings:
        """Resolves the settings of a load."""
        defaults = {
            "agent_id": AGENT,
            "api_key": "sandbox-key",
            "account_id": ACCOUNT,
            "base_url": self.base_url,
            "api": api,
        }
        return resolve(**(defaults | options))

    def requests(self, pattern: str = PAGE) -> int:
        """Counts the requests of the last run."""
        return self.sandbox.requests.count(pattern)

    def names_requests(self) -> int:
        """Counts the requests of the last run for the names behind ids."""
        return self.sandbox.requests.kinds.get("agents", 0)


CONFIG = SandboxConfig(conversations=150, inventions=True, span=timedelta(days=5))


@pytest.fixture
def site() -> Iterator[Site]:
    sandbox = Sandbox(CONFIG)
    with serve(sandbox) as base_url:
        yield Site(sandbox, base_url)


def put_loaded_through_v3() -> None:
    """Copies the sandbox of `site`, loaded through v3, into the working directory."""

    def make(pipeline: dlt.Pipeline) -> None:
        sandbox = Sandbox(CONFIG)
        with serve(sandbox) as base_url:
            load(Site(sandbox, base_url).settings(), pipeline, clock=lambda: sandbox.now)

    put_made("test_v3_load", make)


def query(sql: str, *parameters: object) -> list[tuple[Any, ...]]:
    with duckdb.connect("polyai.duckdb", read_only=True) as connection:
        return connection.execute(sql, parameters).fetchall()


def a_call(sandbox: Sandbox, age: timedelta, *, environment: str = "live") -> str:
    """Returns a finished conversation with turns that is at least this old."""
    for index in sandbox.listed(AGENT):
        call = sandbox.conversation(AGENT, index)
        is_old = call.created_at <= sandbox.now - age
        if is_old and call.turns and call.finished_at and call.environment == environment:
            return call.conversation_id
    raise AssertionError("no such conversation")


class TestFirstLoad:
    @pytest.mark.parametrize("count", [200, pytest.param(2_000, marks=pytest.mark.matrix)])
    def test_the_warehouse_equals_the_answers_of_v3(self, count: int) -> None:
        sandbox = Sandbox(SandboxConfig(conversations=count, inventions=True))
        with serve(sandbox) as base_url:
            report = Site(sandbox, base_url).load()
        assert (report.status, report.listed, report.new) == ("complete", count, count)
        assert (report.source_api, report.api_count, report.fetched) == (V3, None, 0)
        assert_equals_truth(sandbox, AGENT, from_duckdb(), apis=(V3,))

    @pytest.mark.slow
    def test_each_environment_costs_a_page_and_no_detail(self, site: Site) -> None:
        report = site.load()
        assert site.requests() == report.traffic.requests - site.names_requests() == 3
        for environment in ("live", "sandbox", "pre-release"):
            assert site.requests(f"client_env={environment}") == 1

    @pytest.mark.matrix
    def test_only_selected_environments_are_loaded(self, site: Site) -> None:
        site.load(environments="live")
        assert query("SELECT DISTINCT environment FROM polyai.conversations") == [("live",)]
        assert_equals_truth(site.sandbox, AGENT, from_duckdb(), apis=(V3,), environments=("live",))
        # an environment that is added later is read from its oldest end
        site.load(environments="live,sandbox")
        assert_equals_truth(
            site.sandbox, AGENT, from_duckdb(), apis=(V3,), environments=("live", "sandbox")
        )

    @pytest.mark.matrix
    def test_each_page_is_requested_once_and_committed_oldest_first(self, site: Site) -> None:
        report = site.load(page_size=5, chunk_size=20, environments="live")
        loaded = int(query("SELECT count(*) FROM polyai.conversations")[0][0])
        pages = site.requests("limit=5&")
        # one partial page per window of up to twenty pages
        assert pages <= loaded / 5 + 4
        assert site.requests("limit=1&") <= 20
        assert report.traffic.requests == pages + site.requests("limit=1&") + site.names_requests()
        paths = site.sandbox.requests.paths(PAGE)
        assert len(paths) == len(set(paths))
        chunks = query(
            "SELECT min(created_at), max(created_at) FROM polyai.conversations "
            "GROUP BY _dlt_load_id ORDER BY _dlt_load_id"
        )
        assert len(chunks) > 3
        assert chunks == sorted(chunks)

    @pytest.mark.slow
    def test_details_add_fields_of_the_data_api(self, site: Site) -> None:
        report = site.load(details=True)
        assert (report.fetched, site.sandbox.requests.kinds["detail"]) == (150, 150)
        known = query(
            "SELECT count(state), count(language), count(created_at), count(DISTINCT source_api), "
            "min(source_api) FROM polyai.conversations"
        )[0]
        assert known[0] == known[2] == 150
        assert known[1] > 100
        assert known[3:] == (1, V3)
        for table in ("function_events", "annotations", "notes", "turn_topics"):
            assert query(f"SELECT count(*) FROM polyai.{table}")[0][0] > 0
        assert site.load(details=True).fetched == 0

    @pytest.mark.matrix
    def test_details_enabled_later_are_read_by_a_full_load(self, site: Site) -> None:
        put_loaded_through_v3()
        report = site.load(full=True, details=True)
        assert (report.changed, report.fetched) == (150, 150)

    @pytest.mark.matrix
    def test_a_failed_detail_leaves_the_row_of_the_listing(self, site: Site) -> None:
        bad = a_call(site.sandbox, DAY)
        site.sandbox.faults.add("status", path=re.escape(bad) + "$", status=500)
        report = site.load(details=True, max_attempts=1)
        assert (report.status, report.failed) == ("partial", 1)
        assert query("SELECT count(*) FROM polyai.turns WHERE conversation_id = ?", bad) != [(0,)]
        site.sandbox.faults.clear()
        report = site.load(details=True)
        assert (report.status, report.fetched) == ("complete", 1)
        state, language = query(
            "SELECT state, language FROM polyai.conversations WHERE conversation_id = ?", bad
        )[0]
        assert state is not None
        assert language is not None


class TestSwitching:
    @pytest.mark.matrix
    def test_switching_back_and_forth_loses_nothing(self, site: Site) -> None:
        read: tuple[str, ...] = ()
        for api in (V3, DATA, V3, DATA, V3):
            report = site.load(api, full=True)
            assert (report.status, report.listed, report.absent) == ("complete", 150, 0)
            read = (*read, api)
            assert_equals_truth(site.sandbox, AGENT, from_duckdb(), apis=read)
        assert query("SELECT count(*) FROM polyai.conversations") == [(150,)]

    @pytest.mark.slow
    def test_the_watermark_holds_for_both_apis(self, site: Site) -> None:
        put_loaded(CONFIG)
        site.sandbox.advance(HOUR, arrivals=9)
        report = site.load(V3)
        assert report.new == 9
        site.sandbox.advance(HOUR, arrivals=4)
        report = site.load(DATA)
        assert report.new == 4
        assert query("SELECT count(*), count(DISTINCT conversation_id) FROM polyai.conversations")[
            0
        ] == (163, 163)

    @pytest.mark.slow
    def test_only_the_api_with_notes_removes_a_note(self, site: Site) -> None:
        noted = a_call(site.sandbox, DAY)
        site.sandbox.edit(AGENT, noted, note="call back")
        site.load(DATA)
        site.sandbox.edit(AGENT, noted, note=None, metrics={"LATE": "yes"})
        site.load(V3, full=True)
        note = "SELECT note FROM polyai.conversations WHERE conversation_id = ?"
        assert query(note, noted) == [("call back",)]
        assert query(
            "SELECT count(*) FROM polyai.notes WHERE conversation_id = ? AND valid_to IS NULL",
            noted,
        ) == [(1,)]
        site.load(DATA, full=True)
        assert query(note, noted) == [(None,)]


class TestLaterLoads:
    @pytest.mark.slow
    def test_a_run_with_nothing_new_writes_no_row(self, site: Site) -> None:
        site.sandbox.advance(30 * DAY)
        site.load()
        before = query("SELECT conversation_id, _dlt_load_id FROM polyai.conversations ORDER BY 1")
        report = site.load()
        assert (report.new, report.changed, report.traffic.requests) == (0, 0, 3)
        assert report.listed < 150
        assert before == query(
            "SELECT conversation_id, _dlt_load_id FROM polyai.conversations ORDER BY 1"
        )

    @pytest.mark.matrix
    def test_changes_within_the_look_back_window_are_loaded(self, site: Site) -> None:
        put_loaded_through_v3()
        late = a_call(site.sandbox, 2 * HOUR)
        site.sandbox.edit(AGENT, late, metrics={"CSAT_SCORE": "5"})
        site.sandbox.advance(timedelta(minutes=1))
        report = site.load()
        assert report.changed >= 1
        assert query(
            "SELECT value FROM polyai.metrics WHERE conversation_id = ? AND name = 'CSAT_SCORE' "
            "ORDER BY occurrence DESC LIMIT 1",
            late,
        ) == [("5",)]

    @pytest.mark.slow
    def test_calls_in_progress_are_read_until_they_have_ended(self) -> None:
        sandbox = Sandbox(SandboxConfig(conversations=300, inventions=True, span=DAY))
        with serve(sandbox) as base_url:
            site = Site(sandbox, base_url)
            site.load()
            assert query("SELECT count(*) FROM polyai.conversations WHERE in_progress") != [(0,)]
            # before the look-back window they are read in listing windows of their own
            sandbox.advance(2 * DAY)
            report = site.load(lookback="1h")
            assert report.changed > 0
            assert query("SELECT count(*) FROM polyai.conversations WHERE in_progress") == [(0,)]
            assert_equals_truth(sandbox, AGENT, from_duckdb(), apis=(V3,))

    @pytest.mark.matrix
    def test_a_refetch_age_is_crossed_once_and_costs_a_window(self, site: Site) -> None:
        put_loaded_through_v3()
        # all are days old: a change now is loaded at the re-fetch age of a week
        late = a_call(site.sandbox, 2 * DAY)
        site.sandbox.edit(AGENT, late, metrics={"LATE": "yes"})
        site.sandbox.advance(6 * DAY, arrivals=40)
        site.load(lookback="1h")
        found = "SELECT count(*) FROM polyai.metrics WHERE conversation_id = ? AND name = 'LATE'"
        assert query(found, late) == [(1,)]
        # it has been read, and is not read again
        report = site.load(lookback="1h")
        assert report.traffic.requests == 3

    @pytest.mark.matrix
    def test_an_interrupted_first_load_is_continued(self, site: Site) -> None:
        stop = threading.Event()

        def stop_after_some(report: RunReport) -> None:
            def watch() -> None:
                while report.rows["conversations"] < 30:
                    stop.wait(0.01)
                stop.set()

            threading.Thread(target=watch, daemon=True).start()

        (report,) = load(
            site.settings(page_size=5, chunk_size=10),
            open_pipeline(),
            stop=stop,
            on_begin=stop_after_some,
            clock=lambda: site.sandbox.now,
        )
        assert report.status == "interrupted"
        loaded = {row[0] for row in query("SELECT conversation_id FROM polyai.conversations")}
        assert 0 < len(loaded) < 150
        newest = query("SELECT max(created_at) FROM polyai.conversations WHERE environment='live'")
        for index in site.sandbox.listed(AGENT):
            call = site.sandbox.conversation(AGENT, index)
            if call.environment == "live" and call.created_at < newest[0][0]:
                assert call.conversation_id in loaded
        report = site.load()
        assert report.new == 150 - len(loaded)
        assert_equals_truth(site.sandbox, AGENT, from_duckdb(), apis=(V3,))


class TestRefusals:
    def test_an_account_id_is_required(self, site: Site) -> None:
        report = site.load(account_id=None)
        assert report.status == "failed"
        assert "account_id" in str(report.error)
        assert site.requests(".") == 0

    def test_a_wrong_account_stops_the_run_at_the_first_request(self, site: Site) -> None:
        report = site.load(account_id="ws-other")
        assert report.status == "failed"
        assert site.requests(".") == 1
        assert "account" in str(report.error)

    @pytest.mark.slow
    def test_the_key_of_v3_takes_precedence(self, site: Site) -> None:
        report = site.load(api_key="another", v3_api_key="sandbox-key")
        assert report.status == "complete"
        report = site.load(v3_api_key="wrong")
        assert "401" in str(report.error)
        assert "wrong" not in str(report.error).replace("wrong key", "")

    @pytest.mark.matrix
    def test_a_page_that_is_always_truncated_loads_no_row(self, site: Site) -> None:
        site.sandbox.faults.add("truncated", path="client_env=live")
        report = site.load(max_attempts=2)
        assert (report.status, report.listed, report.new) == ("failed", 0, 0)
        site.sandbox.faults.clear()
        assert site.load().status == "complete"
        assert_equals_truth(site.sandbox, AGENT, from_duckdb(), apis=(V3,))


_ANSWERED = ("human", "voicemail", "ivr", "completed", "busy", "unavailable")


@pytest.mark.slow
def test_outbound_calls_fill_their_view(monkeypatch: pytest.MonkeyPatch) -> None:
    def outbound_id(_: World, index: int, draw: bytes, channel: str) -> str:
        return f"OUT-{draw[:12].hex()}{index:08x}"

    monkeypatch.setattr(World, "_conversation_id", outbound_id)
    sandbox = Sandbox(SandboxConfig(conversations=450, inventions=True))
    with serve(sandbox) as base_url:
        report = Site(sandbox, base_url).load()
    assert (report.status, report.new, report.fetched) == ("complete", 450, 0)
    assert query("SELECT DISTINCT direction FROM polyai.conversations") == [("outbound",)]
    create_views(open_pipeline(name=PIPELINE_NAME), "UTC")
    names = ["conversations", "attempted_conversations", "connected_conversations"]
    names += [f"{name}_conversations" for name in _ANSWERED]
    names += [f"sip_{n}xx_conversations" for n in (2, 4, 5, 6)]
    sums = ", ".join(f"sum({name})" for name in names)
    (found,) = query(f"SELECT {sums} FROM polyai.outbound_daily")
    expected = kpis.outbound_daily(kpis.all_calls(sandbox), "UTC").values()
    assert found == tuple(sum(row[name] for row in expected) for name in names)
    assert found[0] == 450
    assert all(found[: 3 + len(_ANSWERED)])


def shown_names() -> dict[str, dict[str, str | None]]:
    """Returns the names of variants that views show, by id."""
    create_views(open_pipeline(name=PIPELINE_NAME), "UTC")
    found = {}
    for view in ("fct_conversations", "dim_variants", "kpi_daily", "turn_latency_daily"):
        rows = query(f"SELECT DISTINCT variant_id, variant_name FROM polyai.{view}")
        found[view] = dict(rows)
        assert len(rows) == len(found[view]), view
    return found


@pytest.mark.matrix
@pytest.mark.slow
def test_a_key_of_v3_alone_has_the_same_names_of_variants_in_all_views() -> None:
    keys = {"v3-only": Key(("v3",))}
    sandbox = Sandbox(SandboxConfig(conversations=40, keys=keys))
    with serve(sandbox) as base_url:
        site = Site(sandbox, base_url)

        def load_alone(**options: object) -> RunReport:
            return site.load(V3, full=False, api_key=None, v3_api_key="v3-only", **options)

        assert load_alone().new == 40
        names = query("SELECT DISTINCT variant_id, variant_name FROM polyai.conversations")
        expected: dict[str, str | None] = {id_ or "none": name for id_, name in names}
        assert expected.keys() == {"none", "VARIANT-0", "VARIANT-1", "VARIANT-2"}
        assert all(name == expected for name in shown_names().values())
        written = query("SELECT variant_id, _dlt_load_id FROM polyai.variants ORDER BY ALL")
        load_alone()
        assert query("SELECT variant_id, _dlt_load_id FROM polyai.variants ORDER BY ALL") == written
        load_alone(names={"variants": {"VARIANT-2": "By hand"}})
        by_hand = expected | {"VARIANT-2": "By hand"}
        assert all(name == by_hand for name in shown_names().values())
        # without it, the name that the conversations have
        load_alone()
        assert all(name == expected for name in shown_names().values())
