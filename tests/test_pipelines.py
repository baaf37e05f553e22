"""Scripts of `pipelines/`, the public Python API that they use, and the files in `.dlt/`."""

from __future__ import annotations

import inspect
import json
import os
import re
import runpy
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from datetime import timedelta
from pathlib import Path
from typing import Any

import dlt
import duckdb
import pytest
from filelock import FileLock

import polyai
from command import access, query
from loaded import load_sandbox, put_made
from polyai.clock import utc_now
from polyai.config.agent_tables import AGENT_NAMES
from polyai.config.lookup import SECRET_NAMES
from polyai.config.settings import Settings
from polyai.console.exit_codes import error_exit_code
from polyai.errors import BusyError
from polyai.sandbox import Sandbox, SandboxConfig, serve
from polyai.views import refresh

pytestmark = pytest.mark.process

ROOT = Path(__file__).parent.parent
AGENT = "PROJECT-BOOKINGS"
KEYS = {"PROJECT-1234": "the-key-of-the-data-api", "PROJECT-5678": "the-key-of-the-other-agent"}

SCRIPTS = [
    path.stem for path in sorted((ROOT / "pipelines").glob("*.py"))
    if path.stem != "dagster_definitions"
]  # fmt: skip

RESOLVE = """
import dataclasses, json, dlt, polyai
settings = polyai.resolve()
destination = dlt.secrets.get("destination.postgres.credentials")
print(json.dumps([dataclasses.asdict(settings), destination], default=str))
"""


def fresh(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs Python in a process of its own in the test's folder."""
    root = str(Path(polyai.__path__[0]).parent)
    return subprocess.run(
        [sys.executable, *command],
        env={**os.environ, "PYTHONPATH": root, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def run_main(name: str, *arguments: str, stop: threading.Event | None = None) -> int:
    """Calls the `main` of a script in this process, with a command line."""
    main = runpy.run_path(str(ROOT / "pipelines" / f"{name}.py"))["main"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [f"{name}.py", *arguments])
        return int(main(stop or threading.Event()))


def resolved(**files: str) -> tuple[dict[str, Any], Any]:
    """Returns settings and PostgreSQL credentials that a process finds with these `.dlt` files."""
    Path(".dlt").mkdir(exist_ok=True)
    for name, text in files.items():
        Path(".dlt", f"{name}.toml").write_text(text, encoding="utf-8")
    done = fresh("-c", RESOLVE)
    assert done.returncode == 0, done.stderr
    settings, destination = json.loads(done.stdout)
    return settings, destination


def kept(name: str) -> str:
    return (ROOT / ".dlt" / name).read_text(encoding="utf-8")


def uncommented(text: str) -> str:
    """Returns the text with its commented settings and tables enabled."""
    lines = (line.removeprefix("# ") for line in text.splitlines())
    settings = (line for line in lines if line.startswith("[") or " = " in line)
    return "\n".join(settings)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("api_key", "code", "rows"),
    [
        pytest.param("sandbox-key", 0, 30, id="all done"),
        pytest.param(
            "sandbox-key-eu", 1, None, id="a key of another region", marks=pytest.mark.matrix
        ),
    ],
)
def test_load_script(api_key: str, code: int, rows: int | None) -> None:
    sandbox = Sandbox(SandboxConfig(conversations=30))
    with serve(sandbox) as base_url:
        done = fresh(
            str(ROOT / "pipelines" / "load.py"),
            POLYAI_AGENT_ID=AGENT,
            POLYAI_API_KEY=api_key,
            POLYAI_BASE_URL=base_url,
        )
    assert done.returncode == code, done.stderr
    assert api_key not in done.stdout + done.stderr
    if rows is not None:
        with duckdb.connect("polyai.duckdb", read_only=True) as connection:
            found = connection.execute("SELECT count(*) FROM polyai.conversations").fetchall()
        assert found == [(rows,)]


class TestScripts:
    """Each script's `main`, in this process, over a warehouse with views."""

    @pytest.fixture
    def sandbox(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
        """A sandbox that the environment names, already loaded into `polyai.duckdb`."""
        config = SandboxConfig(conversations=12)

        def make(pipeline: dlt.Pipeline) -> None:
            load_sandbox(pipeline, config, clock=utc_now)
            refresh(pipeline, "UTC")

        put_made("test_pipelines", make)
        sandbox = Sandbox(config)
        with serve(sandbox) as base_url:
            for name, value in access(base_url).items():
                monkeypatch.setenv(name, value)
            yield sandbox

    @staticmethod
    def a_turn() -> tuple[str, int]:
        ((conversation_id, turn_index),) = query(
            "SELECT conversation_id, turn_index FROM polyai.turns ORDER BY ALL LIMIT 1"
        )
        return str(conversation_id), int(str(turn_index))

    @pytest.mark.slow
    def test_load(self, sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
        Path("polyai.duckdb").unlink()
        assert run_main("load") == 0
        assert query("SELECT count(*) FROM polyai.conversations") == [(12,)]
        assert query("SELECT count(*) > 0 FROM polyai.kpi_daily") == [(True,)]
        assert run_main("load") == 0
        assert f"{AGENT}: complete, 12 listed, 0 new" in capsys.readouterr().out

    @pytest.mark.slow
    def test_views(self, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("POLYAI_PUBLISH_TO", "copies")
        assert run_main("views") == 0
        assert list(Path("copies").glob("*.duckdb"))

    @pytest.mark.slow
    def test_status(self, sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
        assert run_main("status") == 0
        assert f"{AGENT}: fresh, consistent, 12 loaded, 0 missing, 0 failed" in (
            capsys.readouterr().out
        )
        with duckdb.connect("polyai.duckdb") as connection:
            connection.execute(
                "UPDATE polyai.sync_runs SET finished_at = finished_at - INTERVAL 2 HOUR"
            )
        assert run_main("status") == 1

    @pytest.mark.matrix
    def test_recordings(self, sandbox: Sandbox) -> None:
        assert run_main("recordings") == 0
        assert query("SELECT count(*) > 0 FROM polyai.recordings WHERE status = 'stored'") == [
            (True,)
        ]

    @pytest.mark.slow
    def test_annotate(self, sandbox: Sandbox) -> None:
        conversation_id, turn_index = self.a_turn()
        header = "conversation_id,turn_index,role,annotation_type"
        row = f"{conversation_id},{turn_index},agent,missing_topic"
        Path("flags.csv").write_text(f"{header}\n{row}\n{row[:-1]}\n", encoding="utf-8")
        # the second row has an unknown type
        assert run_main("annotate", "flags.csv") == 3
        assert sandbox.requests.count("^POST .*/annotation") == 1

    @pytest.mark.slow
    def test_note(self, sandbox: Sandbox) -> None:
        conversation_id, _ = self.a_turn()
        note = json.dumps({"conversation_id": conversation_id, "note": "Refund agreed."})
        Path("notes.jsonl").write_text(note, encoding="utf-8")
        assert run_main("note", "notes.jsonl") == 0
        assert sandbox.requests.count("^POST .*/note") == 1

    @pytest.mark.slow
    def test_debug_chat(self, sandbox: Sandbox) -> None:
        scenarios = ROOT / "tests" / "scenarios"
        assert run_main("debug_chat", str(scenarios / "bookings.yaml")) == 0
        assert run_main("debug_chat", str(scenarios / "unmet.yaml")) == 3
        assert Path("results.xml").exists()
        assert query("SELECT count(DISTINCT suite) FROM polyai.debug_chats") == [(2,)]

    @pytest.mark.matrix
    def test_forget(self, sandbox: Sandbox) -> None:
        conversation_id, _ = self.a_turn()
        assert run_main("forget", conversation_id) == 0
        assert query("SELECT conversation_id FROM polyai.forgotten") == [(conversation_id,)]
        assert query("SELECT count(*) FROM polyai.conversations") == [(11,)]

    @pytest.mark.matrix
    def test_dashboard(self, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
        pytest.importorskip("marimo")
        monkeypatch.setenv("PORT", "0")
        stop = threading.Event()
        stop.set()
        assert run_main("dashboard", stop=stop) == 0

    @pytest.mark.matrix
    def test_own_pipeline(self, sandbox: Sandbox) -> None:
        runpy.run_path(str(ROOT / "pipelines" / "own_pipeline.py"))["main"]()
        counts = "SELECT (SELECT count(*) FROM calls.conversations), count(*) FROM calls.shops"
        assert query(counts, "my_calls.duckdb") == [(12, 2)]

    @pytest.mark.parametrize("name", SCRIPTS)
    @pytest.mark.slow
    def test_scripts_are_short(self, name: str) -> None:
        text = (ROOT / "pipelines" / f"{name}.py").read_text(encoding="utf-8")
        assert 10 <= len(text.splitlines()) <= 42
        assert 'if __name__ == "__main__":' in text


@pytest.mark.slow
def test_backfill_script() -> None:
    sandbox = Sandbox(SandboxConfig(conversations=20, span=timedelta(days=1), now=utc_now()))
    with serve(sandbox) as base_url:
        done = fresh(str(ROOT / "pipelines" / "backfill.py"), "2", **access(base_url))
    assert done.returncode == 0, done.stderr
    assert len(re.findall(rf"^{AGENT} .*: complete, \d+ new", done.stdout, re.MULTILINE)) == 2
    assert query("SELECT count(*) FROM polyai.conversations") == [(20,)]


class TestApi:
    def test_its_names_are_frozen(self) -> None:
        assert polyai.__all__ == [
            "ExitCode", "PolyAIError", "Span", "Target", "annotate", "backfill", "copy",
            "debug_chat", "forget", "hold", "load", "note", "open_pipeline", "polyai", "prune",
            "recordings", "redact", "resolve", "run_script", "status", "views",
        ]  # fmt: skip

    def test_every_function_is_documented_with_its_errors(self) -> None:
        public = (getattr(polyai, name) for name in polyai.__all__)
        functions = [one for one in public if inspect.isfunction(one)]
        assert len(functions) == 16
        for function in functions:
            text = inspect.getdoc(function) or ""
            assert all(f"\n    {name}: " in text for name in inspect.signature(function).parameters
                       if function.__name__ != "resolve"), function.__name__  # fmt: skip
            assert "\nRaises:\n" in text, function.__name__

    def test_functions_are_not_hidden_by_subpackages_of_their_name(self) -> None:
        # importing a subpackage binds its name in the package: it must not replace the function
        code = """
import polyai.load.run, polyai.recordings.show, polyai.status.report, polyai.views.creation
import importlib, inspect
for name in ("load", "recordings", "status", "views"):
    importlib.reload(importlib.import_module(f"polyai.{name}"))
from polyai import recordings, status, views
from polyai.load.run import load
assert all(map(inspect.isfunction, (load, recordings, status, views)))
"""
        done = fresh("-c", code)
        assert done.returncode == 0, done.stderr

    def test_results_have_the_exit_code_of_the_command(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with serve(Sandbox(SandboxConfig(conversations=10))) as base_url:
            for name, value in access(base_url, api_key="wrong").items():
                monkeypatch.setenv(name, value)
            result = polyai.load()
            assert (result.exit_code, result.reports[0].status) == (1, "failed")
            with FileLock(Path(".dlt/pipelines/polyai.lock")), pytest.raises(BusyError) as caught:
                polyai.load()
        assert error_exit_code(caught.value) == 75


def test_config_toml_has_every_setting_with_its_default() -> None:
    config = tomllib.loads(kept("config.toml"))
    names = {*AGENT_NAMES, *(field.name for field in fields(Settings))} - SECRET_NAMES
    assert config["sources"]["polyai"].keys() == names
    assert config["runtime"]["dlthub_telemetry"] is False
    secrets = '[sources.polyai]\napi_key = "k"\nagent_id = "PROJECT-1"\n'
    without, _ = resolved(secrets=secrets)
    with_defaults, _ = resolved(config=kept("config.toml"))
    assert with_defaults == without


def test_every_setting_of_config_toml_is_explained() -> None:
    settings = [line for line in kept("config.toml").splitlines() if " = " in line]
    assert all(" # " in line for line in settings)


def test_secrets_example_holds_one_agent() -> None:
    settings, destination = resolved(
        config=kept("config.toml"), secrets=kept("secrets.toml.example")
    )
    (agent,) = settings["agents"]
    assert (agent["agent_id"], agent["api_key"], agent["region"]) == (
        "PROJECT-1234",
        KEYS["PROJECT-1234"],
        "us",
    )
    assert destination is None


def test_secrets_example_with_several_agents() -> None:
    # as its comment says: the tables stand in place of the one agent_id
    secrets = uncommented(kept("secrets.toml.example")).replace(
        'agent_id = "PROJECT-1234"\n', "", 1
    )
    tomllib.loads(secrets)
    settings, destination = resolved(config=kept("config.toml"), secrets=secrets)
    agents = {agent["agent_id"]: agent for agent in settings["agents"]}
    assert {name: agent["api_key"] for name, agent in agents.items()} == KEYS
    assert [agent["region"] for agent in agents.values()] == ["us", "uk"]
    assert [agent["account_id"] for agent in agents.values()] == ["ws-1234", "ws-5678"]
    assert settings["pii_secret"]
    assert destination.keys() == {"host", "port", "database", "username", "password"}


def test_secrets_are_ignored_by_git_and_committed_files_hold_none() -> None:
    assert ".dlt/secrets.toml" in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    assert not SECRET_NAMES & tomllib.loads(kept("config.toml"))["sources"]["polyai"].keys()
