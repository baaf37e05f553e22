"""Concurrent runs: one loads, the other waits or exits; no rows are lost or duplicated."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dlt
import psycopg2
import pytest
from dlt.common.storages.exceptions import SchemaNotFoundError

from command import AGENT, KEY, access, error_of, query, run, start, wait_until
from polyai import open_pipeline, resolve
from polyai.load.run import load
from polyai.sandbox import Sandbox, SandboxConfig, serve
from polyai.warehouse import open as opening
from postgres_server import binaries, postgres
from warehouse_rows import assert_equals_truth, from_duckdb

pytestmark = pytest.mark.process

BUSY = 75
SLOW = {"POLYAI_WORKERS": "2", "POLYAI_CHUNK_SIZE": "20"}


@pytest.fixture
def sandbox() -> Sandbox:
    return Sandbox(SandboxConfig(conversations=60, inventions=True, delay_seconds=0.05))


@pytest.fixture
def base_url(sandbox: Sandbox) -> Iterator[str]:
    with serve(sandbox) as url:
        yield url


def is_loading(sandbox: Sandbox) -> bool:
    return sandbox.requests.kinds.get("detail", 0) > 2


@pytest.mark.slow
def test_the_second_of_two_loads_exits_immediately(sandbox: Sandbox, base_url: str) -> None:
    first = start("load", **access(base_url), **SLOW)
    wait_until(lambda: is_loading(sandbox))
    second = run("load", **access(base_url))
    assert second.returncode == BUSY
    assert "another run" in error_of(second)
    assert "--wait" in error_of(second)
    _, stderr = first.communicate(timeout=60)
    assert first.returncode == 0, stderr
    # the second one sent no requests
    assert sandbox.requests.kinds["detail"] == 60
    assert_equals_truth(sandbox, AGENT, from_duckdb())


@pytest.mark.slow
def test_loads_that_wait_for_each_other_all_complete(sandbox: Sandbox, base_url: str) -> None:
    loads = [start("load", "--wait", "1m", **access(base_url), **SLOW) for _ in range(2)]
    for one in loads:
        one.communicate(timeout=120)
    assert [one.returncode for one in loads] == [0, 0]
    assert sandbox.requests.kinds["detail"] == 60
    assert_equals_truth(sandbox, AGENT, from_duckdb())
    assert query("SELECT status, count(*) FROM polyai.sync_runs GROUP BY 1") == [("complete", 2)]


@pytest.mark.matrix
def test_loads_from_two_working_directories_into_one_file_exclude_each_other(
    sandbox: Sandbox, base_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DESTINATION__DUCKDB__CREDENTIALS", str(tmp_path / "shared.duckdb"))
    first = start("load", **access(base_url), **SLOW)
    wait_until(lambda: is_loading(sandbox))
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    second = run("load", **access(base_url))
    assert second.returncode == BUSY
    assert "shared.duckdb.lock" in error_of(second)
    first.communicate(timeout=60)
    assert first.returncode == 0


@pytest.mark.matrix
def test_a_waiting_run_can_be_interrupted(sandbox: Sandbox, base_url: str) -> None:
    first = start("load", **access(base_url), **SLOW, POLYAI_MAX_ATTEMPTS="1")
    wait_until(lambda: is_loading(sandbox))
    second = start("load", "--wait", "10m", **access(base_url))
    assert second.stderr is not None
    assert "waiting for another run" in second.stderr.readline()
    second.send_signal(signal.SIGTERM)
    second.communicate(timeout=20)
    assert second.returncode == 130
    first.communicate(timeout=60)
    assert first.returncode == 0


@pytest.mark.slow
def test_a_killed_run_leaves_no_lock(sandbox: Sandbox, base_url: str) -> None:
    first = start("load", **access(base_url), **SLOW)
    wait_until(lambda: is_loading(sandbox))
    first.kill()
    first.communicate()
    second = run("load", **access(base_url))
    assert second.returncode == 0, second.stderr
    assert_equals_truth(sandbox, AGENT, from_duckdb())
    assert query("SELECT status, count(*) FROM polyai.sync_runs GROUP BY 1 ORDER BY 1") in (
        [("complete", 1), ("interrupted", 1)],
        # killed before it wrote its first row of sync_runs
        [("complete", 1)],
    )


@pytest.mark.matrix
def test_lock_files_are_accessible_to_their_owner_only(base_url: str) -> None:
    assert run("load", **access(base_url)).returncode == 0
    locks = [*Path(".dlt", "pipelines").glob("polyai.*"), Path("polyai.duckdb.lock")]
    assert len(locks) >= 2
    assert {path.stat().st_mode & 0o777 for path in locks} == {0o600}


@pytest.mark.skipif(
    binaries() is None and not os.environ.get("CI"),
    reason="needs a PostgreSQL server: install the package postgresql",
)
class TestTwoMachines:
    """Two working directories and one PostgreSQL, without a common lock file."""

    @pytest.fixture
    def database(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
        with postgres() as url:
            monkeypatch.setenv("DESTINATION__POSTGRES__CREDENTIALS", url)
            yield url

    @staticmethod
    def rows(database: str, sql: str) -> list[tuple[object, ...]]:
        with psycopg2.connect(database) as connection, connection.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchall()

    @pytest.mark.slow
    def test_one_loads_and_the_other_exits_or_waits(
        self,
        sandbox: Sandbox,
        base_url: str,
        database: str,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        environment = access(base_url) | {"DESTINATION_TYPE": "postgres"}
        first = start("load", **environment, **SLOW)
        wait_until(lambda: is_loading(sandbox))
        (tmp_path / "machine").mkdir()
        monkeypatch.chdir(tmp_path / "machine")
        second = run("load", **environment)
        assert second.returncode == BUSY, second.stderr
        assert AGENT in error_of(second)
        third = run("load", "--wait", "1m", **environment)
        assert third.returncode == 0, third.stderr
        first.communicate(timeout=60)
        assert first.returncode == 0
        assert sandbox.requests.kinds["detail"] == 60
        assert self.rows(
            database,
            "SELECT count(*), count(DISTINCT conversation_id) FROM polyai.conversations",
        ) == [(60, 60)]
        schemas = self.rows(
            database,
            "SELECT schema_name FROM information_schema.schemata WHERE schema_name LIKE 'polyai%'",
        )
        assert schemas == [("polyai",)]

    @pytest.mark.matrix
    def test_the_run_after_a_killed_one_reacquires_its_lease_immediately(
        self, sandbox: Sandbox, base_url: str, database: str
    ) -> None:
        environment = access(base_url) | {"DESTINATION_TYPE": "postgres"}
        first = start("load", **environment, **SLOW)
        wait_until(lambda: is_loading(sandbox))
        first.kill()
        first.communicate()
        second = run("load", **environment)
        assert second.returncode == 0, second.stderr
        assert self.rows(database, "SELECT count(*) FROM polyai.conversations") == [(60,)]

    @pytest.mark.matrix
    def test_other_agents_are_loaded_concurrently(
        self, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        config = SandboxConfig(
            conversations=60, inventions=True, agents=(AGENT, "PROJECT-B"), delay_seconds=0.05
        )
        sandbox = Sandbox(config)
        with serve(sandbox) as base_url:
            environment = access(base_url) | {"DESTINATION_TYPE": "postgres"}
            first = start("load", **environment, **SLOW)
            wait_until(lambda: is_loading(sandbox))
            (tmp_path / "machine").mkdir()
            monkeypatch.chdir(tmp_path / "machine")
            both = environment | {"POLYAI_AGENT_ID": f"{AGENT},PROJECT-B"}
            second = run("load", **both)
            first.communicate(timeout=60)
        assert (first.returncode, second.returncode) == (0, BUSY), second.stderr
        assert self.rows(
            database, "SELECT agent_id, count(*) FROM polyai.conversations GROUP BY 1 ORDER BY 1"
        ) == [("PROJECT-B", 60), (AGENT, 60)]


@pytest.mark.slow
def test_a_run_keeps_its_dataset_while_others_open_theirs(base_url: str) -> None:
    pipeline = open_pipeline(dataset="first")
    open_pipeline(dataset="second")
    (report,) = load(resolve(agent_id=AGENT, api_key=KEY, base_url=base_url), pipeline)
    assert report.status == "complete"
    assert query("SELECT count(*) FROM first.conversations") == [(60,)]
    assert query("SELECT schema_name FROM duckdb_schemas() WHERE schema_name = 'second'") == []


def test_a_working_directory_that_another_run_empties_is_opened_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DESTINATION__POSTGRES__CREDENTIALS", "postgresql://a:b@127.0.0.1:1/c")
    opened = []

    def emptied_once(pipeline: dlt.Pipeline) -> Any:
        opened.append(pipeline)
        if len(opened) == 1:
            # dlt raises this after the other run found that the warehouse was deleted
            raise SchemaNotFoundError("polyai", pipeline.working_dir)
        return client(pipeline)

    client = opening._client
    monkeypatch.setattr(opening, "_client", emptied_once)
    assert open_pipeline("postgres").dataset_name == "polyai"
    assert len(opened) == 2


def test_opening_a_pipeline_never_removes_the_dataset_from_its_state() -> None:
    open_pipeline()
    state = Path(".dlt/pipelines/polyai/state.json")
    seen: set[str] = set()
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            with contextlib.suppress(ValueError):  # partially written
                seen.add(json.loads(state.read_text(encoding="utf-8"))["dataset_name"])

    watcher = threading.Thread(target=watch)
    watcher.start()
    for _ in range(20):
        open_pipeline()
    done.set()
    watcher.join()
    assert seen == {"main"}
