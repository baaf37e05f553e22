"""Published copy for readers, and its refresh after a load."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import dlt
import duckdb
import pytest
from filelock import FileLock

from command import access, error_of, query, run, start, wait_until
from loaded import load_sandbox, put_made
from polyai import open_pipeline
from polyai.errors import BusyError, ConfigurationError, DestinationError
from polyai.sandbox import Sandbox, SandboxConfig, serve
from polyai.views import conversation_parts, create_views, publish, query_reader, refresh
from polyai.views import publishing as publishing_module
from polyai.views.copies import copies, register
from polyai.views.definitions import views
from polyai.views.publishing import KEPT_AS_VIEWS, is_published
from polyai.views.query_reader import PublishedReader, open_reader
from polyai.warehouse.duckdb_file import COPY_CONFIG, duckdb_path, execute_in_memory_limit

pytestmark = pytest.mark.load

CONFIG = SandboxConfig(conversations=60)
FOLDER = Path("published")
COPY = FOLDER / "polyai.duckdb"
PACKAGE = str(Path(publishing_module.__file__).parents[2])


@pytest.fixture
def pipeline() -> dlt.Pipeline:
    """Loaded warehouse with views."""

    def make(pipeline: dlt.Pipeline) -> None:
        load_sandbox(pipeline, CONFIG)
        refresh(pipeline, "Europe/London")

    put_made("test_publishing", make)
    return open_pipeline()


@pytest.fixture
def sandbox() -> Iterator[tuple[Sandbox, str]]:
    sandbox = Sandbox(CONFIG)
    with serve(sandbox) as base_url:
        yield sandbox, base_url


def of_copy(sql: str) -> list[tuple[object, ...]]:
    return query(sql, str(COPY))


def test_a_copy_is_registered_once_with_its_place(pipeline: dlt.Pipeline, tmp_path: Path) -> None:
    assert duckdb_path(pipeline) == tmp_path / "polyai.duckdb"
    for place in (COPY.resolve(), Path("/elsewhere/polyai.duckdb")):
        register(pipeline, "duckdb", place)
    register(pipeline, "parquet", "s3://bucket/lake")
    before = Path("polyai.duckdb").read_bytes()
    register(pipeline, "duckdb", COPY.resolve())
    assert Path("polyai.duckdb").read_bytes() == before
    warehouse = tmp_path / "polyai.duckdb"
    found = {copy.place: copy.at(warehouse) for copy in copies(pipeline, warehouse)}
    assert found == {
        "published/polyai.duckdb": COPY.resolve(),
        "/elsewhere/polyai.duckdb": Path("/elsewhere/polyai.duckdb"),
        "s3://bucket/lake": "s3://bucket/lake",
        ".dlt/published/polyai.duckdb": tmp_path / ".dlt" / "published" / "polyai.duckdb",
    }


@pytest.mark.matrix
@pytest.mark.slow
def test_expensive_views_are_tables_of_the_same_rows(pipeline: dlt.Pipeline) -> None:
    published = publish(pipeline, FOLDER)
    assert (published.file, published.bytes) == (COPY.resolve(), COPY.stat().st_size)
    kept = {name for (name,) in of_copy("SELECT view_name FROM duckdb_views() WHERE NOT internal")}
    assert kept == KEPT_AS_VIEWS
    for name in views().keys() - KEPT_AS_VIEWS:
        rows = f"SELECT * FROM polyai.{name} ORDER BY ALL"
        assert of_copy(rows) == query(rows), name
    assert of_copy("SELECT count(*) FROM polyai.turns") == query("SELECT count(*) FROM turns")
    # dependent views read the table
    assert of_copy("SELECT conversations FROM polyai.data_freshness") == [(60,)]
    assert of_copy("SELECT as_of FROM polyai.published_info") == [(published.as_of,)]


@pytest.mark.slow
def test_a_large_warehouse_is_copied_in_ranges_and_parts(
    pipeline: dlt.Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publishing_module, "_CONVERSATIONS_PER_RANGE", 11)
    monkeypatch.setattr(conversation_parts, "CONVERSATIONS_PER_PART", 7)
    monkeypatch.setattr(conversation_parts, "_BLOCK_ROWS", 16)
    monkeypatch.setattr(conversation_parts, "_GAP_ROWS", 32)
    publish(pipeline, FOLDER)
    for name in ("fct_conversations", "kpi_daily", "topics_daily", "red_flags", "repeat_callers"):
        rows = f"SELECT * FROM polyai.{name} ORDER BY ALL"
        assert _rounded(of_copy(rows)) == _rounded(query(rows))


def _rounded(rows: list[tuple[object, ...]]) -> list[tuple[object, ...]]:
    """Returns rows without the last digits of sums, which depend on the order of their terms."""
    return [
        tuple(round(value, 9) if isinstance(value, float) else value for value in row)
        for row in rows
    ]


@pytest.mark.slow
def test_blocks_of_rows_are_read_in_few_spans() -> None:
    spans = list(conversation_parts._spans({30, 2, 1, 5, 29}))
    assert spans == [(8_192, 49_152), (29 * 8_192, 31 * 8_192)]


@pytest.mark.slow
def test_tables_of_the_copy_have_comments(pipeline: dlt.Pipeline) -> None:
    publish(pipeline, FOLDER)
    columns = (
        "SELECT table_name, column_name, comment FROM duckdb_columns() "
        "WHERE table_name IN ('kpi_daily', 'turns') ORDER BY ALL"
    )
    assert of_copy(columns) == query(columns)
    assert of_copy("SELECT comment FROM duckdb_tables() WHERE table_name = 'kpi_daily'") == [
        (views()["kpi_daily"].comment,)
    ]


@pytest.mark.matrix
def test_open_connections_keep_reading_the_older_copy(pipeline: dlt.Pipeline) -> None:
    publish(pipeline, FOLDER)
    # in another process, like a BI tool
    code = (
        "import duckdb, sys; c = duckdb.connect(sys.argv[1], read_only=True)\n"
        "for line in sys.stdin:\n"
        "  print(c.execute('SELECT count(*) FROM polyai.fct_conversations').fetchall(), flush=True)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(COPY)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as reader:
        assert reader.stdin is not None
        assert reader.stdout is not None
        reader.stdin.write("\n")
        reader.stdin.flush()
        assert reader.stdout.readline() == "[(60,)]\n"
        with duckdb.connect("polyai.duckdb") as connection:
            connection.execute("DELETE FROM conversations")
        assert not is_published(pipeline, FOLDER)
        publish(pipeline, FOLDER)
        assert of_copy("SELECT count(*) FROM polyai.fct_conversations") == [(0,)]
        reader.stdin.write("\n")
        reader.stdin.flush()
        assert reader.stdout.readline() == "[(60,)]\n"
        reader.stdin.close()


@pytest.mark.slow
def test_copy_includes_the_write_ahead_log_of_a_killed_run(pipeline: dlt.Pipeline) -> None:
    code = (
        "import duckdb, os; c = duckdb.connect('polyai.duckdb')\n"
        "c.execute('CREATE TABLE left_behind AS SELECT 1 AS number'); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", code], check=False)
    assert Path("polyai.duckdb.wal").exists()
    publish(pipeline, FOLDER)
    assert of_copy("SELECT number FROM left_behind") == [(1,)]
    assert is_published(pipeline, FOLDER)


def test_copy_is_private_until_its_permissions_are_changed(
    pipeline: dlt.Pipeline,
) -> None:
    publish(pipeline, FOLDER)
    assert COPY.stat().st_mode & 0o777 == 0o600
    COPY.chmod(0o640)
    publish(pipeline, FOLDER)
    assert COPY.stat().st_mode & 0o777 == 0o640


@pytest.mark.matrix
def test_killed_run_leaves_the_older_copy(pipeline: dlt.Pipeline) -> None:
    publish(pipeline, FOLDER)
    began = time.monotonic()
    line = [sys.executable, "-m", "polyai", "views", "--publish", str(FOLDER)]
    environment = os.environ | {"PYTHONPATH": PACKAGE}
    subprocess.run(line, env=environment, check=True, capture_output=True)
    whole = time.monotonic() - began
    for part in range(8):
        with duckdb.connect("polyai.duckdb") as connection:
            connection.execute("CREATE OR REPLACE TABLE round AS SELECT ? AS number", [part])
        with subprocess.Popen(
            line, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            # publishing is the last third
            time.sleep(whole * (0.65 + 0.05 * part))
            process.send_signal(signal.SIGKILL)
        assert of_copy("SELECT count(*) FROM polyai.kpi_daily")[0][0]
    publish(pipeline, FOLDER)
    assert of_copy("SELECT number FROM round") == [(7,)]
    assert {path.name for path in FOLDER.iterdir()} == {COPY.name, ".publishing.lock"}


def test_errors_of_publishing(pipeline: dlt.Pipeline, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="publish into another"):
        publish(pipeline, Path())
    in_memory = open_pipeline(dlt.destinations.duckdb(duckdb.connect()), pipelines_dir="memory")
    with pytest.raises(ConfigurationError, match="DuckDB file"):
        publish(in_memory, FOLDER)
    missing = open_pipeline(dlt.destinations.duckdb(str(tmp_path / "new.duckdb")))
    with pytest.raises(DestinationError, match=r"new\.duckdb.*run load"):
        publish(missing, FOLDER)
    Path("file").touch()
    with pytest.raises(DestinationError, match="file"):
        publish(pipeline, Path("file"))
    with duckdb.connect("polyai.duckdb") as connection:
        for name in reversed(list(views())):
            connection.execute(f"DROP VIEW {name}")
    with pytest.raises(DestinationError, match="run views"):
        publish(pipeline, FOLDER)
    assert not COPY.exists()


@pytest.mark.slow
def test_concurrent_run_is_refused(pipeline: dlt.Pipeline) -> None:
    FOLDER.mkdir()
    with FileLock(FOLDER / ".publishing.lock"):
        code = (
            "from pathlib import Path; from polyai import open_pipeline\n"
            "from polyai.views import publish; publish(open_pipeline(), Path('published'))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONPATH": PACKAGE},
            capture_output=True,
            text=True,
            check=False,
        )
    assert f"{BusyError.__name__}: another run is publishing" in done.stderr
    publish(pipeline, FOLDER, wait=timedelta(seconds=1))


@pytest.mark.slow
def test_load_refreshes_views_and_publishes(sandbox: tuple[Sandbox, str]) -> None:
    world, base_url = sandbox
    settings = access(base_url) | {"POLYAI_PUBLISH_TO": str(FOLDER)}
    first = run("load", "--json", **settings)
    assert first.returncode == 0, first.stderr
    assert json.loads(first.stdout)["published"]["file"] == str(COPY.resolve())
    assert of_copy("SELECT sum(conversations) FROM polyai.kpi_daily") == [(60,)]
    assert of_copy("SELECT reporting_time_zone FROM polyai.views_info") == [("UTC",)]
    world.advance(arrivals=5)
    # readers of the copy do not block writes
    with duckdb.connect(str(COPY), read_only=True):
        second = run("load", POLYAI_REPORTING_TIME_ZONE="Asia/Kolkata", **settings)
    assert second.returncode == 0, second.stderr
    assert f"published: {COPY.resolve()}" in second.stdout
    assert of_copy("SELECT sum(conversations) FROM polyai.kpi_daily") == [(65,)]
    assert of_copy("SELECT reporting_time_zone FROM polyai.views_info") == [("Asia/Kolkata",)]


@pytest.mark.matrix
def test_load_reports_that_it_could_not_publish(sandbox: tuple[Sandbox, str]) -> None:
    Path("file").touch()
    result = run("load", **access(sandbox[1]), POLYAI_PUBLISH_TO="file")
    assert result.returncode == 1
    assert "nothing was published" in error_of(result)
    assert query("SELECT count(*) FROM polyai.conversations") == [(60,)]


def test_refused_load_creates_no_views(sandbox: tuple[Sandbox, str]) -> None:
    result = run("load", **access(sandbox[1], api_key="wrong"), POLYAI_PUBLISH_TO=str(FOLDER))
    assert result.returncode == 1
    assert not COPY.exists()
    assert query("SELECT view_name FROM duckdb_views() WHERE NOT internal") == []


def test_destination_without_sql_is_refused() -> None:
    result = run(
        "views", "--destination", "filesystem", DESTINATION__FILESYSTEM__BUCKET_URL="files"
    )
    assert result.returncode == 1
    assert "filesystem" in error_of(result)


def test_refresh_skips_views_that_another_run_creates(
    pipeline: dlt.Pipeline, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "polyai")
    with FileLock("polyai.duckdb.views.lock"):
        assert refresh(pipeline, "UTC").views is None
    assert "another run" in caplog.text
    assert query("SELECT reporting_time_zone FROM polyai.views_info") == [("Europe/London",)]
    assert refresh(pipeline, "UTC").views is not None
    assert refresh(pipeline, "UTC").views is None


@pytest.mark.matrix
def test_reader_sees_new_data_of_a_load(
    pipeline: dlt.Pipeline, sandbox: tuple[Sandbox, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(query_reader, "CHECK_INTERVAL_SECONDS", 0.1)
    world, base_url = sandbox
    counted = "SELECT count(*) AS n FROM fct_conversations WHERE channel <> $channel"
    with open_reader(pipeline, FOLDER) as reader:
        before = reader.as_of
        assert reader.query(counted, channel="") == [{"n": 60}]
        world.advance(arrivals=5)
        assert run("load", **access(base_url)).returncode == 0
        wait_until(lambda: reader.query(counted, channel="") == [{"n": 65}])
        assert reader.as_of > before
        with pytest.raises(DestinationError, match="nothing"):
            reader.query("SELECT nothing FROM turns")


@pytest.mark.matrix
def test_views_of_an_older_version_are_published(pipeline: dlt.Pipeline) -> None:
    with duckdb.connect("polyai.duckdb") as connection:
        connection.execute(
            "CREATE OR REPLACE VIEW polyai.topics_daily AS SELECT DISTINCT agent_id, "
            "DATE '2026-11-03' AS local_date, topic FROM polyai.turn_topics"
        )
    with PublishedReader(pipeline, FOLDER) as reader:
        assert reader.query("SELECT topic FROM topics_daily")


@pytest.mark.slow
def test_reader_returns_times_in_utc(pipeline: dlt.Pipeline) -> None:
    asked = "SELECT began_at, local_started_at FROM conversations_local ORDER BY began_at LIMIT 1"
    with PublishedReader(pipeline, FOLDER) as reader:
        before = reader.query(asked)
        with duckdb.connect(str(FOLDER / "polyai.duckdb"), read_only=True) as other:
            other.execute("SET GLOBAL TimeZone = 'Asia/Tokyo'")
            assert reader.query(asked) == before
            assert reader.query(asked)[0]["began_at"].utcoffset() == timedelta()
        assert before[0]["local_started_at"].tzinfo is None


@pytest.mark.matrix
def test_reader_keeps_the_older_copy_if_publishing_fails(
    pipeline: dlt.Pipeline, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(query_reader, "CHECK_INTERVAL_SECONDS", 0.1)
    with PublishedReader(pipeline, FOLDER) as reader:
        shutil.move("polyai.duckdb", "elsewhere.duckdb")
        wait_until(lambda: "there is no warehouse" in caplog.text)
        assert reader.query("SELECT count(*) AS n FROM turns")[0]["n"]


@pytest.mark.slow
def test_reader_of_a_missing_warehouse() -> None:
    pipeline = open_pipeline()
    with pytest.raises(DestinationError, match="run load"), open_reader(pipeline, FOLDER):
        pass
    # creates the file, without rows
    create_views(open_pipeline(name="polyai_views"))
    with open_reader(pipeline, FOLDER) as reader:
        assert reader.query("SELECT * FROM kpi_daily") == []


@pytest.mark.matrix
def test_load_runs_while_the_copy_is_created(
    pipeline: dlt.Pipeline, sandbox: tuple[Sandbox, str]
) -> None:
    world, base_url = sandbox
    world.advance(arrivals=20)
    running = start("load", **access(base_url))
    copies = 0
    while running.poll() is None:
        publish(pipeline, FOLDER)
        copies += 1
        assert of_copy("SELECT count(*) FROM polyai.fct_conversations")[0][0] in (60, 80)
    _, errors = running.communicate()
    assert running.returncode == 0, errors
    assert copies
    publish(pipeline, FOLDER)
    assert of_copy("SELECT count(*) FROM polyai.fct_conversations") == [(80,)]


@pytest.mark.slow
def test_statement_that_exceeds_the_memory_limit_is_repeated_without_it(tmp_path: Path) -> None:
    limited = {**COPY_CONFIG, "memory_limit": "20MB", "temp_directory": ""}
    wide = "SELECT list(repeat(i::VARCHAR, 200)) AS texts FROM range(100_000) AS numbers(i)"
    with duckdb.connect(str(tmp_path / "file.duckdb"), config=limited) as connection:
        with pytest.raises(duckdb.OutOfMemoryException):
            connection.execute(f"CREATE TABLE refused AS {wide}")
        execute_in_memory_limit(connection, f"CREATE TABLE copied AS {wide}")
        assert connection.execute("SELECT len(texts) FROM copied").fetchall() == [(100_000,)]
