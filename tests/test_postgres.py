"""Loads into PostgreSQL: the same tables and rows as in DuckDB."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import timedelta
from pathlib import Path

import psycopg2
import pytest

from polyai import Target, annotate, open_pipeline, resolve
from polyai.load.committer import open_committer
from polyai.load.run import load
from polyai.locking.files import LockTimeout
from polyai.sandbox import Sandbox, SandboxConfig, serve
from polyai.tables.declaration import Table
from polyai.tables.registry import tables
from polyai.views import PIPELINE_NAME, create_views
from polyai.warehouse.indexes import Indexes, indexes_of
from postgres_server import binaries, postgres
from warehouse_rows import assert_equals_truth, from_postgres

AGENT = "PROJECT-BOOKINGS"

pytestmark = [
    pytest.mark.load,
    pytest.mark.skipif(
        binaries() is None and not os.environ.get("CI"),
        reason="needs a PostgreSQL server: install the package postgresql",
    ),
]


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with postgres() as url:
        monkeypatch.setenv("DESTINATION__POSTGRES__CREDENTIALS", url)
        yield url


def test_the_warehouse_equals_the_truth_after_first_and_later_loads(database: str) -> None:
    fetch = from_postgres(database)
    sandbox = Sandbox(SandboxConfig(conversations=400, inventions=True))
    with serve(sandbox) as base_url:
        settings = resolve(agent_id=AGENT, api_key="sandbox-key", base_url=base_url)
        (first,) = load(settings, open_pipeline("postgres"))
        assert (first.status, first.fetched) == ("complete", 400)
        assert_equals_truth(sandbox, AGENT, fetch)

        sandbox.advance(timedelta(hours=12), arrivals=5)
        (later,) = load(settings, open_pipeline("postgres"))
        assert later.new == 5
        assert fetch("SELECT count(*) AS n FROM polyai.conversations") == [{"n": 405}]


def execute(url: str, *statements: str) -> list[tuple[object, ...]]:
    """Executes statements, and returns the rows of the last one, if it has any."""
    with psycopg2.connect(url) as connection, connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
        return cursor.fetchall() if cursor.description else []


_EARLIER_VERSION = """
    UPDATE polyai.turns SET extra = coalesce(extra, '{}') ||
        jsonb_build_object('user_input_dtmf_finish_key', coalesce(user_input_dtmf_finish_key, ''));
    UPDATE polyai.function_events SET extra = coalesce(extra, '{}') ||
        jsonb_build_object('hangup', hangup, 'variant_id_change', variant_id_change);
    UPDATE polyai.annotations SET extra = coalesce(extra, '{}') ||
        jsonb_build_object('reason', reason);
    ALTER TABLE polyai.turns
        DROP COLUMN user_input_dtmf_finish_key, DROP COLUMN asr_corrected_user_input;
    ALTER TABLE polyai.function_events DROP COLUMN hangup, DROP COLUMN variant_id_change;
    ALTER TABLE polyai.annotations DROP COLUMN reason;
    DROP TABLE polyai.llm_requests;
    UPDATE polyai.conversations SET direction = NULL WHERE conversation_id LIKE 'OUT-%';
    DELETE FROM polyai._dlt_loads WHERE schema_name = 'polyai_upgrade';
"""
"""Statements that turn a warehouse into one of a version without the columns and the table."""


@pytest.mark.slow
def test_a_warehouse_of_an_earlier_version_gets_the_values_of_new_columns(database: str) -> None:
    fetch = from_postgres(database)
    sandbox = Sandbox(SandboxConfig(conversations=60))
    with serve(sandbox) as base_url:
        settings = resolve(agent_id=AGENT, api_key="sandbox-key", base_url=base_url)
        load(settings, open_pipeline("postgres"))
        digits = "1.2345678901234567890123"
        execute(
            database,
            _EARLIER_VERSION,
            f"""UPDATE polyai.turns SET extra = extra || '{{"price": {digits}}}'""",
        )
        sandbox.requests.clear()
        (report,) = load(settings, open_pipeline("postgres"))
        assert (report.status, report.fetched) == ("complete", 0)
        assert sandbox.requests.count(r"/conversations/[^/?]+$") == 0
        prices = execute(database, "SELECT DISTINCT extra ->> 'price' FROM polyai.turns")
        assert prices == [(digits,)]
        execute(database, "UPDATE polyai.turns SET extra = nullif(extra - 'price', '{}'::jsonb)")
        assert_equals_truth(sandbox, AGENT, fetch)


def indexes(url: str) -> set[object]:
    return {
        name
        for (name,) in execute(url, "SELECT indexname FROM pg_indexes WHERE schemaname = 'polyai'")
        if str(name).startswith("polyai_")
    }


@pytest.mark.slow
def test_a_load_creates_no_table_or_column_after_its_beginning(database: str) -> None:
    """Two loads at once would both create it, and PostgreSQL would reject one of them."""
    columns = (
        "SELECT table_name, column_name FROM information_schema.columns JOIN "
        "information_schema.tables USING (table_schema, table_name) "
        "WHERE table_schema = 'polyai' AND table_type = 'BASE TABLE' ORDER BY 1, 2"
    )
    pipeline, timeout = open_pipeline("postgres"), LockTimeout(timedelta(), threading.Event())
    # with the table of leases
    with open_committer(pipeline, None, lambda: [AGENT], timeout) as (committer, _):
        committer.create_tables(())
    created = execute(database, columns)
    with serve(Sandbox(SandboxConfig(conversations=100, inventions=True))) as base_url:
        settings = resolve(agent_id=AGENT, api_key="sandbox-key", base_url=base_url)
        (report,) = load(settings, pipeline)
    assert report.fetched == 100
    assert execute(database, columns) == created


@pytest.mark.slow
class TestIndexes:
    """Indexes of all tables, for merges and queries of single conversations."""

    @pytest.fixture
    def loaded(self, database: str) -> str:
        with serve(Sandbox(SandboxConfig(conversations=20, inventions=True))) as base_url:
            settings = resolve(agent_id=AGENT, api_key="sandbox-key", base_url=base_url)
            load(settings, open_pipeline("postgres"))
        return database

    def test_every_table_has_those_that_it_declares(self, loaded: str) -> None:
        create_views(open_pipeline("postgres", name=PIPELINE_NAME))
        found = execute(loaded, "SELECT tablename FROM pg_tables WHERE schemaname = 'polyai'")
        expected = {
            name for table in tables() if (table.name,) in found for name in indexes_of(table)
        }
        assert indexes(loaded) == expected
        assert "polyai_conversations_agent_id_created_at" in expected
        assert "polyai_sync_runs_agent_id_run_id" in expected

    def test_warehouse_of_an_older_version_gets_them_with_its_next_run(
        self, loaded: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        names = indexes(loaded)
        execute(loaded, *(f"DROP INDEX polyai.{name}" for name in names))
        created: list[str] = []
        create = Indexes._create

        def counted(self: Indexes, table: Table, name: str, columns: Iterable[str]) -> None:
            created.append(name)
            create(self, table, name, columns)

        monkeypatch.setattr(Indexes, "_create", counted)
        for _ in range(2):
            with serve(Sandbox(SandboxConfig(conversations=20, inventions=True))) as base_url:
                settings = resolve(agent_id=AGENT, api_key="sandbox-key", base_url=base_url)
                load(settings, open_pipeline("postgres"))
            assert indexes(loaded) == names
        assert sorted(created) == sorted(map(str, names))

    def test_index_that_cannot_be_created_does_not_stop_a_load(
        self,
        database: str,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        monkeypatch.setattr(
            "polyai.warehouse.indexes.indexes_of", lambda table: {f"of_{table.name}": ("missing",)}
        )
        with serve(Sandbox(SandboxConfig(conversations=20, inventions=True))) as base_url:
            settings = resolve(agent_id=AGENT, api_key="sandbox-key", base_url=base_url)
            (report,) = load(settings, open_pipeline("postgres"))
        assert (report.status, report.fetched) == ("complete", 20)
        assert "index of_turns was not created" in caplog.text

    def test_merges_and_queries_of_single_conversations_read_no_table_whole(
        self, loaded: str
    ) -> None:
        create_views(open_pipeline("postgres", name=PIPELINE_NAME))
        large = ("conversations", "turns", "metrics", "function_events")
        for table in large:
            execute(
                loaded,
                f"INSERT INTO polyai.{table} SELECT copy.* FROM "
                f"(SELECT * FROM polyai.{table} LIMIT 1) one, generate_series(1, 20000) n, "
                f"LATERAL jsonb_populate_record(NULL::polyai.{table}, "
                "to_jsonb(one) || jsonb_build_object('conversation_id', n::text)) copy",
            )
        execute(loaded, "CREATE TABLE polyai.merged AS SELECT * FROM polyai.turns LIMIT 10")
        execute(loaded, "ANALYZE")
        for statement in (
            "SELECT * FROM polyai.fct_conversations WHERE agent_id = 'A' AND conversation_id = '7'",
            # as dlt merges
            "DELETE FROM polyai.turns t WHERE EXISTS (SELECT 1 FROM polyai.merged m "
            "WHERE t.agent_id = m.agent_id AND t.conversation_id = m.conversation_id)",
            "SELECT * FROM polyai.conversations WHERE agent_id = 'A' AND created_at > now()",
        ):
            plan = "\n".join(str(line) for (line,) in execute(loaded, f"EXPLAIN {statement}"))
            assert "polyai_" in plan
            assert not [table for table in large if f"Seq Scan on {table}" in plan], plan


@pytest.mark.slow
def test_write_backs_are_known_to_all_machines(database: str) -> None:
    sandbox = Sandbox(SandboxConfig(conversations=12, oddities=False))
    with serve(sandbox) as base_url:
        settings = resolve(agent_id=AGENT, api_key="sandbox-key", base_url=base_url)
        load(settings, open_pipeline("postgres"))
        rows = [
            {
                "conversation_id": sandbox.traits(AGENT, index).conversation_id,
                "turn_index": 0,
                "role": "agent",
                "annotation_type": "missing_topic",
            }
            for index in sandbox.listed(AGENT)
        ]

        def written(folder: str, count: int) -> Counter[str]:
            target = Target("postgres", pipelines_dir=Path(folder))
            done = annotate(rows[:count], settings=settings, target=target)
            return Counter(one.outcome for one in done.results)

        first = written("one", 8)
        assert first.keys() <= {"sent", "there"}
        sandbox.requests.clear()
        assert written("two", 12)["there"] >= 8
        posts = sandbox.requests.count("^POST")
        assert posts == sandbox.requests.count("^GET") == 4
        (later,) = load(settings, open_pipeline("postgres"))
        assert later.changed == first["sent"] + 4
    with psycopg2.connect(database) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT max(n) FROM (SELECT count(*) AS n FROM polyai.annotations "
            "WHERE annotation_type = 'missing_topic' AND role = 'agent' AND turn_index = 0 "
            "GROUP BY conversation_id) a"
        )
        assert cursor.fetchone() == (1,)
        cursor.execute("SELECT status, count(*) FROM polyai.write_backs GROUP BY 1")
        assert cursor.fetchall() == [("sent", first["sent"] + 4)]
