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
from odd_server import Answer, OddServer, in_turn
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


NOTES = "SELECT conversation_id, 'call back' AS note FROM polyai.conversations LIMIT 2"
FLAGS = (
    "SELECT conversation_id, 0 AS turn_index, 'user' AS role, 'wrong_info' AS annotation_type "
    "FROM polyai.turns WHERE turn_index = 0 LIMIT 2"
)
COMMANDS: list[tuple[str, dict[str, str], int]] = [
    ("check", {}, 0),
    ("load", {}, 0),
    ("load --json", {}, 0),
    ("load --full", {}, 0),
    ("load --select turns", {}, 0),
    ("backfill --from 2026-10-30 --workers 1 --slice 1y", {}, 0),
    ("recordings", {}, 0),
    ("recordings --json --raw", {}, 0),
    ("recordings verify", {}, 0),
    ("status", {}, 0),
    ("status --json --quick", {}, 0),
    ("views", {}, 0),
    ("annotate --dry-run --query", {"QUERY": FLAGS}, 0),
    ("annotate --query", {"QUERY": FLAGS}, 0),
    ("note --overwrite --query", {"QUERY": NOTES}, 0),
    ("debug-chat --json scenario.yaml", {}, 0),
    ("redact --dry-run", {"POLYAI_PII": "drop"}, 0),
    ("forget --dry-run --caller +442079460018", {}, 3),
    ("copy --to duckdb --to-dataset copied", {}, 0),
    # from here on, none succeeds
    ("load", {"POLYAI_PII": "drop"}, 1),
    ("recordings", {"POLYAI_TRANSCRIPTS": "drop"}, 1),
    ("redact --yes", {}, 1),
    ("load", {"POLYAI_AGENT_ID": "PROJECT-NOBODY"}, 1),
    ("load --agent PROJECT-NOBODY", {}, 1),
    ("load --select nothing", {}, 2),
    ("load --lookback soon", {}, 1),
    ("load --no-such-option", {}, 2),
    ("load --destination nowhere", {}, 1),
    ("load --destination postgres", {"DESTINATION__POSTGRES__CREDENTIALS": "postgres://x"}, 1),
    ("load", {"POLYAI_API": "conversations_v4"}, 1),
    ("load", {"POLYAI_PPI": "drop"}, 1),
    ("load", {"POLYAI_DROP_COLUMNS": "turns.nothing"}, 1),
    ("load", {"POLYAI_API_KEY": f"{KEY} x"}, 1),
    ("load", {"POLYAI_ACCOUNT_ID": KEY}, 1),
    ("load", {"POLYAI_BASE_URL": "http://127.0.0.1:1", "POLYAI_MAX_ATTEMPTS": "1"}, 1),
    ("load", {"POLYAI_BASE_URL": "ECHO", "POLYAI_MAX_ATTEMPTS": "1"}, 1),
    ("check", {"POLYAI_BASE_URL": "ECHO", "POLYAI_MAX_ATTEMPTS": "1"}, 1),
    ("recordings --recordings-url nope://x", {}, 1),
    ("note missing.csv", {}, 1),
    ("debug-chat missing.yaml", {}, 1),
    ("backfill --from never", {}, 2),
    ("forget --caller nobody --yes", {}, 1),
]
"""Command lines with their settings and exit codes; `QUERY` is the last argument."""

SCENARIO = "environment: sandbox\nscenarios:\n  - name: greets\n    greeting: {contains: thank}\n"


@pytest.mark.matrix
def test_the_key_is_nowhere_after_forty_commands(tmp_path: Path) -> None:
    sandbox = Sandbox(SandboxConfig(conversations=6, api_key=KEY, recording_cap_seconds=1))
    Path("scenario.yaml").write_text(SCENARIO, encoding="utf-8")
    echo = Answer({"error_code": KEY, "error_message": f"bad key {KEY}", "error_id": "c"}, 401)
    results = []
    # retries are logged at DEBUG
    sandbox.faults.add("status", path="/conversations/", times=2)
    with serve(sandbox) as url, OddServer(in_turn(echo)) as server:
        for line, settings, code in COMMANDS:
            settings = dict(settings)
            query_ = [settings.pop("QUERY")] if "QUERY" in settings else []
            if settings.get("POLYAI_BASE_URL") == "ECHO":
                settings["POLYAI_BASE_URL"] = server.url
            result = run("-v", *line.split(), *query_, **(access(url, KEY) | settings))
            assert result.returncode == code, (line, result.stdout, result.stderr)
            results.append(result)
    assert len(results) >= 40
    assert any("DEBUG" in result.stderr for result in results)
    assert_key_not_written(tmp_path, *results)
    assert_key_not_in_warehouse()


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
