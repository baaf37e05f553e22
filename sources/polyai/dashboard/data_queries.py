"""Queries of the page about the data: freshness, verifications, failures and runs."""

from __future__ import annotations

from ..views.query_reader import Reader, Row
from .queries import SHOWN, named, rows_if_table_exists


def freshness(reader: Reader) -> list[Row]:
    """Returns the rows of `data_freshness`, one per agent."""
    return named(reader, reader.query("SELECT * FROM data_freshness ORDER BY agent_id"))


def verifications(reader: Reader) -> dict[str, Row]:
    """Returns the newest verification of recordings by agent: time, `findings` and their kinds."""
    rows = rows_if_table_exists(
        reader,
        "SELECT agent_id, finished_at, findings, error FROM (SELECT agent_id, finished_at, "
        "findings, error, row_number() OVER (PARTITION BY agent_id ORDER BY started_at DESC) "
        "AS place FROM sync_runs WHERE findings IS NOT NULL) AS verified WHERE place = 1",
    )
    return {row["agent_id"]: row for row in rows}


def runs(reader: Reader) -> list[Row]:
    """Returns the newest runs."""
    rows = reader.query(
        "SELECT agent_id, command, started_at, finished_at, status, listed, new, changed, fetched, "
        f"failed, error FROM sync_runs ORDER BY started_at DESC LIMIT {2 * SHOWN}"
    )
    return named(reader, rows)


def failures(reader: Reader) -> list[Row]:
    """Returns the newest open failures, and their number as `failures`."""
    rows = reader.query(
        "SELECT agent_id, conversation_id, stage, attempts, http_status, error_code, message, "
        "last_failed_at, count(*) OVER () AS failures FROM fetch_failures "
        f"WHERE resolved_at IS NULL ORDER BY last_failed_at DESC LIMIT {2 * SHOWN}"
    )
    return named(reader, rows)


def time_zone(reader: Reader) -> str:
    """Returns the reporting time zone."""
    return str(reader.query("SELECT reporting_time_zone FROM views_info")[0]["reporting_time_zone"])
