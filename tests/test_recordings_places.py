"""Recordings with PostgreSQL and S3, as far as they differ from DuckDB and a folder."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta

import duckdb
import psycopg2
import pyarrow.parquet as pq
import pytest

from command import AGENT, access, error_of, query, run, start
from optional import needs_s3
from polyai.sandbox import Sandbox, SandboxConfig, serve
from postgres_server import needs_postgres, postgres
from s3_server import S3Server, s3

pytestmark = pytest.mark.load


@pytest.fixture
def sandbox() -> Sandbox:
    config = SandboxConfig(
        conversations=60, span=timedelta(days=8), recording_rate_hz=20, detail="small"
    )
    return Sandbox(config)


@pytest.fixture
def base_url(sandbox: Sandbox) -> Iterator[str]:
    with serve(sandbox) as url:
        yield url


def served(sandbox: Sandbox) -> dict[str, bytes]:
    """All recordings of the sandbox, by conversation."""
    names = [sandbox.traits(AGENT, i).conversation_id for i in sandbox.listed(AGENT)]
    bodies = {name: sandbox.recording(AGENT, name) for name in names}
    return {name: body for name, body in bodies.items() if body is not None}


@pytest.mark.slow
@needs_postgres
def test_postgres_two_machines_and_pruning(sandbox: Sandbox, base_url: str) -> None:
    with postgres() as url:
        environment = access(base_url) | {
            "DESTINATION_TYPE": "postgres",
            "DESTINATION__POSTGRES__CREDENTIALS": url,
        }

        def rows(sql: str) -> list[tuple[object, ...]]:
            with psycopg2.connect(url) as connection, connection.cursor() as cursor:
                cursor.execute(sql)
                return cursor.fetchall()

        assert run("load", **environment).returncode == 0
        sandbox.faults.add("delay", path="/audio", seconds=0.05)
        # like two machines that share the folder of recordings: each has its working directory
        here = os.path.abspath("recordings")  # noqa: PTH100
        shared = environment | {"POLYAI_RECORDINGS_URL": here, "POLYAI_LOCK_WAIT": "60s"}
        runs = []
        for name in ("one", "two"):
            os.mkdir(name)  # noqa: PTH102
            os.chdir(name)
            runs.append(start("recordings", **shared))
            os.chdir("..")
        for process in runs:
            _, stderr = process.communicate(timeout=100)
            assert process.returncode == 0, stderr
        assert set(Counter(sandbox.requests.paths("/audio")).values()) == {1}
        wanted = served(sandbox)
        found = rows(
            "SELECT conversation_id, uri, sha256 FROM polyai.recordings WHERE status = 'stored'"
        )
        assert {name for name, *_ in found} == wanted.keys()
        for call, uri, sha256 in found:
            with open(str(uri), "rb") as file:  # noqa: PTH123
                assert file.read() == wanted[str(call)]
            assert sha256 == hashlib.sha256(wanted[str(call)]).hexdigest()
        assert run("recordings", "verify", **shared).returncode == 0
        assert run("recordings", **shared).returncode == 0
        assert set(Counter(sandbox.requests.paths("/audio")).values()) == {1}
        assert rows("SELECT DISTINCT owner FROM polyai.load_leases") == [("",)]
        assert rows("SELECT DISTINCT status FROM polyai.sync_runs") == [("complete",)]
        pruned = run("recordings", "prune", "--older-than", "1d", "--yes", **shared)
        assert pruned.returncode == 0, pruned.stderr
        assert rows("SELECT count(*) FROM polyai.recordings") == [(0,)]
        assert not any(name.endswith(".wav") for *_, names in os.walk(here) for name in names)


def in_s3(server: S3Server, base_url: str) -> dict[str, str]:
    """Environment of the command."""
    place = f"s3://{server.bucket}/audio/calls"
    return access(base_url) | server.environment() | {"POLYAI_RECORDINGS_URL": place}


@needs_s3
@pytest.mark.slow
def test_s3_download_verify_repair_and_prune(sandbox: Sandbox, base_url: str) -> None:
    with s3() as server:
        environment = in_s3(server, base_url)
        loaded = run("load", "--recordings", **environment)
        assert loaded.returncode == 0, loaded.stderr
        wanted, fs = served(sandbox), server.files()
        rows = query(
            "SELECT conversation_id, uri, bytes, sha256 FROM polyai.recordings "
            "WHERE status = 'stored'"
        )
        assert {name for name, *_ in rows} == wanted.keys()
        for name, uri, size, sha256 in rows:
            assert str(uri).startswith(f"s3://{server.bucket}/audio/calls/agent_id={AGENT}/date=")
            body = fs.cat_file(str(uri))
            assert body == wanted[str(name)]
            assert (size, sha256) == (len(body), hashlib.sha256(body).hexdigest())
        files = fs.find(f"{server.bucket}/audio/calls")
        assert sum(path.endswith(".wav") for path in files) == len(wanted)
        manifests = [path for path in files if path.endswith(".parquet")]
        # archive.json, index and one segment of the log
        assert len(files) == len(wanted) + len(manifests) + 3
        listed = sum(len(pq.read_table(path, filesystem=fs)) for path in manifests)
        assert query("SELECT count(*) FROM polyai.recordings") == [(listed,)]
        asked = sandbox.requests.count("/audio")
        with duckdb.connect("polyai.duckdb") as connection:
            connection.execute("DELETE FROM polyai.recordings")
        again = run("recordings", **environment)
        assert again.returncode == 0, again.stderr
        assert f"{len(wanted)} were in the store already" in again.stdout
        missing = asked - len(wanted)
        assert sandbox.requests.count("/audio") == asked + missing
        assert run("recordings", "verify", **environment).returncode == 0
        fs.rm_file(str(rows[0][1]))
        fs.pipe_file(str(rows[1][1]), b"RIFF")
        broken = run("recordings", "verify", **environment)
        assert broken.returncode == 1
        assert "1 changed" in broken.stdout
        assert "1 missing" in broken.stdout
        repaired = run("recordings", "verify", "--refetch", **environment)
        assert repaired.returncode == 0, repaired.stdout + repaired.stderr
        assert fs.cat_file(str(rows[0][1])) == wanted[str(rows[0][0])]
        pruned = run("recordings", "prune", "--older-than", "1d", "--yes", **environment)
        assert pruned.returncode == 0, pruned.stderr
        left = fs.find(f"{server.bucket}/audio/calls")
        assert not [path for path in left if not path.endswith((".json", ".jsonl"))]
        assert query("SELECT count(*) FROM polyai.recordings") == [(0,)]


@needs_s3
@pytest.mark.parametrize(
    ("change", "fact"),
    [
        ({"POLYAI_RECORDINGS_URL": "s3://no-such-bucket/x"}, "no-such-bucket"),
        ({"POLYAI_RECORDINGS_URL": "ftpx://host/x"}, "recordings_url ftpx://host/x"),
    ],
    ids=["no such bucket", "unknown protocol"],
)
@pytest.mark.slow
def test_a_store_that_cannot_be_used_gives_an_error_of_one_line(
    base_url: str, change: dict[str, str], fact: str
) -> None:
    with s3() as server:
        environment = in_s3(server, base_url) | change
        assert run("load", **environment).returncode == 0
        result = run("recordings", **environment)
        assert result.returncode == 1
        assert fact in error_of(result)


@needs_s3
def test_s3_without_credentials_names_the_setting(
    base_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", "none")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "none")
    result = run("recordings", "--recordings-url", "s3://bucket/x", **access(base_url))
    assert result.returncode == 1
    assert "sources.polyai.recordings.credentials" in error_of(result)
