"""DuckLake: the places of catalogs, erasure from the files, and maintenance as the guide says."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from command import AGENT, access, error_of, run
from ducklake import extensions, home_with_extensions
from optional import needs_ducklake, needs_s3
from polyai.sandbox import Sandbox, SandboxConfig, serve
from s3_server import s3

pytestmark = [pytest.mark.server, pytest.mark.slow, needs_ducklake]

GUIDE = (Path(__file__).parent.parent / "pipelines" / "destinations.md").read_text(encoding="utf-8")

WORD = "xyzzy"

CREDENTIALS = "DESTINATION__DUCKLAKE__CREDENTIALS"


class Lake:
    """Lake with a catalog in a SQLite file, and the sandbox that is loaded into it."""

    def __init__(self, sandbox: Sandbox, base_url: str, folder: Path) -> None:
        self.sandbox = sandbox
        self.pipelines = folder / "pipelines"
        self.catalog = folder / "lake.sqlite"
        self.folder = folder / "files"
        self.environment = {
            **access(base_url),
            **home_with_extensions(folder / "home"),
            "DESTINATION_TYPE": "ducklake",
            f"{CREDENTIALS}__CATALOG": f"sqlite:///{self.catalog}",
            f"{CREDENTIALS}__STORAGE__BUCKET_URL": str(self.folder),
        }

    def command(self, *arguments: str) -> dict[str, Any]:
        result = run(*arguments, "--json", **self.environment)
        assert result.returncode == 0, result.stderr
        output: dict[str, Any] = json.loads(result.stdout)
        return output

    def files(self) -> list[Path]:
        return sorted(self.folder.rglob("*.parquet"))

    def tables(self) -> Counter[str]:
        """Returns the numbers of files of tables."""
        return Counter(path.parent.name for path in self.files())

    def has(self, word: str) -> list[str]:
        """Returns the names of tables whose files, or of the catalog if that, have a word."""
        found = {
            path.parent.name
            for path in self.files()
            if word in json.dumps(pq.read_table(path).to_pylist(), default=str)
        }
        if word.encode() in self.catalog.read_bytes():
            found.add("catalog")
        return sorted(found)

    @contextmanager
    def attached(self) -> Iterator[duckdb.DuckDBPyConnection]:
        with duckdb.connect() as connection:
            for path in extensions():
                connection.execute(f"LOAD '{path}'")
            connection.execute(f"ATTACH 'ducklake:sqlite:{self.catalog}' AS lake")
            yield connection
            connection.execute("DETACH lake")


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lake]:
    """One lake for all tests; each erases other conversations."""
    sandbox = Sandbox(SandboxConfig(conversations=30, inventions=True))
    folder = tmp_path_factory.mktemp("lake")
    with serve(sandbox) as base_url:
        one = Lake(sandbox, base_url, folder)
        # the folder of a test does not exist yet
        with contextlib.chdir(folder):
            one.command("load")
        yield one


def test_erasure_reaches_the_files_and_the_catalog(lake: Lake) -> None:
    ids = [
        lake.sandbox.traits(AGENT, index).conversation_id for index in lake.sandbox.listed(AGENT)
    ]
    gone, kept = ids[5], ids[6]
    for note in (f"{WORD} one", f"{WORD} two"):
        lake.sandbox.edit(AGENT, gone, note=note)
        lake.command("load", "--full")
    assert "turns" in lake.has(gone)
    assert lake.has(WORD)
    # a run that was killed before its commit leaves its file
    orphan = (
        lake.folder / "polyai" / "turns" / "ducklake-01a00000-0000-7000-8000-000000000000.parquet"
    )
    pq.write_table(pa.table({"user_input": [WORD]}), orphan)

    done = lake.command("forget", gone, "--yes")

    assert done["is_rewritten"]
    assert not orphan.exists()
    assert lake.has(WORD) == []
    # the row of `forgotten` keeps the id
    assert lake.has(gone) == ["catalog"]
    with closing(sqlite3.connect(lake.catalog)) as connection:
        assert connection.execute("SELECT count(*) FROM ducklake_snapshot").fetchone() < (10,)
    assert {"turns", "conversations"} <= set(lake.has(kept))
    (report,) = lake.command("load", "--full")["agents"]
    assert (report["status"], report["new"], report["fetched"]) == ("complete", 0, 0)


@pytest.mark.matrix
def test_erasure_deletes_no_files_of_others(lake: Lake) -> None:
    own = lake.folder / "polyai" / "turns" / "ducklake-01a00000-0000-7000-8000-000000000000.parquet"
    other = lake.folder / "theirs.parquet"
    for path in (own, other):
        pq.write_table(pa.table({"user_input": [WORD]}), path)
    gone = lake.sandbox.traits(AGENT, next(iter(lake.sandbox.listed(AGENT)))).conversation_id
    refused = run("forget", gone, "--yes", **lake.environment)
    assert refused.returncode == 1
    assert str(own) in error_of(refused)
    assert other.exists()
    own.unlink()
    assert lake.command("forget", gone, "--yes")["is_rewritten"]
    assert other.exists()


@pytest.mark.matrix
def test_maintenance_of_the_guide_merges_small_files(lake: Lake) -> None:
    for _ in range(3):
        lake.sandbox.advance(timedelta(hours=12), arrivals=12)
        lake.command("load")
    status = lake.command("status")
    assert lake.tables()["turns"] > 2
    (block,) = re.findall(r"(?s)```sql\n(ATTACH 'ducklake:.*?)```", GUIDE)
    statements = [one for one in block.split(";") if "ATTACH" not in one and one.strip()]
    with lake.attached() as connection:
        for statement in statements:
            # not after days, for the test
            connection.execute(re.sub(r"\d+ days?", "0 seconds", statement))
    assert lake.tables()["turns"] == 1
    after = lake.command("status")
    for one in (status, after):
        one["agents"][0].pop("last_complete_load_at", None)
    assert after["agents"][0]["tables"] == status["agents"][0]["tables"]
    assert after["agents"][0]["is_consistent"]
    (report,) = lake.command("load")["agents"]
    assert (report["status"], report["fetched"]) == ("complete", 0)


def test_check_shows_the_places(lake: Lake) -> None:
    found = [one["message"] for one in lake.command("check")["findings"]]
    (shown,) = [message for message in found if "conversations loaded" in message]
    assert f"catalog in sqlite {lake.catalog}" in shown
    assert f"files in {lake.folder}" in shown


def test_files_of_a_moved_lake_are_missed_at_once(lake: Lake, tmp_path: Path) -> None:
    """Another working directory, with the same catalog and its files in another place."""
    elsewhere = {f"{CREDENTIALS}__STORAGE__BUCKET_URL": str(tmp_path / "elsewhere")}
    lake.sandbox.requests.clear()
    refused = run("load", **lake.environment | elsewhere)
    assert refused.returncode == 1
    message = error_of(refused)
    assert f"files are set to {tmp_path / 'elsewhere'}" in message
    assert f"its catalog has them in {lake.folder}" in message
    assert "override_data_path" in message
    assert lake.sandbox.requests.count("") == 0
    checked = run("check", "--json", **lake.environment | elsewhere)
    assert message.removeprefix("error: ") in [
        one["message"] for one in json.loads(checked.stdout)["findings"]
    ]
    shutil.rmtree(tmp_path / "elsewhere", ignore_errors=True)


def test_moved_files_are_read_with_the_setting_that_the_error_names(
    lake: Lake, tmp_path: Path
) -> None:
    loaded = lake.command("status")["agents"][0]["tables"]
    moved = tmp_path / "moved"
    shutil.copytree(lake.folder, moved)
    hidden = lake.folder.rename(tmp_path / "hidden")
    try:
        settings = {
            f"{CREDENTIALS}__STORAGE__BUCKET_URL": str(moved),
            "DESTINATION__DUCKLAKE__OVERRIDE_DATA_PATH": "true",
        }
        found = run("status", "--json", **lake.environment | settings)
        assert json.loads(found.stdout)["agents"][0]["tables"] == loaded
    finally:
        hidden.rename(lake.folder)


@pytest.mark.parametrize("kind", ["sqlite", pytest.param("duckdb", marks=pytest.mark.matrix)])
def test_check_of_a_new_lake_fixes_no_place(lake: Lake, tmp_path: Path, kind: str) -> None:
    """A wrong place can still be corrected after `check`, also where the catalog's file exists."""
    catalog = tmp_path / f"new.{kind}"
    environment = lake.environment | {f"{CREDENTIALS}__CATALOG": f"{kind}:///{catalog}"}
    wrong = environment | {f"{CREDENTIALS}__STORAGE__BUCKET_URL": str(tmp_path / "typo")}
    right = environment | {f"{CREDENTIALS}__STORAGE__BUCKET_URL": str(tmp_path / "right")}
    checked = run("check", "--json", **wrong)
    assert checked.returncode == 0, checked.stderr
    assert "nothing" in error_of(run("status", **wrong))
    assert not catalog.exists()
    if kind == "sqlite":
        catalog.touch()
        assert run("check", "--json", **wrong).returncode == 0

    loaded = run("load", "--json", **right)

    assert loaded.returncode == 0, loaded.stderr
    assert list((tmp_path / "right").rglob("*.parquet"))
    assert not (tmp_path / "typo").exists()


@needs_s3
def test_bucket_that_does_not_exist(lake: Lake, tmp_path: Path) -> None:
    with s3() as server:
        catalog = tmp_path / "new.sqlite"
        environment = {
            **lake.environment,
            **server.environment(f"{CREDENTIALS}__STORAGE"),
            f"{CREDENTIALS}__CATALOG": f"sqlite:///{catalog}",
            f"{CREDENTIALS}__STORAGE__BUCKET_URL": "s3://absent/lake",
        }
        checked = run("check", "--json", **environment)
        (failed,) = [
            one["message"]
            for one in json.loads(checked.stdout)["findings"]
            if one["outcome"] == "failed"
        ]
        assert failed == "files of the lake in s3://absent/lake: bucket absent does not exist"
        refused = run("load", **environment)
        assert refused.returncode == 1
        assert failed in error_of(refused)
        assert not catalog.exists()
        environment[f"{CREDENTIALS}__STORAGE__BUCKET_URL"] = f"s3://{server.bucket}/lake"
        assert run("check", "--json", **environment).returncode == 0
