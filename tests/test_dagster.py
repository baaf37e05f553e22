"""Dagster definitions: Dagster's own command line loads two agents and four days with them.

Also what `pipelines/README.md` shows, for Dagster and for other orchestrators.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import quote

import psycopg2
import pytest
from filelock import FileLock

import polyai
from command import access, query
from polyai.sandbox import Sandbox, SandboxConfig, serve
from polyai.tables.registry import conversation_tables
from postgres_server import binaries, postgres

if not importlib.util.find_spec("dagster") and not os.environ.get("CI"):
    pytest.skip("needs Dagster: pip install 'polyai-warehouse[dagster]'", allow_module_level=True)

import dagster as dg

pytestmark = pytest.mark.process

DEFINITIONS = Path(__file__).parent.parent / "pipelines" / "dagster_definitions.py"
AGENTS = ("PROJECT-A", "PROJECT-B")
DAYS = tuple(datetime(2026, 10, day, tzinfo=UTC) for day in range(20, 24))
CONFIG = SandboxConfig(conversations=120, agents=AGENTS, span=timedelta(days=15))
COUNTS = {"listed", "new", "changed", "unchanged", "failed", "requests", "rows"}
TIME_LIMIT_SECONDS = 300
"""Time limit; on two idle cores it takes about a minute."""

README = (DEFINITIONS.parent / "README.md").read_text(encoding="utf-8")


def shown(language: str) -> str:
    """The README's only block of a language."""
    (block,) = re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)
    return str(block)


@pytest.fixture(scope="module")
def sandbox() -> Sandbox:
    return Sandbox(CONFIG)


@pytest.fixture(scope="module")
def base_url(sandbox: Sandbox) -> Iterator[str]:
    with serve(sandbox) as url:
        yield url


@pytest.fixture
def settings(base_url: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Variables that a user would export, also set in this process."""
    exported = access(base_url, agent_id=",".join(AGENTS)) | {"POLYAI_DAGSTER_START": "2026-10-15"}
    for name, value in exported.items():
        monkeypatch.setenv(name, value)
    return exported


def definitions() -> ModuleType:
    """Loads the module as Dagster does: from its file, with the current environment."""
    spec = importlib.util.spec_from_file_location("dagster_definitions", DEFINITIONS)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def key(agent_id: str, day: datetime) -> str:
    return f"{agent_id}|{day:%Y-%m-%d}"


def expected(sandbox: Sandbox, agent_id: str, *days: datetime) -> list[tuple[str, str]]:
    """Returns the sandbox's conversations of these days."""
    rows = (rows["conversations"][0] for rows in sandbox.truth(agent_id))
    return sorted(
        (agent_id, row["conversation_id"])
        for row in rows
        if any(day <= row["created_at"] < day + timedelta(days=1) for day in days)
    )


class TestDefinitions:
    def test_valid(self, settings: Mapping[str, str]) -> None:
        module = definitions()
        dg.Definitions.validate_loadable(module.defs)
        assert {spec.key.path[-1] for spec in module.defs.resolve_all_asset_specs()} >= {
            table.name for table in conversation_tables()
        }

    def test_one_partition_per_day_and_agent(self, settings: Mapping[str, str]) -> None:
        keys = definitions().PARTITIONS.get_partition_keys(datetime(2026, 10, 18, 12, tzinfo=UTC))
        days = [datetime(2026, 10, day, tzinfo=UTC) for day in (15, 16, 17)]
        assert keys == [key(agent_id, day) for agent_id in AGENTS for day in days]

    def test_schedules(self, settings: Mapping[str, str]) -> None:
        found = {
            schedule.name: (schedule.cron_schedule, schedule.job_name, schedule.default_status)
            for schedule in definitions().defs.schedules
        }
        stopped = dg.DefaultScheduleStatus.STOPPED
        assert found == {
            "polyai_every_15_minutes": ("*/15 * * * *", "polyai_load", stopped),
            "polyai_nightly": ("40 2 * * *", "polyai_load", stopped),
            "polyai_weekly": ("10 4 * * 0", "polyai_load", stopped),
            "polyai_hourly_watch": ("20 * * * *", "polyai_watch", stopped),
            "polyai_daily_watch": ("50 5 * * *", "polyai_watch", stopped),
        }

    def test_each_schedule_starts_a_run(self, settings: Mapping[str, str]) -> None:
        defs = definitions().defs
        for schedule in defs.schedules:
            with dg.build_schedule_context() as context:
                (request,) = schedule.evaluate_tick(context).run_requests
            job = defs.resolve_job_def(schedule.job_name)
            assert dg.validate_run_config(job, request.run_config)


class TestRuns:
    """Runs in this process, into a DuckDB file."""

    @pytest.fixture(autouse=True)
    def instance(self) -> Iterator[dg.DagsterInstance]:
        with dg.DagsterInstance.ephemeral() as instance:
            yield instance

    @pytest.fixture(autouse=True)
    def no_pauses(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Sets the jitter, and with it the pause, of retries to zero."""
        monkeypatch.setattr("dagster._core.definitions.policy.random", lambda: 0.0)

    @pytest.fixture
    def wrong_key(self, settings: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
        """One of the two agents cannot be read."""
        agents = [{"agent_id": "PROJECT-A"}, {"agent_id": "PROJECT-B", "api_key": "wrong"}]
        monkeypatch.setenv("POLYAI_AGENTS", json.dumps(agents))
        monkeypatch.delenv("POLYAI_AGENT_ID")

    @staticmethod
    def run(
        job: str, instance: dg.DagsterInstance, partition: str | None = None, **config: Any
    ) -> dg.ExecuteInProcessResult:
        definition: dg.JobDefinition = definitions().defs.resolve_job_def(job)
        return definition.execute_in_process(
            run_config={"ops": config},
            instance=instance,
            partition_key=partition,
            raise_on_error=False,
        )

    def watch(self, instance: dg.DagsterInstance, **config: Any) -> dg.AssetCheckEvaluation:
        result = self.run(
            "polyai_watch",
            instance,
            polyai__sync_runs_fresh_and_consistent={"config": config},
        )
        assert result.success
        (evaluation,) = result.get_asset_check_evaluations()
        return evaluation

    @pytest.mark.slow
    def test_a_slice_reports_its_counts(
        self, sandbox: Sandbox, settings: Mapping[str, str], instance: dg.DagsterInstance
    ) -> None:
        for new in (True, False):
            result = self.run("polyai_backfill", instance, key("PROJECT-A", DAYS[0]))
            assert result.success
            events = result.asset_materializations_for_node("polyai_day")
            counts = {name: value.value for name, value in events[0].metadata.items()}
            there = len(expected(sandbox, "PROJECT-A", DAYS[0]))
            assert counts.keys() == COUNTS
            assert (counts["new"], counts["unchanged"]) == ((there, 0) if new else (0, there))
        rows = query("SELECT agent_id, conversation_id FROM polyai.conversations ORDER BY ALL")
        assert rows == expected(sandbox, "PROJECT-A", DAYS[0])

    @pytest.mark.matrix
    def test_the_function_for_other_orchestrators(
        self, sandbox: Sandbox, settings: Mapping[str, str]
    ) -> None:
        names: dict[str, Any] = {}
        exec(shown("python"), names)  # noqa: S102
        there = expected(sandbox, "PROJECT-B", DAYS[1])
        assert names["load_day"]("PROJECT-B", DAYS[1])["new"] == len(there)
        rows = query("SELECT agent_id, conversation_id FROM polyai.conversations ORDER BY ALL")
        assert rows == there

    @pytest.mark.matrix
    def test_a_failed_slice_is_retried_and_fails_alone(
        self, wrong_key: None, instance: dg.DagsterInstance
    ) -> None:
        runs = {
            agent_id: self.run("polyai_backfill", instance, key(agent_id, DAYS[0]))
            for agent_id in reversed(AGENTS)
        }
        assert {agent_id: run.success for agent_id, run in runs.items()} == {
            "PROJECT-A": True,
            "PROJECT-B": False,
        }
        failed = runs["PROJECT-B"]
        data = failed.failure_data_for_node("polyai_day")
        assert data is not None
        assert data.user_failure_data is not None
        assert "the API key is not accepted" in str(data.user_failure_data.description)
        assert failed.retry_attempts_for_node("polyai_day") == 3
        assert query("SELECT DISTINCT agent_id FROM polyai.conversations") == [("PROJECT-A",)]

    def test_a_load_names_the_agents_that_failed(self, wrong_key: None) -> None:
        module = definitions()
        with pytest.raises(dg.Failure, match=r"^PROJECT-B: the API key is not accepted"):
            module.load_agents(dg.build_op_context(), config=module.LoadConfig())
        assert query("SELECT DISTINCT agent_id FROM polyai.conversations") == [("PROJECT-A",)]

    @pytest.mark.matrix
    def test_conversations_that_fail_are_a_warning(
        self, sandbox: Sandbox, settings: Mapping[str, str], instance: dg.DagsterInstance
    ) -> None:
        (_, broken), *others = expected(sandbox, "PROJECT-A", DAYS[0])
        sandbox.faults.add("status", path=re.escape(quote(broken, safe="")) + "$", status=500)
        try:
            result = self.run("polyai_backfill", instance, key("PROJECT-A", DAYS[0]))
        finally:
            sandbox.faults.clear()
        assert result.success
        logged = [
            (entry.level, entry.user_message)
            for entry in instance.all_logs(result.run_id)
            if int(entry.level) >= logging.WARNING
        ]
        assert [level for level, _ in logged] == [logging.WARNING]
        assert "1 conversations failed, see fetch_failures" in logged[0][1]
        assert broken in logged[0][1]
        assert query("SELECT count(*) FROM polyai.conversations") == [(len(others),)]

    @pytest.mark.matrix
    def test_a_load_is_skipped_if_another_run_holds_the_lock(
        self, settings: Mapping[str, str], instance: dg.DagsterInstance
    ) -> None:
        with FileLock(Path(".dlt/pipelines/polyai.lock")):
            result = self.run("polyai_load", instance)
        assert result.success
        assert any(
            entry.user_message.startswith("skipped: ") for entry in instance.all_logs(result.run_id)
        )

    @pytest.mark.slow
    def test_a_stale_warehouse_fails_the_check(
        self, settings: Mapping[str, str], instance: dg.DagsterInstance
    ) -> None:
        nothing = self.watch(instance)
        assert (nothing.passed, nothing.severity) == (False, dg.AssetCheckSeverity.ERROR)
        assert "there is no warehouse" in str(nothing.description)
        assert self.run("polyai_load", instance).success
        fresh = self.watch(instance)
        assert fresh.passed, fresh.description
        stale = self.watch(instance, max_age="0s", quick=True)
        assert (stale.passed, stale.severity) == (False, dg.AssetCheckSeverity.ERROR)
        assert "PROJECT-A is stale" in str(stale.description)


@pytest.mark.skipif(
    binaries() is None and not os.environ.get("CI"),
    reason="needs a PostgreSQL server: install the package postgresql",
)
@pytest.mark.matrix  # CI runs it too
class TestBackfill:
    """Dagster's own commands and daemon, with one process per run, into PostgreSQL."""

    @pytest.fixture
    def environment(self, settings: Mapping[str, str], tmp_path: Path) -> Iterator[dict[str, str]]:
        home = tmp_path / "dagster"
        home.mkdir()
        (home / "dagster.yaml").write_text(shown("yaml"), encoding="utf-8")
        with postgres() as url:
            yield {
                **os.environ,
                "PYTHONPATH": str(Path(polyai.__file__).parents[1]),
                "DAGSTER_HOME": str(home),
                "DAGSTER_DISABLE_TELEMETRY": "yes",
                "DESTINATION_TYPE": "postgres",
                "DESTINATION__POSTGRES__CREDENTIALS": url,
            }

    @contextmanager
    def daemon(self, environment: Mapping[str, str]) -> Iterator[None]:
        """Runs the daemon, which launches queued runs."""
        with (
            Path("daemon.log").open("wb") as log,
            subprocess.Popen(
                [sys.executable, "-m", "dagster._daemon", "run", "-f", DEFINITIONS],
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            ) as process,
        ):
            try:
                yield
            finally:
                process.terminate()

    def test_two_agents_and_four_days(self, sandbox: Sandbox, environment: dict[str, str]) -> None:
        keys = [key(agent_id, day) for agent_id in AGENTS for day in DAYS]
        with dg.DagsterInstance.from_config(environment["DAGSTER_HOME"]) as instance:
            with self.daemon(environment):
                launched = subprocess.run(
                    [
                        *(sys.executable, "-m", "dagster", "job", "backfill", "--noprompt"),
                        *("-f", DEFINITIONS, "-j", "polyai_backfill"),
                        *("--partitions", ",".join(keys)),
                    ],
                    env=environment,
                    capture_output=True,
                    text=True,
                    check=False,
                )
                assert launched.returncode == 0, launched.stderr
                deadline = time.monotonic() + TIME_LIMIT_SECONDS
                while not all(run.is_finished for run in instance.get_runs()):
                    assert time.monotonic() < deadline, Path("daemon.log").read_text()
                    time.sleep(0.5)
            runs = instance.get_run_records()
        ended = {run.dagster_run.tags["dagster/partition"]: run.dagster_run.status for run in runs}
        log = Path("daemon.log").read_text(encoding="utf-8")
        assert len(runs) == len(keys)
        assert ended == dict.fromkeys(keys, dg.DagsterRunStatus.SUCCESS), log
        assert all("dagster/partition/agent" in run.dagster_run.tags for run in runs)
        times = sorted((run.start_time or 0, run.end_time or 0) for run in runs)
        assert any(later[0] < earlier[1] for earlier, later in pairwise(times)), "one by one"
        url = environment["DESTINATION__POSTGRES__CREDENTIALS"]
        with psycopg2.connect(url) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT agent_id, conversation_id FROM polyai.conversations")
            held = sorted(cursor.fetchall())
            cursor.execute("SELECT count(*) FROM polyai.load_leases WHERE owner <> ''")
            leased = cursor.fetchall()
        assert held == [row for agent_id in AGENTS for row in expected(sandbox, agent_id, *DAYS)]
        assert leased == [(0,)]
