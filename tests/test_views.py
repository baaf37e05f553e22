"""Creation, refresh and removal of the views, and their generated documents."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import dlt
import duckdb
import psycopg2
import pytest
import sqlglot
import typer
from sqlglot import exp
from sqlglot.errors import UnsupportedError
from typer.testing import CliRunner

from polyai import open_pipeline, resolve
from polyai.errors import BusyError, ConfigurationError, DestinationError
from polyai.load.run import load
from polyai.sandbox import Sandbox, SandboxConfig, serve
from polyai.tables import registry
from polyai.tables.turns import TURN_TOPICS
from polyai.views import (
    PIPELINE_NAME,
    create_views,
    definitions,
    drop_views,
    refresh,
    views_are_current,
)
from polyai.views import statements as wording
from polyai.views.cli import views as views_command
from polyai.views.definitions import tables_read, views
from polyai.views.fields import FIELDS
from polyai.views.query_reader import open_reader
from polyai.views.statements import WORDING, Statements
from postgres_server import binaries, postgres
from schemas.generate.views import documents, write

pytestmark = pytest.mark.load

SCHEMAS = Path(__file__).parent.parent / "schemas"
DEPENDENT_ON_TURNS = {
    "fct_conversations",
    "annotation_queue",
    "outbound_daily",
}


def query(sql: str, *parameters: object) -> list[tuple[Any, ...]]:
    with duckdb.connect("polyai.duckdb") as connection:
        return connection.execute(sql, list(parameters)).fetchall()


def existing_views() -> set[str]:
    """Returns the views in the DuckDB file."""
    return {row[0] for row in query("SELECT view_name FROM duckdb_views() WHERE NOT internal")}


@pytest.fixture(scope="module")
def empty_warehouse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """DuckDB file of empty tables and views."""
    folder = tmp_path_factory.mktemp("empty")
    file = folder / "polyai.duckdb"
    destination = dlt.destinations.duckdb(str(file))
    create_views(open_pipeline(destination, pipelines_dir=folder, name=PIPELINE_NAME))
    return file


@pytest.fixture
def pipeline(empty_warehouse: Path, own_folder: Path) -> dlt.Pipeline:
    """Pipeline over a copy of the empty warehouse."""
    shutil.copy(empty_warehouse, own_folder)
    return open_pipeline(name=PIPELINE_NAME)


def test_each_view_comes_after_the_views_that_it_reads() -> None:
    known = {table.name for table in registry.tables()}
    for view in views().values():
        assert view.reads <= known, view.name
        known.add(view.name)
    assert len(views()) == 19


def test_no_part_of_a_view_hides_a_table() -> None:
    names = {table.name for table in registry.tables()} | set(views())
    for view in views().values():
        assert not {cte.alias for cte in view.query().find_all(exp.CTE)} & names, view.name


def test_every_view_has_grain_question_and_column_meanings() -> None:
    used = set()
    for view in views().values():
        assert view.grain.startswith("One row per " if view.key else "One row: "), view.name
        assert view.question.endswith("?"), view.name
        used |= {field.name for field in view.fields}
    for name in used:
        assert FIELDS[name].meaning.endswith("."), name


def test_generated_files_are_current(tmp_path: Path) -> None:
    write(tmp_path)
    generated = {path.relative_to(tmp_path) for path in tmp_path.rglob("*.*")}
    kept = {path.relative_to(SCHEMAS) for path in SCHEMAS.glob("views/**/*.sql")}
    assert generated == kept | {Path("views.md")}
    for name, text in documents():
        assert (SCHEMAS / name).read_text(encoding="utf-8") == text, (
            f"{name} has changed: run `python -m schemas.generate` and look at the diff"
        )


@pytest.mark.slow
def test_new_warehouse_gets_empty_tables_and_all_views() -> None:
    pipeline = open_pipeline(name=PIPELINE_NAME)
    assert not views_are_current(pipeline)
    report = create_views(pipeline, "Europe/London")
    assert (set(report.created), report.failed) == (set(views()), {})
    assert set(report.tables_made) == tables_read()
    assert existing_views() == set(views())
    for name in views():
        rows = query(f"SELECT * FROM polyai.{name}")
        assert len(rows) == (name == "views_info"), name
    assert create_views(pipeline, "Europe/London").tables_made == ()


@pytest.mark.usefixtures("pipeline")
@pytest.mark.slow
def test_load_fills_tables_that_were_created_for_the_views() -> None:
    with serve(Sandbox(SandboxConfig(conversations=20))) as base_url:
        settings = resolve(agent_id="PROJECT-BOOKINGS", api_key="sandbox-key", base_url=base_url)
        (report,) = load(settings, open_pipeline())
    assert (report.status, report.fetched) == ("complete", 20)
    assert query("SELECT sum(conversations) FROM polyai.kpi_daily") == [(20,)]


def test_views_are_current_until_the_zone_changes(pipeline: dlt.Pipeline) -> None:
    assert views_are_current(pipeline)
    assert views_are_current(open_pipeline())
    assert not views_are_current(pipeline, "Asia/Kolkata")
    create_views(pipeline, "asia/kolkata")
    assert views_are_current(pipeline, "Asia/Kolkata")
    info = query("SELECT reporting_time_zone FROM polyai.views_info")
    assert info == [("Asia/Kolkata",)]


def test_refresh_of_current_views_parses_and_words_no_sql(
    pipeline: dlt.Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed: list[str] = []
    monkeypatch.setattr(sqlglot, "parse_one", parsed.append)
    monkeypatch.setattr(Statements, "query", lambda _, view: parsed.append(view.name))
    views.cache_clear()
    assert refresh(open_pipeline(), "UTC").views is None
    assert refresh(pipeline, "UTC").views is None
    assert parsed == []


def test_views_of_another_version_are_created_once(pipeline: dlt.Pipeline) -> None:
    with duckdb.connect("polyai.duckdb") as connection:
        connection.execute(
            "CREATE OR REPLACE VIEW polyai.views_info AS SELECT 'UTC' AS reporting_time_zone, "
            "'ff1c4d0f1028086359617281c7cb2e57' AS fingerprint"
        )
    created = refresh(open_pipeline(), "UTC").views
    assert created is not None
    assert created.created == tuple(views())
    assert refresh(open_pipeline(), "UTC").views is None


def test_fingerprint_changes_with_all_that_the_statements_depend_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fingerprint(
        dialect: str = "duckdb", zone: str = "UTC", qualified: str = "polyai.{}"
    ) -> str:
        return Statements(dialect, qualified.format, zone).fingerprinted().fingerprint

    files, table = definitions.sql_files(), TURN_TOPICS
    seen = [
        fingerprint(),
        fingerprint(dialect="postgres"),
        fingerprint(zone="Asia/Kolkata"),
        fingerprint(qualified="other.{}"),
    ]
    column = replace(table.columns[-1], description="Another one.")
    for name, value in {
        "WORDING": 0,
        "version": lambda _: "0",
        "sql_files": lambda: {**files, "kpi_daily": "SELECT 1"},
        "FIELDS": {**FIELDS, "channel": replace(FIELDS["channel"], unit="s")},
        "tables": lambda: (
            *registry.tables()[1:],
            replace(table, columns=(*table.columns[:-1], column)),
        ),
    }.items():
        with monkeypatch.context() as changed:
            changed.setattr(wording, name, value)
            seen.append(fingerprint())
    assert len(set(seen)) == len(seen)
    assert fingerprint() == seen[0]


WORDED_4 = """\
CREATE OR REPLACE VIEW polyai.example AS
WITH days AS (
  SELECT
    1 AS n
  FROM polyai.turns AS t
)
SELECT
  ids.agent_id,
  ids.channel,
  ids.local_date,
  agents.agent_name
FROM (
  SELECT
    agent_id,
    'UTC' AS channel,
    DATE_TRUNC('DAY', x.started_at) AS local_date
  FROM polyai.conversations AS x
  JOIN days
    ON n = 1
) AS ids
LEFT JOIN polyai.agents AS agents
  ON agents.agent_id = ids.agent_id
CREATE VIEW polyai.e
DROP VIEW IF EXISTS polyai.example
COMMENT ON VIEW polyai.example IS 'One row per day. How many?'
COMMENT ON COLUMN polyai.example.agent_id IS '{agent_id}'
COMMENT ON COLUMN polyai.example.channel IS '{channel}'
COMMENT ON COLUMN polyai.example.local_date IS '{local_date}'
COMMENT ON COLUMN polyai.example.agent_name IS '{agent_name}'
COMMENT ON TABLE polyai.turn_topics IS '{turn_topics}'
COMMENT ON COLUMN polyai.turn_topics.topic IS '{topic}'"""
"""Statements of `test_wording_of_version_4`, with the place of descriptions."""


@pytest.mark.parametrize("dialect", ["duckdb", "postgres"])
def test_wording_of_version_4(dialect: str) -> None:
    assert WORDING == 4, "record the statements of the new version"
    view = definitions.view_of(
        "example",
        "-- One row per day.\n-- Answers: How many?\n-- Key: local_date\n"
        "WITH days AS (SELECT 1 AS n FROM turns AS t) SELECT agent_id, "
        "$reporting_time_zone AS channel, date_trunc('day', x.started_at) AS local_date "
        "FROM conversations x JOIN days ON n = 1",
    )
    statements = Statements(dialect, "polyai.{}".format, "UTC")
    worded = [
        statements.create(view, replacing=True),
        statements.create(view, replacing=False)[:20],
        statements.drop("example"),
        *statements.view_comments(view),
        *statements.view_column_comments(view),
        *statements.table_comments({"turn_topics": ["topic"]}),
    ]
    topic = next(column for column in TURN_TOPICS.columns if column.name == "topic")
    assert "\n".join(worded) == WORDED_4.format(
        **{field.name: field.comment for field in view.fields},
        turn_topics=TURN_TOPICS.description,
        topic=topic.comment,
    ), "raise WORDING, so that the views are created again, and record these statements"


@pytest.mark.usefixtures("pipeline")
def test_tables_views_and_columns_have_comments() -> None:
    tables = dict(query("SELECT view_name, comment FROM duckdb_views() WHERE NOT internal"))
    tables |= dict(query("SELECT table_name, comment FROM duckdb_tables()"))
    for view in views().values():
        assert tables[view.name] == f"{view.grain} {view.question}"
    assert tables["turns"].startswith("One row per turn")
    columns = {
        (table, column): comment
        for table, column, comment in query(
            "SELECT table_name, column_name, comment FROM duckdb_columns() "
            "WHERE NOT internal AND schema_name = 'main'"
        )
    }
    for view in views().values():
        for field in view.fields:
            assert columns[view.name, field.name] == field.comment
    for table in (table for table in registry.tables() if table.name in tables_read()):
        for column in table.columns:
            comment = columns[table.name, column.name]
            assert column.name == "_deleted" or comment.startswith(column.description)
    assert columns["turns", "latency_seconds"].endswith("Unit: s.")


def test_refused_view_is_reported_and_does_not_stop_others(pipeline: dlt.Pipeline) -> None:
    query("ALTER TABLE polyai.turns DROP COLUMN barge_in")
    report = create_views(pipeline, "Europe/London")
    assert report.failed.keys() == DEPENDENT_ON_TURNS
    assert "barge_in" in report.failed["fct_conversations"]
    assert report.failed["annotation_queue"] == "needs fct_conversations"
    assert set(report.created) == set(views()) - DEPENDENT_ON_TURNS
    # the older views still exist
    assert existing_views() == set(views())
    assert views_are_current(pipeline, "Europe/London")


def test_view_that_a_dialect_cannot_express_does_not_stop_others(
    pipeline: dlt.Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    query_of = Statements.query

    def refuse_one(statements: Statements, view: definitions.View) -> str:
        if view.name == "kpi_daily":
            raise UnsupportedError("no such function")
        return query_of(statements, view)

    monkeypatch.setattr(Statements, "query", refuse_one)
    report = create_views(pipeline, "Asia/Kolkata")
    assert report.failed == {"kpi_daily": "no such function"}
    assert set(report.created) == set(views()) - {"kpi_daily"}


def test_drop_keeps_the_tables(pipeline: dlt.Pipeline) -> None:
    drop_views(pipeline)
    assert existing_views() == set()
    assert query("SELECT count(*) FROM polyai.conversations") == [(0,)]
    assert not views_are_current(pipeline)
    drop_views(pipeline)


@pytest.mark.matrix
def test_creation_waits_for_a_reader_in_another_process(pipeline: dlt.Pipeline) -> None:
    reader = (
        "import duckdb, sys, time; c = duckdb.connect('polyai.duckdb', read_only=True); "
        "print('open', flush=True); time.sleep(1)"
    )
    with subprocess.Popen([sys.executable, "-c", reader], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert not create_views(pipeline, "Asia/Kolkata").failed


@pytest.mark.slow
def test_reader_always_finds_a_view(pipeline: dlt.Pipeline) -> None:
    missed: list[Exception] = []
    over = threading.Event()

    # in this process, so that it can read while views are created
    with duckdb.connect("polyai.duckdb") as connection:

        def read() -> None:
            while not over.is_set():
                try:
                    connection.execute("SELECT count(*) FROM polyai.kpi_daily").fetchall()
                except duckdb.Error as error:
                    missed.append(error)

        reader = threading.Thread(target=read)
        reader.start()
        for zone in ("Asia/Kolkata", "UTC"):
            create_views(pipeline, zone)
        over.set()
        reader.join()
    assert missed == []


def test_unknown_zone_changes_nothing() -> None:
    with pytest.raises(ConfigurationError, match="Europe/Londn"):
        create_views(open_pipeline(name=PIPELINE_NAME), "Europe/Londn")
    assert not Path("polyai.duckdb").exists()


@pytest.fixture
def command(own_folder: Path) -> typer.Typer:
    app = typer.Typer()
    app.command()(views_command)
    return app


@pytest.mark.slow
def test_command_creates_and_drops_views(command: typer.Typer) -> None:
    result = CliRunner().invoke(command, ["--time-zone", "Europe/London", "--json"])
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert (report["reporting_time_zone"], report["failed"]) == ("Europe/London", {})
    assert set(report["created"]) == set(views())
    shown = CliRunner().invoke(command, ["--time-zone", "Europe/London"])
    assert "19 views, local dates in Europe/London" in shown.stdout
    assert CliRunner().invoke(command, ["--drop"]).exit_code == 0
    assert existing_views() == set()


@pytest.mark.usefixtures("pipeline")
def test_command_exits_with_1_if_a_view_was_refused(command: typer.Typer) -> None:
    query("ALTER TABLE polyai.function_events DROP COLUMN duration_ms")
    result = CliRunner().invoke(command, ["--time-zone", "UTC", "--json"])
    assert result.exit_code == 1
    assert "function_health_daily" in json.loads(result.stdout)["failed"]


class OnPostgres:
    """Warehouse with views on a PostgreSQL server."""

    def __init__(self, url: str, folder: Path) -> None:
        destination = dlt.destinations.postgres(url)
        self.pipeline = open_pipeline(destination, pipelines_dir=folder, name=PIPELINE_NAME)
        self.url = url

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        connection = psycopg2.connect(self.url)
        try:
            with connection, connection.cursor() as cursor:
                cursor.execute(sql)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()

    def views(self) -> set[str]:
        rows = self.query(
            "SELECT table_name FROM information_schema.views WHERE table_schema = 'polyai'"
        )
        return {row[0] for row in rows}


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    if binaries() is None and not os.environ.get("CI"):
        pytest.skip("needs a PostgreSQL server: install the package postgresql")
    with postgres() as url:
        yield url


@pytest.fixture
def on_postgres(server: str, tmp_path: Path) -> Iterator[OnPostgres]:
    warehouse = OnPostgres(server, tmp_path)
    create_views(warehouse.pipeline)
    yield warehouse
    warehouse.query("DROP SCHEMA polyai CASCADE")


@pytest.mark.slow
def test_postgres_replaces_a_view_of_other_columns_and_keeps_grants(
    on_postgres: OnPostgres,
) -> None:
    on_postgres.query("CREATE ROLE bi; DROP VIEW polyai.data_freshness")
    on_postgres.query("CREATE VIEW polyai.data_freshness AS SELECT 1 AS another")
    on_postgres.query("GRANT SELECT ON polyai.data_freshness, polyai.kpi_daily TO bi")
    assert not create_views(on_postgres.pipeline, "Europe/London").failed
    assert on_postgres.query("SELECT * FROM polyai.data_freshness") == []
    granted = on_postgres.query(
        "SELECT table_name FROM information_schema.role_table_grants WHERE grantee = 'bi'"
    )
    assert sorted(granted) == [("data_freshness",), ("kpi_daily",)]
    on_postgres.query("DROP OWNED BY bi; DROP ROLE bi")


@pytest.mark.matrix
def test_postgres_keeps_views_of_users(on_postgres: OnPostgres) -> None:
    on_postgres.query("CREATE VIEW polyai.mine AS SELECT agent_id FROM polyai.kpi_daily")
    assert not create_views(on_postgres.pipeline, "Europe/London").failed
    with pytest.raises(DestinationError, match="view mine depends on view kpi_daily"):
        drop_views(on_postgres.pipeline)
    assert on_postgres.views() == {*views(), "mine"}
    assert views_are_current(on_postgres.pipeline, "Europe/London")


@pytest.mark.matrix
def test_postgres_keeps_old_views_if_a_users_view_depends_on_them(
    on_postgres: OnPostgres,
) -> None:
    drop_views(on_postgres.pipeline)
    on_postgres.query(
        "CREATE VIEW polyai.conversations_local AS SELECT 1 AS old; "
        "CREATE VIEW polyai.mine AS SELECT old FROM polyai.conversations_local"
    )
    with pytest.raises(DestinationError, match="view mine depends on view conversations_local"):
        create_views(on_postgres.pipeline)
    assert on_postgres.query("SELECT old FROM polyai.mine") == [(1,)]
    assert on_postgres.views() == {"conversations_local", "mine"}


@pytest.mark.slow
def test_postgres_has_comments(on_postgres: OnPostgres) -> None:
    assert on_postgres.query(
        "SELECT obj_description('polyai.dim_dates'::regclass), "
        "col_description('polyai.dim_dates'::regclass, 1), "
        "obj_description('polyai.turn_topics'::regclass)"
    ) == [
        (
            views()["dim_dates"].comment,
            FIELDS["local_date"].comment,
            TURN_TOPICS.description,
        )
    ]


@pytest.mark.slow
def test_concurrent_run_is_refused(on_postgres: OnPostgres, tmp_path: Path) -> None:
    on_postgres.query(
        "INSERT INTO polyai.load_leases VALUES "
        "('views', 'another-machine', '', '', now(), now() + interval '5 minutes') "
        "ON CONFLICT (agent_id) DO UPDATE SET owner = 'another-machine', "
        "expires_at = now() + interval '5 minutes'"
    )
    with pytest.raises(BusyError, match="another-machine"):
        create_views(on_postgres.pipeline)


@pytest.mark.matrix
def test_load_into_postgres_succeeds_if_views_cannot_be_replaced(
    on_postgres: OnPostgres, caplog: pytest.LogCaptureFixture
) -> None:
    drop_views(on_postgres.pipeline)
    on_postgres.query(
        "CREATE VIEW polyai.conversations_local AS SELECT 1 AS old; "
        "CREATE VIEW polyai.mine AS SELECT old FROM polyai.conversations_local"
    )
    assert refresh(on_postgres.pipeline, "UTC").views is None
    assert "view conversations_local cannot be" in caplog.text
    on_postgres.query("DROP VIEW polyai.mine")
    assert refresh(on_postgres.pipeline, "UTC").views is not None
    assert on_postgres.views() == set(views())
    assert refresh(on_postgres.pipeline, "UTC").views is None
    with pytest.raises(ConfigurationError, match="DuckDB file"):
        refresh(on_postgres.pipeline, "UTC", Path("published"))


@pytest.mark.slow
def test_reader_translates_queries_for_postgres(on_postgres: OnPostgres) -> None:
    name = "it's 100 % \\' $name \"odd\""
    connection = psycopg2.connect(on_postgres.url)
    with connection, connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO polyai.conversations (agent_id, conversation_id, channel, created_at, "
            "started_at, fetched_at, total_duration_seconds) "
            "SELECT 'A', %s || n, 'VOICE', now(), now(), now(), n FROM generate_series(1, 4) AS n",
            (name,),
        )
    connection.close()
    asked = (
        "WITH facts AS (SELECT * FROM fct_conversations WHERE channel LIKE 'VOICE%') "
        "SELECT count(*) AS n, quantile_cont(handle_time_seconds, 0.5) AS p50, "
        "sum(f.num_annotations) AS annotations FROM facts AS f "
        "WHERE starts_with(conversation_id, $name) AND local_date > $day AND num_turns < $most"
    )
    values = {"name": name, "day": date(2020, 1, 1), "most": 3}
    with open_reader(on_postgres.pipeline) as reader:
        (row,) = reader.query(asked.replace(" AND num_turns < $most", ""), **values)
        assert row == {"n": 4, "p50": 2.5, "annotations": 0.0}
        assert type(row["annotations"]) is float
        assert reader.query(asked, **values)[0]["n"] == 0  # num_turns is NULL
        # the server closes idle connections
        on_postgres.query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
        )
        assert reader.query("SELECT count(*) AS n FROM turns") == [{"n": 0}]
        with pytest.raises(DestinationError, match="nothing"):
            reader.query("SELECT nothing FROM turns")
        assert reader.as_of.tzinfo is not None
