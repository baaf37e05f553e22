"""Secrecy of the API key, and file permissions."""

from __future__ import annotations

import base64
import gzip
import subprocess
import zlib
from pathlib import Path

import duckdb
import pytest

from command import AGENT, access, error_of, query, run, run_process
from polyai.sandbox import Sandbox, SandboxConfig, serve

pytestmark = pytest.mark.load

KEY = "k3y-Zr8qVb51Wc0pLm"


@pytest.fixture
def sandbox() -> Sandbox:
    return Sandbox(SandboxConfig(conversations=40, api_key=KEY))


def assert_key_not_written(folder: Path, *results: subprocess.CompletedProcess[str]) -> None:
    """Asserts that the key is in no output, file or table."""
    for result in results:
        assert KEY not in result.stdout + result.stderr
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    forms = [KEY.encode(), KEY.encode("utf-16-le"), base64.b64encode(KEY.encode()).rstrip(b"=")]
    for path in files:
        content = path.read_bytes()
        if content.startswith(b"\x1f\x8b"):
            content = gzip.decompress(content)
        assert not any(form in content for form in forms), path


def assert_key_not_in_warehouse(database: str = "polyai.duckdb") -> None:
    """Asserts that the key is in no row, also where DuckDB or dlt compresses values."""
    with duckdb.connect(database, read_only=True) as connection:
        tables = connection.execute("SELECT schema_name, table_name FROM duckdb_tables()")
        names = tables.fetchall()
        assert ("main", "conversations") in names
        for schema, table in names:
            rows = connection.execute(
                f'SELECT row_::VARCHAR FROM "{schema}"."{table}" AS row_'
            ).fetchall()
            assert not [row for (row,) in rows if KEY in row], table
    for (state,) in query("SELECT state FROM _dlt_pipeline_state", database):
        text = str(state)
        assert KEY.encode() not in zlib.decompress(base64.b64decode(text))


class TestApiKeyIsNotExposed:
    @pytest.mark.slow
    def test_after_successful_and_failed_loads(self, sandbox: Sandbox, tmp_path: Path) -> None:
        sandbox.faults.add("status", path="/conversations/", times=4)
        sandbox.faults.add("reset", path="/conversations/", times=2)
        bad = next(sandbox.conversation_ids(AGENT))
        sandbox.faults.add("html", path=bad, status=404)
        with serve(sandbox) as url:
            first = run("-v", "load", **access(url, KEY))
            assert first.returncode == 3
            assert "DEBUG attempt" in first.stderr
            second = run("-v", "load", "--json", "--full", **access(url, KEY))
            checked = run("-v", "check", **access(url, KEY))
        assert_key_not_written(tmp_path, first, second, checked)
        assert_key_not_in_warehouse()

    @pytest.mark.matrix
    def test_after_a_refused_load(self, tmp_path: Path) -> None:
        with serve(Sandbox(SandboxConfig(conversations=10))) as url:
            refused = run("-v", "load", **access(url, KEY))
            unknown = run("-v", "load", "--json", **access(url, KEY, "PROJECT-OTHER"))
        assert refused.returncode == unknown.returncode == 1
        unreachable = run(
            "-v", "load", **access("http://127.0.0.1:1", KEY), POLYAI_MAX_ATTEMPTS="1"
        )
        assert unreachable.returncode == 1
        assert_key_not_written(tmp_path, refused, unknown, unreachable)

    @pytest.mark.slow
    def test_when_the_destination_fails_during_a_load(
        self, sandbox: Sandbox, tmp_path: Path
    ) -> None:
        with duckdb.connect("polyai.duckdb") as connection:
            # a merge into a view fails
            connection.execute("CREATE VIEW conversations AS SELECT 1 AS other")
        with serve(sandbox) as url:
            result = run("-v", "load", **access(url, KEY))
        assert result.returncode == 1
        error_of(result)
        assert_key_not_written(tmp_path, result)

    def test_when_the_key_in_a_file_is_invalid(self, tmp_path: Path) -> None:
        folder = tmp_path / ".dlt"
        folder.mkdir()
        secrets = folder / "secrets.toml"
        secrets.write_text(f'[sources.polyai]\nagent_id = "{AGENT}"\napi_key = "{KEY}\\n x"\n')
        result = run("-v", "load")
        assert result.returncode == 1
        assert "invalid characters" in error_of(result)
        secrets.write_text(f'[[sources.polyai.agents]]\nagent_id = "{AGENT}"\nkey = "{KEY}"\n')
        unknown = run("-v", "load")
        assert unknown.returncode == 1
        assert "unknown settings key" in error_of(unknown)
        secrets.unlink()
        (tmp_path / "some").touch()
        assert_key_not_written(tmp_path, result, unknown)


class TestFiles:
    @pytest.mark.process
    @pytest.mark.parametrize(
        "command",
        [
            pytest.param("load", marks=pytest.mark.slow),
            pytest.param("demo", marks=pytest.mark.slow),
            pytest.param("check", marks=pytest.mark.slow),
        ],
    )
    def test_are_readable_by_their_owner_only(
        self, command: str, sandbox: Sandbox, tmp_path: Path
    ) -> None:
        with serve(sandbox) as url:
            assert run_process(command, **access(url, KEY)).returncode == 0
        made = list(tmp_path.rglob("*"))
        assert tmp_path / "polyai.duckdb" in made
        assert [path for path in made if path.stat().st_mode & 0o077] == []

    @pytest.mark.slow
    def test_no_copy_of_a_conversation_remains_outside_the_warehouse(
        self, sandbox: Sandbox, tmp_path: Path
    ) -> None:
        with serve(sandbox) as url:
            assert run("load", **access(url, KEY)).returncode == 0
        assert (tmp_path / ".dlt" / "pipelines").is_dir()
        left = {path.suffix for path in tmp_path.rglob("*") if path.is_file()}
        assert left == {"", ".json", ".pickle", ".duckdb", ".id", ".lock"}


class TestPlainHttp:
    def test_is_rejected_in_the_environment(self) -> None:
        result = run("load", **access("http://127.0.0.1.example.com", KEY))
        assert result.returncode == 1
        assert "would send the key unencrypted" in error_of(result)

    def test_is_rejected_as_an_option(self) -> None:
        https = access("https://api.us.poly.ai", KEY)
        result = run("check", "--base-url", "http://api.us.poly.ai", **https)
        assert result.returncode == 1
        assert "would send the key unencrypted" in error_of(result)
