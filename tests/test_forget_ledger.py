"""Ledger of erasures: a restored backup brings nothing back."""

from __future__ import annotations

import json
import shutil
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pytest

from command import AGENT, error_of, query, run
from erasing import IDS_IN, Company, assert_no_trace, calls_of, first_column, open_company
from optional import needs_s3
from polyai.errors import ConfigurationError, StoreError
from polyai.forgetting.ledger import Entry, open_ledger
from polyai.shape.forgotten_callers import forgotten_caller
from s3_server import s3

AT = datetime(2026, 2, 1, 12, tzinfo=UTC)

CALLER = forgotten_caller("+442079460018", "salt", AT, secret="pepper of some length")


@pytest.fixture
def company() -> Iterator[Company]:
    with open_company() as company:
        yield company


@pytest.mark.load
@pytest.mark.slow
def test_a_restored_backup_and_a_load_bring_nothing_back(company: Company) -> None:
    company.fetch_recordings()
    environment = company.environment | {
        "POLYAI_FORGET_LEDGER": "ledger.jsonl",
        "POLYAI_PII_SECRET": "pepper of some length",  # else each caller takes a slow hash
        "POLYAI_PUBLISH_TO": "published",
        "POLYAI_RECORDINGS_URL": "recordings/",
    }
    assert run("views", "--publish", "published", **environment).returncode == 0
    (second, *_), first = company.recorded(), "erased-before-there-was-a-ledger"
    ids, number = calls_of(company.sandbox, "+")[0]
    backup = Path("backup")
    backup.mkdir()
    for name in ("recordings", "published"):
        shutil.copytree(name, backup / name)
    shutil.copy("polyai.duckdb", backup)
    with duckdb.connect("polyai.duckdb") as connection:
        connection.execute(
            "INSERT INTO polyai.forgotten (agent_id, conversation_id, requested_at, erased_at) "
            "VALUES (?, ?, now(), now())",
            [AGENT, first],
        )
    erased = run("forget", second, "--caller", number, "--yes", **environment)
    assert erased.returncode == 0, erased.stderr
    ledger = Path("ledger.jsonl")
    (line,) = ledger.read_text().splitlines()
    entry = json.loads(line)
    assert entry["conversations"] == sorted({first, second, *ids})
    assert number[-6:] not in line
    assert stat.S_IMODE(ledger.stat().st_mode) == 0o600
    assert query("SELECT entry_id, agent_id FROM polyai.ledger_entries") == [
        (entry["entry_id"], AGENT)
    ]

    for name in ("recordings", "published"):
        shutil.rmtree(name)
        shutil.copytree(backup / name, name)
    shutil.copy(backup / "polyai.duckdb", "polyai.duckdb")
    shutil.rmtree(backup)
    assert second in first_column(f"{IDS_IN}conversations", "published/polyai.duckdb")
    company.sandbox.requests.clear()
    loaded = run("load", **environment)
    assert loaded.returncode == 0, loaded.stderr
    assert_no_trace(first, second, *ids)
    assert not {second, *ids} & set(
        first_column(f"{IDS_IN}conversations", "published/polyai.duckdb")
    )
    requested = company.sandbox.requests.paths()
    assert not [path for path in requested if second in path or any(name in path for name in ids)]
    assert query("SELECT caller_hash FROM polyai.forgotten_callers") == [
        (caller["caller_hash"],) for caller in entry["callers"]
    ]
    assert query("SELECT count(*) - count(erased_at) FROM polyai.forgotten") == [(0,)]
    runs = "SELECT count(*) FROM polyai.sync_runs WHERE command = 'forget'"
    ((erasures,),) = query(runs)
    # applied once, and not added to the ledger again
    assert run("load", **environment).returncode == 0
    assert query(runs) == [(erasures,)]
    assert ledger.read_text() == f"{line}\n"

    # a warehouse that was lost does not load them either
    Path("polyai.duckdb").unlink()
    fresh = run("load", **environment)
    assert fresh.returncode == 0, fresh.stderr
    assert_no_trace(second, *ids)
    assert len(first_column(f"{IDS_IN}conversations")) == 120 - len({second, *ids})
    assert first in first_column(f"{IDS_IN}forgotten")

    with ledger.open("a") as file:
        file.write('{"entry_id": "torn')
    company.sandbox.requests.clear()
    torn = run("load", **environment)
    assert torn.returncode == 1
    assert "line 2 of ledger.jsonl" in error_of(torn)
    ledger.unlink()
    missing = run("load", **environment)
    assert missing.returncode == 1
    assert "ledger.jsonl does not exist" in error_of(missing)
    assert not company.sandbox.requests.paths()


@pytest.mark.unit
def test_a_file_of_entries_is_appended_to(tmp_path: Path) -> None:
    place = tmp_path / "ledger.jsonl"
    ledger = open_ledger(str(place), tmp_path)
    assert ledger is not None
    assert ledger.read(["a"], frozenset()) == []
    one = Entry("1", AT, "a", ("x", "y"), (CALLER,))
    other = Entry("2", AT, "b", ("z",), ())
    ledger.append(one)
    ledger.append(other)
    assert ledger.read(["a", "b"], frozenset()) == [one, other]
    assert ledger.read(["b"], frozenset()) == [other]
    assert ledger.read(["a", "b"], {"1"}) == [other]
    place.unlink()
    with pytest.raises(StoreError, match="does not exist"):
        ledger.read(["a"], {"1"})
    # as a file server that is not mounted
    unmounted = open_ledger(str(tmp_path / "mnt" / "ledger.jsonl"), tmp_path)
    assert unmounted is not None
    with pytest.raises(StoreError, match="does not exist"):
        unmounted.read(["a"], frozenset())
    with pytest.raises(StoreError, match="cannot be written"):
        unmounted.append(one)
    with pytest.raises(ConfigurationError, match="is a folder"):
        open_ledger(str(tmp_path), tmp_path)
    assert open_ledger("", tmp_path) is None


@pytest.mark.unit
def test_a_folder_has_a_file_per_entry(tmp_path: Path) -> None:
    ledger = open_ledger((tmp_path / "ledger").as_uri(), tmp_path / "drafts")
    assert ledger is not None
    assert ledger.read(["a"], frozenset()) == []
    one, other = Entry("1", AT, "a", ("x",), (CALLER,)), Entry("2", AT, "a", ("y",), ())
    ledger.append(one)
    ledger.append(other)
    assert ledger.read(["a", "b"], frozenset()) == [one, other]
    assert ledger.read(["a"], {"1"}) == [other]
    assert ledger.read(["b"], frozenset()) == []
    files = sorted(path.name for path in (tmp_path / "ledger" / "a").iterdir())
    assert files == ["20260201T120000Z-1.json", "20260201T120000Z-2.json"]
    with pytest.raises(StoreError, match="exists already"):
        ledger.append(one)


@needs_s3
@pytest.mark.server
@pytest.mark.slow
def test_a_bucket_has_an_object_per_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with s3() as server:
        for name, value in server.environment("SOURCES__POLYAI__FORGET").items():
            monkeypatch.setenv(name, value)
        ledger = open_ledger(f"s3://{server.bucket}/ledger", tmp_path)
        assert ledger is not None
        one = Entry("1", AT, "a", ("x",), (CALLER,))
        ledger.append(one)
        assert ledger.read(["a"], frozenset()) == [one]
        absent = open_ledger(f"s3://{server.bucket}-absent/ledger", tmp_path)
        assert absent is not None
        with pytest.raises(StoreError, match="does not exist"):
            absent.read(["a"], frozenset())
