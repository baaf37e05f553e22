"""All views on emulators of services that tests cannot reach: the same rows as in DuckDB.

fakesnow stands for Snowflake. chdb is ClickHouse itself, embedded, which is refused: the test names
the views that do not run there, or give other rows. Both packages bind the versions of others, so
they are in no extra:

    pip install chdb fakesnow 'snowflake-connector-python<5'
    python -m pytest -m matrix tests/test_emulators.py
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, time
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from destinations import Snapshot, assert_same, by_key, key_of_view
from loaded import put_loaded
from polyai.sandbox import SandboxConfig
from polyai.tables.declaration import Table
from polyai.tables.registry import tables
from polyai.views.definitions import tables_read, views
from polyai.views.statements import Statements

pytestmark = [pytest.mark.load, pytest.mark.matrix]

FAIL_ON_CLICKHOUSE = frozenset(
    {
        "annotation_queue",
        "csat_responses",
        "data_freshness",
        "dim_deployments",
        "fct_conversations",
        "handoff_reasons_daily",
        "kpi_daily",
        "outbound_daily",
        "red_flags",
    }
)
DIFFER_ON_CLICKHOUSE = frozenset({"conversations_local", "dim_dates", "repeat_callers"})

_SNOWFLAKE_TYPES = {
    "text": "VARCHAR",
    "bigint": "BIGINT",
    "double": "DOUBLE",
    "bool": "BOOLEAN",
    "timestamp": "TIMESTAMP_TZ",
    "json": "VARIANT",
}
"""Types of dlt's Snowflake destination by the types of our tables."""

Ask = Callable[[str], list[dict[str, Any]]]
"""Function that runs a statement and returns its rows by column."""

Content = Mapping[str, pa.Table]
"""Rows by table."""


def read_tables() -> list[Table]:
    """Returns the tables that views read."""
    return [table for table in tables() if table.name in tables_read()]


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> Content:
    """A loaded warehouse; tables that do not exist yet are empty."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("emulators"))
        put_loaded(SandboxConfig(conversations=40, inventions=True))
        with duckdb.connect("polyai.duckdb") as connection:
            existing = {
                name
                for (name,) in connection.execute(
                    "FROM duckdb_tables() SELECT table_name"
                ).fetchall()
            }
            connection.execute("SET TimeZone = 'UTC'")
            return {
                table.name: connection.table(table.name)
                .select(*table.arrow_schema.names)
                .to_arrow_table()
                .cast(table.arrow_schema)
                if table.name in existing
                else table.arrow_schema.empty_table()
                for table in read_tables()
            }


@pytest.fixture(scope="module")
def expected(content: Content) -> Snapshot:
    """Rows of all views in DuckDB."""
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        for name, rows in content.items():
            connection.register("loaded", rows)
            connection.execute(f"CREATE TABLE {name} AS FROM loaded")

        def ask(sql: str) -> list[dict[str, Any]]:
            rows: list[dict[str, Any]] = connection.execute(sql).to_arrow_table().to_pylist()
            return rows

        found, failing = rows_of_views(ask, "duckdb")
    assert not failing
    return found


def rows_of_views(ask: Ask, dialect: str) -> tuple[Snapshot, dict[str, str]]:
    """Creates all views in a database; returns rows by view, and errors by view that fails.

    Args:
        ask: Runs a statement in the database.
        dialect: Its dialect, as named by sqlglot.
    """
    statements = Statements(dialect, str, "Europe/London")
    found: Snapshot = {}
    failing = {}
    for view in views().values():
        try:
            ask(statements.create(view, replacing=True))
            rows = ask(f"SELECT * FROM {view.name}")
            found[view.name] = by_key(key_of_view(view), rows, set())
        except Exception as error:
            failing[view.name] = f"{type(error).__name__}: {error}"
    return found, failing


def _date(value: Any) -> Any:
    """Returns a date for the midnight that fakesnow makes of a date and a number of days."""
    is_date = isinstance(value, datetime) and value.tzinfo is None and value.time() == time()
    return value.date() if is_date else value


def test_snowflake(content: Content, expected: Snapshot) -> None:
    fakesnow = pytest.importorskip("fakesnow")
    connector = pytest.importorskip("snowflake.connector")
    with fakesnow.patch(), connector.connect(database="analytics", schema="polyai") as connection:
        cursor = connection.cursor()
        for table in read_tables():
            columns = ", ".join(f"{c.name} {_SNOWFLAKE_TYPES[c.type]}" for c in table.columns)
            cursor.execute(f"CREATE TABLE {table.name} ({columns})")
            values = ", ".join(
                f"parse_json(column{number})" if column.type == "json" else f"column{number}"
                for number, column in enumerate(table.columns, 1)
            )
            marks = ", ".join(["%s"] * len(table.columns))
            for row in content[table.name].to_pylist():
                cursor.execute(
                    f"INSERT INTO {table.name} SELECT {values} FROM VALUES ({marks})",
                    [v.isoformat() if isinstance(v, datetime) else v for v in row.values()],
                )

        def ask(sql: str) -> list[dict[str, Any]]:
            cursor.execute(sql)
            names = [field[0].lower() for field in cursor.description]
            return [dict(zip(names, map(_date, row))) for row in cursor.fetchall()]

        found, failing = rows_of_views(ask, "snowflake")
    assert not failing
    assert_same(expected, found)


def test_clickhouse(content: Content, expected: Snapshot, tmp_path: Path) -> None:
    chdb = pytest.importorskip("chdb.session")
    with chdb.Session() as session:
        for table in read_tables():
            file = tmp_path / f"{table.name}.parquet"
            pq.write_table(content[table.name], file)
            session.query(
                f"CREATE TABLE {table.name} ENGINE = Memory AS SELECT * FROM file('{file}')"
            )

        def ask(sql: str) -> list[dict[str, Any]]:
            answer = session.query(sql, "ArrowTable")
            rows: list[dict[str, Any]] = [] if answer is None else answer.to_pylist()
            # after a join, columns keep the alias of their table
            return [{name.rpartition(".")[2]: row[name] for name in row} for row in rows]

        found, failing = rows_of_views(ask, "clickhouse")
    assert failing.keys() == FAIL_ON_CLICKHOUSE, failing
    differing = set()
    for name, rows in found.items():
        try:
            assert_same({name: expected[name]}, {name: rows})
        except AssertionError:
            differing.add(name)
    assert differing == DIFFER_ON_CLICKHOUSE
