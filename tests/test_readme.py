"""What the README claims is run: its queries, its example, its commands and settings."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import duckdb
import pytest

from command import access, run
from polyai import open_pipeline, resolve
from polyai.cli.app import app
from polyai.config.settings import Settings
from polyai.console.exit_codes import ExitCode
from polyai.debug_chats import load_suite, run_suites
from polyai.debug_chats.result_store import PIPELINE_NAME as DEBUG_CHATS_PIPELINE
from polyai.debug_chats.result_store import store_results
from polyai.debug_chats.suite import Suite
from polyai.load.run import load
from polyai.recordings.run import PIPELINE_NAME as RECORDINGS_PIPELINE
from polyai.recordings.run import fetch_recordings
from polyai.sandbox import Sandbox, SandboxConfig, serve
from polyai.tables import registry
from polyai.views import PIPELINE_NAME as VIEWS_PIPELINE
from polyai.views import create_views

pytestmark = pytest.mark.load

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("readme")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("DLT_DATA_DIR", str(folder / "dlt"))
        with serve(Sandbox(SandboxConfig(conversations=150))) as base_url:
            settings = resolve(
                agent_id="PROJECT-BOOKINGS", api_key="sandbox-key", base_url=base_url
            )
            load(settings, open_pipeline())
            fetch_recordings(settings, open_pipeline(name=RECORDINGS_PIPELINE))
            create_views(open_pipeline(name=VIEWS_PIPELINE), "Europe/London")
            suite = _scenarios(folder)
            for label, environment in (("v11", "sandbox"), ("v12", "draft")):
                # an agent without a draft answers no scenario: the newer one is the worse
                chats = run_suites([suite], settings, environment=environment, label=label)
                assert chats.passed == (label == "v11")
                store_results(chats, open_pipeline(name=DEBUG_CHATS_PIPELINE))
    return folder / "polyai.duckdb"


def _scenarios(folder: Path) -> Suite:
    """The README's own."""
    (text,) = blocks("yaml")
    (folder / "bookings.yaml").write_text(text, encoding="utf-8")
    return load_suite(folder / "bookings.yaml")


def test_its_rows_and_scenarios_are_sent_by_its_commands(warehouse: Path) -> None:
    with duckdb.connect(str(warehouse), read_only=True) as connection:
        ids = connection.execute(
            "SELECT conversation_id FROM polyai.turns GROUP BY 1 HAVING count(*) > 5 ORDER BY 1"
        ).fetchall()
    (rows,) = blocks("csv")
    Path("flags.csv").write_text(rows.replace("CA1f…", ids[0][0]), encoding="utf-8")
    Path("notes.jsonl").write_text(f'{{"conversation_id": "{ids[1][0]}", "note": "Seen"}}')
    _scenarios(Path())
    (written,) = (text for text in blocks("sh") if "annotate flags.csv" in text)
    (tried,) = (text for text in blocks("sh") if "debug-chat" in text)
    commands = [line.split("#")[0].split()[1:] for line in written.splitlines()]
    commands.append(tried.splitlines()[0].split()[1:])
    with serve(Sandbox(SandboxConfig(conversations=150))) as base_url:
        for command in commands:
            done = run(*command, **access(base_url))
            assert done.returncode == 0, done.stderr + done.stdout
    assert 'failures="0"' in Path("results.xml").read_text(encoding="utf-8")


@pytest.mark.parametrize("sql", blocks("sql"))
def test_each_query_answers(sql: str, warehouse: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(warehouse.parent)
    a_day = next(iter(sorted(Path("recordings/agent_id=PROJECT-BOOKINGS").iterdir())))
    sql = sql.replace("PROJECT-1234", "PROJECT-BOOKINGS")
    sql = sql.replace("2026-03-01", a_day.name.removeprefix("date="))
    with duckdb.connect(str(warehouse), read_only=True) as connection:
        assert connection.execute(sql).fetchall()


def test_the_python_example_runs(own_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (example,) = blocks("python")
    with serve(Sandbox(SandboxConfig(conversations=30))) as base_url:
        monkeypatch.setenv("POLYAI_API_KEY", "sandbox-key")
        monkeypatch.setenv("POLYAI_AGENT_ID", "PROJECT-BOOKINGS")
        monkeypatch.setenv("POLYAI_BASE_URL", base_url)
        subprocess.run([sys.executable, "-c", example], check=True, timeout=120)
    with duckdb.connect("calls.duckdb", read_only=True) as connection:
        assert connection.execute("select count(*) from polyai.conversations").fetchone() == (30,)


def test_every_command_table_and_exit_code_is_listed() -> None:
    for command in app.registered_commands:
        assert command.callback is not None
        assert f"`polyai-warehouse {command.name or command.callback.__name__}`" in README
    for group in app.registered_groups:
        assert group.typer_instance is not None
        name = group.typer_instance.info.name
        assert f"`polyai-warehouse {name}`" in README
        for command in group.typer_instance.registered_commands:
            assert f"`{name} {command.name}`" in README
    for table in registry.tables():
        assert f"`{table.name}`" in README
    for code in ExitCode:
        assert f"| {code.value} |" in README


def test_the_settings_that_it_names_exist() -> None:
    known = {field.name for field in fields(Settings)} | {
        "api_key", "agent_id", "account_id", "region", "base_url",
    }  # fmt: skip
    named = re.findall(r"^\| `(\w+)`.*\| `POLYAI_(\w+)` \|", README, re.MULTILINE)
    assert len(named) > 5
    for name, variable in named:
        assert name in known
        assert variable == name.upper()


def test_relative_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
