"""`polyai-warehouse demo`: its output, its numbers and its commands to try."""

from __future__ import annotations

import json
import re
import shlex
import signal
import statistics
from pathlib import Path

import duckdb
import pytest

from command import error_of, query, run, start, wait_until
from polyai.tables.registry import conversation_tables

pytestmark = pytest.mark.load


def kpis(database: str = "polyai.duckdb") -> dict[str, float]:
    """Computes the three KPIs from rows, without SQL arithmetic."""
    calls = query(
        "SELECT conversation_id, handoff, total_duration_seconds FROM polyai.conversations "
        "WHERE environment = 'live' AND NOT in_progress",
        database,
    )
    ids = {call[0] for call in calls}
    turns = query("SELECT conversation_id, latency_seconds FROM polyai.turns", database)
    handoffs = [bool(handoff) for _, handoff, _ in calls if handoff is not None]
    return {
        "containment_rate": 1 - sum(handoffs) / len(handoffs),
        "handle_time_seconds": statistics.fmean(float(str(call[2])) for call in calls if call[2]),
        "latency_seconds": statistics.median(
            float(str(seconds)) for id_, seconds in turns if id_ in ids and seconds is not None
        ),
    }


@pytest.mark.parametrize(
    "database", ["polyai.duckdb", pytest.param("my calls.duckdb", marks=pytest.mark.slow)]
)
def test_output_agrees_with_the_database(database: str) -> None:
    result = run("demo", "--conversations", "60", "--database", database)
    assert result.returncode == 0
    assert result.stderr == ""
    shown = result.stdout
    assert "\x1b" not in shown
    assert re.search(
        r"^60 .*conversations .* loaded in \d+\.\d s with 71 requests$",
        shown,
        re.MULTILINE,
    )
    for table in conversation_tables():
        ((rows,),) = query(f"SELECT count(*) FROM polyai.{table.name}", database)
        assert re.search(rf"\n  {table.name} +{rows:,}  ", shown), table.name
    numbers = kpis(database)
    assert re.search(rf"containment rate +{numbers['containment_rate']:.1%}  ", shown)
    assert re.search(rf"average handle time +{numbers['handle_time_seconds']:,.0f} s  ", shown)
    assert re.search(rf"median response latency +{numbers['latency_seconds']:.2f} s  ", shown)
    assert f"The database: {Path.cwd() / database}\n" in shown

    to_try = shown[shown.index("Try next") :].splitlines()[1:4]
    *queries, check = (shlex.split(line) for line in to_try)
    assert check[-2:] == ["polyai-warehouse", "check"]
    assert len(queries) == 2
    for command, file, sql in queries:
        assert (command, file) == ("duckdb", database)
        assert query(sql, file)


@pytest.mark.matrix
def test_json_and_a_second_run_that_replaces_the_first() -> None:
    assert run("demo", "--conversations", "40").returncode == 0
    result = run("demo", "--conversations", "30", "--json")
    assert result.returncode == 0
    assert result.stderr == ""
    report = json.loads(result.stdout)
    assert report["database"] == str(Path.cwd() / "polyai.duckdb")
    assert report["rows"]["conversations"] == report["run"]["new"] == 30
    assert query("SELECT count(*) FROM polyai.conversations") == [(30,)]
    assert {name: report[name] for name in kpis()} == pytest.approx(kpis())


class TestExistingFiles:
    @pytest.mark.parametrize(
        "statements",
        [
            pytest.param("CREATE TABLE sales (id INT)", id="other tables"),
            pytest.param(
                "CREATE SCHEMA polyai; CREATE TABLE polyai.conversations AS "
                "SELECT 'PROJECT-REAL' AS agent_id",
                id="conversations of another agent",
            ),
        ],
    )
    def test_other_data_is_unchanged(self, statements: str) -> None:
        with duckdb.connect("mine.duckdb") as connection:
            connection.execute(statements)
        before = Path("mine.duckdb").read_bytes()
        result = run("demo", "--database", "mine.duckdb")
        assert result.returncode == 1
        assert re.search(r"mine\.duckdb .*--database", error_of(result))
        assert Path("mine.duckdb").read_bytes() == before

    def test_another_file_is_unchanged(self) -> None:
        Path("notes.txt").write_text("mine")
        result = run("demo", "--database", "notes.txt")
        assert result.returncode == 1
        assert error_of(result).startswith("error: notes.txt cannot be read")
        assert Path("notes.txt").read_text() == "mine"

    @pytest.mark.slow
    def test_an_empty_database_is_used(self) -> None:
        # as `check` leaves it
        duckdb.connect("polyai.duckdb").close()
        assert run("demo", "--conversations", "10").returncode == 0


def test_missing_folder() -> None:
    result = run("demo", "--conversations", "10", "--database", "missing/polyai.duckdb")
    assert result.returncode == 1
    assert "missing/polyai.duckdb" in error_of(result)


@pytest.mark.matrix
def test_interrupted_and_run_again() -> None:
    process = start("demo", "--conversations", "3000")
    wait_until(Path("polyai.duckdb").exists)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out == ""
    assert err.splitlines()[-1].split(" WARNING ")[1].startswith("SIGINT: ")
    assert run("demo", "--conversations", "10").returncode == 0
