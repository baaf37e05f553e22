"""Concurrent slices, each a process that needs only its arguments and the destination.

Small cases run with the other tests. Eight concurrent slices, five times with and without kills,
into PostgreSQL and DuckLake, are run by

    python -m pytest -m matrix tests/test_parallel.py
"""

from __future__ import annotations

import json
import random
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import psycopg2
import pytest

from command import AGENT, KEY, access, query, run, run_process, start
from ducklake import extensions, home_with_extensions
from optional import needs_ducklake
from polyai import open_pipeline, resolve
from polyai.load.plan import Plan
from polyai.load.report import RunReport
from polyai.load.run import load
from polyai.load.slices import parse_moment
from polyai.sandbox import Sandbox, SandboxConfig, serve
from postgres_server import needs_postgres, postgres

pytestmark = pytest.mark.load

Rows = Callable[[str], list[tuple[object, ...]]]
"""Function that runs a query, with `polyai.` before the name of each table."""

DAYS = 30


class Target:
    """A destination: environment variables that name it, and a function to query it."""

    def __init__(self, environment: dict[str, str], rows: Rows) -> None:
        self.environment = environment
        self.rows = rows


@contextmanager
def in_postgres(folder: Path) -> Iterator[Target]:
    with postgres() as url:

        def rows(sql: str) -> list[tuple[object, ...]]:
            with psycopg2.connect(url) as connection, connection.cursor() as cursor:
                cursor.execute(sql)
                return cursor.fetchall()

        named = {"DESTINATION_TYPE": "postgres", "DESTINATION__POSTGRES__CREDENTIALS": url}
        yield Target(named, rows)


@contextmanager
def in_ducklake(folder: Path) -> Iterator[Target]:
    home = home_with_extensions(folder / "home")
    with postgres() as url:
        # dlt's connection string and DuckDB's are the same
        attach = f"ATTACH 'ducklake:postgres:{url}' AS lake (METADATA_SCHEMA 'ducklake')"

        def rows(sql: str) -> list[tuple[object, ...]]:
            with duckdb.connect() as connection:
                for path in extensions():
                    connection.execute(f"LOAD '{path}'")
                connection.execute(attach)
                found = connection.execute(sql.replace("polyai.", "lake.polyai.")).fetchall()
                connection.execute("DETACH lake")
                return found

        named = {
            "DESTINATION_TYPE": "ducklake",
            "DESTINATION__DUCKLAKE__CREDENTIALS__CATALOG": url,
            "DESTINATION__DUCKLAKE__CREDENTIALS__STORAGE__BUCKET_URL": str(folder / "lake"),
        }
        yield Target(home | named, rows)


TARGETS = [
    pytest.param(in_postgres, marks=needs_postgres, id="postgres"),
    pytest.param(in_ducklake, marks=[needs_postgres, needs_ducklake], id="ducklake"),
]


class Slices:
    """Slices of two days, each loaded by a process of its own."""

    def __init__(self, sandbox: Sandbox, base_url: str, target: Target, count: int) -> None:
        self.sandbox = sandbox
        self.target = target
        self.spans = [(f"2026-10-{2 * n + 3:02}", f"2026-10-{2 * n + 5:02}") for n in range(count)]
        self.environment = access(base_url) | target.environment | {"POLYAI_WORKERS": "2"}

    def start(self, number: int) -> subprocess.Popen[str]:
        since, before = self.spans[number]
        options = ("--from", since, "--to", before, "--slice", "2d", "--workers", "1", "--json")
        return start("backfill", *options, **self.environment)

    def run_all(self, kills: int = 0) -> None:
        """Runs all slices concurrently, and those that were killed again afterwards."""
        again = []
        with ExitStack() as ended:
            running = []
            for number in range(len(self.spans)):
                running.append(ended.enter_context(self.start(number)))
                ended.callback(running[-1].kill)
            for _ in range(kills):
                time.sleep(random.uniform(1, 3))
                random.choice(running).kill()
            for number, process in enumerate(running):
                stdout, stderr = process.communicate(timeout=500)
                if process.returncode < 0:
                    again.append(number)
                else:
                    assert process.returncode == 0, stdout + stderr
        for number in again:
            process = self.start(number)
            stdout, stderr = process.communicate(timeout=500)
            assert process.returncode == 0, stdout + stderr

    def check(self) -> None:
        """Asserts that each row of the range is loaded once, and that no lease or run is left."""
        since, before = parse_moment(self.spans[0][0]), parse_moment(self.spans[-1][1])
        truth = [
            tables
            for tables in self.sandbox.truth(AGENT)
            if since <= tables["conversations"][0]["created_at"] < before
        ]
        assert len(truth) > 10
        for table, key in (
            ("conversations", "conversation_id"),
            ("turns", "(conversation_id, turn_index)"),
            ("metrics", "(conversation_id, name, occurrence)"),
            ("function_events", "(conversation_id, turn_index, event_index)"),
        ):
            wanted = sum(len(tables[table]) for tables in truth)
            counted = f"SELECT count(*), count(DISTINCT {key}) FROM polyai.{table}"
            assert self.target.rows(counted) == [(wanted, wanted)], table
        assert self.target.rows("SELECT DISTINCT owner FROM polyai.load_leases") == [("",)]
        assert self.target.rows(
            "SELECT count(*) FROM polyai.sync_runs WHERE status = 'running'"
        ) == [(0,)]


@pytest.fixture
def sandbox() -> Sandbox:
    return Sandbox(SandboxConfig(conversations=300, inventions=True, span=timedelta(days=DAYS)))


@pytest.fixture
def base_url(sandbox: Sandbox) -> Iterator[str]:
    with serve(sandbox) as url:
        yield url


@pytest.mark.matrix
@needs_postgres
def test_concurrent_slices_of_which_one_is_killed(
    sandbox: Sandbox, base_url: str, tmp_path: Path
) -> None:
    with in_postgres(tmp_path) as target:
        slices = Slices(sandbox, base_url, target, 4)
        slices.run_all(kills=1)
        slices.check()
        staging = target.rows(
            "SELECT schema_name FROM information_schema.schemata "
            "WHERE schema_name LIKE 'polyai_staging%'"
        )
        # only a killed slice that was not run again from its own folder leaves one
        assert len(staging) <= 1


@pytest.mark.slow
@needs_postgres
def test_the_same_slice_twice_at_once_duplicates_no_row(
    sandbox: Sandbox, base_url: str, tmp_path: Path
) -> None:
    with in_postgres(tmp_path) as target:
        slices = Slices(sandbox, base_url, target, 1)
        twice = [slices.start(0) for _ in range(2)]
        for process in twice:
            stdout, stderr = process.communicate(timeout=200)
            assert process.returncode == 0, stdout + stderr
        slices.check()


@pytest.mark.slow
@needs_postgres
def test_what_a_backfill_loads_during_a_load_is_not_missing(
    sandbox: Sandbox, base_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_state = Plan._read_state
    backfills: list[subprocess.CompletedProcess[str]] = []

    def read_state_before_a_backfill(plan: Plan) -> Any:
        state = read_state(plan)
        since, before = ((sandbox.now + timedelta(days=days)).date() for days in (-3, 1))
        options = ("--from", str(since), "--to", str(before), "--slice", "7d", "--workers", "1")
        environment = access(base_url) | target.environment
        backfills.append(run_process("backfill", *options, **environment))
        return state

    with in_postgres(tmp_path) as target, monkeypatch.context() as patched:
        for name, value in target.environment.items():
            patched.setenv(name, value)
        settings = resolve(agent_id=AGENT, api_key=KEY, base_url=base_url)

        def load_once() -> RunReport:
            pipeline = open_pipeline(pipelines_dir=tmp_path / "pipelines")
            (report,) = load(settings, pipeline, clock=lambda: sandbox.now)
            return report

        assert load_once().status == "complete"
        deleted = (
            "DELETE FROM polyai.conversations WHERE conversation_id IN (SELECT conversation_id "
            "FROM polyai.conversations ORDER BY created_at DESC LIMIT 15) RETURNING 1"
        )
        assert len(target.rows(deleted)) == 15
        patched.setattr(Plan, "_read_state", read_state_before_a_backfill)
        report = load_once()
        assert [process.returncode for process in backfills] == [0], backfills
        assert "15 new" in backfills[0].stderr
        # the whole list is not walked for what is there
        assert (report.status, report.new, report.missing, report.walks) == ("complete", 0, 0, 0)
        assert target.rows("SELECT count(*) FROM polyai.conversations") == [(300,)]


@pytest.mark.matrix
@needs_postgres
@needs_ducklake
def test_concurrent_slices_into_ducklake(sandbox: Sandbox, base_url: str, tmp_path: Path) -> None:
    with in_ducklake(tmp_path) as target:
        slices = Slices(sandbox, base_url, target, 2)
        slices.run_all()
        slices.check()


@pytest.mark.matrix
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("kills", [0, 4])
@pytest.mark.parametrize("repetition", range(5))
def test_eight_concurrent_slices(
    target: Callable[[Path], AbstractContextManager[Target]],
    kills: int,
    repetition: int,
    sandbox: Sandbox,
    base_url: str,
    tmp_path: Path,
) -> None:
    with target(tmp_path) as opened:
        slices = Slices(sandbox, base_url, opened, 8)
        slices.run_all(kills)
        slices.check()


class TestAgents:
    """Several agents in one load."""

    AGENTS = ("PROJECT-A", "PROJECT-B", "PROJECT-C")

    def settings(self, base_url: str, **keys: str) -> object:
        return [
            {
                "agent_id": name,
                "api_key": keys.get(name.replace("-", "_"), "sandbox-key"),
                "base_url": base_url,
            }
            for name in self.AGENTS
        ]

    @pytest.mark.slow
    def test_they_are_read_at_once_and_a_slow_one_delays_no_other(self) -> None:
        config = SandboxConfig(
            conversations=60, inventions=True, agents=self.AGENTS, detail="small"
        )
        sandbox = Sandbox(config)
        with serve(sandbox) as base_url:
            # every answer for the first one is slow
            sandbox.faults.add("delay", path="/v1/agents/PROJECT-A/", seconds=0.3)
            reports = load(resolve(agents=self.settings(base_url), workers=2), open_pipeline())
        assert [report.agent_id for report in reports] == list(self.AGENTS)
        assert [report.status for report in reports] == ["complete"] * 3
        ended = {report.agent_id: report.finished_at for report in reports}
        assert ended["PROJECT-B"] is not None
        assert ended["PROJECT-A"] is not None
        assert ended["PROJECT-B"] < ended["PROJECT-A"]
        assert query(
            "SELECT agent_id, count(*), count(DISTINCT conversation_id) FROM polyai.conversations "
            "GROUP BY 1 ORDER BY 1"
        ) == [(name, 60, 60) for name in self.AGENTS]
        # a load package has rows of one agent only
        assert query(
            "SELECT count(*) FROM (SELECT _dlt_load_id FROM polyai.conversations "
            "GROUP BY 1 HAVING count(DISTINCT agent_id) > 1)"
        ) == [(0,)]

    @pytest.mark.matrix
    def test_a_failed_one_does_not_stop_the_others(self) -> None:
        sandbox = Sandbox(
            SandboxConfig(conversations=20, inventions=True, agents=self.AGENTS, detail="small")
        )
        with serve(sandbox) as base_url:
            agents = json.dumps(self.settings(base_url, PROJECT_B="wrong"))
            result = run("load", "--json", POLYAI_AGENTS=agents)
        assert result.returncode == 1
        statuses = {
            agent["agent_id"]: agent["status"] for agent in json.loads(result.stdout)["agents"]
        }
        assert statuses == {"PROJECT-A": "complete", "PROJECT-B": "failed", "PROJECT-C": "complete"}
        assert query("SELECT count(*) FROM polyai.conversations") == [(40,)]

    @pytest.mark.matrix
    def test_each_has_its_own_rate_limit(self) -> None:
        sandbox = Sandbox(
            SandboxConfig(conversations=20, inventions=True, agents=self.AGENTS, detail="small")
        )
        sandbox.faults.add(
            "status",
            path="/v1/agents/PROJECT-A/conversations/",
            status=429,
            retry_after="2",
            times=3,
        )
        with serve(sandbox) as base_url:
            reports = load(resolve(agents=self.settings(base_url)), open_pipeline())
        assert [report.status for report in reports] == ["complete"] * 3
        retries = {report.agent_id: report.traffic.retries for report in reports}
        assert retries["PROJECT-A"] > 0
        assert retries["PROJECT-B"] == retries["PROJECT-C"] == 0
