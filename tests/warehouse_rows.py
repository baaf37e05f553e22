"""Rows of a warehouse as plain values, compared with the expected rows of a sandbox."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import psycopg2
import psycopg2.extras

from polyai.sandbox import Sandbox
from polyai.tables.declaration import Table
from polyai.tables.registry import conversation_tables

Rows = dict[tuple[Any, ...], dict[str, Any]]
"""Rows by key."""

Fetch = Callable[[str], list[dict[str, Any]]]
"""Function that runs a query and returns rows by column."""

NOT_SERVED = frozenset({"fetched_at", "summary_hash", "_dlt_load_id", "_deleted"})
"""Columns that do not come from the API."""

ONLY_DATA = frozenset(
    {"turn_topics", "llm_requests", "function_events", "annotations", "conversation_tags", "notes"}
)
"""Tables that only the Data API fills."""


def rows_by_table(fetch: Fetch, dataset: str = "polyai") -> dict[str, Rows]:
    """Reads every conversation table, rows by key. Duplicate keys are errors."""
    return {
        table.name: _by_key(
            ("agent_id", "conversation_id", *table.key),
            fetch(f"SELECT * FROM {dataset}.{table.name}"),
            {column.name for column in table.columns if column.type == "json"},
        )
        for table in conversation_tables()
    }


def from_duckdb(database: Path | str = "polyai.duckdb") -> Fetch:
    """Returns a `Fetch` on a DuckDB file, opened for each query."""

    def fetch(sql: str) -> list[dict[str, Any]]:
        with duckdb.connect(str(database), read_only=True) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            rows: list[dict[str, Any]] = connection.execute(sql).to_arrow_table().to_pylist()
            return rows

    return fetch


def from_postgres(url: str, zone: str = "UTC") -> Fetch:
    """Returns a `Fetch` on a PostgreSQL database, with a connection per query in a time zone."""

    def fetch(sql: str) -> list[dict[str, Any]]:
        with (
            closing(psycopg2.connect(url)) as connection,
            connection.cursor(cursor_factory=psycopg2.extras.RealDictCursor) as cursor,
        ):
            cursor.execute("SET TimeZone = %s", (zone,))
            # without parameters, percent signs need no escaping
            cursor.execute(sql)
            return [dict(row) for row in cursor.fetchall()]

    return fetch


def assert_equals_truth(
    sandbox: Sandbox,
    agent_id: str,
    fetch: Fetch,
    apis: Sequence[str] = ("data",),
    environments: Sequence[str] | None = None,
) -> None:
    """Asserts that every row and column of every table equals the sandbox's expected rows.

    `apis` are those that the data was fetched from, in order. `environments` limits the comparison.
    """
    # substitutes for a sandbox need not support other APIs
    is_default = tuple(apis) == ("data",)
    truth = sandbox.truth(agent_id) if is_default else sandbox.truth(agent_id, apis)
    assert_equals_rows(truth, fetch, has_data="data" in apis, environments=environments)


def assert_equals_rows(
    expected_rows: Any,
    fetch: Fetch,
    *,
    has_data: bool = True,
    environments: Sequence[str] | None = None,
) -> None:
    """Asserts that every row and column of every table equals the rows of `Sandbox.truth`."""
    loaded, truth = rows_by_table(fetch), truth_by_table(expected_rows)
    for table, expected in truth.items():
        if table != "notes" and (has_data or table not in ONLY_DATA):
            assert expected, f"the sandbox serves nothing for {table}"
    if environments is not None:
        loaded, truth = _within(environments, loaded), _within(environments, truth)
        assert truth["conversations"], f"the sandbox serves nothing of {environments}"
    notes = {key[:2]: row for key, row in loaded.pop("notes").items() if row["valid_to"] is None}
    assert {
        key: {name: row[name] for name in ("agent_id", "conversation_id", "note")}
        for key, row in notes.items()
    } == truth.pop("notes")
    for table, expected in truth.items():
        assert loaded[table].keys() == expected.keys(), table
        differing = {
            key: {
                name: (loaded[table][key][name], value)
                for name, value in row.items()
                if loaded[table][key][name] != value
            }
            for key, row in expected.items()
            if loaded[table][key] != row
        }
        assert not differing, f"{table}, loaded and expected"


def _within(environments: Sequence[str], rows: dict[str, Rows]) -> dict[str, Rows]:
    """Excludes conversations of other environments; rows without a conversation stay."""
    excluded = {
        key[:2]
        for key, row in rows["conversations"].items()
        if row["environment"] not in environments
    }
    return {
        table: {key: row for key, row in found.items() if key[:2] not in excluded}
        for table, found in rows.items()
    }


def columns_of_api(table: Table) -> frozenset[str]:
    """Returns the columns that a field of an API fills; NULL for a field that no sandbox sends."""
    return frozenset(column.name for column in table.columns if column.apis)


def truth_by_table(truth: Any) -> dict[str, Rows]:
    """Converts `Sandbox.truth` to the shape of `rows_by_table`."""
    rows: dict[str, list[dict[str, Any]]] = {table.name: [] for table in conversation_tables()}
    unserved: dict[str, dict[str, Any]] = {
        table.name: dict.fromkeys(columns_of_api(table)) if table.name != "notes" else {}
        for table in conversation_tables()
    }
    for conversation in truth:
        for name, found in conversation.items():
            rows[name].extend(unserved[name] | row for row in found)
    return {
        table.name: _by_key(("agent_id", "conversation_id", *table.key), rows[table.name], set())
        for table in conversation_tables()
        if table.name != "notes"
    } | {"notes": _by_key(("agent_id", "conversation_id"), rows["notes"], set())}


def _by_key(key: tuple[str, ...], rows: list[dict[str, Any]], json_columns: set[str]) -> Rows:
    found: Rows = {}
    for row in rows:
        assert row.get("_deleted") is None
        clean = {
            name: _plain(value, is_json=name in json_columns)
            for name, value in row.items()
            if name not in NOT_SERVED
        }
        values = tuple(clean[name] for name in key)
        assert values not in found, f"duplicate key {values}"
        found[values] = clean
    return found


def _plain(value: Any, *, is_json: bool) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC)
    # DuckDB returns JSON as text, PostgreSQL's driver as objects
    return json.loads(value) if is_json and isinstance(value, str) else value
