"""Upgrades: a warehouse of version 0.1 is used unchanged, and a new column is added to it."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import duckdb
import orjson
import pytest

from command import AGENT, KEY
from odd_server import Answer, OddServer, Request
from polyai import open_pipeline, resolve
from polyai.load.run import load
from polyai.sandbox import Sandbox, SandboxConfig, serve
from polyai.tables.conversations import CONVERSATIONS
from polyai.tables.declaration import Column, Table

pytestmark = pytest.mark.load

FIXTURE = Path(__file__).parent / "fixtures" / "warehouse_0_1"
LOADED_AT = datetime(2026, 11, 29, 19, 55, tzinfo=UTC)
"""Time shortly after the last run of version 0.1 over the fixture."""

ANSWERS: list[dict[str, Any]] = orjson.loads(
    gzip.decompress((FIXTURE.parent / "answers_0_1.json.gz").read_bytes())
)
"""Details of the conversations of the fixture, newest first, as the sandbox of 0.1 sent them."""


def api_0_1(request: Request) -> Answer:
    """Answers as the sandbox that the fixture was loaded from."""
    url = urlsplit(request.target)
    last = unquote(url.path.rsplit("/", 1)[-1])
    if last != "conversations":
        return Answer(next(each for each in ANSWERS if each["conversationId"] == last))
    options = parse_qs(url.query)
    limit, offset = (int(options[name][0]) for name in ("limit", "offset"))
    nested = {"turns", "metrics", "functionEvents"}
    rows = [{key: each[key] for key in each.keys() - nested} for each in ANSWERS]
    page = {"conversations": rows[offset : offset + limit], "count": len(rows)}
    return Answer(page | {"limit": limit, "offset": offset})


@pytest.fixture
def warehouse_0_1() -> Path:
    """Restores the fixture as `polyai.duckdb` of the working directory."""
    database = Path("polyai.duckdb")
    with duckdb.connect(str(database)) as connection:
        connection.execute((FIXTURE / "schema.sql").read_text(encoding="utf-8"))
        for file in sorted(FIXTURE.glob("*.parquet")):
            connection.execute(f"INSERT INTO main.{file.stem} SELECT * FROM '{file}'")
    return database


def query(sql: str) -> list[tuple[Any, ...]]:
    with duckdb.connect("polyai.duckdb", read_only=True) as connection:
        return connection.execute(sql).fetchall()


def test_a_load_requests_only_what_is_due(warehouse_0_1: Path) -> None:
    turns = "SELECT * EXCLUDE (_dlt_load_id) FROM turns ORDER BY ALL"
    before = query(turns)
    columns = ", ".join(row[0] for row in query(f"DESCRIBE {turns}"))
    in_progress = query("SELECT count(*) FROM conversations WHERE in_progress")[0][0]
    loaded = query("SELECT count(*) FROM conversations")[0][0]
    (forgotten,) = query("SELECT conversation_id FROM forgotten")
    with OddServer(api_0_1) as server:
        settings = resolve(agent_id=AGENT, api_key=KEY, base_url=server.url)
        (report,) = load(settings, open_pipeline(), clock=lambda: LOADED_AT)
        details = sum("/conversations/" in target for target in server.targets)
    assert report.status == "complete"
    assert report.missing == 0
    assert details == in_progress
    assert query("SELECT count(*) FROM conversations") == [(loaded,)]
    assert query(f"SELECT count(*) FROM turns WHERE conversation_id = '{forgotten[0]}'") == [(0,)]
    assert query(f"SELECT {columns} FROM turns ORDER BY ALL") == before


@pytest.mark.slow
def test_a_full_load_finds_every_row_loaded_and_unchanged(warehouse_0_1: Path) -> None:
    with OddServer(api_0_1) as server:
        settings = resolve(agent_id=AGENT, api_key=KEY, base_url=server.url)
        (report,) = load(settings, open_pipeline(), full=True, clock=lambda: LOADED_AT)
    assert report.status == "complete"
    assert (report.new, report.missing, report.absent) == (0, 0, 0)
    assert report.unchanged + report.changed == 39


@pytest.fixture
def new_column() -> Iterator[Callable[[Table, Column], None]]:
    """Declares a column in addition to those of this version."""
    with ExitStack() as stack:

        def declare(table: Table, column: Column) -> None:
            stack.callback(change, table, table.columns)
            change(table, (*table.columns, column))

        def change(table: Table, columns: tuple[Column, ...]) -> None:
            object.__setattr__(table, "columns", columns)
            vars(table).pop("arrow_schema", None)  # is computed once

        yield declare


@pytest.mark.slow
def test_a_new_column_is_added_and_filled_when_a_conversation_is_fetched_again(
    new_column: Callable[[Table, Column], None],
) -> None:
    sandbox = Sandbox(SandboxConfig(conversations=12))
    conversation_id = next(sandbox.conversation_ids(AGENT))
    sandbox.edit(AGENT, conversation_id, extra={"hangupParty": "caller", "other": 1})
    of_conversation = f"FROM polyai.conversations WHERE conversation_id = '{conversation_id}'"
    with serve(sandbox) as base_url:
        settings = resolve(agent_id=AGENT, api_key=KEY, base_url=base_url)
        load(settings, open_pipeline(), clock=lambda: sandbox.now)
        assert '"hangupParty":"caller"' in str(query(f"SELECT extra {of_conversation}"))
        new_column(CONVERSATIONS, Column("hangup_party", "text", "Party.", "hangupParty"))
        sandbox.edit(AGENT, conversation_id, note="changed")
        (report,) = load(settings, open_pipeline(), clock=lambda: sandbox.now)
    assert (report.status, report.new) == ("complete", 0)
    assert query(f"SELECT hangup_party, note, extra {of_conversation}") == [
        ("caller", "changed", '{"other":1}')
    ]
