"""Loads over HTTP into DuckDB: the requests that are sent and the rows that are loaded."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import dlt
import duckdb
import pytest
from dlt.destinations.exceptions import DatabaseTransientException
from dlt.destinations.job_client_impl import SqlLoadJob

from loaded import put_loaded
from polyai import open_pipeline, polyai, resolve
from polyai.api.outage import OUTAGE_AFTER
from polyai.clock import utc_now
from polyai.config.settings import Settings
from polyai.errors import ConfigurationError, DestinationError
from polyai.load import batching
from polyai.load.report import RunReport
from polyai.load.run import load
from polyai.sandbox import Sandbox, SandboxConfig, serve
from polyai.tables.registry import conversation_tables
from polyai.warehouse import duckdb_file
from warehouse_rows import assert_equals_truth, from_duckdb

pytestmark = pytest.mark.load

AGENT = "PROJECT-BOOKINGS"
DETAIL = rf"/v1/agents/{AGENT}/conversations/[^?/]+$"
LIST_PAGE = rf"/v1/agents/{AGENT}/conversations\?"


@pytest.fixture
def sandbox() -> Sandbox:
    return Sandbox(SandboxConfig(conversations=150, inventions=True))


@pytest.fixture
def base_url(sandbox: Sandbox) -> Iterator[str]:
    with serve(sandbox) as url:
        yield url


def settings_for(base_url: str, **options: object) -> Settings:
    defaults = {"agent_id": AGENT, "api_key": "sandbox-key", "base_url": base_url}
    return resolve(**(defaults | options))


def run(base_url: str, **options: object) -> RunReport:
    (report,) = load(settings_for(base_url, **options), open_pipeline())
    return report


def query(sql: str, *parameters: object) -> list[tuple[Any, ...]]:
    with duckdb.connect("polyai.duckdb", read_only=True) as connection:
        return connection.execute(sql, parameters).fetchall()


def a_conversation(sandbox: Sandbox, table: str) -> str:
    """Returns a finished conversation with rows in the table."""
    found = query(
        f"SELECT min(conversation_id) FROM polyai.{table} JOIN polyai.conversations "
        "USING (agent_id, conversation_id) WHERE NOT in_progress AND num_turns > 2"
    )
    assert found[0][0]
    return str(found[0][0])


def rows_of(table: str, conversation_id: str) -> int:
    (row,) = query(
        f"SELECT count(*) FROM polyai.{table} WHERE conversation_id = ?", conversation_id
    )
    return int(row[0])


class TestFirstLoad:
    @pytest.mark.parametrize("count", [500, pytest.param(2_000, marks=pytest.mark.matrix)])
    def test_conversations_with_all_oddities_equal_the_truth(self, count: int) -> None:
        sandbox = Sandbox(SandboxConfig(conversations=count, inventions=True))
        with serve(sandbox) as base_url:
            report = run(base_url)
        assert report.status == "complete"
        assert (report.listed, report.new, report.fetched) == (count, count, count)
        assert_equals_truth(sandbox, AGENT, from_duckdb())

    def test_each_conversation_costs_one_request_and_every_table_reports_its_rows(
        self, sandbox: Sandbox, base_url: str
    ) -> None:
        report = run(base_url)
        assert sandbox.requests.count(DETAIL) == 150
        # pages of 100 rows, the first of them for the count, with one row of overlap, and two that
        # prove the end
        assert sandbox.requests.count(LIST_PAGE) == 5
        requests = 155 + sandbox.requests.kinds["agents"]
        assert report.traffic.requests == requests
        assert report.traffic.bytes_received > 150 * 1_000
        for table in conversation_tables():
            (count,) = query(f"SELECT count(*) FROM polyai.{table.name}")
            assert report.rows[table.name] == count[0]
        (kept,) = query(
            "SELECT status, listed, new, fetched, requests, rows->>'turns' FROM polyai.sync_runs"
        )
        assert kept[:5] == ("complete", 150, 150, 150, requests)
        assert int(kept[5]) == report.rows["turns"]

    @pytest.mark.parametrize(("seconds", "sizes"), [(0.0, [20, 130]), (60.0, [150])])
    def test_first_chunk_is_small_if_its_answers_take_long(
        self, base_url: str, monkeypatch: pytest.MonkeyPatch, seconds: float, sizes: list[int]
    ) -> None:
        monkeypatch.setattr(batching, "FIRST_CHUNK_SIZE", 20)
        monkeypatch.setattr(batching, "FIRST_CHUNK_SECONDS", seconds)
        run(base_url)
        chunks = query("SELECT count(*) FROM polyai.conversations GROUP BY _dlt_load_id ORDER BY 1")
        assert [size for (size,) in chunks] == sizes

    @pytest.mark.slow
    def test_chunks_are_committed_oldest_first(self, sandbox: Sandbox, base_url: str) -> None:
        run(base_url, chunk_size=60)
        chunks = query(
            "SELECT _dlt_load_id, count(*), min(created_at), max(created_at) "
            "FROM polyai.conversations GROUP BY 1 ORDER BY 1"
        )
        assert [chunk[1] for chunk in chunks] == [60, 60, 30]
        for (*_, newest), (_, _, oldest, _) in itertools.pairwise(chunks):
            assert newest <= oldest

    def test_an_agent_without_conversations_is_complete(self) -> None:
        with serve(Sandbox(SandboxConfig(conversations=0, inventions=True))) as base_url:
            report = run(base_url)
        assert (report.status, report.listed, report.fetched) == ("complete", 0, 0)

    @pytest.mark.slow
    def test_the_acceptance_query_works_in_a_file_of_any_name(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("DESTINATION__DUCKDB__CREDENTIALS", "calls.duckdb")
        with serve(Sandbox(SandboxConfig(conversations=10, inventions=True))) as base_url:
            run(base_url)
        with duckdb.connect("calls.duckdb", read_only=True) as connection:
            assert connection.execute(
                "select channel, count(*), avg(handoff::int) from polyai.conversations group by 1"
            ).fetchall()

    @pytest.mark.slow
    def test_arrivals_during_listing_lose_no_conversation(self) -> None:
        sandbox = Sandbox(SandboxConfig(conversations=400, inventions=True, arrivals_per_request=3))
        there = set(sandbox.conversation_ids(AGENT))
        with serve(sandbox) as base_url:
            run(base_url)
        loaded = {row[0] for row in query("SELECT conversation_id FROM polyai.conversations")}
        assert there <= loaded


class TestMemory:
    @pytest.mark.slow
    def test_texts_beyond_the_memory_limit_lift_it(
        self,
        sandbox: Sandbox,
        base_url: str,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        config = {**duckdb_file._CONFIG, "memory_limit": "10MB"}
        monkeypatch.setattr(duckdb_file, "_CONFIG", config)
        assert run(base_url).status == "complete"
        assert "limit is lifted" in caplog.text
        assert_equals_truth(sandbox, AGENT, from_duckdb())


class TestLaterLoads:
    def test_a_run_with_nothing_new_sends_no_detail_request_and_rewrites_no_row(self) -> None:
        # all calls of this sandbox have ended long ago
        sandbox = Sandbox(SandboxConfig(conversations=150, inventions=True))
        sandbox.advance(timedelta(days=30))
        put_loaded(sandbox.config, timedelta(days=30), utc_now)
        before = query("SELECT conversation_id, _dlt_load_id FROM polyai.conversations")
        with serve(sandbox) as base_url:
            report = run(base_url)
        assert sandbox.requests.count(DETAIL) == 0
        # the newest page, and the first one before the look-back window
        assert sandbox.requests.count(LIST_PAGE) == 2
        assert (report.new, report.changed, report.fetched) == (0, 0, 0)
        after = query("SELECT conversation_id, _dlt_load_id FROM polyai.conversations")
        assert sorted(after) == sorted(before)

    def test_new_conversations_cost_one_detail_each(self) -> None:
        sandbox = Sandbox(SandboxConfig(conversations=150, inventions=True))
        sandbox.advance(timedelta(days=30))
        put_loaded(sandbox.config, timedelta(days=30), utc_now)
        with serve(sandbox) as base_url:
            sandbox.advance(arrivals=7)
            report = run(base_url)
        assert report.new == 7
        assert sandbox.requests.count(DETAIL) == 7

    @pytest.mark.slow
    def test_a_fresh_working_directory_changes_nothing(
        self, sandbox: Sandbox, base_url: str
    ) -> None:
        sandbox.advance(timedelta(days=30))
        put_loaded(sandbox.config, timedelta(days=30), utc_now)
        (report,) = load(settings_for(base_url), open_pipeline(pipelines_dir="elsewhere"))
        assert report.fetched == 0
        assert sandbox.requests.count(DETAIL) == 0

    @pytest.mark.slow
    def test_calls_in_progress_are_read_again_until_they_have_ended(
        self,
    ) -> None:
        sandbox = Sandbox(SandboxConfig(conversations=300, inventions=True))
        with serve(sandbox) as base_url:
            run(base_url)
            assert query("SELECT count(*) FROM polyai.conversations WHERE in_progress") != [(0,)]
            sandbox.advance(timedelta(hours=12))
            run(base_url)
        assert query("SELECT count(*) FROM polyai.conversations WHERE in_progress") == [(0,)]
        ids = {row[0] for row in query("SELECT conversation_id FROM polyai.conversations")}
        assert ids == set(sandbox.conversation_ids(AGENT))

    @pytest.mark.slow
    def test_children_missing_in_a_new_answer_are_deleted(
        self, sandbox: Sandbox, base_url: str
    ) -> None:
        put_loaded(sandbox.config, clock=utc_now)
        conversation_id = a_conversation(sandbox, "conversation_tags")
        turns = rows_of("turns", conversation_id)
        sandbox.edit(AGENT, conversation_id, tags=[], keep_turns=2)
        run_full(base_url)
        assert turns > 2
        assert rows_of("turns", conversation_id) == 2
        assert rows_of("conversation_tags", conversation_id) == 0
        assert_equals_truth(sandbox, AGENT, from_duckdb())

    @pytest.mark.slow
    def test_withheld_turns_and_a_removed_score_erase_nothing(
        self, sandbox: Sandbox, base_url: str
    ) -> None:
        put_loaded(sandbox.config, clock=utc_now)
        ((conversation_id, score),) = query(
            "SELECT conversation_id, poly_score FROM polyai.conversations "
            "WHERE poly_score IS NOT NULL AND num_turns > 2 AND NOT in_progress "
            "ORDER BY conversation_id LIMIT 1"
        )
        tables = ("turns", "turn_intents", "turn_entities", "turn_topics", "annotations")
        before = {table: rows_of(table, conversation_id) for table in tables}
        sandbox.edit(AGENT, conversation_id, poly_score=None, withhold_turns=True, note="late")
        report = run_full(base_url)
        assert report.withheld == 1
        assert {table: rows_of(table, conversation_id) for table in tables} == before
        assert query(
            "SELECT poly_score, num_turns, is_transcript_withheld, note "
            "FROM polyai.conversations WHERE conversation_id = ?",
            conversation_id,
        ) == [(score, before["turns"], True, "late")]

    @pytest.mark.matrix
    def test_the_history_of_a_note_is_kept(self, sandbox: Sandbox, base_url: str) -> None:
        put_loaded(sandbox.config, clock=utc_now)
        (conversation_id,) = query(
            "SELECT min(conversation_id) FROM polyai.conversations WHERE note IS NULL"
        )[0]
        for note in ("first", "first", "second", ""):
            sandbox.edit(AGENT, conversation_id, note=note, tags=[note or "none"])
            run_full(base_url)
        history = query(
            "SELECT note, valid_from, valid_to FROM polyai.notes "
            "WHERE conversation_id = ? ORDER BY valid_from",
            conversation_id,
        )
        assert [row[0] for row in history] == ["first", "second"]
        assert history[0][2] == history[1][1]
        assert history[1][2] is not None


def run_full(base_url: str) -> RunReport:
    (report,) = load(settings_for(base_url), open_pipeline(), full=True)
    return report


class TestFailures:
    @pytest.mark.matrix
    def test_a_failed_conversation_is_recorded_and_retried_by_the_next_run(
        self, sandbox: Sandbox, base_url: str
    ) -> None:
        bad = sorted(sandbox.conversation_ids(AGENT))[:2]
        for conversation_id in bad:
            path = re.escape(quote(conversation_id, safe="")) + "$"
            sandbox.faults.add("status", path=path, status=500, error_code="BROKEN")
        report = run(base_url, max_attempts=1)
        assert (report.status, report.failed, report.fetched) == ("partial", 2, 148)
        assert set(report.failures) == set(bad)
        open_ = query(
            "SELECT conversation_id, attempts, http_status, error_code, error_id IS NOT NULL, "
            "resolved_at FROM polyai.fetch_failures ORDER BY 1"
        )
        assert open_ == [(name, 1, 500, "BROKEN", True, None) for name in bad]

        run(base_url, max_attempts=1)
        assert query("SELECT DISTINCT attempts FROM polyai.fetch_failures") == [(2,)]

        sandbox.faults.clear()
        report = run(base_url)
        assert (report.status, report.failed) == ("complete", 0)
        assert query("SELECT count(*) FROM polyai.fetch_failures WHERE resolved_at IS NULL") == [
            (0,)
        ]
        assert_equals_truth(sandbox, AGENT, from_duckdb())

    @pytest.mark.matrix
    def test_an_outage_keeps_what_was_read_and_the_next_run_completes_it(
        self, sandbox: Sandbox, base_url: str
    ) -> None:
        sandbox.faults.add("reset", path=DETAIL, after=100)
        report = run(base_url, max_attempts=1)
        assert report.status == "failed"
        assert report.fetched == 100
        # requests of other threads may fail while the breaker asks for something else
        assert OUTAGE_AFTER <= report.failed <= OUTAGE_AFTER + 4
        sandbox.faults.clear()
        assert run(base_url).status == "complete"
        assert_equals_truth(sandbox, AGENT, from_duckdb())

    @pytest.mark.slow
    def test_a_package_rejected_by_the_destination_does_not_block_the_next_run(
        self, sandbox: Sandbox, base_url: str
    ) -> None:
        put_loaded(sandbox.config, clock=utc_now)
        sandbox.advance(arrivals=3)
        with duckdb.connect("polyai.duckdb") as connection:
            connection.execute(
                "ALTER TABLE polyai.conversations ADD COLUMN required INTEGER DEFAULT 1"
            )
            connection.execute("ALTER TABLE polyai.conversations ALTER required SET NOT NULL")
            connection.execute("ALTER TABLE polyai.conversations ALTER required DROP DEFAULT")
        with pytest.raises(DestinationError):
            run(base_url)
        with duckdb.connect("polyai.duckdb") as connection:
            connection.execute("ALTER TABLE polyai.conversations DROP required")
        report = run(base_url)
        # tables merged before the failing one had rows of them already
        assert (report.status, report.fetched) == ("complete", 3)
        assert_equals_truth(sandbox, AGENT, from_duckdb())
        assert list(Path(".dlt/pipelines/polyai/load/normalized").iterdir()) == []

    @pytest.mark.matrix
    def test_tables_and_columns_that_are_gone_are_created_again(
        self, sandbox: Sandbox, base_url: str
    ) -> None:
        put_loaded(sandbox.config, clock=utc_now)
        for _ in range(2):
            with duckdb.connect("polyai.duckdb") as connection:
                connection.execute("ALTER TABLE polyai.turns DROP user_input")
                connection.execute("DROP TABLE polyai.notes")
            sandbox.advance(arrivals=1)
            assert run(base_url).status == "complete"
        assert query("SELECT count(*) FROM polyai.notes") is not None
        assert query("SELECT count(user_input) FROM polyai.turns") == [(0,)]
        assert query("SELECT count(*) > count(DISTINCT version_hash) FROM polyai._dlt_version") == [
            (False,)
        ]

    @pytest.mark.slow
    def test_a_commit_that_conflicts_with_another_one_is_retried_without_duplicates(
        self, sandbox: Sandbox, base_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        merge, conflicts = SqlLoadJob.run, itertools.count()

        def conflict_at_first(job: SqlLoadJob) -> None:
            # dlt itself gives up after five attempts
            if next(conflicts) < 7:
                raise DatabaseTransientException(RuntimeError("Transaction conflict"))
            merge(job)

        monkeypatch.setattr(SqlLoadJob, "run", conflict_at_first)
        assert run(base_url).status == "complete"
        assert_equals_truth(sandbox, AGENT, from_duckdb())

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            pytest.param({"api_key": "wrong"}, "401", id="wrong key"),
            pytest.param(
                {"api_key": "sandbox-key-eu"},
                "region",
                id="key of another region",
                marks=pytest.mark.slow,
            ),
            pytest.param(
                {"api_key": "sandbox-key-forbidden"},
                "403",
                id="no permission",
                marks=pytest.mark.slow,
            ),
            pytest.param(
                {"agent_id": "PROJECT-NONE"},
                "PROJECT-NONE",
                id="unknown agent",
                marks=pytest.mark.slow,
            ),
        ],
    )
    def test_a_refused_key_stops_the_run_at_the_first_request(
        self, sandbox: Sandbox, base_url: str, options: dict[str, object], message: str
    ) -> None:
        report = run(base_url, **options)
        assert report.status == "failed"
        assert message in str(report.error)
        assert report.traffic.requests == 1

    @pytest.mark.slow
    def test_a_failed_agent_does_not_stop_the_others(self) -> None:
        sandbox = Sandbox(
            SandboxConfig(conversations=20, inventions=True, agents=("PROJECT-A", "PROJECT-B"))
        )
        with serve(sandbox) as base_url:
            agents = [
                {"agent_id": "PROJECT-A", "api_key": "wrong", "base_url": base_url},
                {"agent_id": "PROJECT-B", "api_key": "sandbox-key", "base_url": base_url},
            ]
            first, second = load(resolve(agents=agents), open_pipeline())
        assert (first.status, second.status) == ("failed", "complete")
        assert query("SELECT DISTINCT agent_id FROM polyai.conversations") == [("PROJECT-B",)]
        assert query("SELECT agent_id, status FROM polyai.sync_runs ORDER BY 1") == [
            ("PROJECT-A", "failed"),
            ("PROJECT-B", "complete"),
        ]


class TestSource:
    """The dlt source in a pipeline of the user."""

    def test_selected_tables_share_one_detail_each(self, sandbox: Sandbox, base_url: str) -> None:
        pipeline = dlt.pipeline(
            "own", destination=dlt.destinations.duckdb("own.duckdb"), dataset_name="calls"
        )
        source = polyai(AGENT, "sandbox-key", base_url=base_url)
        pipeline.run(source.with_resources("conversations", "turns", "metrics"))
        assert sandbox.requests.count(DETAIL) == 150
        with pipeline.sql_client() as client, client.execute_query("SHOW TABLES") as cursor:
            tables = {row[0] for row in cursor.fetchall() if not row[0].startswith("_dlt")}
        assert tables == {"conversations", "turns", "metrics"}

    @pytest.mark.matrix
    def test_a_second_run_reads_only_what_is_new(self, sandbox: Sandbox, base_url: str) -> None:
        sandbox.advance(timedelta(days=30))
        pipeline = dlt.pipeline(
            "own", destination=dlt.destinations.duckdb("own.duckdb"), dataset_name="calls"
        )
        pipeline.run(polyai(AGENT, "sandbox-key", base_url=base_url))
        sandbox.requests.clear()
        sandbox.advance(arrivals=3)
        pipeline.run(polyai(AGENT, "sandbox-key", base_url=base_url))
        assert sandbox.requests.count(DETAIL) == 3

    def test_no_request_is_sent_before_the_first_row_is_read(
        self, sandbox: Sandbox, base_url: str
    ) -> None:
        source = polyai(AGENT, "sandbox-key", base_url=base_url)
        assert set(source.resources) >= {table.name for table in conversation_tables()}
        assert sandbox.requests.count() == 0

    @pytest.mark.slow
    def test_a_load_of_selected_tables_fills_no_others(
        self, sandbox: Sandbox, base_url: str
    ) -> None:
        load(settings_for(base_url), open_pipeline(), select=["turns"])
        tables = {row[0] for row in query("SELECT table_name FROM information_schema.tables")}
        assert {"conversations", "turns", "fetch_failures", "sync_runs"} <= tables
        assert query("SELECT count(*) FROM polyai.metrics") == [(0,)]

    def test_an_unknown_table_is_named(self, base_url: str) -> None:
        with pytest.raises(ConfigurationError, match=r"\bturn\b.*\bturns\b"):
            load(settings_for(base_url), open_pipeline(), select=["turn"])
