"""Blocks and claims of the README and the guides: queries, examples, commands, settings, links."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import duckdb
import pytest
from typer.testing import CliRunner

from command import access, run
from polyai import open_pipeline, resolve
from polyai.cli.app import app
from polyai.cli.commands import COMMANDS, imported
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
PAGES = [
    ROOT / "README.md",
    ROOT / "schemas" / "README.md",
    ROOT / "sources" / "polyai" / "README.md",
    *sorted((ROOT / ".github").glob("*.md")),
    *sorted(path for path in (ROOT / "pipelines").glob("*.md") if path.name != "bi.md"),
]
"""Pages whose blocks are run here; test_bi runs those of `bi.md`, test_dagster those of Dagster."""


def blocks(language: str, pages: list[Path] = PAGES) -> list[str]:
    """Returns the code blocks of a language, in the order of the pages."""
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def _commands(text: str) -> list[str]:
    """Returns the arguments of each call of the command in a shell block."""
    # a quoted argument can span lines
    joined = re.sub(r'"[^"]*"', lambda found: " ".join(found[0].split()), text)
    lines = (line.split(" #")[0].split("&&")[0] for line in joined.splitlines())
    found = (re.fullmatch(r"(?:\S*/)?polyai-warehouse (.*)", line.strip()) for line in lines)
    return [match[1] for match in found if match]


def page(name: str) -> list[Path]:
    """Returns one guide of `pipelines/`."""
    return [ROOT / "pipelines" / name]


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
            # an agent without a draft answers no scenario: the newer one is the worse
            for label, environment in (*[("v11", "sandbox")] * 2, *[("v12", "draft")] * 2):
                chats = run_suites([suite], settings, environment=environment, label=label)
                assert chats.passed == (label == "v11")
                store_results(chats, open_pipeline(name=DEBUG_CHATS_PIPELINE))
    return folder / "polyai.duckdb"


def _scenarios(folder: Path) -> Suite:
    """Writes and loads the scenarios of the guide."""
    (text,) = blocks("yaml", page("debug-chats.md"))
    (folder / "bookings.yaml").write_text(text, encoding="utf-8")
    return load_suite(folder / "bookings.yaml")


@pytest.mark.slow
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
    (tried,) = (text for text in blocks("sh") if "debug-chat bookings.yaml" in text)
    commands = [line.split("#")[0].split()[1:] for line in written.splitlines()]
    commands.append(tried.splitlines()[0].split()[1:])
    with serve(Sandbox(SandboxConfig(conversations=150))) as base_url:
        for command in commands:
            done = run(*command, **access(base_url))
            assert done.returncode == 0, done.stderr + done.stdout
    assert 'failures="0"' in Path("results.xml").read_text(encoding="utf-8")


@pytest.mark.slow
# that of a DuckLake is run by test_ducklake.py
@pytest.mark.parametrize("sql", [sql for sql in blocks("sql") if "ducklake:" not in sql])
def test_each_query_answers(sql: str, warehouse: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(warehouse.parent)
    a_day = next(iter(sorted(Path("recordings/agent_id=PROJECT-BOOKINGS").iterdir())))
    sql = sql.replace("PROJECT-1234", "PROJECT-BOOKINGS")
    sql = sql.replace("2026-03-01", a_day.name.removeprefix("date="))
    *before, query = [part for part in sql.split(";") if part.strip()]
    with duckdb.connect(str(warehouse), read_only=True) as connection:
        for statement in before:
            connection.execute(statement)
        rows = connection.execute(query).fetchall()
    # both labels ran twice, which doubles no row
    assert 0 < len(rows) == len(set(rows))


def test_the_python_example_runs(own_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (example,) = blocks("python", [ROOT / "sources" / "polyai" / "README.md"])
    with serve(Sandbox(SandboxConfig(conversations=30))) as base_url:
        monkeypatch.setenv("POLYAI_API_KEY", "sandbox-key")
        monkeypatch.setenv("POLYAI_AGENT_ID", "PROJECT-BOOKINGS")
        monkeypatch.setenv("POLYAI_BASE_URL", base_url)
        subprocess.run([sys.executable, "-c", example], check=True, timeout=120)
    with duckdb.connect("calls.duckdb", read_only=True) as connection:
        assert connection.execute("select count(*) from polyai.conversations").fetchone() == (30,)


def test_the_readme_lists_every_command_and_exit_code() -> None:
    for name in COMMANDS:
        assert f"`polyai-warehouse {name}`" in README
        for subcommand in getattr(imported(name), "commands", ()):
            assert f"`{name} {subcommand}`" in README
    for code in ExitCode:
        assert f"| {code.value} |" in README


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) < 150


def test_every_table_is_described() -> None:
    described = (ROOT / "schemas" / "README.md").read_text(encoding="utf-8")
    for table in registry.tables():
        assert f"`{table.name}`" in described


def test_the_settings_in_the_guides_exist() -> None:
    known = {field.name for field in fields(Settings)} | {
        "api_key", "agent_id", "account_id", "region", "base_url", "v3_api_key", "v3_base_url",
    }  # fmt: skip
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    named = re.findall(r"^\| `(\w+)`.*\| `POLYAI_(\w+)` \|", text, re.MULTILINE)
    assert len(named) > 20
    for name, variable in named:
        assert name in known
        assert variable == name.upper()


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_relative_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", path.read_text(encoding="utf-8")):
        assert (path.parent / target).exists(), target


def test_modules_named_in_the_map_of_the_code_exist() -> None:
    package = ROOT / "sources" / "polyai"
    text = (package / "README.md").read_text(encoding="utf-8")
    for name in re.findall(r"`(\w+/\w+\.py)`", text):
        assert (package / name).exists() or (ROOT / name).exists(), name
    for name in re.findall(r"^\| \d+ \| (.*?) \|", text, re.MULTILINE):
        for folder in re.findall(r"`([\w.]+/?)`", name):
            assert (package / folder).exists(), folder


@pytest.mark.parametrize(
    "line", sorted({line for text in blocks("sh") for line in _commands(text)})
)
def test_commands_of_the_guides_are_valid(line: str) -> None:
    """Options exist and parse: `--help` is evaluated after the arguments before it."""
    result = CliRunner().invoke(app, [*shlex.split(line.replace("…", "1")), "--help"])
    assert result.exit_code == 0, result.output
