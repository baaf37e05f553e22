"""Folders that are copied or moved, and DuckDB files that are renamed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from command import access, error_of, query, run
from loaded import put_loaded
from polyai.locking.files import _identity
from polyai.sandbox import Sandbox, SandboxConfig, serve
from polyai.warehouse.duckdb_file import duckdb_path
from polyai.warehouse.open import open_pipeline

pytestmark = pytest.mark.load

CONFIG = SandboxConfig(conversations=20)

IDS = "SELECT conversation_id FROM {schema}.conversations WHERE num_turns > 0 ORDER BY 1"


@pytest.fixture(scope="module")
def base_url() -> Iterator[str]:
    with serve(Sandbox(CONFIG)) as url:
        yield url


def count(file: str | Path, schema: str = "main") -> int:
    ((number,),) = query(f"SELECT count(*) FROM {schema}.conversations", str(file))
    assert isinstance(number, int)
    return number


def contents(folder: Path) -> dict[str, bytes]:
    """Returns the content of each file in a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def load(base_url: str, **environment: str) -> None:
    result = run("load", **access(base_url), **environment)
    assert result.returncode == 0, result.stderr


class TestCopiesOfFolders:
    @pytest.fixture
    def original(self, tmp_path: Path, base_url: str, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A project folder that was loaded in."""
        folder = tmp_path / "orig"
        folder.mkdir()
        monkeypatch.chdir(folder)
        put_loaded(CONFIG)
        load(base_url)
        return folder

    @pytest.mark.matrix
    @pytest.mark.slow
    def test_a_copy_is_a_warehouse_of_its_own(
        self, original: Path, base_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for used in (("views",), ("backfill", "--from", "2020-01-01", "--slice", "20y")):
            assert run(*used, **access(base_url)).returncode == 0
        copy = original.with_name("cpy")
        identity = _identity(original / ".dlt" / "pipelines", "polyai")
        shutil.copytree(original, copy)
        assert _identity(copy / ".dlt" / "pipelines", "polyai") != identity
        assert _identity(original / ".dlt" / "pipelines", "polyai") == identity
        before = (original / "polyai.duckdb").read_bytes()
        (copy / "polyai.duckdb").unlink()
        monkeypatch.chdir(copy)
        load(base_url)
        assert count(copy / "polyai.duckdb") == 20
        first = query("SELECT min(conversation_id) FROM main.conversations")[0][0]
        Path("notes.jsonl").write_text(json.dumps({"conversation_id": first, "note": "x"}))
        for command in (
            ("backfill", "--from", "2020-01-01", "--slice", "20y"),
            ("recordings",),
            ("recordings", "verify"),
            ("status",),
            ("views", "--publish", "published"),
            ("note", "notes.jsonl"),
            ("forget", str(first), "--yes"),
        ):
            result = run(*command, **access(base_url))
            assert "Traceback" not in result.stderr
            assert str(original) not in result.stdout + result.stderr
        assert count(copy / "polyai.duckdb") == 19
        assert (original / "polyai.duckdb").read_bytes() == before
        assert not list(original.glob("*.wal"))

    def test_the_file_is_that_of_the_current_folder(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        original, copy, moved = (tmp_path / name for name in ("orig", "cpy", "moved"))
        original.mkdir()
        monkeypatch.chdir(original)
        assert duckdb_path(open_pipeline()) == original / "polyai.duckdb"
        shutil.copytree(original, copy)
        monkeypatch.chdir(copy)
        assert duckdb_path(open_pipeline()) == copy / "polyai.duckdb"
        original.rename(moved)
        monkeypatch.chdir(moved)
        assert duckdb_path(open_pipeline()) == moved / "polyai.duckdb"
        elsewhere = tmp_path / "elsewhere.duckdb"
        for configured, file in (("data.duckdb", moved / "data.duckdb"), (elsewhere, elsewhere)):
            monkeypatch.setenv("DESTINATION__DUCKDB__CREDENTIALS", str(configured))
            assert duckdb_path(open_pipeline()) == file

    @pytest.mark.slow
    @pytest.mark.parametrize(
        "credentials",
        [
            pytest.param(None, id="default"),
            pytest.param("data.duckdb", marks=pytest.mark.matrix, id="relative"),
            pytest.param("{folder}/elsewhere.duckdb", marks=pytest.mark.matrix, id="absolute"),
        ],
    )
    def test_no_command_in_a_copy_writes_into_the_original(
        self,
        credentials: str | None,
        base_url: str,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        original, copy = tmp_path / "orig", tmp_path / "cpy"
        (original / ".dlt").mkdir(parents=True)
        monkeypatch.chdir(original)
        if credentials:
            value = json.dumps(credentials.format(folder=tmp_path))
            Path(".dlt/secrets.toml").write_text(f"[destination.duckdb]\ncredentials = {value}\n")
        for used in (("load",), ("recordings",), ("views",)):
            assert run(*used, **access(base_url)).returncode == 0
        shutil.copytree(original, copy)
        before = contents(original)
        monkeypatch.chdir(copy)
        file = Path((credentials or "polyai.duckdb").format(folder=tmp_path))
        schema = "polyai" if credentials else "main"
        first, *_ = [row[0] for row in query(IDS.format(schema=schema), str(file))]
        label = {"conversation_id": first, "annotation_type": "Transcription", "turn_index": 0}
        Path("labels.jsonl").write_text(json.dumps(label))
        for command in (
            ("load", "--full"),
            ("backfill", "--from", "2020-01-01", "--slice", "20y", "--no-resume"),
            ("recordings",),
            ("recordings", "verify", "--refetch"),
            ("annotate", "labels.jsonl"),
            ("views",),
            ("forget", str(first), "--yes"),
        ):
            result = run(*command, **access(base_url))
            assert "Traceback" not in result.stderr, command
            assert contents(original) == before, command
        assert count(file, schema) == 19
        assert query(f"SELECT count(*) FROM {schema}.sync_runs", str(file)) > [(5,)]

    @pytest.mark.slow
    def test_a_moved_folder_goes_on_and_a_deleted_file_is_loaded_again(
        self, original: Path, base_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        moved = original.with_name("moved")
        original.rename(moved)
        monkeypatch.chdir(moved)
        load(base_url)
        assert count("polyai.duckdb") == 20
        assert run("status", **access(base_url)).returncode == 0
        assert not original.exists()
        Path("polyai.duckdb").unlink()
        load(base_url)
        assert count("polyai.duckdb") == 20

    @pytest.mark.matrix
    def test_a_relative_configured_path_starts_from_the_folder_too(
        self, original: Path, base_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        relative = {"DESTINATION__DUCKDB__CREDENTIALS": "data.duckdb"}
        load(base_url, **relative)
        copy = original.with_name("cpy")
        shutil.copytree(original, copy)
        (copy / "data.duckdb").unlink()
        before = (original / "data.duckdb").read_bytes()
        monkeypatch.chdir(copy)
        load(base_url, **relative)
        assert count("data.duckdb", "polyai") == 20
        assert (original / "data.duckdb").read_bytes() == before

    @pytest.mark.matrix
    def test_a_path_of_an_older_dlt_is_not_followed(
        self, original: Path, base_url: str, tmp_path: Path
    ) -> None:
        state = Path(".dlt/pipelines/polyai/state.json")
        content = json.loads(state.read_text())
        content["_local"] |= {
            "duckdb_database": str(tmp_path / "elsewhere.duckdb"),
            "initial_cwd": str(tmp_path),
        }
        state.write_text(json.dumps(content))
        load(base_url)
        assert not (tmp_path / "elsewhere.duckdb").exists()
        assert not (tmp_path / "polyai.duckdb").exists()
        assert count("polyai.duckdb") == 20


class TestRenamedFiles:
    def check_all(self, file: str, schema: str, base_url: str) -> None:
        """Every command uses the schema that is there, and none makes another one."""
        environment = {**access(base_url), "DESTINATION__DUCKDB__CREDENTIALS": file}
        first = query(f"SELECT min(conversation_id) FROM {schema}.conversations", file)[0][0]
        assert run("forget", str(first), "--yes", **environment).returncode == 0
        for command in (("recordings",), ("recordings", "verify"), ("load",), ("load", "--full")):
            result = run(*command, **environment)
            assert result.returncode == 0, result.stderr
        assert count(file, schema) == 19
        status = run("status", "--json", **environment)
        (agent,) = json.loads(status.stdout)["agents"]
        assert (agent["is_consistent"], agent["last_run"]["unchanged"]) == (True, 19)
        published = run("views", "--publish", "published", **environment)
        assert published.returncode == 0, published.stderr
        copy = f"published/{file}"
        assert query(f"SELECT sum(conversations) FROM {schema}.kpi_daily", copy) == query(
            f"SELECT sum(conversations) FROM {schema}.kpi_daily", file
        )
        schemas = query(
            "SELECT DISTINCT schema_name FROM duckdb_tables() WHERE table_name = 'conversations'",
            file,
        )
        assert schemas == [(schema,)]

    @pytest.mark.matrix
    def test_polyai_renamed_to_calls(self, base_url: str) -> None:
        put_loaded(CONFIG)
        load(base_url)
        Path("polyai.duckdb").rename("calls.duckdb")
        self.check_all("calls.duckdb", "main", base_url)

    @pytest.mark.matrix
    def test_calls_renamed_to_polyai_is_refused(self, base_url: str) -> None:
        calls = {"DESTINATION__DUCKDB__CREDENTIALS": "calls.duckdb"}
        load(base_url, **calls)
        first = query("SELECT min(conversation_id) FROM polyai.conversations", "calls.duckdb")
        assert run("forget", str(first[0][0]), "--yes", **calls).returncode == 0
        Path("calls.duckdb").rename("polyai.duckdb")
        before = Path("polyai.duckdb").read_bytes()
        for command in ("load", "status", "views"):
            result = run(command, **access(base_url))
            assert result.returncode == 1
            assert "schema polyai" in error_of(result)
        assert Path("polyai.duckdb").read_bytes() == before
        Path("polyai.duckdb").rename("calls.duckdb")
        load(base_url, **calls)
        assert count("calls.duckdb", "polyai") == 19

    @pytest.mark.matrix
    def test_two_warehouses_in_one_file_are_refused(self, base_url: str) -> None:
        put_loaded(CONFIG)
        with duckdb.connect("polyai.duckdb") as connection:
            connection.execute("CREATE SCHEMA polyai")
            for table in ("_dlt_loads", "sync_runs", "conversations"):
                connection.execute(f"CREATE TABLE polyai.polyai.{table} AS FROM main.{table}")
        Path("polyai.duckdb").rename("calls.duckdb")
        for file in ("calls.duckdb", "polyai.duckdb"):
            if file == "polyai.duckdb":
                Path("calls.duckdb").rename(file)
            for command in ("load", "status"):
                result = run(command, **access(base_url), DESTINATION__DUCKDB__CREDENTIALS=file)
                assert result.returncode == 1
                assert "main" in error_of(result)
                assert "polyai" in error_of(result)

    @pytest.mark.slow
    def test_another_dataset_in_the_same_file_is_a_new_one(self, base_url: str) -> None:
        put_loaded(CONFIG)
        dataset = ("--dataset", "other-calls")
        result = run("load", *dataset, **access(base_url), POLYAI_PUBLISH_TO="published")
        assert result.returncode == 0, result.stderr
        # said once, in the last line, and not by dlt for each use
        assert "WARNING" not in result.stderr
        assert "dataset other_calls\n" in result.stdout
        assert count("polyai.duckdb") == count("polyai.duckdb", "other_calls") == 20
        assert run("views", *dataset, "--publish", "published").returncode == 0
        assert count("published/polyai.duckdb", "other_calls") == 20
        ((erased,), *_) = query(IDS.format(schema="other_calls"))
        forgotten = run("forget", str(erased), *dataset, "--yes")
        assert forgotten.returncode == 0, forgotten.stderr
        assert count("published/polyai.duckdb", "other_calls") == 19
