"""Our SQL in dialects that lack parts of it: the same results as DuckDB's."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import duckdb
import pytest
import sqlglot
from sqlglot import exp

from polyai.warehouse.dialects import parse, portable, qualified, to_sql
from polyai.warehouse.local_times import YEARS, offset_sql
from polyai.warehouse.values import parameter, rows_of

pytestmark = pytest.mark.unit

Rows = list[tuple[Any, ...]]

MOMENTS = [
    "2026-03-29 00:59:59.999999",
    "2026-03-29 01:00:00.000000",
    "2026-10-25 00:30:00.000001",
    "2026-10-25 01:00:00.000000",
    "2024-12-30 23:59:59.500000",
    "2021-01-03 12:00:00.000000",
    "2026-06-15 18:45:00.123456",
]


def in_sqlite(sql: str, setup: str) -> Rows:
    tree = sqlglot.parse_one(sql, read="duckdb")
    portable(tree, "sqlite")
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(setup)
        return connection.execute(to_sql(tree, "sqlite")).fetchall()


def in_duckdb(sql: str, setup: str) -> Rows:
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(setup)
        return connection.execute(sql).fetchall()


def test_quantiles_of_groups_are_duckdbs() -> None:
    rng = random.Random(1)
    rows = ", ".join(
        f"('g{n % 7}', {rng.choice(['NULL', round(rng.expovariate(0.5), 3), 1])}, {rng.random()})"
        for n in range(200)
    )
    setup = f"CREATE TABLE t (name VARCHAR, x DOUBLE, y DOUBLE); INSERT INTO t VALUES {rows}, "
    setup += "('empty', NULL, NULL), ('one', 5, 7)"
    sql = (
        "SELECT name, count(*) AS n, quantile_cont(x, 0.5) AS x_p50, quantile_cont(t.x, 0.95) AS "
        "x_p95, quantile_cont(y, 0.95) AS y_p95, coalesce(max(y), 0) AS most FROM t "
        "WHERE y IS NULL OR y < 8 GROUP BY name ORDER BY name"
    )
    found, expected = in_sqlite(sql, setup), in_duckdb(sql, setup)
    assert len(found) == len(expected) == 9
    for row, other in zip(found, expected):
        assert row[0] == other[0]
        for value, known in zip(row[1:], other[1:]):
            assert value == (known if known is None else pytest.approx(known, rel=1e-12))


@pytest.mark.parametrize("zone", ["UTC", "Europe/London", "America/Santiago", "Asia/Kolkata"])
@pytest.mark.parametrize(
    ("sql", "read"),
    [
        ("SELECT m AT TIME ZONE '{zone}' FROM t", datetime.fromisoformat),
        ("SELECT CAST(m AT TIME ZONE '{zone}' AS DATE) + 1 FROM t", str),
        ("SELECT CAST(extract(hour FROM m AT TIME ZONE '{zone}') AS BIGINT) FROM t", int),
        (
            "SELECT CAST(extract(epoch FROM (CAST(CAST(m AS DATE) + 1 AS TIMESTAMP) "
            "AT TIME ZONE '{zone}') - (CAST(CAST(m AS DATE) AS TIMESTAMP) AT TIME ZONE "
            "'{zone}')) AS DOUBLE) / 3600 FROM t",
            float,
        ),
    ],
    ids=["time", "day", "hour", "hours-of-day"],
)
def test_local_times_are_duckdbs(zone: str, sql: str, read: Callable[[Any], Any]) -> None:
    values = ", ".join(f"('{moment}')" for moment in MOMENTS)
    query = sql.format(zone=zone)
    found = in_sqlite(query, f"CREATE TABLE t (m TEXT); INSERT INTO t VALUES {values}")
    expected = in_duckdb(query, f"CREATE TABLE t (m TIMESTAMPTZ); INSERT INTO t VALUES {values}")
    assert [read(row[0]) for row in found] == [
        row[0] if read is not str else str(row[0]) for row in expected
    ]


@pytest.mark.parametrize("zone", ["Europe/London", "America/New_York", "America/Santiago"])
def test_offsets_are_those_of_the_time_zone(zone: str) -> None:
    rng = random.Random(2)
    sql = offset_sql("m", zone, is_local=False)
    seconds = int((datetime(YEARS.stop, 1, 1) - datetime(YEARS.start, 1, 1)).total_seconds())
    moments = [
        datetime(YEARS.start, 1, 1) + timedelta(seconds=rng.randrange(seconds)) for _ in range(500)
    ]
    with closing(sqlite3.connect(":memory:")) as connection:
        for moment in moments:
            text = moment.isoformat(" ", "microseconds")
            ((found,),) = connection.execute(f"SELECT {sql} FROM (SELECT ? AS m)", (text,))
            local = moment.replace(tzinfo=UTC).astimezone(ZoneInfo(zone))
            assert found == (local.utcoffset() or timedelta()).total_seconds(), moment


def test_parts_of_dates_are_duckdbs() -> None:
    parts = ("year", "quarter", "month", "day", "isoyear", "week", "isodow")
    columns = ", ".join(f"CAST(extract({part} FROM d) AS BIGINT)" for part in parts)
    days = ", ".join(f"('{datetime(2020, 12, 20) + timedelta(n):%Y-%m-%d}')" for n in range(2600))
    sql = f"SELECT {columns} FROM t ORDER BY d"
    found = in_sqlite(sql, f"CREATE TABLE t (d TEXT); INSERT INTO t VALUES {days}")
    assert found == in_duckdb(sql, f"CREATE TABLE t (d DATE); INSERT INTO t VALUES {days}")


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT bool_or(x > 1), bool_or(x > 9), bool_or(x > NULL) FROM t",
        "SELECT starts_with('CSAT_A', 'CSAT_'), starts_with('CSATXA', 'CSAT_'), x FROM t",
        "SELECT concat('a', NULL, x) FROM t",
        "SELECT x FROM t WHERE x NOT IN (SELECT 5 AS y)",
        "WITH a AS NOT MATERIALIZED (SELECT * FROM t) SELECT greatest(x, 0) FROM a",
    ],
)
def test_other_expressions_are_duckdbs(sql: str) -> None:
    setup = "CREATE TABLE t (x BIGINT); INSERT INTO t VALUES (2)"
    assert in_sqlite(sql, setup) == in_duckdb(sql, setup)


def test_not_in_stays_as_it_is() -> None:
    tree = parse("SELECT x FROM t WHERE x NOT IN (SELECT y FROM u)")
    portable(tree, "mysql")
    assert "ALL" not in to_sql(tree, "mysql")


@pytest.mark.parametrize("dialect", ["snowflake", "bigquery", "databricks", "redshift"])
def test_no_part_of_a_date_is_left_that_the_dialect_lacks(dialect: str) -> None:
    sql = (
        "SELECT extract(isodow FROM local_date) AS a, extract(epoch FROM x - y) AS b, local_date + "
        "1 AS c, CAST(local_date AS TIMESTAMP) AT TIME ZONE 'Europe/London' AS d FROM t"
    )
    tree = sqlglot.parse_one(sql, read="duckdb")
    portable(tree, dialect)
    worded = to_sql(tree, dialect)
    sqlglot.parse_one(worded, read=dialect)
    assert "ISODOW" not in worded
    assert "EPOCH" not in worded
    assert "TIMESTAMP_ADD" not in worded


def test_outer_joins_of_clickhouse_give_null() -> None:
    tree = parse("SELECT t.x, u.y FROM t LEFT JOIN u ON u.x = t.x")
    portable(tree, "clickhouse")
    assert to_sql(tree, "clickhouse").endswith("SETTINGS join_use_nulls = 1")


def test_tables_of_a_query_are_qualified() -> None:
    def qualify(name: str) -> str:
        return f'"lake"."{name}"'

    sql = "WITH a AS (SELECT * FROM turns) SELECT * FROM a JOIN polyai.notes ON TRUE"
    found = qualified(sql, "postgres", qualify)
    assert found is not None
    places = [table.sql() for table in sqlglot.parse_one(found).find_all(exp.Table)]
    assert sorted(places) == ['"lake"."turns"', "a", "polyai.notes"]
    assert qualified("SELECT 1", "postgres", qualify) is None
    assert qualified("SELECT FROM WHERE (", "postgres", qualify) is None


class TestValues:
    """Values of parameters and results."""

    MOMENT = datetime(2026, 1, 2, 3, 4, 5, 600, tzinfo=UTC)

    def test_times_as_parameters(self) -> None:
        moment = self.MOMENT.astimezone(ZoneInfo("Asia/Kolkata"))
        assert parameter(moment, "mysql") == self.MOMENT.replace(tzinfo=None)
        assert parameter(moment, "sqlite") == "2026-01-02 03:04:05.000600"
        assert parameter(moment, "postgres") is moment

    def test_results_of_mysql(self) -> None:
        naive = self.MOMENT.replace(tzinfo=None)
        names = ["created_at", "max(created_at)", "in_progress", "num_turns", "local_started_at"]
        assert rows_of(names, [(naive, naive, 1, 1, naive)], "mysql") == [
            (self.MOMENT, self.MOMENT, True, 1, naive)
        ]

    def test_text_that_looks_like_a_time_stays_text_in_sqlite(self) -> None:
        text = "2026-01-02 03:04:05.000600"
        names = ["note", "value", "created_at", "began", "local_started_at"]
        assert rows_of(names, [(text,) * 5], "sqlite") == [
            (text, text, self.MOMENT, self.MOMENT, text)
        ]
