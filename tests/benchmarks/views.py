"""Response times of queries over the views, in a synthetic DuckDB warehouse and its copy."""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from statistics import median

import dlt
import duckdb
from rich.console import Console
from rich.table import Table

from polyai import open_pipeline
from polyai.tables import registry
from polyai.views import publish
from polyai.views.definitions import views
from polyai.views.statements import Statements
from schemas.generate.sql_types import DUCKDB_TYPES

from .sides import peak_rss_bytes

ZONE = "America/New_York"
FIRST = datetime(2026, 1, 1, tzinfo=UTC)
DAYS = 365
RUNS = 3

FILLING = {
    "conversations": """
        SELECT 'PROJECT-' || (i % 3) AS agent_id, 'CA' || md5(i::VARCHAR) AS conversation_id,
            CASE WHEN i % 5 = 0 THEN 'WEBCHAT' ELSE 'VOICE-SIP' END AS channel,
            'inbound' AS direction, 'live' AS environment, 'VARIANT-' || (i % 4) AS variant_id,
            ? + to_microseconds(i * ?) AS started_at, started_at AS created_at,
            started_at + INTERVAL 3 MINUTE AS finished_at, started_at AS fetched_at,
            30 + hash(i) % 300 AS total_duration_seconds, FALSE AS in_progress,
            hash(i) % 10 = 0 AS handoff, 'CALLER_ASKED' AS handoff_reason,
            1 + hash(i + 1) % 5 AS poly_score, '1-5' AS poly_score_scale,
            'A summary of the call ' || md5(i::VARCHAR) AS summary,
            ? AS num_turns, '+1202555' || (i % 400000) AS from_number
        FROM range(?) AS r(i)
    """,
    "turns": """
        SELECT agent_id, conversation_id, n AS turn_index,
            CASE WHEN n > 0 THEN 'A table for two please, ' || md5(n::VARCHAR) END AS user_input,
            'Of course, ' || md5((n + 1)::VARCHAR) AS agent_response,
            started_at + to_seconds(n * 10) AS user_input_at,
            (hash(conversation_id, n) % 4000) / 1000 AS latency_seconds
        FROM polyai.conversations, range(num_turns) AS t(n)
    """,
    "metrics": """
        SELECT agent_id, conversation_id, name, 0 AS occurrence,
            CASE WHEN name = 'CSAT_SCORE' THEN '4' ELSE 'true' END AS value,
            CASE WHEN name = 'CSAT_SCORE' THEN 4 END AS value_number,
            CASE WHEN name <> 'CSAT_SCORE' THEN TRUE END AS value_boolean
        FROM polyai.conversations,
            (VALUES ('CSAT_OFFERED'), ('CSAT_SCORE'), ('CALL_DURATION')) AS m(name)
    """,
    "function_events": """
        SELECT agent_id, conversation_id, n AS turn_index, 0 AS event_index, 'book' AS name,
            hash(conversation_id) % 900 AS duration_ms
        FROM polyai.conversations, range(2) AS t(n)
    """,
    "turn_topics": """
        SELECT agent_id, conversation_id, 1 AS turn_index, 0 AS position,
            'topic ' || (hash(conversation_id) % 20) AS topic
        FROM polyai.conversations
    """,
}
"""Rows of the tables; `hash` distributes values evenly, and equally in each run."""

DAY = date(2026, 6, 3)
WEEK = f"local_date BETWEEN DATE '{DAY}' AND DATE '{DAY + timedelta(days=6)}'"
ONE_AGENT = "agent_id = 'PROJECT-1'"

QUERIES = {
    "kpi_daily, a week": f"SELECT * FROM polyai.kpi_daily WHERE {WEEK}",
    "kpi_daily, a week of one agent": (
        f"SELECT * FROM polyai.kpi_daily WHERE {WEEK} AND {ONE_AGENT}"
    ),
    "kpi_daily, all days": "SELECT * FROM polyai.kpi_daily",
    "fct_conversations, a day": (
        f"SELECT * FROM polyai.fct_conversations WHERE local_date = '{DAY}'"
    ),
    "fct_conversations, one conversation": (
        "SELECT * FROM polyai.fct_conversations "
        "WHERE agent_id = 'PROJECT-1' AND conversation_id = 'CA' || md5('1')"
    ),
    "conversations_local, a week by day": (
        "SELECT local_date, count(*), avg(CAST(is_contained AS INTEGER)) "
        f"FROM polyai.conversations_local WHERE {WEEK} GROUP BY 1"
    ),
    "turn_latency_daily, a week": f"SELECT * FROM polyai.turn_latency_daily WHERE {WEEK}",
    "topics_daily, a week": f"SELECT * FROM polyai.topics_daily WHERE {WEEK}",
    "annotation_queue, a day": f"SELECT * FROM polyai.annotation_queue WHERE local_date = '{DAY}'",
    "red_flags, a week": f"SELECT * FROM polyai.red_flags WHERE {WEEK}",
    "repeat_callers, a week": f"SELECT * FROM polyai.repeat_callers WHERE {WEEK}",
    "data_freshness": "SELECT * FROM polyai.data_freshness",
    "dim_dates": "SELECT * FROM polyai.dim_dates",
}


def fill(connection: duckdb.DuckDBPyConnection, conversations: int, turns: int) -> None:
    """Makes the tables, fills them evenly over a year, and makes the views."""
    connection.execute("CREATE SCHEMA polyai")
    for table in registry.tables():
        columns = ", ".join(f'"{c.name}" {DUCKDB_TYPES[c.type]}' for c in table.columns)
        connection.execute(f"CREATE TABLE polyai.{table.name} ({columns})")
    insert(connection, conversations, turns)
    statements = Statements("duckdb", lambda name: f"polyai.{name}", ZONE)
    for view in views().values():
        connection.execute(statements.create(view, replacing=False))


def insert(
    connection: duckdb.DuckDBPyConnection, conversations: int, turns: int, load_id: str = ""
) -> None:
    """Fills the tables of a warehouse evenly over a year.

    Args:
        connection: The warehouse.
        conversations: Number of conversations.
        turns: Turns of each.
        load_id: Load package of the rows.
    """
    pace = timedelta(days=DAYS) // timedelta(microseconds=1) // conversations
    for name, rows in FILLING.items():
        values = [FIRST, pace, turns, conversations] if name == "conversations" else []
        connection.execute(
            f"INSERT INTO polyai.{name} BY NAME SELECT *, ? AS _dlt_load_id FROM ({rows})",
            [load_id, *values],
        )


def cpu_seconds(database: Path, query: str) -> float:
    """Returns the CPU seconds to fetch all rows of a query, on a newly opened file."""
    with duckdb.connect(str(database), read_only=True) as connection:
        began = time.process_time()
        connection.execute(query).fetchall()
        return time.process_time() - began


def seconds_of(connection: duckdb.DuckDBPyConnection, query: str) -> tuple[float, int]:
    """Returns the median time to fetch all rows of a query, and their number."""
    times = []
    for _ in range(RUNS):
        began = time.perf_counter()
        rows = len(connection.execute(query).fetchall())
        times.append(time.perf_counter() - began)
    return median(times), rows


def all_seconds(database: Path, threads: int) -> dict[str, tuple[float, int]]:
    """Returns time and rows of each query, on a newly opened file with nothing in memory."""
    with duckdb.connect(str(database), read_only=True, config={"threads": threads}) as connection:
        return {name: seconds_of(connection, query) for name, query in QUERIES.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures all queries in the warehouse and in its copy, and prints the times."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.views", description=__doc__)
    parser.add_argument("--conversations", type=int, default=1_000_000)
    parser.add_argument("--turns", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder, "views.duckdb")
        with duckdb.connect(str(database), config={"threads": options.threads}) as connection:
            fill(connection, options.conversations, options.turns)
        pipeline = open_pipeline(dlt.destinations.duckdb(str(database)), pipelines_dir=folder)
        published = publish(pipeline, Path(folder, "published"))
        in_warehouse = all_seconds(database, options.threads)
        in_copy = all_seconds(published.file, options.threads)
    shown = Table("query", "rows", "warehouse", "copy", title=f"{options.conversations:,} calls")
    for name, (seconds, rows) in in_warehouse.items():
        shown.add_row(name, f"{rows:,}", f"{seconds:.2f} s", f"{in_copy[name][0]:.2f} s")
    console = Console()
    console.print(shown)
    console.print(
        f"published in {published.seconds:.1f} s, {published.bytes / 1e6:,.0f} MB; "
        f"peak memory of the whole benchmark {peak_rss_bytes() / 1e6:,.0f} MB"
    )


if __name__ == "__main__":
    main()
