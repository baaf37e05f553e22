"""Classes of columns: what any field of the API can bring is in classed columns only."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import pyarrow as pa
import pytest
import requests

from command import AGENT, KEY
from polyai.api.names import AgentsApi
from polyai.config.agent import Agent
from polyai.sandbox import Sandbox, SandboxConfig, serve
from polyai.shape.answer import Answer
from polyai.shape.audit_rows import audit_table
from polyai.shape.names import name_rows
from polyai.shape.shaping import shape
from polyai.shape.v3_rows import to_data_api_names
from polyai.tables.declaration import CLASS_HINT, PersonalData, Table
from polyai.tables.names import AGENTS, DEPLOYMENTS, PHONE_NUMBERS, VARIANTS
from polyai.tables.registry import conversation_tables, tables

CONFIG = SandboxConfig(conversations=40, span=timedelta(days=10), inventions=True)
CANARY = re.compile(r"canary\d+x")


class Canaries:
    """Documents with a mark of its own in the place of each value and each unknown key."""

    def __init__(self) -> None:
        self.count = 0

    def put(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: self.put(item) for key, item in value.items()} | {self._next(): 1}
        if isinstance(value, list):
            return [self.put(item) for item in value]
        return self._next()

    def _next(self) -> str:
        self.count += 1
        return f"canary{self.count}x"


def columns_with_canaries(found: dict[Table, pa.Table]) -> set[tuple[str, str]]:
    return {
        (table.name, column.name)
        for table, rows in found.items()
        for column in table.columns
        if CANARY.search(str(rows[column.name].to_pylist()))
    }


def unclassed(columns: set[tuple[str, str]]) -> list[tuple[str, str]]:
    classes = {(table.name, one.name): one.pii for table in tables() for one in table.columns}
    return sorted(column for column in columns if classes[column] == "none")


def get(url: str) -> Any:
    return requests.get(url, headers={"x-api-key": KEY}, timeout=60).json()


@pytest.mark.server
def test_values_of_any_field_are_in_classed_columns_only() -> None:
    sandbox = Sandbox(CONFIG)
    canaries = Canaries()
    with serve(sandbox) as url:
        data = f"{url}/v1/agents/{AGENT}"
        details = [get(f"{data}/conversations/{id_}") for id_ in sandbox.conversation_ids(AGENT)]
        rows = get(f"{url}/v3/{CONFIG.account_id}/{AGENT}/conversations?client_env=live")
        with AgentsApi(Agent(AGENT, KEY, "us", None, url, url)) as api:
            names = {
                AGENTS: api.agents(CONFIG.account_id),
                DEPLOYMENTS: api.deployments(),
                VARIANTS: api.variants(),
                PHONE_NUMBERS: api.phone_numbers(),
            }
    documents = [canaries.put(detail) for detail in details]
    documents += [canaries.put(to_data_api_names(row)) for row in rows["conversations"]]
    answers = [
        Answer(str(one["conversationId"]), one, "", datetime(2026, 8, 1, tzinfo=UTC))
        for one in documents
    ]
    shaped = shape(answers, agent_id=AGENT, region="eu", load_id="1").tables
    found = columns_with_canaries({one: shaped[one.name] for one in conversation_tables()})
    for table, items in names.items():
        made = name_rows(table, AGENT, [canaries.put(item) for item in items])
        assert made, table.name
        found |= columns_with_canaries({table: audit_table(table, made, "1")})
    assert canaries.count > 5_000
    # nearly every text that the API sends has a column
    assert len(found) > 90
    assert unclassed(found) == []


@pytest.mark.unit
class TestClasses:
    def test_each_text_that_an_api_sends_has_one(self) -> None:
        computed = {("conversations", "poly_score_scale")}
        texts = {
            (table.name, column.name)
            for table in tables()
            for column in table.columns
            if column.type in ("text", "json") and column.apis
        }
        assert unclassed(texts - computed) == []

    def test_each_class_is_used_and_goes_to_dlt_and_to_comments(self) -> None:
        columns = [column for table in tables() for column in table.columns]
        assert {column.pii for column in columns} == set(get_args(PersonalData))
        for table in tables():
            hints = table.dlt_columns
            for column in table.columns:
                assert hints[column.name][CLASS_HINT] == column.pii
                assert (f"Personal data: {column.pii}." in column.comment) is (column.pii != "none")

    def test_columns_of_one_name_have_one_class(self) -> None:
        classes: dict[str, set[str]] = {}
        for table in tables():
            for column in table.columns:
                classes.setdefault(column.name, set()).add(column.pii)
        # a label at PolyAI can be one of a few words of ours elsewhere
        assert [name for name, of in classes.items() if len(of - {"label"}) > 1] == []
        personal = {"identifier", "contact", "staff", "free_text"}
        assert [name for name, of in classes.items() if len(of) > 1 and of & personal] == []
