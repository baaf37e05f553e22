"""Redaction of what is loaded: rows as of a load under the mode, and no old bytes left."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import duckdb
import pytest

import polyai
from command import AGENT, KEY, access, error_of, query, run, start
from destinations import in_postgres
from loaded import load_sandbox, put_loaded, put_made
from polyai import open_pipeline
from polyai.load.committer import Committer
from polyai.load.run import load
from polyai.sandbox import Sandbox, SandboxConfig, serve
from polyai.tables.registry import tables
from polyai.views.publishing import publish
from polyai.views.refresh import refresh
from postgres_server import needs_postgres
from warehouse_rows import from_duckdb, from_postgres

pytestmark = pytest.mark.load

CONFIG = SandboxConfig(conversations=30, span=timedelta(days=6))
SMALL = SandboxConfig(conversations=10, span=timedelta(days=2), oddities=False)
SECRET = "pepper of some length"
HASH = {"POLYAI_PII": "hash", "POLYAI_PII_SECRET": SECRET}
DROP = {"POLYAI_PII": "drop", "POLYAI_TRANSCRIPTS": "drop"}

Rows = dict[str, list[str]]

OF_THE_RUN = {"_dlt_load_id", "fetched_at", "first_seen_at", "valid_from", "valid_to"}
"""Columns that differ between two loads of the same conversations."""


def put_loaded_under(environment: dict[str, str]) -> None:
    """Copies a sandbox that was loaded under these settings into the working directory."""

    def make(pipeline: Any) -> None:
        with patch.dict(os.environ, environment):
            load_sandbox(pipeline, CONFIG)

    put_made(f"{CONFIG} {environment}", make)


def rows(fetch: Any = None) -> Rows:
    """Rows of all tables but `sync_runs`, in any order, with keys of JSON in any order."""
    fetch = fetch or from_duckdb()
    return {
        table.name: sorted(
            json.dumps(
                {name: plain(value) for name, value in row.items() if name not in OF_THE_RUN},
                default=str,
                sort_keys=True,
            )
            for row in fetch(f"SELECT * FROM polyai.{table.name}")
        )
        for table in tables()
        if table.name not in ("sync_runs", "published_copies")
    }


def plain(value: Any) -> Any:
    try:
        return json.loads(value) if isinstance(value, str) and value[:1] in "{[" else value
    except ValueError:
        return value


def rows_under(environment: dict[str, str]) -> Rows:
    """Rows of a load under these settings."""
    put_loaded_under(environment)
    found = rows()
    Path("polyai.duckdb").unlink()
    return found


@pytest.mark.slow
class TestRedact:
    def test_rows_are_those_of_a_load_under_the_mode(self) -> None:
        expected = {name: rows_under(mode) for name, mode in (("hash", HASH), ("drop", DROP))}
        put_loaded(CONFIG)
        before = rows()
        planned = run("redact", "--dry-run", "--json", **HASH)
        assert planned.returncode == 0
        assert rows() == before
        assert run("redact", **HASH).returncode == 2
        done = run("redact", "--yes", "--json", **HASH)
        assert done.returncode == 0, done.stderr
        counts = [json.loads(result.stdout)["agents"][0]["rows"] for result in (planned, done)]
        assert counts[0] == counts[1]
        assert counts[0]["conversations"] > 20
        assert rows() == expected["hash"]
        again = json.loads(run("redact", "--yes", "--json", **HASH).stdout)
        assert again["agents"][0]["rows"] == {}
        assert again["agents"][0]["modes"] == ["pii = hash and transcripts = keep"]
        assert run("redact", "--yes", **DROP).returncode == 0
        assert rows() == expected["drop"]

    def test_the_next_load_asks_for_nothing_and_other_modes_are_refused(self) -> None:
        put_loaded(SMALL)
        sandbox = Sandbox(SMALL)
        with serve(sandbox) as url:
            assert run("redact", "--yes", **HASH).returncode == 0
            assert sandbox.requests.count() == 0
            with patch.dict(os.environ, access(url) | HASH):
                (report,) = load(polyai.resolve(), open_pipeline(), clock=lambda: sandbox.now)
            assert (report.status, report.unchanged, report.fetched) == ("complete", 10, 0)
            assert run("load", **access(url)).returncode == 1
        for other in ({}, {"POLYAI_TRANSCRIPTS": "drop"}, HASH | {"POLYAI_PII_SECRET": KEY * 2}):
            assert "cannot be brought back" in error_of(run("redact", "--yes", **other))


def numbers() -> set[str]:
    found = query(
        "SELECT DISTINCT from_number FROM polyai.conversations WHERE from_number LIKE '+%'"
    )
    return {str(number) for (number,) in found}


OTHER_NUMBER = "+442079460099"
WITH_A_NUMBER = (
    "INSERT INTO fetch_failures (agent_id, conversation_id, stage, message) "
    "VALUES ($1, 'CA1', 'detail', 'no ' || $2)",
    "INSERT INTO sync_runs (agent_id, run_id, error) VALUES ($1, 'r1', 'no ' || $2)",
    "INSERT INTO write_backs (agent_id, conversation_id, write_back_id, note) "
    "VALUES ($1, 'CA1', 'w1', 'call ' || $2)",
    "INSERT INTO debug_chats (agent_id, chat_id, error) VALUES ($1, 'c1', 'no ' || $2)",
    "INSERT INTO debug_chat_turns (agent_id, chat_id, turn_index, user_input) "
    "VALUES ($1, 'c1', 0, 'call ' || $2)",
    "INSERT INTO notes (agent_id, conversation_id, note, valid_from, valid_to) "
    "SELECT $1, min(conversation_id), 'call ' || $2, now(), now() FROM conversations",
)
"""Statements with an agent and a number, one per table that a load of the sandbox leaves empty."""


@pytest.mark.slow
class TestOldBytes:
    def test_are_neither_in_the_warehouse_nor_in_its_copies(self) -> None:
        put_loaded(CONFIG)
        pipeline = open_pipeline()
        refresh(pipeline, "UTC", "lake/")
        publish(pipeline, Path("published"))
        with duckdb.connect("polyai.duckdb") as connection:
            for statement in WITH_A_NUMBER:
                connection.execute(statement, [AGENT, OTHER_NUMBER])
        callers = numbers() | {OTHER_NUMBER}
        assert len(callers) > 5
        assert files_with(callers) == {"polyai.duckdb", "published/polyai.duckdb", "lake"}
        assert run("redact", "--yes", **DROP).returncode == 0
        assert files_with(callers) == set()
        with duckdb.connect("published/polyai.duckdb", read_only=True) as connection:
            found = connection.execute("SELECT count(*) FROM polyai.conversations").fetchone()
        assert found is not None
        assert found[0] > 20


def files_with(texts: Iterable[str]) -> set[str]:
    """Returns the files that have any of these texts; for Parquet files, their folder."""
    found = set()
    for path in Path().rglob("*"):
        if not path.is_file():
            continue
        content = path.read_bytes()
        if path.suffix == ".parquet":
            content = str(duckdb.sql(f"FROM read_parquet('{path}')").fetchall()).encode()
        if any(text.encode() in content for text in texts):
            found.add(path.parts[0] if path.suffix == ".parquet" else str(path))
    return found


class Killed(BaseException):
    """Ends a run as a signal would, without any handler of errors."""


def kill_after(patched: pytest.MonkeyPatch, packages: int) -> None:
    load_package = Committer._load

    def loaded(committer: Committer, lanes: Iterable[str] = ()) -> None:
        nonlocal packages
        if not packages:
            raise Killed
        load_package(committer, lanes)
        packages -= 1

    patched.setattr(Committer, "_load", loaded)


@pytest.mark.slow
class TestKilled:
    @pytest.mark.matrix
    def test_the_next_run_completes_it_and_no_load_is_accepted_until_then(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        expected = rows_under(HASH)
        put_loaded(CONFIG)
        before = rows()
        monkeypatch.setattr("polyai.copying.parts._IDS_PER_PART", 7)
        for name, value in HASH.items():
            monkeypatch.setenv(name, value)
        for packages in (1, 3):
            with monkeypatch.context() as patched:
                kill_after(patched, packages)
                with pytest.raises(Killed):
                    polyai.redact()
            assert rows() not in (before, expected)
            with serve(Sandbox(CONFIG)) as url:
                assert run("load", **access(url)).returncode == 1
                assert run("load", **access(url), POLYAI_PII="keep").returncode == 1
        assert polyai.redact().exit_code == 0
        assert rows() == expected


@pytest.mark.matrix
@pytest.mark.process
def test_a_process_that_is_killed_at_any_moment_is_repeated() -> None:
    expected = rows_under(HASH)
    put_loaded(CONFIG)
    for attempt in range(40):
        process = start("redact", "--yes", **HASH)
        try:
            # longer each time, so that one attempt ends
            process.communicate(timeout=2 + attempt * 0.4)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
        if process.returncode == 0:
            break
    assert attempt > 1
    assert process.returncode == 0
    assert rows() == expected
    assert {path.name for path in Path().glob("*.duckdb*")} >= {"polyai.duckdb"}
    assert not list(Path().glob("*.rewriting"))


@needs_postgres
@pytest.mark.slow
def test_rows_of_postgres_are_those_of_a_load_under_the_mode(tmp_path: Path) -> None:
    expected = rows_under(DROP)
    with in_postgres(tmp_path) as destination, patch.dict(os.environ, destination):
        load_sandbox(open_pipeline("postgres"), CONFIG)
        done = run("redact", "--yes", "--destination", "postgres", **DROP)
        assert done.returncode == 0, done.stderr
        assert "snapshots" in done.stdout
        url = destination["DESTINATION__POSTGRES__CREDENTIALS"]
        assert rows(from_postgres(url)) == expected
