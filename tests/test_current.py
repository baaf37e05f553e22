"""Later loads: the conversations that they read, and the arrival of all late changes."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote

import duckdb
import pytest

from loaded import put_loaded
from polyai import open_pipeline, resolve
from polyai.load.report import RunReport
from polyai.load.run import load
from polyai.sandbox import Annotation, Sandbox, SandboxConfig, serve
from polyai.tables import registry
from warehouse_rows import assert_equals_truth, from_duckdb

pytestmark = pytest.mark.load

AGENT = "PROJECT-BOOKINGS"
DETAIL = rf"/v1/agents/{AGENT}/conversations/[^?/]+$"
LIST_PAGE = rf"/v1/agents/{AGENT}/conversations\?"
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


class Site:
    """Served sandbox, and loads from it at the time of its clock."""

    def __init__(self, sandbox: Sandbox, base_url: str) -> None:
        self.sandbox = sandbox
        self.base_url = base_url

    def load(
        self, *, full: bool = False, pipelines_dir: str | None = None, **options: object
    ) -> RunReport:
        """Runs a load, after clearing the recorded requests of earlier ones."""
        self.sandbox.requests.clear()
        settings = resolve(agent_id=AGENT, api_key="sandbox-key", base_url=self.base_url, **options)
        (report,) = load(
            settings,
            open_pipeline(pipelines_dir=pipelines_dir),
            full=full,
            clock=lambda: self.sandbox.now,
        )
        return report

    def details_of(self, conversation_id: str) -> int:
        """Counts the requests of the last run for the conversation."""
        return self.sandbox.requests.count(rf"/{re.escape(quote(conversation_id, safe=''))}$")


@pytest.fixture
def site() -> Iterator[Site]:
    sandbox = Sandbox(SandboxConfig(conversations=150, inventions=True, span=timedelta(days=5)))
    with serve(sandbox) as base_url:
        yield Site(sandbox, base_url)


def query(sql: str, *parameters: object) -> list[tuple[Any, ...]]:
    with duckdb.connect("polyai.duckdb", read_only=True) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        return connection.execute(sql, parameters).fetchall()


def ended_at(conversation_id: str) -> datetime:
    ((moment,),) = query(
        "SELECT finished_at FROM polyai.conversations WHERE conversation_id = ?", conversation_id
    )
    assert isinstance(moment, datetime)
    return moment


def newest_ended() -> str:
    """Returns the conversation that ended last and has turns to annotate."""
    ((conversation_id,),) = query(
        "SELECT conversation_id FROM polyai.conversations WHERE NOT in_progress "
        "AND finished_at IS NOT NULL AND num_turns > 2 AND NOT is_transcript_withheld "
        "ORDER BY finished_at DESC LIMIT 1"
    )
    return str(conversation_id)


def annotations_of(conversation_id: str) -> int:
    ((count,),) = query(
        "SELECT count(*) FROM polyai.annotations WHERE conversation_id = ?", conversation_id
    )
    return int(count)


class TestRefetchAges:
    @pytest.mark.slow
    def test_each_age_is_read_once_and_loads_changes_that_the_listing_does_not_show(
        self, site: Site
    ) -> None:
        put_loaded(site.sandbox.config)
        chosen = newest_ended()
        before = annotations_of(chosen)
        for number, age in enumerate((HOUR, DAY, 7 * DAY), 1):
            site.sandbox.advance(ended_at(chosen) + age - timedelta(seconds=2) - site.sandbox.now)
            site.load(lookback="30d")  # late scores and summaries, which the listing shows
            site.sandbox.annotate(AGENT, chosen, [(1, "user", "wrong_info")])
            site.load(lookback="30d")
            assert (site.details_of(chosen), annotations_of(chosen)) == (0, before + number - 1)
            site.sandbox.advance(timedelta(seconds=4))
            report = site.load(lookback="30d")
            assert (site.details_of(chosen), annotations_of(chosen)) == (1, before + number)
            assert report.settled >= 1
        site.load(lookback="30d")
        assert site.details_of(chosen) == 0

    @pytest.mark.matrix
    def test_several_ages_crossed_between_runs_cost_one_request(self, site: Site) -> None:
        put_loaded(site.sandbox.config)
        chosen = newest_ended()
        site.sandbox.annotate(AGENT, chosen, [(0, "agent", "missing_topic")])
        before = annotations_of(chosen)
        site.sandbox.advance(30 * DAY)
        # before the look-back window: only the warehouse knows it
        report = site.load(lookback="0s")
        assert site.details_of(chosen) == 1
        assert annotations_of(chosen) == before + 1
        assert report.settled > 0
        assert site.load().fetched == 0
        assert_equals_truth(site.sandbox, AGENT, from_duckdb())

    @pytest.mark.matrix
    def test_a_changed_conversation_that_crosses_an_age_costs_one_request(self, site: Site) -> None:
        put_loaded(site.sandbox.config)
        chosen = newest_ended()
        site.sandbox.edit(AGENT, chosen, note="late", tags=["reviewed"])
        site.sandbox.advance(2 * HOUR)
        report = site.load()
        assert site.details_of(chosen) == 1
        assert sorted(set(site.sandbox.requests.paths(DETAIL))) == sorted(
            site.sandbox.requests.paths(DETAIL)
        )
        assert report.changed >= 1

    @pytest.mark.matrix
    def test_without_ages_nothing_is_read_again(self, site: Site) -> None:
        site.load(settle_after="0s")
        site.sandbox.advance(30 * DAY)
        site.load(settle_after="0s")
        assert site.load(settle_after="0s").fetched == 0


class TestConvergence:
    @pytest.mark.slow
    def test_late_notes_scores_tags_metrics_and_annotations_all_arrive(self, site: Site) -> None:
        draw = random.Random(1)
        sandbox = site.sandbox
        put_loaded(sandbox.config)
        for night in range(2):
            sandbox.advance(timedelta(hours=20), arrivals=draw.randrange(4))
            site.load()
            ids = list(sandbox.conversation_ids(AGENT))[:60]
            for conversation_id in draw.sample(ids, 12):
                change: dict[str, Any] = draw.choice(
                    [
                        {"note": f"night {night}"},
                        {"note": None},
                        {"tags": draw.sample(["vip", "late", "angry"], draw.randrange(4))},
                        {"poly_score": draw.choice([1.0, 3.0, 5.0])},
                        {"summary": f"they spoke, {night}"},
                    ]
                )
                sandbox.edit(AGENT, conversation_id, **change)
            sandbox.advance(timedelta(hours=4), arrivals=1)
            # the documented schedule: a longer look-back window at night
            site.load(lookback="30d")
        # changes that the listing does not show are loaded within a week
        recent = [
            row[0]
            for row in query(
                "SELECT conversation_id FROM polyai.conversations WHERE NOT in_progress "
                "AND num_turns > 1 ORDER BY finished_at DESC LIMIT 5"
            )
        ]
        for conversation_id in recent:
            sandbox.edit(
                AGENT,
                conversation_id,
                metrics={"LATE_SCORE": draw.randrange(5)},
                annotations=[(0, Annotation("user", "wrong_info", None, "qa", sandbox.now))],
            )
        sandbox.advance(8 * DAY)
        site.load(lookback="30d")
        assert_equals_truth(sandbox, AGENT, from_duckdb())
        assert query("SELECT count(*) FROM polyai.metrics WHERE name = 'LATE_SCORE'") == [(5,)]


class TestCost:
    @pytest.mark.slow
    def test_new_conversations_cost_their_details_and_the_pages_of_the_look_back_window(
        self, site: Site
    ) -> None:
        site.sandbox.advance(30 * DAY)
        put_loaded(site.sandbox.config, 30 * DAY)
        site.sandbox.advance(arrivals=23)
        site.sandbox.advance(10 * DAY)
        report = site.load(settle_after="0s")
        assert (report.new, report.fetched) == (23, 23)
        # one page of a hundred covers the look-back window, and the next lies before it
        assert site.sandbox.requests.count(LIST_PAGE) == 2
        names = site.sandbox.requests.kinds["agents"]
        assert site.sandbox.requests.count() == report.traffic.requests == 25 + names

    @pytest.mark.slow
    def test_a_run_with_nothing_new_rewrites_no_row_of_any_table(self, site: Site) -> None:
        site.sandbox.advance(30 * DAY)
        put_loaded(site.sandbox.config, 30 * DAY)
        tables = [
            row[0]
            for row in query(
                "SELECT table_name FROM duckdb_columns() WHERE column_name = '_dlt_load_id' "
                "AND table_name <> 'sync_runs' AND NOT starts_with(table_name, '_dlt')"
            )
        ]
        assert len(tables) == len(registry.tables()) - 1

        def packages() -> dict[str, list[tuple[Any, ...]]]:
            return {
                table: query(f"SELECT _dlt_load_id, count(*) FROM polyai.{table} GROUP BY 1")
                for table in tables
            }

        before = packages()
        report = site.load()
        assert packages() == before
        assert (report.fetched, sum(report.rows.values())) == (0, 0)
        assert site.sandbox.requests.count(DETAIL) == 0

    @pytest.mark.slow
    @pytest.mark.parametrize(
        "database", ["polyai.duckdb", pytest.param("calls.duckdb", marks=pytest.mark.matrix)]
    )
    def test_no_other_schema_is_left(
        self, site: Site, database: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("DESTINATION__DUCKDB__CREDENTIALS", database)
        site.load()
        site.load()
        with duckdb.connect(database, read_only=True) as connection:
            schemas = connection.execute(
                "SELECT DISTINCT schema_name FROM duckdb_tables()"
            ).fetchall()
        assert len(schemas) == 1


class TestFullLoad:
    @pytest.mark.matrix
    def test_conversations_no_longer_listed_are_counted_and_kept(self, site: Site) -> None:
        site.sandbox.advance(30 * DAY)
        first = site.load()
        assert (first.listed, first.api_count, first.absent) == (150, 150, 0)
        gone = list(site.sandbox.conversation_ids(AGENT))[10:130:40]
        for conversation_id in gone:
            site.sandbox.delete(AGENT, conversation_id)
        assert site.load().absent is None
        report = site.load(full=True)
        assert (report.listed, report.api_count, report.absent) == (147, 147, 3)
        assert report.status == "complete"
        assert query("SELECT count(*) FROM polyai.conversations") == [(150,)]
        assert query(
            "SELECT listed, api_count, absent FROM polyai.sync_runs ORDER BY started_at"
        ) == [(150, 150, 0), (147, 147, None), (147, 147, 3)]


class TestDeletedConversations:
    @pytest.mark.slow
    def test_one_in_progress_is_requested_once_and_is_not_a_failure(
        self,
    ) -> None:
        sandbox = Sandbox(SandboxConfig(conversations=300, inventions=True))
        with serve(sandbox) as base_url:
            site = Site(sandbox, base_url)
            site.load()
            open_ = [
                row[0]
                for row in query(
                    "SELECT conversation_id FROM polyai.conversations WHERE in_progress"
                )
            ]
            assert open_
            for conversation_id in open_:
                sandbox.delete(AGENT, conversation_id)
            report = site.load()
            assert (report.status, report.failed) == ("complete", 0)
            assert [site.details_of(name) for name in open_] == [1] * len(open_)
            site.load()
            assert [site.details_of(name) for name in open_] == [0] * len(open_)
        assert query("SELECT count(*) FROM polyai.conversations") == [(300,)]

    @pytest.mark.matrix
    def test_one_that_crosses_an_age_stays_as_it_was_loaded(self, site: Site) -> None:
        put_loaded(site.sandbox.config)
        chosen = newest_ended()
        turns = query("SELECT * FROM polyai.turns WHERE conversation_id = ?", chosen)
        site.sandbox.delete(AGENT, chosen)
        site.sandbox.advance(2 * HOUR)
        report = site.load()
        assert (report.status, site.details_of(chosen)) == ("complete", 1)
        site.sandbox.advance(2 * DAY)
        site.load()
        assert site.details_of(chosen) == 0
        assert query("SELECT * FROM polyai.turns WHERE conversation_id = ?", chosen) == turns


class TestGivenUpFailures:
    @pytest.mark.matrix
    def test_a_failure_is_retried_until_it_is_too_old_and_by_a_full_load(self, site: Site) -> None:
        site.sandbox.advance(30 * DAY)
        bad = next(site.sandbox.conversation_ids(AGENT))
        path = re.escape(quote(bad, safe="")) + "$"
        site.sandbox.faults.add("status", path=path, status=500)
        options: dict[str, Any] = {"max_attempts": 1, "give_up_after": "2d"}
        assert site.load(**options).status == "partial"
        site.sandbox.advance(DAY)
        assert site.load(**options).status == "partial"
        site.sandbox.advance(DAY)
        report = site.load(**options)
        assert (report.status, report.given_up, site.details_of(bad)) == ("complete", 1, 0)
        assert query("SELECT attempts, resolved_at FROM polyai.fetch_failures") == [(2, None)]
        assert query("SELECT given_up FROM polyai.sync_runs ORDER BY started_at DESC LIMIT 1") == [
            (1,)
        ]
        site.sandbox.faults.clear()
        report = site.load(full=True, **options)
        assert (report.new, report.given_up) == (1, 0)
        assert_equals_truth(site.sandbox, AGENT, from_duckdb())


class TestPartiallyLoaded:
    @pytest.mark.slow
    def test_a_new_machine_replaces_or_deletes_rows_of_a_killed_run(self, site: Site) -> None:
        site.sandbox.advance(30 * DAY)
        put_loaded(site.sandbox.config, 30 * DAY)
        chosen = newest_ended()
        site.sandbox.edit(AGENT, chosen, tags=["a", "b"], note="old")
        # so that the runs begin at different times
        site.sandbox.advance(timedelta(minutes=1))
        site.load(lookback="40d")
        # as if the run had been killed before its package was complete, with missing parents
        with duckdb.connect("polyai.duckdb") as connection:
            ((package,),) = connection.execute(
                "SELECT _dlt_load_id FROM polyai.conversations WHERE conversation_id = ?", [chosen]
            ).fetchall()
            connection.execute("DELETE FROM polyai._dlt_loads WHERE load_id = ?", [package])
            connection.execute(
                "UPDATE polyai.sync_runs SET status = 'running', finished_at = NULL "
                "WHERE started_at = (SELECT max(started_at) FROM polyai.sync_runs)"
            )
            orphan, whole = "CA-orphan", chosen
            for table in ("conversation_tags", "notes", "turns"):
                columns = [
                    row[0] for row in connection.execute(f"DESCRIBE polyai.{table}").fetchall()
                ]
                others = ", ".join(name for name in columns if name != "conversation_id")
                connection.execute(
                    f"INSERT INTO polyai.{table} (conversation_id, {others}) "
                    f"SELECT ?, {others} FROM polyai.{table} WHERE conversation_id = ?",
                    [orphan, whole],
                )
        site.sandbox.edit(AGENT, chosen, tags=[], note=None, keep_turns=1)
        report = site.load(pipelines_dir="another machine")
        assert site.details_of(chosen) == 1
        assert report.changed == 1
        assert query(
            "SELECT (SELECT count(*) FROM polyai.conversation_tags WHERE conversation_id = $1), "
            "(SELECT count(*) FROM polyai.turns WHERE conversation_id = $1)",
            chosen,
        ) == [(0, 1)]
        statuses = query("SELECT status, count(*) FROM polyai.sync_runs GROUP BY 1 ORDER BY 1")
        assert statuses == [("complete", 2), ("interrupted", 1)]
        assert site.load(pipelines_dir="another machine").fetched == 0
