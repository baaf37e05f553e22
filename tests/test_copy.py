"""Copies of a warehouse to other destinations: the same rows, and nothing is requested again."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any
from unittest.mock import patch

import duckdb
import psycopg2
import pyarrow as pa
import pytest
from filelock import FileLock

import polyai
from command import AGENT, access, error_of, query, run, start
from destinations import in_ducklake, in_mariadb, in_postgres, in_sqlite
from loaded import put_loaded
from mariadb_server import needs_mariadb
from optional import needs_ducklake
from polyai.clock import utc_now
from polyai.copying.digest import Digest, canonical_json
from polyai.sandbox import Sandbox, SandboxConfig, serve
from polyai.tables.conversations import CONVERSATIONS
from postgres_server import needs_postgres

CONFIG = SandboxConfig(conversations=30, inventions=True)

Place = Callable[[Path], AbstractContextManager[dict[str, str]]]


ARCHIVE = {
    "DESTINATION__ARCHIVE__DESTINATION_TYPE": "duckdb",
    "DESTINATION__ARCHIVE__CREDENTIALS": "archive.duckdb",
}
"""A destination of the same type as the source, with a name of its own."""


def copy(to: str, **environment: str) -> dict[str, Any]:
    result = run("copy", "--to", to, "--json", **environment)
    assert result.returncode == 0, result.stdout + result.stderr
    # sqlglot's warning about what a dialect cannot word
    assert "not supported" not in result.stderr
    output: dict[str, Any] = json.loads(result.stdout)
    return output


def assert_loads_only_what_changed(**environment: str) -> None:
    """Asserts the requests of the next loads in the copy: nothing, then what was changed."""
    sandbox = Sandbox(CONFIG)
    with serve(sandbox) as base_url:
        (nothing,) = load(base_url, **environment)
        assert (nothing["status"], nothing["fetched"]) == ("complete", 0)
        assert sandbox.requests.kinds.keys() == {"list"}
        sandbox.requests.clear()
        first, *_ = sandbox.listed(AGENT)
        conversation_id = sandbox.traits(AGENT, first).conversation_id
        sandbox.edit(AGENT, conversation_id, note="changed after the copy")
        (changed,) = load(base_url, "--full", **environment)
        assert (changed["status"], changed["changed"]) == ("complete", 1)
        assert sandbox.requests.kinds.keys() == {"list", "detail"}
        assert sandbox.requests.kinds["detail"] == 1


def hashes(result: dict[str, Any]) -> dict[str, str]:
    """Hashes by table; states of pipelines name their destination."""
    return {
        table["table"]: table["target_hash"]
        for table in result["tables"]
        if table["table"] != "_dlt_pipeline_state"
    }


def rows_in(url: str, table: str) -> int:
    """Number of rows of a table in PostgreSQL; 0 if it does not exist yet."""
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        try:
            cursor.execute(f"SELECT count(*) FROM polyai.{table}")
        except psycopg2.Error:
            return 0
        ((rows,),) = cursor.fetchall()
        return int(rows)


def load(base_url: str, *options: str, **environment: str) -> Any:
    result = run("load", "--json", *options, **access(base_url), **environment)
    assert result.returncode == 0, result.stdout + result.stderr
    return json.loads(result.stdout)["agents"]


@pytest.mark.unit
class TestDigest:
    def test_json_is_compared_by_its_values(self) -> None:
        assert canonical_json('{"b": 1.50, "a": [1e2, -0]}') == canonical_json(
            '{"a":[100,0],"b":1.5}'
        )
        assert canonical_json('{"a": "1"}') != canonical_json('{"a": 1}')
        assert canonical_json("0.12345678901234567890123456789012") != canonical_json(
            "0.12345678901234567890123456789013"
        )

    def test_order_does_not_matter_and_duplicates_do(self) -> None:
        rows = pa.Table.from_pylist(
            [
                {"agent_id": "a", "conversation_id": name, "_dlt_load_id": "1"}
                for name in ("one", "two")
            ],
            schema=CONVERSATIONS.arrow_schema,
        )

        def digest(*parts: pa.Table) -> Digest:
            made = Digest()
            for part in parts:
                made.add(CONVERSATIONS, part)
            return made

        assert digest(rows) == digest(rows.slice(1), rows.slice(0, 1))
        assert digest(rows) != digest(rows, rows.slice(1))
        assert digest(rows) != digest(rows.slice(1), rows.slice(1))


@pytest.mark.process
class TestDuckDb:
    """DuckDB to another DuckDB file, by a named destination."""

    @pytest.mark.matrix
    @pytest.mark.slow
    def test_every_row_is_copied_once(self) -> None:
        put_loaded(CONFIG, clock=utc_now)
        result = copy("archive", **ARCHIVE)
        assert all(table["is_equal"] for table in result["tables"])
        rows = {table["table"]: table["copied_rows"] for table in result["tables"]}
        assert rows["conversations"] == 30
        assert all(rows[name] > 0 for name in ("turns", "notes", "_dlt_loads", "_dlt_version"))
        with duckdb.connect() as connection:
            connection.execute("ATTACH 'polyai.duckdb' AS one; ATTACH 'archive.duckdb' AS other")
            # states name their destination
            for table in rows.keys() - {"_dlt_pipeline_state"}:
                columns = connection.execute(f"SELECT * FROM one.main.{table}").description or ()
                selected = ", ".join(f'"{name}"' for name, *_ in columns)
                one = f"SELECT {selected} FROM one.main.{table}"
                other = f"SELECT {selected} FROM other.polyai.{table}"
                for query in (f"{one} EXCEPT ALL {other}", f"{other} EXCEPT ALL {one}"):
                    assert connection.execute(query).fetchall() == [], table

    def test_refusals_come_before_any_work(self) -> None:
        assert "no warehouse" in error_of(run("copy", "--to", "archive", **ARCHIVE))
        assert not Path("polyai.duckdb").exists()
        put_loaded(CONFIG, clock=utc_now)
        before = Path("polyai.duckdb").read_bytes()
        same = run("copy", "--to", "duckdb")
        assert "the same" in error_of(same)
        refused = run("copy", "--to", "filesystem")
        assert "is refused" in error_of(refused)
        assert (same.returncode, refused.returncode) == (1, 1)
        with FileLock("polyai.duckdb.lock"):
            busy = run("copy", "--to", "archive", **ARCHIVE)
        assert (busy.returncode, "another run" in error_of(busy)) == (75, True)
        assert Path("polyai.duckdb").read_bytes() == before

    @pytest.mark.matrix
    def test_a_copy_is_brought_up_to_date_until_it_is_loaded_itself(self) -> None:
        put_loaded(CONFIG, clock=utc_now)
        stop = threading.Event()
        stop.set()
        with patch.dict(os.environ, ARCHIVE):
            assert polyai.copy("archive", stop=stop).exit_code == polyai.ExitCode.INTERRUPTED

        def load_meanwhile(done: int, total: int) -> None:
            with duckdb.connect("polyai.duckdb") as connection:
                connection.execute("INSERT INTO main._dlt_loads VALUES ('1', 'x', 0, now(), NULL)")

        with patch.dict(os.environ, ARCHIVE):
            changed = polyai.copy("archive", on_part=load_meanwhile)
        assert (changed.exit_code, changed.is_source_changed) == (3, True)
        assert query("SELECT * FROM polyai._dlt_loads WHERE load_id = '1'", "archive.duckdb") == []
        copy("archive", **ARCHIVE)
        again = copy("archive", **ARCHIVE)
        assert sum(table["copied_rows"] for table in again["tables"]) == 0
        sandbox = Sandbox(CONFIG)
        with serve(sandbox) as base_url:
            ids = [sandbox.traits(AGENT, index).conversation_id for index in sandbox.listed(AGENT)]
            sandbox.edit(AGENT, ids[0], keep_turns=1)
            load(base_url, "--full")
        assert run("forget", ids[1], "--yes").returncode == 0
        result = copy("archive", **ARCHIVE)
        rows = {table["table"]: table["target_rows"] for table in result["tables"]}
        assert (rows["conversations"], rows["forgotten"]) == (29, 1)
        assert_loads_only_what_changed(**ARCHIVE, DESTINATION_TYPE="archive")
        assert "another warehouse" in error_of(run("copy", "--to", "archive", **ARCHIVE))


@pytest.mark.process
@pytest.mark.slow
class TestOtherDestinations:
    @pytest.mark.parametrize(
        "place",
        [
            pytest.param(in_postgres, marks=[needs_postgres, pytest.mark.matrix], id="postgres"),
            pytest.param(in_mariadb, marks=[needs_mariadb, pytest.mark.matrix], id="mariadb"),
            pytest.param(in_sqlite, marks=pytest.mark.matrix, id="sqlite"),
            pytest.param(
                in_ducklake,
                marks=[needs_postgres, needs_ducklake, pytest.mark.matrix],
                id="ducklake",
            ),
        ],
    )
    def test_there_and_back(self, place: Place, tmp_path: Path) -> None:
        put_loaded(CONFIG, clock=utc_now)
        # DuckLake takes minutes on a slow machine
        with place(tmp_path) as destination, patch("command.TIME_LIMIT_SECONDS", 600):
            kind = destination["DESTINATION_TYPE"]
            settings = {name: value for name, value in destination.items() if value != kind}
            there = copy(kind, **settings)
            assert all(table["is_equal"] for table in there["tables"])
            back = copy("archive", **destination, **ARCHIVE)
            assert hashes(back) == hashes(there)
            assert_loads_only_what_changed(**destination)

    @needs_postgres
    def test_a_killed_copy_is_continued(self, tmp_path: Path) -> None:
        put_loaded(CONFIG, clock=utc_now)
        with in_postgres(tmp_path) as destination, patch.dict(os.environ, destination):
            del os.environ["DESTINATION_TYPE"]
            url = destination["DESTINATION__POSTGRES__CREDENTIALS"]
            # in the first part, and after the last conversation
            for table in ("turns", "sync_runs"):
                killed = start("copy", "--to", "postgres")
                deadline = time.monotonic() + 100
                while not rows_in(url, table):
                    assert killed.poll() is None, killed.communicate()
                    assert time.monotonic() < deadline
                    time.sleep(0.02)
                killed.send_signal(signal.SIGKILL)
                killed.communicate()
            result = copy("postgres")
            assert all(table["is_equal"] for table in result["tables"])
            copied = {table["table"]: table["copied_rows"] for table in result["tables"]}
            assert copied["conversations"] == 0
            assert_loads_only_what_changed(DESTINATION_TYPE="postgres")
