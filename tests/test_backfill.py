"""Backfills of an explicit range into DuckDB, with slices in worker processes."""

from __future__ import annotations

import gc
import itertools
import json
import os
import re
import signal
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from command import AGENT, access, error_of, query, run, run_in_terminal, start, wait_until
from polyai import Span, Target, resolve
from polyai.api.page_stream import Document, Spool
from polyai.errors import ConfigurationError
from polyai.load.backfill import backfill as run_backfill
from polyai.load.slice_queue import SliceQueue
from polyai.load.slices import Slice, SliceReport, cut, parse_moment, without_run
from polyai.sandbox import Sandbox, SandboxConfig, serve

pytestmark = pytest.mark.load

LIST_PAGE = rf"/v1/agents/{AGENT}/conversations\?"
V3 = "conversations_v3"
DAYS = 60
BEGIN = datetime(2026, 9, 2, tzinfo=UTC)
"""Start of the sandbox's first conversations."""


@pytest.fixture
def sandbox() -> Sandbox:
    return Sandbox(
        SandboxConfig(conversations=600, inventions=True, span=timedelta(days=DAYS), detail="small")
    )


@pytest.fixture
def base_url(sandbox: Sandbox) -> Iterator[str]:
    with serve(sandbox) as url:
        yield url


def backfill(
    base_url: str, since: str, before: str, *options: str, **environment: str
) -> tuple[int, dict[str, Any]]:
    """Runs the command; returns its exit code and its JSON output."""
    variables = access(base_url) | {"POLYAI_ACCOUNT_ID": "ws-sandbox"} | environment
    result = run("backfill", "--from", since, "--to", before, "--json", *options, **variables)
    assert "Traceback" not in result.stderr, result.stderr
    output: dict[str, Any] = json.loads(result.stdout)
    return result.returncode, output


def within(sandbox: Sandbox, since: str, before: str, agent_id: str = AGENT) -> set[str]:
    """Returns the ids of the conversations of a range."""
    span = parse_moment(since), parse_moment(before)
    return {
        call.conversation_id
        for index in sandbox.listed(agent_id)
        if span[0] <= (call := sandbox.head(agent_id, index)).created_at < span[1]
    }


def loaded_ids(agent_id: str = AGENT) -> set[str]:
    rows = query(f"SELECT conversation_id FROM polyai.conversations WHERE agent_id = '{agent_id}'")
    assert len(rows) == len(set(rows))
    return {str(row[0]) for row in rows}


def total(output: dict[str, Any], count: str) -> int:
    return sum(slice_["counts"].get(count, 0) for slice_ in output["slices"])


class TestRange:
    @pytest.mark.slow
    @pytest.mark.parametrize("api", ["data", pytest.param(V3, marks=pytest.mark.matrix)])
    def test_exactly_the_range_is_loaded_once_and_again_without_resume(
        self, sandbox: Sandbox, base_url: str, api: str
    ) -> None:
        code, output = backfill(base_url, "2026-10-01", "2026-10-04", POLYAI_API=api)
        assert code == 0
        assert [slice_["status"] for slice_ in output["slices"]] == ["complete"] * 3
        wanted = within(sandbox, "2026-10-01", "2026-10-04")
        assert len(wanted) > 15
        assert loaded_ids() == wanted
        assert total(output, "new") == len(wanted)
        runs = query(
            "SELECT command, source_api, count(*), min(range_from), max(range_to) "
            "FROM polyai.sync_runs GROUP BY ALL"
        )
        assert [row[:3] for row in runs] == [("backfill", api, 3)]

        # a repetition skips what is loaded; without resume it reads all
        before = query("SELECT conversation_id, _dlt_load_id FROM polyai.conversations ORDER BY 1")
        sandbox.requests.clear()
        code, output = backfill(
            base_url, "2026-10-01", "2026-10-04", "--slice", "3d", POLYAI_API=api
        )
        assert (code, total(output, "unchanged")) == (0, len(loaded_ids()))
        assert "detail" not in sandbox.requests.kinds
        assert before == query(
            "SELECT conversation_id, _dlt_load_id FROM polyai.conversations ORDER BY 1"
        )
        code, output = backfill(
            base_url, "2026-10-01", "2026-10-04", "--no-resume", "--slice", "3d", POLYAI_API=api
        )
        assert (code, total(output, "changed")) == (0, len(loaded_ids()))

    @pytest.mark.matrix
    @pytest.mark.slow
    @pytest.mark.parametrize("api", ["data", pytest.param(V3, marks=pytest.mark.matrix)])
    def test_the_watermark_of_load_does_not_move(
        self, sandbox: Sandbox, base_url: str, api: str
    ) -> None:
        environment = access(base_url) | {"POLYAI_ACCOUNT_ID": "ws-sandbox", "POLYAI_API": api}
        # the newest conversations are loaded, but older ones still count as missing
        backfill(base_url, "2026-10-28", "2026-11-02", "--slice", "5d", POLYAI_API=api)
        there = loaded_ids()
        assert 0 < len(there) < 600
        result = run("load", "--json", **environment)
        (agent,) = json.loads(result.stdout)["agents"]
        assert (result.returncode, agent["new"]) == (0, 600 - len(there)), result.stderr
        assert_equals_truth_of(sandbox, api)
        sandbox.advance(timedelta(hours=1), arrivals=3)
        sandbox.requests.clear()
        assert run("load", **environment).returncode == 0
        assert len(loaded_ids()) == 603
        # only the pages of the look-back window
        assert sum(sandbox.requests.kinds.get(kind, 0) for kind in ("list", "v3")) <= 3


def assert_equals_truth_of(sandbox: Sandbox, api: str) -> None:
    """Compares conversations and turns; small conversations have no rows in other tables."""
    truth = {
        row["conversation_id"]: row
        for tables in sandbox.truth(AGENT, (api,))
        for row in tables["conversations"]
    }
    assert loaded_ids() == set(truth)
    turns = sum(len(tables["turns"]) for tables in sandbox.truth(AGENT, (api,)))
    assert query("SELECT count(*) FROM polyai.turns") == [(turns,)]


@pytest.mark.matrix
def test_a_week_within_years_costs_its_own_pages_and_a_few_more() -> None:
    sandbox = Sandbox(
        SandboxConfig(
            conversations=20_000, inventions=True, span=timedelta(days=3 * 365), detail="small"
        )
    )
    since, before = "2025-05-05", "2025-05-12"
    with serve(sandbox) as base_url:
        code, output = backfill(base_url, since, before, POLYAI_WORKERS="8")
    assert code == 0
    wanted = within(sandbox, since, before)
    assert loaded_ids() == wanted
    assert sandbox.requests.kinds["detail"] == len(wanted)
    pages = len(wanted) / 99
    assert sandbox.requests.count(LIST_PAGE) <= pages + 7 * 2 + 20
    assert total(output, "requests") == sandbox.requests.kinds["list"] + len(wanted)


class TestFailures:
    @pytest.mark.matrix
    @pytest.mark.slow
    def test_a_failed_slice_is_named_and_does_not_stop_the_others(
        self, sandbox: Sandbox, base_url: str
    ) -> None:
        sandbox.faults.add("status", path="start_time=2026-10-01.*end_time=2026-10-03", status=500)
        environment = access(base_url) | {
            "POLYAI_ACCOUNT_ID": "ws-sandbox",
            "POLYAI_API": V3,
            "POLYAI_MAX_ATTEMPTS": "1",
        }
        options = ("backfill", "--from", "2026-10-01", "--to", "2026-10-04")
        result = run(*options, **environment)
        assert result.returncode == 3
        assert f"1 of 3 slices failed: {AGENT} 2026-10-02/2026-10-03" in error_of(result)
        missing = within(sandbox, "2026-10-02", "2026-10-03")
        assert loaded_ids() == within(sandbox, "2026-10-01", "2026-10-04") - missing
        sandbox.faults.clear()
        assert run(*options, **environment).returncode == 0
        assert loaded_ids() == within(sandbox, "2026-10-01", "2026-10-04")

    @pytest.mark.matrix
    def test_a_wrong_key_of_one_agent_fails_its_slices_only(self, tmp_path: Path) -> None:
        sandbox = Sandbox(
            SandboxConfig(
                conversations=60,
                inventions=True,
                agents=("PROJECT-A", "PROJECT-B"),
                span=timedelta(days=6),
            )
        )
        with serve(sandbox) as base_url:
            agents = [
                {"agent_id": "PROJECT-A", "api_key": "wrong", "base_url": base_url},
                {"agent_id": "PROJECT-B", "api_key": "sandbox-key", "base_url": base_url},
            ]
            options = ("--from", "2026-10-28", "--to", "2026-10-30", "--json")
            result = run("backfill", *options, POLYAI_AGENTS=json.dumps(agents))
            output = json.loads(result.stdout)["slices"]
        assert result.returncode == 3
        statuses = {(slice_["agent_id"], slice_["status"]) for slice_ in output}
        assert statuses == {("PROJECT-A", "failed"), ("PROJECT-B", "complete")}
        assert "wrong" not in result.stderr + result.stdout
        assert loaded_ids("PROJECT-B") == within(sandbox, "2026-10-28", "2026-10-30", "PROJECT-B")

    @pytest.mark.matrix
    def test_failed_conversations_are_recorded(self, sandbox: Sandbox, base_url: str) -> None:
        bad = min(within(sandbox, "2026-10-01", "2026-10-02"))
        sandbox.faults.add("status", path=re.escape(bad), status=500)
        code, output = backfill(base_url, "2026-10-01", "2026-10-02", POLYAI_MAX_ATTEMPTS="1")
        assert code == 3
        assert output["slices"][0]["status"] == "partial"
        assert list(output["slices"][0]["failures"]) == [bad]
        assert query("SELECT conversation_id FROM polyai.fetch_failures") == [(bad,)]

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (("--from", "yesterday"), "yesterday"),
            (("--from", "2026-10-01", "--slice", "1x"), "is not a duration"),
            (("--to", "2026-10-01"), "--from"),
        ],
    )
    def test_usage(self, options: tuple[str, ...], message: str) -> None:
        result = run("backfill", *options)
        assert result.returncode == 2
        assert message in result.stderr

    def test_an_empty_range_is_an_error(self, base_url: str) -> None:
        options = ("--from", "2026-10-02", "--to", "2026-10-01")
        result = run("backfill", *options, **access(base_url))
        assert result.returncode == 1
        assert "the range is empty" in error_of(result)


class TestWorkers:
    @pytest.mark.matrix
    @pytest.mark.slow
    def test_a_killed_worker_fails_its_slice_only(self, base_url: str, sandbox: Sandbox) -> None:
        sandbox.faults.add("delay", path="/conversations/", seconds=0.1)
        environment = access(base_url) | {"POLYAI_WORKERS": "2"}
        options = ("backfill", "--from", "2026-10-01", "--to", "2026-10-04", "--workers", "2")
        process = start(*options, **environment)
        wait_until(lambda: sandbox.requests.kinds.get("detail", 0) > 3)
        victim = max(workers_of(process.pid))
        os.kill(victim, signal.SIGKILL)
        stdout, stderr = process.communicate(timeout=120)
        assert process.returncode == 3, stderr
        assert "its process died (signal SIGKILL)" in stdout
        assert "1 of 3 slices failed" in stderr
        sandbox.faults.clear()
        assert run(*options[:-2], **environment).returncode == 0
        assert loaded_ids() == within(sandbox, "2026-10-01", "2026-10-04")

    @pytest.mark.slow
    def test_a_killed_backfill_can_be_run_again(self, base_url: str, sandbox: Sandbox) -> None:
        sandbox.faults.add("delay", path="/conversations/", seconds=0.1)
        environment = access(base_url) | {"POLYAI_WORKERS": "2"}
        options = ("backfill", "--from", "2026-10-01", "--to", "2026-10-04", "--workers", "2")
        process = start(*options, **environment)
        wait_until(lambda: sandbox.requests.kinds.get("detail", 0) > 3)
        workers = workers_of(process.pid)
        process.kill()
        process.communicate()
        # workers end when their parent is gone
        wait_until(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers))
        sandbox.faults.clear()
        assert run(*options[:-2], **environment).returncode == 0
        assert loaded_ids() == within(sandbox, "2026-10-01", "2026-10-04")

    @pytest.mark.matrix
    def test_an_interrupted_backfill_keeps_what_was_read(
        self, base_url: str, sandbox: Sandbox
    ) -> None:
        sandbox.faults.add("delay", path="/conversations/", seconds=0.1)
        environment = access(base_url) | {"POLYAI_WORKERS": "2"}
        options = ("backfill", "--from", "2026-10-01", "--to", "2026-10-11", "--workers", "2")
        process = start(*options, **environment)
        wait_until(lambda: sandbox.requests.kinds.get("detail", 0) > 8)
        process.send_signal(signal.SIGTERM)
        _, stderr = process.communicate(timeout=120)
        assert process.returncode == 130, stderr
        assert "run it again" in stderr
        there = loaded_ids()
        assert there < within(sandbox, "2026-10-01", "2026-10-11")
        assert query("SELECT DISTINCT status FROM polyai.sync_runs WHERE status = 'running'") == []
        sandbox.faults.clear()
        assert run(*options[:-2], "--slice", "10d", **environment).returncode == 0
        assert loaded_ids() == within(sandbox, "2026-10-01", "2026-10-11")

    @pytest.mark.matrix
    def test_a_load_can_run_at_the_same_time(self, base_url: str, sandbox: Sandbox) -> None:
        sandbox.faults.add("delay", path="/conversations/", seconds=0.05)
        environment = access(base_url)
        options = ("backfill", "--from", "2026-10-01", "--to", "2026-10-09", "--workers", "2")
        process = start(*options, **environment, POLYAI_WORKERS="2")
        wait_until(lambda: sandbox.requests.kinds.get("detail", 0) > 3)
        result = run("load", **environment)
        assert result.returncode == 0, result.stderr
        _, stderr = process.communicate(timeout=120)
        assert process.returncode == 0, stderr
        assert len(loaded_ids()) == 600
        for table, key in (("turns", "turn_index"), ("metrics", "(name, occurrence)")):
            rows = query(
                f"SELECT count(*), count(DISTINCT (conversation_id, {key})) FROM polyai.{table}"
            )[0]
            assert rows[0] == rows[1]

    @pytest.mark.matrix
    def test_a_terminal_shows_progress(self, base_url: str) -> None:
        options = ("backfill", "--from", "2026-10-01", "--to", "2026-10-03")
        code, shown = run_in_terminal(100, *options, **access(base_url))
        assert code == 0
        assert "slices" in shown
        assert "2/2" in shown
        assert "2 slices: 2 complete" in shown


def workers_of(parent: int) -> list[int]:
    """Returns the worker processes, without the helper process of multiprocessing."""
    found = []
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            text = status.read_text()
            command = status.with_name("cmdline").read_bytes()
        except OSError:
            continue
        if f"\nPPid:\t{parent}\n" in text and b"spawn_main" in command:
            found.append(int(status.parent.name))
    return found


@pytest.mark.matrix
def test_a_process_that_loads_many_slices_retains_no_documents(
    base_url: str, sandbox: Sandbox
) -> None:
    settings = resolve(
        agent_id=AGENT,
        api_key="sandbox-key",
        base_url=base_url,
        account_id="ws-sandbox",
        api=V3,
    )
    left = []

    def count(report: SliceReport) -> None:
        if report.status != "running":
            gc.collect()
            left.append(sum(isinstance(one, Document | Spool) for one in gc.get_objects()))

    span = Span(datetime(2026, 10, 1, tzinfo=UTC), datetime(2026, 10, 4, tzinfo=UTC))
    reports = run_backfill(settings, Target(), span, workers=1, on_change=count)
    assert [report.status for report in reports] == ["complete"] * 3
    assert left == [0, 0, 0]


class TestJoining:
    @pytest.mark.matrix
    @pytest.mark.slow
    @pytest.mark.parametrize("workers", ["1", pytest.param("2", marks=pytest.mark.matrix)])
    def test_adjacent_slices_with_few_conversations_are_joined(
        self, base_url: str, sandbox: Sandbox, workers: str
    ) -> None:
        code, output = backfill(
            base_url, "2026-09-02", "2026-11-01", "--slice", "1d", "--workers", workers
        )
        slices = output["slices"]
        assert code == 0
        assert loaded_ids() == within(sandbox, "2026-09-02", "2026-11-01")
        assert sum(slice_["joined"] for slice_ in slices) == DAYS
        assert [slice_["joined"] for slice_ in slices[:8]] == [1] * 8
        assert len(slices) <= 14
        assert all(one["before"] == other["since"] for one, other in itertools.pairwise(slices))
        runs = query("SELECT range_from, range_to FROM polyai.sync_runs ORDER BY range_from")
        assert len(runs) == len(slices)

    @pytest.mark.unit
    def test_the_number_adapts_to_each_agent(self) -> None:
        span = Span(BEGIN, BEGIN + timedelta(days=400))
        waiting = SliceQueue(cut(["busy", "quiet"], span, timedelta(days=1)))
        joined: dict[str, list[int]] = {"busy": [], "quiet": []}
        while waiting:
            slice_ = waiting.take()
            joined[slice_.agent_id].append(slice_.joined)
            listed = 300 * slice_.joined if slice_.agent_id == "busy" else 0
            report = without_run(slice_, "complete")
            report.counts["listed"] = listed
            waiting.adapt(report)
        assert joined["quiet"] == [1] * 8 + [2, 4, 8, 16, 32, *[64] * 5, 10]
        # two of them have more than a few
        assert joined["busy"][:12] == [1] * 8 + [2, 1, 1, 1]
        assert sum(joined["busy"]) == 400

    @pytest.mark.unit
    def test_a_failure_joins_no_more(self) -> None:
        waiting = SliceQueue(cut(["A"], Span(BEGIN, BEGIN + timedelta(days=30)), timedelta(days=1)))
        for _ in range(20):
            slice_ = waiting.take()
            assert slice_.joined == 1
            waiting.adapt(without_run(slice_, "failed"))


@pytest.mark.unit
class TestCutting:
    def test_slices_are_disjoint_complete_and_alternate_between_agents(self) -> None:
        span = Span(BEGIN, BEGIN + timedelta(days=2, hours=5))
        slices = cut(["A", "B"], span, timedelta(days=1))
        assert [slice_.agent_id for slice_ in slices] == ["A", "B"] * 3
        mine = [slice_.span for slice_ in slices if slice_.agent_id == "A"]
        assert (mine[0].since, mine[-1].before) == (span.since, span.before)
        assert all(one.before == other.since for one, other in itertools.pairwise(mine))

    def test_a_slice_is_named_by_agent_and_range(self) -> None:
        whole = Slice("A", Span(BEGIN, BEGIN + timedelta(days=1)))
        assert str(whole) == "A 2026-09-02/2026-09-03"
        part = Slice("A", Span(BEGIN, BEGIN + timedelta(hours=1)))
        assert str(part) == "A 2026-09-02/2026-09-02T01:00:00Z"

    @pytest.mark.parametrize(
        ("text", "moment"),
        [
            ("2026-09-02", BEGIN),
            ("2026-09-02T00:00", BEGIN),
            ("2026-09-02T00:00:00Z", BEGIN),
            ("2026-09-02T02:00:00+02:00", BEGIN),
        ],
    )
    def test_times_are_parsed(self, text: str, moment: datetime) -> None:
        assert parse_moment(text) == moment

    @pytest.mark.parametrize("text", ["", "20260902", "1756771200", "2026-13-01", "now"])
    def test_invalid_times_are_refused(self, text: str) -> None:
        with pytest.raises(ConfigurationError, match=re.escape(repr(text))):
            parse_moment(text)
