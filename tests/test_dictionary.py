"""Generated documents match the declarations, and the declarations match a loaded warehouse."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import dlt
import duckdb
import pytest
import yaml

import polyai
from polyai import annotate, open_pipeline, resolve
from polyai.debug_chats import load_suite, run_suites
from polyai.debug_chats.result_store import PIPELINE_NAME as DEBUG_CHATS_PIPELINE
from polyai.debug_chats.result_store import store_results
from polyai.forgetting.run import PIPELINE_NAME as FORGET_PIPELINE
from polyai.forgetting.run import Readers, forget
from polyai.load.run import load
from polyai.recordings.run import PIPELINE_NAME as RECORDINGS_PIPELINE
from polyai.recordings.run import fetch_recordings
from polyai.sandbox import Sandbox, SandboxConfig, serve
from polyai.tables import registry
from polyai.tables.declaration import Column, Table
from polyai.views.definitions import views
from schemas.generate.dictionary import dictionary
from schemas.generate.document import COMMAND

pytestmark = pytest.mark.load

SCHEMAS = Path(__file__).parent.parent / "schemas"
HAND_WRITTEN = {"README.md"}
ROW = re.compile(r"^\| `(\w+)` \| `(\w+)`( not null)? \|", flags=re.MULTILINE)


AMBIGUOUS = {
    # of different things, by table
    "created_at", "direction", "duration_seconds", "error", "error_code", "fetched_at",
    "finished_at", "handoff_reason", "message", "metadata", "name", "note", "passed", "reason",
    "requested_at", "run_id", "source_api", "started_at", "status", "turn_index", "user_input",
    "value",
    # NULL, or a generated id, in some tables
    "annotation_type", "chat_id", "conversation_id", "role",
    # NULL in tables, a word in views
    "channel", "environment", "variant_id",
}  # fmt: skip
"""Columns whose description depends on the table."""


class Described(NamedTuple):
    name: str
    type: str
    is_required: bool


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Working directory in which every kind of run has written into `polyai.duckdb`."""
    folder = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("DLT_DATA_DIR", str(folder / "dlt"))
        run_everything()
    return folder


@pytest.fixture
def loaded(project: Path, monkeypatch: pytest.MonkeyPatch) -> dlt.Pipeline:
    """Pipeline of the load, in its working directory."""
    monkeypatch.chdir(project)
    monkeypatch.setenv("DLT_DATA_DIR", str(project / "dlt"))
    return open_pipeline()


def run_everything() -> None:
    """Loads a sandbox, downloads recordings, annotates, tests the agent, and erases."""
    pipeline = open_pipeline()
    with serve(Sandbox(SandboxConfig(conversations=30))) as base_url:
        settings = resolve(agent_id="PROJECT-BOOKINGS", api_key="sandbox-key", base_url=base_url)
        (report,) = load(settings, pipeline)
        (fetched,) = fetch_recordings(settings, open_pipeline(name=RECORDINGS_PIPELINE))
        annotate([a_flag()], settings=settings)
        scenarios = load_suite(Path(__file__).parent / "scenarios" / "unmet.yaml")
        chats = run_suites([scenarios], settings)
        store_results(chats, open_pipeline(name=DEBUG_CHATS_PIPELINE))
        forget(
            open_pipeline(name=FORGET_PIPELINE),
            ["never-seen"],
            ["+15550100"],
            recordings_url="recordings",
            readers=Readers("UTC", None),
        )
    assert (report.status, fetched.status) == ("complete", "complete")


def a_flag() -> dict[str, object]:
    """Returns an annotation of a loaded turn."""
    with duckdb.connect("polyai.duckdb", read_only=True) as connection:
        row = connection.execute("SELECT max(conversation_id) FROM polyai.turns").fetchone()
    assert row is not None
    return {
        "conversation_id": row[0],
        "turn_index": 0,
        "role": "agent",
        "annotation_type": "missing_topic",
    }


def described(text: str) -> dict[str, list[Described]]:
    """Returns the columns that a dictionary lists under each heading, in order."""
    sections = re.split(r"^## (\w+)\n", text, flags=re.MULTILINE)
    return {
        name: [Described(row[1], row[2], row[3] is not None) for row in ROW.finditer(section)]
        for name, section in zip(["", *sections[1::2]], sections[::2])
    }


def test_generated_files_are_current(tmp_path: Path) -> None:
    package = str(Path(polyai.__path__[0]).parent)
    subprocess.run(
        [sys.executable, "-m", "schemas.generate", str(tmp_path / "generated")],
        cwd=SCHEMAS.parent,
        env={**os.environ, "PYTHONPATH": package},
        check=True,
    )
    folder = tmp_path / "generated"
    generated = {
        str(path.relative_to(folder)): path.read_text(encoding="utf-8")
        for path in folder.rglob("*")
        if path.is_file()
    }
    committed = {
        str(path.relative_to(SCHEMAS))
        for path in SCHEMAS.rglob("*")
        if path.is_file() and "generate" not in path.relative_to(SCHEMAS).parts
    }
    committed -= HAND_WRITTEN
    assert generated.keys() == committed >= {"dictionary.md", "polyai.schema.yaml", "views.md"}
    for name, text in generated.items():
        kept = (SCHEMAS / name).read_text(encoding="utf-8")
        assert kept == text, f"the tables have changed: run `{COMMAND}` and look at the diff"


@pytest.mark.slow
def test_duckdb_has_the_columns_of_the_dictionary(loaded: dlt.Pipeline) -> None:
    tables = described((SCHEMAS / "dictionary.md").read_text(encoding="utf-8"))
    found: dict[str, list[Described]] = {}
    with duckdb.connect("polyai.duckdb", read_only=True) as connection:
        for table, name, type_, is_nullable in connection.execute(
            "SELECT table_name, column_name, data_type, is_nullable "
            "FROM information_schema.columns WHERE table_schema = ? "
            "AND NOT starts_with(table_name, '_dlt_') ORDER BY table_name, ordinal_position",
            [loaded.dataset_name],
        ).fetchall():
            found.setdefault(table, []).append(Described(name, type_, is_nullable == "NO"))
    # the first table of the dictionary has DuckDB's name of each type
    duckdb_types = dict(
        re.findall(r"^\| `(\w+)` \| `([A-Z ]+)` \|$", dictionary(()), flags=re.MULTILINE)
    )
    del tables[""]
    assert found == {
        table: [column._replace(type=duckdb_types[column.type]) for column in columns]
        for table, columns in tables.items()
    }


@pytest.mark.slow
def test_the_exported_schema_is_what_a_load_uses(loaded: dlt.Pipeline) -> None:
    kept = yaml.safe_load((SCHEMAS / "polyai.schema.yaml").read_text(encoding="utf-8"))
    used = yaml.safe_load(loaded.default_schema.to_pretty_yaml(remove_processing_hints=True))
    used["tables"].pop("_dlt_pipeline_state")  # dlt's own, of the pipeline and not of the source
    assert kept["tables"] == used["tables"]
    assert dlt.Schema.from_dict(kept).version_hash == kept["version_hash"]


def test_a_column_has_one_description_in_all_tables_and_views() -> None:
    descriptions: dict[str, set[str]] = {}
    for table in registry.tables():
        for column in table.columns:
            descriptions.setdefault(column.name, set()).add(column.description)
    for view in views().values():
        for field in view.fields:
            descriptions.setdefault(field.name, set()).add(field.meaning)
    assert {name for name, found in descriptions.items() if len(found) > 1} == AMBIGUOUS


def test_text_cannot_break_the_markdown_table() -> None:
    table = Table("odd", "About it.", (Column("a", "text", "one | two", "b", required=True),), ())
    assert dictionary([table]).endswith(
        "## odd\n\nAbout it.\n\nKey: \n\n"
        "| column | type | unit | meaning | personal data | Data API field | v3 field |\n"
        "| --- | --- | --- | --- | --- | --- | --- |\n"
        "| `a` | `text` not null |  | one \\| two |  | `b` |  |\n"
    )
