"""Upgrades: a warehouse of version 0.1 is used unchanged, and a new column is added to it."""

from __future__ import annotations

import gzip
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import duckdb
import orjson
import pytest

from command import AGENT, KEY
from loaded import restore
from odd_server import Answer, OddServer, Request
from polyai import open_pipeline, resolve
from polyai.load import committer, upgrade
from polyai.load.chunk import Chunk
from polyai.load.committer import Committer
from polyai.load.run import load
from polyai.load.upgrade import UPGRADED_TABLES
from polyai.sandbox import Sandbox, SandboxConfig, serve
from polyai.shape.caller_identity import caller_hash
from polyai.shape.forgotten_callers import slow_hash
from polyai.tables.conversations import CONVERSATIONS
from polyai.tables.declaration import Column, Table
from polyai.tables.registry import name_tables
from polyai.warehouse.held import LoadState
from warehouse_rows import Rows, from_duckdb, rows_by_table

pytestmark = pytest.mark.load

FIXTURE = Path(__file__).parent / "fixtures" / "warehouse_0_1"
LOADED_AT = datetime(2026, 11, 29, 19, 55, tzinfo=UTC)
"""Time shortly after the last run of version 0.1 over the fixture."""

ANSWERS: list[dict[str, Any]] = orjson.loads(
    gzip.decompress((FIXTURE.parent / "answers_0_1.json.gz").read_bytes())
)
"""Details of the conversations of the fixture, newest first, as the sandbox of 0.1 sent them."""


@pytest.fixture
def api_0_1() -> Iterator[OddServer]:
    """Answers as the sandbox that the fixture was loaded from."""

    def answer(request: Request) -> Answer:
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

    with OddServer(answer) as server:
        yield server


@pytest.fixture
def warehouse_0_1() -> None:
    """Restores the fixture as `polyai.duckdb` of the working directory."""
    restore(FIXTURE)


def query(sql: str) -> list[tuple[Any, ...]]:
    with duckdb.connect("polyai.duckdb", read_only=True) as connection:
        return connection.execute(sql).fetchall()


UNCHANGED = ("metrics", "turn_intents", "turn_entities", "turn_topics", "conversation_tags")
"""Tables of an answer that have no new column."""


def rows_of_upgraded_tables() -> dict[str, Rows]:
    """Rows by table and key, without their load packages."""
    found = rows_by_table(from_duckdb(), dataset="main")
    return {name: found[name] for name in UPGRADED_TABLES}


@pytest.mark.usefixtures("warehouse_0_1")
def test_a_load_fills_new_columns_and_requests_only_what_is_due(api_0_1: OddServer) -> None:
    def packages() -> list[tuple[Any, ...]]:
        return query("SELECT conversation_id, turn_index, _dlt_load_id FROM turns ORDER BY ALL")

    unchanged = {name: query(f"SELECT * FROM {name} ORDER BY ALL") for name in UNCHANGED}
    before = packages()
    in_progress = query("SELECT count(*) FROM conversations WHERE in_progress")[0][0]
    loaded = query("SELECT count(*) FROM conversations")[0][0]
    (forgotten,) = query("SELECT conversation_id FROM forgotten")
    fast = caller_hash("+442079460018", "salt")
    with duckdb.connect("polyai.duckdb") as connection:
        connection.execute(
            "INSERT INTO forgotten_callers BY NAME SELECT 'other' AS agent_id, ? AS caller_hash, "
            "'salt' AS salt, now() AS requested_at",
            [fast],
        )
    assert query("SELECT count(*) FROM turns WHERE extra LIKE '%dtmf_finish_key%'")[0][0] > 100
    settings = resolve(agent_id=AGENT, api_key=KEY, base_url=api_0_1.url)
    (report,) = load(settings, open_pipeline(), clock=lambda: LOADED_AT)
    assert (report.status, report.missing, report.fetched) == ("complete", 0, in_progress)
    names = [target for target in api_0_1.targets if "/conversations" not in target]
    assert all("/conversations?" in target for target in api_0_1.targets if target not in names)
    assert len(names) == 3
    for table in name_tables():
        assert query(f"SELECT count(*) FROM {table.name}") == [(0,)]
    assert query("SELECT caller_hash, method, key_id FROM forgotten_callers") == [
        (slow_hash(fast, "salt"), "scrypt", None)
    ]
    upgraded = rows_of_upgraded_tables()
    assert query("SELECT count(*) FROM conversations") == [(loaded,)]
    assert {name: query(f"SELECT * FROM {name} ORDER BY ALL") for name in UNCHANGED} == unchanged
    assert packages() == before
    Path("polyai.duckdb").unlink()
    load(settings, open_pipeline(), clock=lambda: LOADED_AT)
    fresh = rows_of_upgraded_tables()
    for name, rows in fresh.items():
        expected = {key: row for key, row in rows.items() if key[1] != forgotten[0]}
        assert expected, name
        if name == "annotations":
            # two were written back
            assert len(upgraded[name].keys() - expected.keys()) == 2
            upgraded[name] = {key: upgraded[name][key] for key in expected}
        assert upgraded[name] == expected, name


@pytest.mark.slow
@pytest.mark.usefixtures("warehouse_0_1")
def test_others_can_open_the_file_between_its_chunks(
    api_0_1: OddServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def chunks(warehouse: LoadState) -> Iterator[Chunk]:
        for chunk in upgrade.upgrade_chunks(warehouse):
            yield chunk
            reader = "import duckdb; duckdb.connect('polyai.duckdb', read_only=True)"
            seen.append(subprocess.run([sys.executable, "-c", reader]).returncode)

    monkeypatch.setattr(upgrade, "CHUNK_SIZE", 10)
    monkeypatch.setattr(committer, "upgrade_chunks", chunks)
    settings = resolve(agent_id=AGENT, api_key=KEY, base_url=api_0_1.url)
    load(settings, open_pipeline(), clock=lambda: LOADED_AT)
    assert len(seen) > 1
    assert set(seen) == {0}


@pytest.mark.slow
@pytest.mark.usefixtures("warehouse_0_1")
def test_an_upgrade_that_was_killed_is_repeated_and_then_never_again(
    api_0_1: OddServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = resolve(agent_id=AGENT, api_key=KEY, base_url=api_0_1.url)

    def load_once() -> None:
        (report,) = load(settings, open_pipeline(), clock=lambda: LOADED_AT)
        assert (report.status, report.missing, report.fetched) == ("complete", 0, 0)

    def packages() -> int:
        counted = query("SELECT count(*) FROM _dlt_loads WHERE schema_name = 'polyai'")[0][0]
        return int(counted)

    shutil.copy("polyai.duckdb", "copy.duckdb")
    load_once()
    expected = rows_of_upgraded_tables()
    shutil.copy("copy.duckdb", "polyai.duckdb")
    monkeypatch.setattr(upgrade, "CHUNK_SIZE", 10)
    for passes in (1, 2, 4):
        with monkeypatch.context() as patch:
            kill_after(patch, passes)
            with pytest.raises(Killed):
                load_once()
    assert query("SELECT count(*) FROM _dlt_loads WHERE schema_name = 'polyai_upgrade'") == [(0,)]
    load_once()
    assert rows_of_upgraded_tables() == expected
    before = packages()
    load_once()
    # the two rows of a run with nothing new
    assert packages() - before == 2
    assert query("SELECT count(*) FROM _dlt_loads WHERE schema_name = 'polyai_upgrade'") == [(1,)]


class Killed(BaseException):
    """Ends a run as a signal would, without any handler of errors."""


def kill_after(patch: pytest.MonkeyPatch, passes: int) -> None:
    """Ends the run after this many load packages; the last one is not recorded as an upgrade."""
    load_package = Committer._load

    def loaded(committer: Committer, lanes: Iterable[str] = ()) -> None:
        nonlocal passes
        load_package(committer, lanes)
        passes -= 1
        if not passes:
            raise Killed

    patch.setattr(Committer, "_load", loaded)


@pytest.mark.slow
@pytest.mark.usefixtures("warehouse_0_1")
def test_a_full_load_finds_every_row_loaded_and_unchanged(api_0_1: OddServer) -> None:
    settings = resolve(agent_id=AGENT, api_key=KEY, base_url=api_0_1.url)
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
