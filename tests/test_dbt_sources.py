"""dbt source: it describes all tables and columns, and its tests pass on a warehouse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from command import query
from loaded import put_loaded
from polyai import open_pipeline
from polyai.sandbox import SandboxConfig
from polyai.tables import registry
from polyai.views import PIPELINE_NAME, create_views
from polyai.views.definitions import views
from schemas.generate.dbt_sources import sources_yaml
from schemas.generate.sql_types import DUCKDB_TYPES, VIEW_TYPES

pytestmark = pytest.mark.load

SCHEMAS = Path(__file__).parent.parent / "schemas"


@pytest.fixture
def tables() -> list[dict[str, Any]]:
    document = yaml.safe_load(sources_yaml())
    (source,) = document["sources"]
    found: list[dict[str, Any]] = source["tables"]
    return found


def test_generated_file_is_current() -> None:
    kept = (SCHEMAS / "dbt" / "sources.yml").read_text(encoding="utf-8")
    assert kept == sources_yaml(), "run `python -m schemas.generate` and look at the diff"


def test_all_tables_views_and_columns_are_described_in_order(tables: list[dict[str, Any]]) -> None:
    declared = {
        table.name: [(column.name, DUCKDB_TYPES[column.type]) for column in table.columns]
        for table in registry.tables()
    } | {
        view.name: [(field.name, VIEW_TYPES[field.type]) for field in view.fields]
        for view in views().values()
    }
    assert declared == {
        table["name"]: [(column["name"], column["data_type"]) for column in table["columns"]]
        for table in tables
    }
    for table in tables:
        assert all(column["description"] for column in table["columns"]), table["name"]
        # dbt would treat it as a template
        assert "{{" not in yaml.safe_dump(table)


@pytest.mark.slow
def test_data_tests_pass_on_a_warehouse(tables: list[dict[str, Any]]) -> None:
    put_loaded(SandboxConfig(conversations=60))
    create_views(open_pipeline(name=PIPELINE_NAME))
    existing = {name for (name,) in query("SELECT table_name FROM information_schema.tables")}
    assert {table["name"] for table in tables} - existing <= {
        "recordings", "write_backs", "debug_chats", "debug_chat_turns", "forgotten",
        "forgotten_callers", "published_copies",
    }  # fmt: skip
    for table in (table for table in tables if table["name"] in existing):
        for test in table.get("data_tests", ()):
            key = test["unique"]["arguments"]["column_name"]
            found = query(
                f"SELECT {key} FROM polyai.{table['name']} GROUP BY 1 HAVING count(*) > 1"
            )
            assert found == [], table["name"]
        for column in table["columns"]:
            if "not_null" in column.get("data_tests", ()):
                nulls = f"SELECT 1 FROM polyai.{table['name']} WHERE {column['name']} IS NULL"
                assert query(nulls) == [], (table["name"], column["name"])


@pytest.mark.slow
def test_freshness_is_that_of_the_last_complete_load(
    tables: list[dict[str, Any]],
) -> None:
    put_loaded(SandboxConfig(conversations=60))
    (config,) = (table["config"] for table in tables if "config" in table)
    asked = f"SELECT max({config['loaded_at_field']}) FROM polyai.sync_runs"
    ((moment,),) = query(f"{asked} WHERE {config['freshness']['filter']}")
    assert moment is not None
    assert query(asked) == [(moment,)]
