"""Publication as Parquet files: rows, partitions, changed files only, kills, erasure."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import dlt
import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from command import access, error_of, query, run
from loaded import load_sandbox, put_made
from optional import needs_s3
from polyai import open_pipeline
from polyai.errors import ConfigurationError
from polyai.sandbox import Sandbox, SandboxConfig, serve
from polyai.tables import registry
from polyai.views import create_views, refresh
from polyai.views.definitions import views
from polyai.views.parquet import MANIFEST, PENDING, is_parquet_published, publish_parquet
from polyai.views.parquet_parts import Part, parts, relations, write
from polyai.warehouse.duckdb_file import COPY_CONFIG
from s3_server import S3Server, s3

pytestmark = pytest.mark.load

CONFIG = SandboxConfig(conversations=60)
LAKE = "lake/"
_names = (f"lake-{number}" for number in count())
ROOT = str(Path(__file__).parents[1] / "sources")

KILLED = """
import os, sys
from polyai import open_pipeline
from polyai.views.parquet import publish_parquet
from polyai.warehouse.file_store import Store

left, put = int(sys.argv[1]), Store.put

def put_or_die(self, file, path):
    global left
    if left == 0:
        os.kill(os.getpid(), 9)
    left -= 1
    put(self, file, path)

Store.put = put_or_die
publish_parquet(open_pipeline(), sys.argv[2])
"""
"""Publication that is killed when it has put a number of files."""


@pytest.fixture
def pipeline() -> dlt.Pipeline:
    """Loaded warehouse with views."""

    def make(pipeline: dlt.Pipeline) -> None:
        load_sandbox(pipeline, CONFIG)
        refresh(pipeline, "Europe/London")

    put_made("test_parquet", make)
    return open_pipeline()


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with s3() as running:
        yield running


@pytest.fixture(
    params=[
        pytest.param("folder", marks=pytest.mark.matrix),
        pytest.param("s3", marks=needs_s3),
    ]
)
def url(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Target of a publication."""
    if request.param == "s3":
        server: S3Server = request.getfixturevalue("server")
        for name, value in server.environment("SOURCES__POLYAI__PUBLISH").items():
            monkeypatch.setenv(name, value)
        return f"s3://{server.bucket}/{next(_names)}"
    return LAKE


def folder_of(url: str, request: pytest.FixtureRequest) -> Path:
    """Returns a folder with the published files."""
    if not url.startswith("s3://"):
        return Path(LAKE)
    server: S3Server = request.getfixturevalue("server")
    copies = Path("copies", str(len(list(Path().glob("copies/*")))))
    server.files().get(url.removeprefix("s3://"), str(copies), recursive=True)
    return copies


def manifest(folder: Path = Path(LAKE)) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / MANIFEST).read_bytes())
    return content


def written_at(folder: Path = Path(LAKE)) -> dict[str, str]:
    return {file["path"]: file["written_at"] for file in manifest(folder)["files"]}


def assert_same_rows(folder: Path = Path(LAKE)) -> None:
    """Compares the files of each table and view, found by their pattern, with the warehouse."""
    published = manifest(folder)
    tables = {table.name for table in registry.tables()} - {
        "forgotten_callers",
        "published_copies",
    }
    assert published["tables"].keys() == tables | views().keys()
    assert {str(path.relative_to(folder)) for path in folder.rglob("*.parquet")} == {
        file["path"] for file in published["files"]
    }
    with duckdb.connect("polyai.duckdb", read_only=True) as warehouse:
        for name in published["tables"]:
            described = warehouse.execute(f"DESCRIBE {name}").fetchall()
            # the age is that of the time of publication
            columns = [f'"{column}"' for column, *_ in described if column != "load_age_minutes"]
            shown = ", ".join(columns)
            pattern = f"read_parquet('{folder}/{name}/**/*.parquet', hive_partitioning = true)"
            rows, found = (
                rounded(warehouse.execute(f"SELECT {shown} FROM {place} ORDER BY ALL").fetchall())
                for place in (name, pattern)
            )
            assert found == rows, name
            files = [file for file in published["files"] if file["table"] == name]
            assert sum(file["rows"] for file in files) == len(rows)


def rounded(rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Returns rows without the last digits of sums, which depend on the order of their terms."""
    return [
        tuple(round(value, 9) if isinstance(value, float) else value for value in row)
        for row in rows
    ]


def change(sql: str) -> None:
    with duckdb.connect("polyai.duckdb") as connection:
        connection.execute(sql)


def a_conversation() -> tuple[Any, Any]:
    """Returns the id and the month of a conversation with turns."""
    ((name, month),) = query(
        "SELECT conversation_id, strftime(began_at AT TIME ZONE 'UTC', '%Y-%m') "
        "FROM conversations_local WHERE num_turns > 1 ORDER BY ALL LIMIT 1"
    )
    return name, month


@pytest.mark.unit
def test_a_path_names_the_table_the_agent_and_the_month(tmp_path: Path) -> None:
    assert (
        Part("turns", {"agent_id": "A/1", "month": None}, 1, "", None).path
        == "turns/agent_id=A%2F1/month=__HIVE_DEFAULT_PARTITION__/data.parquet"
    )
    with duckdb.connect(config=dict(COPY_CONFIG)) as draft:
        draft.execute("SET TimeZone = 'America/New_York'")
        draft.execute(
            "CREATE TABLE conversations (agent_id TEXT, conversation_id TEXT, extra JSON, "
            "started_at TIMESTAMPTZ, created_at TIMESTAMPTZ, fetched_at TIMESTAMPTZ)"
        )
        draft.execute("CREATE TABLE turns (agent_id TEXT, conversation_id TEXT, turn_index BIGINT)")
        conversations, turns = relations(draft)
        (empty,) = parts(draft, turns)
        write(draft, turns, empty, tmp_path / "empty")
        assert draft.execute(f"FROM read_parquet('{tmp_path}/empty')").fetchall() == []
        # in UTC, the second one began in the next month
        draft.execute(
            "INSERT INTO conversations VALUES "
            "('P', 'a', '{}', '2026-09-30 23:59:00+00', NULL, NULL), "
            "('P', 'b', NULL, NULL, '2026-10-01 00:00:00+00', NULL)"
        )
        draft.execute("INSERT INTO turns VALUES ('P', 'a', 0), ('P', 'b', 0), ('P', 'gone', 0)")
        for relation, months in (
            (conversations, ["2026-09", "2026-10"]),
            (turns, ["2026-09", "2026-10", "__HIVE_DEFAULT_PARTITION__"]),
        ):
            found = list(parts(draft, relation))
            assert sorted(part.path for part in found) == [
                f"{relation.name}/agent_id=P/month={month}/data.parquet" for month in months
            ]
            assert len({part.content for part in found}) == len(found)
            for part in found:
                write(draft, relation, part, tmp_path / part.content)
                content = draft.execute(f"FROM read_parquet('{tmp_path / part.content}')")
                assert len(content.fetchall()) == part.rows == 1
        # the order of rows does not matter, a changed one does
        before = {part.path: part.content for part in parts(draft, turns)}
        draft.execute("CREATE OR REPLACE TABLE turns AS FROM turns ORDER BY conversation_id DESC")
        assert {part.path: part.content for part in parts(draft, turns)} == before
        draft.execute("UPDATE turns SET turn_index = 1 WHERE conversation_id = 'a'")
        after = {part.path: part.content for part in parts(draft, turns)}
        assert [path for path in after if after[path] != before[path]] == [
            "turns/agent_id=P/month=2026-09/data.parquet"
        ]


@pytest.mark.slow
def test_each_row_of_tables_and_views_is_published_once(
    pipeline: dlt.Pipeline, url: str, request: pytest.FixtureRequest
) -> None:
    first = publish_parquet(pipeline, url)
    folder = folder_of(url, request)
    assert_same_rows(folder)
    assert first.written == first.files == len(manifest(folder)["files"])
    assert is_parquet_published(pipeline, url)

    again = publish_parquet(pipeline, url)
    assert (again.written, again.deleted, again.files) == (0, 0, first.files)
    assert manifest(folder_of(url, request)) == manifest(folder)

    # only what belongs to the conversation and its month is written
    name, month = a_conversation()
    before = written_at(folder)
    change(f"UPDATE turns SET user_input = 'Changed' WHERE conversation_id = '{name}'")
    assert not is_parquet_published(pipeline, url)
    changed = publish_parquet(pipeline, url)
    folder = folder_of(url, request)
    assert_same_rows(folder)
    after = written_at(folder)
    rewritten = {path for path in after if after[path] != before[path]}
    assert len(rewritten) == changed.written < 5
    assert f"turns/agent_id=PROJECT-BOOKINGS/month={month}/data.parquet" in rewritten
    assert all(f"/month={month}/" in path for path in rewritten)

    # files without rows are deleted at once
    change(f"DELETE FROM turns WHERE {in_month(month)}")
    assert publish_parquet(pipeline, url).deleted > 0
    assert_same_rows(folder_of(url, request))


def in_month(month: object) -> str:
    return (
        "conversation_id IN (SELECT conversation_id FROM conversations_local "
        f"WHERE strftime(began_at AT TIME ZONE 'UTC', '%Y-%m') = '{month}')"
    )


@pytest.mark.matrix
def test_all_files_of_a_table_have_one_schema(pipeline: dlt.Pipeline) -> None:
    publish_parquet(pipeline, LAKE)
    for name, table in manifest()["tables"].items():
        found = ds.dataset(f"{LAKE}{name}", partitioning="hive", exclude_invalid_files=False)
        schemas = {fragment.physical_schema for fragment in found.get_fragments()}
        (schema,) = schemas
        assert schema.names == list(table["columns"])
        assert found.count_rows() == query(f"SELECT count(*) FROM {name}")[0][0]
        for field in schema:
            if pa.types.is_timestamp(field.type):
                is_local = field.name == "local_started_at"
                assert field.type == pa.timestamp("us", None if is_local else "UTC")
    turns = ds.dataset(f"{LAKE}turns", partitioning="hive").to_table()
    assert {"agent_id", "month"} < set(turns.column_names)
    assert turns.schema.field("metadata").type == pa.string()
    # a new column is in all files
    change("ALTER TABLE notes ADD COLUMN own_words VARCHAR")
    publish_parquet(pipeline, LAKE)
    assert_same_rows()


@pytest.mark.matrix
@pytest.mark.slow
@pytest.mark.parametrize("files", [pytest.param(0, marks=pytest.mark.matrix), 3])
def test_a_killed_publication_leaves_whole_files(
    pipeline: dlt.Pipeline, url: str, files: int, request: pytest.FixtureRequest
) -> None:
    publish_parquet(pipeline, url)
    older = manifest(folder_of(url, request))
    name, _ = a_conversation()
    kept = query("SELECT * FROM turns ORDER BY ALL")
    change("CREATE TABLE erased AS FROM turns")
    change(f"DELETE FROM turns WHERE conversation_id = '{name}'")
    change(f"UPDATE conversations SET note = 'Changed' WHERE conversation_id = '{name}'")
    done = subprocess.run(
        # the first file lists those that follow
        [sys.executable, "-c", KILLED, str(files), url],
        env=os.environ | {"PYTHONPATH": ROOT},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    left = folder_of(url, request)
    assert manifest(left) == older
    assert (left / PENDING).exists() == (files > 0)
    assert not is_parquet_published(pipeline, url)
    counted = {
        file["path"]: query(f"SELECT count(*) FROM read_parquet('{left / file['path']}')")
        for file in older["files"]
    }
    if not files:
        assert counted == {file["path"]: [(file["rows"],)] for file in older["files"]}
    # the content that the older manifest lists has to be restored too
    change(f"INSERT INTO turns FROM erased WHERE conversation_id = '{name}'")
    assert query("SELECT * FROM turns ORDER BY ALL") == kept
    publish_parquet(pipeline, url)
    newest = folder_of(url, request)
    assert_same_rows(newest)
    assert not (newest / PENDING).exists()
    assert is_parquet_published(pipeline, url)


@pytest.mark.matrix
@pytest.mark.slow
def test_erased_conversations_are_gone_from_the_files(
    url: str, request: pytest.FixtureRequest
) -> None:
    with serve(Sandbox(CONFIG)) as base_url:
        settings = access(base_url) | {"POLYAI_PUBLISH_TO": url}
        loaded = run("load", "--json", **settings)
        assert loaded.returncode == 0, loaded.stderr
        published = json.loads(loaded.stdout)["published"]
        assert published["written"] == published["files"] > 0
        name, _ = a_conversation()
        done = run("forget", name, "--yes", **settings)
        assert done.returncode == 0, done.stderr
    folder = folder_of(url, request)
    assert_same_rows(folder)
    for table, shape in manifest(folder)["tables"].items():
        if "conversation_id" in shape["columns"]:
            (counted,) = query(
                f"SELECT count(*) FROM read_parquet('{folder}/{table}/**/*.parquet') "
                f"WHERE conversation_id = '{name}'"
            )
            assert counted == (int(table == "forgotten"),), table


@pytest.mark.matrix
def test_files_that_were_deleted_or_left_behind_are_repaired(pipeline: dlt.Pipeline) -> None:
    publish_parquet(pipeline, Path(LAKE).resolve().as_uri())
    Path(LAKE, "dim_agents/agent_id=PROJECT-BOOKINGS/data.parquet").unlink()
    orphan = Path(LAKE, "turns/agent_id=PROJECT-GONE/month=2020-01/data.parquet")
    orphan.parent.mkdir(parents=True)
    orphan.touch()
    own = Path(LAKE, "turns-of-mine.parquet")
    own.touch()
    repaired = publish_parquet(pipeline, LAKE)
    assert (repaired.written, repaired.deleted) == (1, 1)
    own.unlink()
    assert_same_rows()
    # views that are created again have the same rows
    create_views(pipeline, "Europe/London")
    assert publish_parquet(pipeline, LAKE).written == 0


@pytest.mark.matrix
def test_files_have_the_permissions_of_the_folder(pipeline: dlt.Pipeline) -> None:
    publish_parquet(pipeline, LAKE)
    assert {path.stat().st_mode & 0o077 for path in Path(LAKE).rglob("*")} == {0}
    shared = Path("shared")
    shared.mkdir()
    shared.chmod(0o750)
    publish_parquet(pipeline, "shared/")
    for path in (shared / "turns").rglob("*"):
        assert path.stat().st_mode & 0o777 == (0o750 if path.is_dir() else 0o640)


@pytest.mark.parametrize("place", ["file/lake/", "/proc/lake/"])
def test_a_folder_that_cannot_be_made(place: str) -> None:
    Path("file").touch()
    failed = run("views", "--publish", place)
    assert failed.returncode == 1
    assert "lake" in error_of(failed)


@pytest.mark.matrix
def test_refusals(pipeline: dlt.Pipeline) -> None:
    in_memory = open_pipeline(dlt.destinations.duckdb(duckdb.connect()), pipelines_dir="memory")
    with pytest.raises(ConfigurationError, match="DuckDB file"):
        publish_parquet(in_memory, LAKE)
    with pytest.raises(ConfigurationError, match="publish into another"):
        publish_parquet(pipeline, "./")
    refresh(pipeline, "Europe/London", Path("published"))
    refused = run("views", "--publish", "published/")
    assert refused.returncode == 1
    assert "without /" in error_of(refused)
    publish_parquet(pipeline, LAKE)
    other = open_pipeline(dlt.destinations.duckdb("polyai.duckdb"), dataset="other")
    create_views(other, "UTC")
    with pytest.raises(ConfigurationError, match="another warehouse"):
        publish_parquet(other, LAKE)
