"""One declaration in the registry makes a table known to everything that walks over tables."""

from __future__ import annotations

import duckdb
import pytest
import yaml

from command import AGENT, KEY, query
from loaded import put_loaded
from polyai import open_pipeline
from polyai.forgetting.run import PIPELINE_NAME as FORGET_PIPELINE
from polyai.forgetting.run import Readers, forget
from polyai.load.source import polyai
from polyai.sandbox import SandboxConfig
from polyai.tables import registry
from polyai.tables.common_columns import AGENT_ID, CONVERSATION_ID, PACKAGE_ID
from polyai.tables.declaration import Column, Reference, Table
from polyai.views.statements import Statements
from polyai.warehouse.counts import TableCounts, table_counts
from polyai.warehouse.read_only import open_to_read
from schemas.generate.dbt_sources import sources_yaml
from schemas.generate.dictionary import dictionary, schema_yaml
from schemas.generate.entities import entities
from schemas.generate.relations import Relation, table_relations
from schemas.generate.sql_types import DUCKDB_TYPES

pytestmark = pytest.mark.load

TICKETS = Table(
    "tickets",
    "One row per support ticket of a conversation.",
    (
        AGENT_ID,
        CONVERSATION_ID,
        Column("ticket_id", "text", "Ticket id.", required=True),
        Column("run_id", "text", "Run that created it."),
        Column("priority", "bigint", "Priority.", unit="1-5"),
        PACKAGE_ID,
    ),
    key=("ticket_id",),
    written_by="answer",
    is_erased=True,
    references=(Reference("sync_runs", ("agent_id", "run_id")),),
    outline=("priority",),
)


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "REGISTERED", (*registry.REGISTERED, TICKETS))


@pytest.fixture
def conversation_id(monkeypatch: pytest.MonkeyPatch) -> str:
    """Id of a loaded conversation with two tickets of one key, beside one ticket of none."""
    with monkeypatch.context() as patch:
        # shaping does not fill it
        patch.setattr(registry, "REGISTERED", registry.REGISTERED[:-1])
        put_loaded(SandboxConfig(conversations=20))
    with duckdb.connect("polyai.duckdb") as connection:
        found = connection.execute(
            "SELECT max(conversation_id), max(_dlt_load_id) FROM polyai.conversations"
        ).fetchone()
        assert found is not None
        columns = ", ".join(f"{it.name} {DUCKDB_TYPES[it.type]}" for it in TICKETS.columns)
        connection.execute(f"CREATE TABLE polyai.tickets ({columns})")
        for owner in (found[0], found[0], "orphan"):
            connection.execute(
                "INSERT INTO polyai.tickets VALUES (?, ?, 'T1', NULL, 1, ?)",
                [AGENT, owner, found[1]],
            )
    return str(found[0])


def test_load_makes_a_resource_of_it() -> None:
    assert TICKETS in registry.loaded_tables()
    assert TICKETS.name in polyai(AGENT, KEY, region="us").resources


@pytest.mark.slow
def test_erasure_deletes_its_rows(conversation_id: str) -> None:
    erased = forget(
        open_pipeline(name=FORGET_PIPELINE),
        [conversation_id],
        recordings_url="recordings",
        readers=Readers("UTC", None),
    )
    assert erased.agents[0].rows["tickets"] == 2
    assert query("SELECT conversation_id FROM polyai.tickets") == [("orphan",)]


@pytest.mark.slow
@pytest.mark.usefixtures("conversation_id")
def test_reconciliation_counts_its_rows_duplicates_and_orphans() -> None:
    with open_to_read() as warehouse:
        assert table_counts(warehouse)[AGENT]["tickets"] == TableCounts(
            rows=3, orphans=1, doubled=1
        )


def test_database_gets_comments_on_it_and_its_columns() -> None:
    statements = Statements("duckdb", lambda name: name, "UTC")
    comments = statements.table_comments({"tickets": ["priority"]})
    assert comments == [
        "COMMENT ON TABLE tickets IS 'One row per support ticket of a conversation.'",
        "COMMENT ON COLUMN tickets.priority IS 'Priority. Unit: 1-5.'",
    ]


def test_dictionary_and_exported_schema_have_it() -> None:
    assert "## tickets\n\nOne row per support ticket of a conversation.\n" in dictionary()
    columns = yaml.safe_load(schema_yaml())["tables"]["tickets"]["columns"]
    assert columns["priority"]["data_type"] == "bigint"


def test_entity_diagram_shows_it_with_its_relations() -> None:
    assert list(table_relations())[-1] == Relation(
        "tickets", "sync_runs", ("agent_id", "run_id"), is_sure=False
    )
    text = entities()
    assert 'conversations ||--o{ tickets : "agent_id, conversation_id"' in text
    assert "    tickets {\n        text agent_id PK, FK\n" in text
    assert "        bigint priority\n" in text


def test_dbt_source_tests_its_key_and_its_conversation() -> None:
    (source,) = yaml.safe_load(sources_yaml())["sources"]
    (found,) = (table for table in source["tables"] if table["name"] == "tickets")
    tests = {column["name"]: column.get("data_tests", []) for column in found["columns"]}
    assert "relationships" in tests["conversation_id"][-1]
    assert found["data_tests"][0]["unique"]["name"] == "tickets_has_each_key_once"
