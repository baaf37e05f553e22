"""The copy for readers, and what `load` does for views and copies."""

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
from loaded import put_loaded
from polyai import open_pipeline
from polyai.errors import BusyError, ConfigurationError, DestinationError
from polyai.sandbox import Sandbox, SandboxConfig, serve
from polyai.views import create_views, publish, refresh
from polyai.views import publishing as publishing_module
from polyai.views.definitions import views
from polyai.views.publishing import KEPT_AS_VIEWS, is_published
from polyai.views.query_reader import PublishedReader, open_reader

CONFIG = SandboxConfig(conversations=60)
FOLDER = Path("published")
COPY = FOLDER / "polyai.duckdb"
PACKAGE = str(Path(publishing_module.__file__).parents[2])


@pytest.fixture
def pipeline() -> dlt.Pipeline:
    """A loaded warehouse with views."""
    put_loaded(CONFIG)
    pipeline = open_pipeline()
    refresh(pipeline, "Europe/London")
    return pipeline


@pytest.fixture
def sandbox() -> Iterator[tuple[Sandbox, str]]:
    sandbox = Sandbox(CONFIG)
    with serve(sandbox) as base_url:
        yield sandbox, base_url


def of_copy(sql: str) -> list[tuple[object, ...]]:
    return query(sql, str(COPY))


def test_costly_views_are_tables_in_the_copy_with_the_same_rows(pipeline: dlt.Pipeline) -> None:
    made = publish(pipeline, FOLDER)
    assert (made.file, made.bytes) == (COPY.resolve(), COPY.stat().st_size)
    held = {name for (name,) in of_copy("SELECT view_name FROM duckdb_views() WHERE NOT internal")}
    assert held == KEPT_AS_VIEWS
    for name in views().keys() - KEPT_AS_VIEWS:
        rows = f"SELECT * FROM polyai.{name} ORDER BY ALL"
        assert of_copy(rows) == query(rows), name
    assert of_copy("SELECT count(*) FROM polyai.turns") == query("SELECT count(*) FROM turns")
    # what reads a view reads the table now
    assert of_copy("SELECT conversations FROM polyai.data_freshness") == [(60,)]
    assert of_copy("SELECT as_of FROM polyai.published_info") == [(made.as_of,)]


def test_a_large_warehouse_is_copied_in_ranges_of_days(
    pipeline: dlt.Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publishing_module, "_PART_CONVERSATIONS", 7)
    publish(pipeline, FOLDER)
    rows = "SELECT * FROM polyai.fct_conversations ORDER BY ALL"
    assert of_copy(rows) == query(rows)


def test_tables_of_the_copy_say_what_they_mean(pipeline: dlt.Pipeline) -> None:
    publish(pipeline, FOLDER)
    columns = (
        "SELECT table_name, column_name, comment FROM duckdb_columns() "
        "WHERE table_name IN ('kpi_daily', 'turns') ORDER BY ALL"
    )
    assert of_copy(columns) == query(columns)
    assert of_copy("SELECT comment FROM duckdb_tables() WHERE table_name = 'kpi_daily'") == [
        (views()["kpi_daily"].comment,)
    ]


def test_who_reads_the_older_copy_goes_on_reading_it(pipeline: dlt.Pipeline) -> None:
    publish(pipeline, FOLDER)
    # in a process of its own, as a BI tool is
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


def test_what_a_killed_run_has_committed_is_in_the_copy(pipeline: dlt.Pipeline) -> None:
    code = (
        "import duckdb, os; c = duckdb.connect('polyai.duckdb')\n"
        "c.execute('CREATE TABLE left_behind AS SELECT 1 AS number'); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", code], check=False)
    assert Path("polyai.duckdb.wal").exists()
    publish(pipeline, FOLDER)
    assert of_copy("SELECT number FROM left_behind") == [(1,)]
    assert is_published(pipeline, FOLDER)


def test_a_copy_is_for_its_owner_alone_until_somebody_says_otherwise(
    pipeline: dlt.Pipeline,
) -> None:
    publish(pipeline, FOLDER)
    assert COPY.stat().st_mode & 0o777 == 0o600
    COPY.chmod(0o640)
    publish(pipeline, FOLDER)
    assert COPY.stat().st_mode & 0o777 == 0o640


@pytest.mark.long
def test_a_killed_run_leaves_the_older_copy(pipeline: dlt.Pipeline) -> None:
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
            # the last third is where it publishes
            time.sleep(whole * (0.65 + 0.05 * part))
            process.send_signal(signal.SIGKILL)
        assert of_copy("SELECT count(*) FROM polyai.kpi_daily")[0][0]
    publish(pipeline, FOLDER)
    assert of_copy("SELECT number FROM round") == [(7,)]
    assert {path.name for path in FOLDER.iterdir()} == {COPY.name, ".publishing.lock"}


def test_what_cannot_be_published_is_said(pipeline: dlt.Pipeline, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="publish into another"):
        publish(pipeline, Path())
    in_memory = open_pipeline(dlt.destinations.duckdb(duckdb.connect()), pipelines_dir="memory")
    with pytest.raises(ConfigurationError, match="DuckDB file"):
        publish(in_memory, FOLDER)
    missing = open_pipeline(dlt.destinations.duckdb(str(tmp_path / "new.duckdb")))
    with pytest.raises(DestinationError, match=r"no warehouse .*new\.duckdb yet: run load first"):
        publish(missing, FOLDER)
    Path("file").touch()
    with pytest.raises(DestinationError, match="file"):
        publish(pipeline, Path("file"))
    with duckdb.connect("polyai.duckdb") as connection:
        for name in reversed(list(views())):
            connection.execute(f"DROP VIEW {name}")
    with pytest.raises(DestinationError, match="no views: run views first"):
        publish(pipeline, FOLDER)
    assert not COPY.exists()


@pytest.mark.long
def test_one_run_at_a_time_publishes(pipeline: dlt.Pipeline) -> None:
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


def test_a_load_makes_the_views_and_publishes(sandbox: tuple[Sandbox, str]) -> None:
    world, base_url = sandbox
    settings = access(base_url) | {"POLYAI_PUBLISH_TO": str(FOLDER)}
    first = run("load", "--json", **settings)
    assert first.returncode == 0, first.stderr
    assert json.loads(first.stdout)["published"]["file"] == str(COPY.resolve())
    assert of_copy("SELECT sum(conversations) FROM polyai.kpi_daily") == [(60,)]
    assert of_copy("SELECT reporting_time_zone FROM polyai.views_info") == [("UTC",)]
    world.advance(arrivals=5)
    # readers of the copy keep nothing from being written
    with duckdb.connect(str(COPY), read_only=True):
        second = run("load", POLYAI_REPORTING_TIME_ZONE="Asia/Kolkata", **settings)
    assert second.returncode == 0, second.stderr
    assert f"published: {COPY.resolve()}" in second.stdout
    assert of_copy("SELECT sum(conversations) FROM polyai.kpi_daily") == [(65,)]
    assert of_copy("SELECT reporting_time_zone FROM polyai.views_info") == [("Asia/Kolkata",)]


@pytest.mark.long
def test_a_load_says_that_nothing_was_published(sandbox: tuple[Sandbox, str]) -> None:
    Path("file").touch()
    result = run("load", **access(sandbox[1]), POLYAI_PUBLISH_TO="file")
    assert result.returncode == 1
    said = error_of(result)
    assert said.startswith("error: nothing was published: the destination cannot be used")
    assert query("SELECT count(*) FROM polyai.conversations") == [(60,)]


def test_a_refused_load_makes_no_views(sandbox: tuple[Sandbox, str]) -> None:
    result = run("load", **access(sandbox[1], api_key="wrong"), POLYAI_PUBLISH_TO=str(FOLDER))
    assert result.returncode == 1
    assert not COPY.exists()
    assert query("SELECT view_name FROM duckdb_views() WHERE NOT internal") == []


def test_a_destination_that_is_no_database_is_refused() -> None:
    for command in ("views", "check"):
        result = run(
            command,
            "--destination",
            "filesystem",
            **access("http://127.0.0.1:1"),
            DESTINATION__FILESYSTEM__BUCKET_URL="files",
        )
        assert result.returncode == 1
        assert error_of(result).startswith("error: destination: filesystem")


def test_views_that_are_made_by_another_run_are_left_to_it(
    pipeline: dlt.Pipeline, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "polyai")
    with FileLock("polyai.duckdb.views.lock"):
        assert refresh(pipeline, "UTC").views is None
    assert "another run" in caplog.text
    assert query("SELECT reporting_time_zone FROM polyai.views_info") == [("Europe/London",)]
    made = refresh(pipeline, "UTC").views
    assert made is not None
    assert refresh(pipeline, "UTC").views is None


@pytest.mark.long
def test_a_reader_sees_what_was_loaded_meanwhile(
    sandbox: tuple[Sandbox, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("polyai.views.query_reader.CHECK_INTERVAL_SECONDS", 0.1)
    world, base_url = sandbox
    assert run("load", **access(base_url)).returncode == 0
    pipeline = open_pipeline()
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


def test_a_reader_shows_the_older_copy_where_a_newer_one_cannot_be_made(
    pipeline: dlt.Pipeline, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("polyai.views.query_reader.CHECK_INTERVAL_SECONDS", 0.1)
    with PublishedReader(pipeline, FOLDER) as reader:
        shutil.move("polyai.duckdb", "elsewhere.duckdb")
        wait_until(lambda: "there is no warehouse" in caplog.text)
        assert reader.query("SELECT count(*) AS n FROM turns")[0]["n"]


def test_a_reader_without_a_warehouse_says_what_to_do() -> None:
    pipeline = open_pipeline()
    with pytest.raises(DestinationError, match="run load first"), open_reader(pipeline, FOLDER):
        pass
    # makes the file, without a view
    create_views(open_pipeline(name="polyai_views"))
    with open_reader(pipeline, FOLDER) as reader:
        assert reader.query("SELECT * FROM kpi_daily") == []


@pytest.mark.long
def test_a_load_goes_on_while_the_copy_is_made(sandbox: tuple[Sandbox, str]) -> None:
    world, base_url = sandbox
    assert run("load", **access(base_url)).returncode == 0
    world.advance(arrivals=20)
    running = start("load", **access(base_url))
    pipeline = open_pipeline()
    copies = 0
    while running.poll() is None:
        publish(pipeline, FOLDER)
        copies += 1
        assert of_copy("SELECT count(*) FROM polyai.fct_conversations")[0][0] in (60, 80)
    _, said = running.communicate()
    assert running.returncode == 0, said
    assert copies
    publish(pipeline, FOLDER)
    assert of_copy("SELECT count(*) FROM polyai.fct_conversations") == [(80,)]
