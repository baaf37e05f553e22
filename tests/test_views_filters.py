"""Filters on views reach the rows of tables, and local times are those of the destination."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import duckdb
import pytest

from benchmarks.views import QUERIES, fill
from polyai.tables.conversations import CONVERSATIONS
from polyai.views.definitions import views
from polyai.views.local_times import LOCAL_TIME
from polyai.views.statements import Statements
from schemas.generate.sql_types import DUCKDB_TYPES

pytestmark = pytest.mark.unit

LOADED = 20_000
TURNS = 3

A_WEEK = 4_000
"""Rows of a grouping of a week and the day before: more than its turns and metrics, and fewer than
the conversations."""


@pytest.fixture(scope="module")
def warehouse() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(config={"threads": 1}) as connection:
        fill(connection, LOADED, TURNS)
        yield connection


def operators(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan["children"]:
        yield from operators(child)


@pytest.mark.parametrize(
    "name",
    [
        "kpi_daily, a week",
        "fct_conversations, a day",
        "fct_conversations, one conversation",
        "annotation_queue, a day",
        "red_flags, a week",
        "turn_latency_daily, a week",
        "topics_daily, a week",
    ],
)
def test_filter_is_applied_before_rows_are_grouped(
    warehouse: duckdb.DuckDBPyConnection, name: str
) -> None:
    found = warehouse.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {QUERIES[name]}").fetchall()
    grouped = [
        operator["operator_cardinality"]
        for operator in operators(json.loads(found[0][1]))
        if operator.get("operator_name") in {"HASH_GROUP_BY", "PERFECT_HASH_GROUP_BY", "WINDOW"}
    ]
    assert grouped
    assert max(grouped) < A_WEEK


@pytest.mark.parametrize(
    "zone",
    [
        "America/New_York",
        "America/St_Johns",
        "Africa/Casablanca",
        "Asia/Kathmandu",
        "Australia/Lord_Howe",
        "Pacific/Apia",
        "UTC",
    ],
)
def test_local_times_are_those_of_at_time_zone(zone: str) -> None:
    query = Statements("duckdb", lambda name: name, zone).query(views()["conversations_local"])
    assert "utc_days" in query
    columns = ", ".join(f"{c.name} {DUCKDB_TYPES[c.type]}" for c in CONVERSATIONS.columns)
    expected = f"started_at AT TIME ZONE '{zone}'"
    with duckdb.connect() as connection:
        connection.execute(f"CREATE TABLE conversations ({columns})")
        # no offset is a multiple of 37 minutes; the other times are of days without a known offset
        connection.execute(
            "INSERT INTO conversations BY NAME SELECT unnest(generate_series("
            "TIMESTAMPTZ '2024-01-01 00:00:00.000001+00', TIMESTAMPTZ '2026-12-31 00:00:00+00', "
            "INTERVAL 37 MINUTE) || [TIMESTAMPTZ '1890-05-06 07:08:09+00', "
            "'2014-12-31 23:59:59+00', '2015-01-01 00:00:00+00', '2035-12-31 12:00:00+00', "
            "'2036-01-03 00:00:00+00', '2150-07-01 00:00:00+00', NULL]) AS started_at"
        )
        found = connection.execute(
            f"SELECT count(*), count(*) FILTER ({LOCAL_TIME} IS DISTINCT FROM {expected} "
            f"OR local_date IS DISTINCT FROM CAST({expected} AS DATE)) FROM ({query})"
        ).fetchone()
    assert found == (42_624, 0)
