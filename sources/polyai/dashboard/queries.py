"""Queries of the dashboard: sums over views within a period, and single pages of rows.

The SQL can be translated for PostgreSQL: see `views.query_reader`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from ..errors import DestinationError
from ..views.query_reader import Reader, Row
from .selection import Period, Selection
from .totals import COLUMNS

ROWS_OF_A_PAGE = 25
"""Page size of lists of conversations."""

SHOWN = 10
"""Maximum length of lists; lists of functions, runs and failures show twice as many."""

OUTCOMES = {
    "contained": "is_contained",
    "handed_off": "is_finished AND is_handed_off",
    "in_progress": "NOT is_finished",
    "low_score": "poly_score_band = 'low'",
    "annotated": "num_annotations > 0",
}
"""Conditions of the outcome filter."""

_FLAGS = 6

_SEARCHED = (
    "conversation_id",
    "from_number",
    "summary_heading",
    "summary",
    "note",
    "handoff_reason",
)


@dataclass(frozen=True)
class Choices:
    """Available filter values.

    Attributes:
        today: Current date in the reporting time zone.
        first: Local date of the first conversation.
        newest: Local date of the newest conversation.
        rows: Existing combinations of agent_id, channel, environment and variant_id.
        variant_names: Names by agent_id and variant_id.
        agent_names: Names by agent_id.
    """

    today: date
    first: date
    newest: date
    rows: tuple[tuple[str, str, str, str], ...]
    variant_names: dict[tuple[str, str], str]
    agent_names: dict[str, str]


def choices(reader: Reader) -> Choices | None:
    """Returns the available filter values; None if there are no conversations."""
    days = reader.query(
        "SELECT max(d.local_date) AS today, "
        "(SELECT min(local_date) FROM kpi_daily) AS first_date, "
        "(SELECT max(local_date) FROM kpi_daily) AS newest FROM dim_dates AS d"
    )[0]
    if days["newest"] is None:
        return None
    rows = reader.query(
        "SELECT DISTINCT agent_id, channel, environment, variant_id FROM kpi_daily "
        "ORDER BY agent_id, channel, environment, variant_id"
    )
    names = reader.query(
        "SELECT agent_id, variant_id, variant_name FROM dim_variants WHERE variant_name IS NOT NULL"
    )
    return Choices(
        days["today"],
        days["first_date"],
        days["newest"],
        tuple(
            (row["agent_id"], row["channel"], row["environment"], row["variant_id"]) for row in rows
        ),
        {(row["agent_id"], row["variant_id"]): row["variant_name"] for row in names},
        agent_names(reader),
    )


def agent_names(reader: Reader) -> dict[str, str]:
    """Returns the known names of agents by agent_id."""
    rows = rows_if_table_exists(
        reader, "SELECT agent_id, agent_name FROM agents WHERE agent_name IS NOT NULL"
    )
    return {row["agent_id"]: row["agent_name"] for row in rows}


def named(reader: Reader, rows: list[Row]) -> list[Row]:
    """Returns the rows with the name of their agent as `agent_name`; None if it is unknown."""
    names = agent_names(reader) if rows else {}
    return [row | {"agent_name": names.get(row["agent_id"])} for row in rows]


def daily(reader: Reader, selection: Selection) -> list[Row]:
    """Returns the columns of `Totals` by local date, of the period and the previous one."""
    where, values = selection.where(period=selection.both)
    sums = ", ".join(f"sum({name}) AS {name}" for name in COLUMNS)
    return reader.query(
        f"SELECT local_date, {sums} FROM kpi_daily WHERE {where} GROUP BY local_date "
        "ORDER BY local_date",
        **values,
    )


def handle_times(reader: Reader, selection: Selection) -> Row:
    """Returns the median and 95th percentile of handle times, in seconds."""
    where, values = selection.where()
    return reader.query(
        "SELECT quantile_cont(handle_time_seconds, 0.5) AS p50, "
        "quantile_cont(handle_time_seconds, 0.95) AS p95 "
        f"FROM conversations_local WHERE {where}",
        **values,
    )[0]


@dataclass(frozen=True)
class Latencies:
    """Latencies of turns, in seconds.

    Each row has `turns`, `p50`, `p95`, `p99`, `over_2s` and `over_3s`.

    Attributes:
        now: The period; empty if it has no latencies.
        before: The previous period.
        by_day: Days of the period with latencies.
    """

    now: Row
    before: Row
    by_day: dict[date, Row]


def latencies(reader: Reader, selection: Selection) -> Latencies:
    """Returns the latencies of both periods and of each day."""
    where, values = selection.where("l", period=selection.both)
    rows = reader.query(
        "SELECT is_now, local_date, count(*) AS turns, "
        "quantile_cont(latency_seconds, 0.5) AS p50, "
        "quantile_cont(latency_seconds, 0.95) AS p95, "
        "quantile_cont(latency_seconds, 0.99) AS p99, "
        "count(CASE WHEN latency_seconds > 2 THEN 1 END) AS over_2s, "
        "count(CASE WHEN latency_seconds > 3 THEN 1 END) AS over_3s "
        "FROM (SELECT l.local_date >= $begin AS is_now, l.local_date, t.latency_seconds "
        "FROM conversations_local AS l JOIN turns AS t "
        "ON t.agent_id = l.agent_id AND t.conversation_id = l.conversation_id "
        f"WHERE {where} AND t.latency_seconds IS NOT NULL) AS latencies "
        "GROUP BY GROUPING SETS ((is_now), (is_now, local_date))",
        begin=selection.period.since,
        **values,
    )
    of_period = {row["is_now"]: row for row in rows if row["local_date"] is None}
    by_day = {row["local_date"]: row for row in rows if row["local_date"] and row["is_now"]}
    return Latencies(of_period.get(True, {}), of_period.get(False, {}), by_day)


def red_flags(reader: Reader, selection: Selection) -> list[Row]:
    """Returns the crossed thresholds per agent: the last crossing, and the number of `days`."""
    where, values = selection.where(fields=("agent",))
    rows = reader.query(
        "SELECT agent_id, local_date, flag, value, threshold, baseline, days, "
        "count(*) OVER () AS flags FROM (SELECT agent_id, local_date, flag, value, threshold, "
        "baseline, count(*) OVER (PARTITION BY agent_id, flag) AS days, row_number() OVER "
        "(PARTITION BY agent_id, flag ORDER BY local_date DESC) AS place "
        f"FROM red_flags WHERE {where}) AS crossed WHERE place = 1 "
        f"ORDER BY local_date DESC, days DESC, agent_id, flag LIMIT {_FLAGS}",
        **values,
    )
    return named(reader, rows)


def topics(reader: Reader, selection: Selection) -> list[Row]:
    """Returns the most frequent topics: `name`, `now`, `before`, and their number in `names`."""
    return _most_frequent(reader, selection, "topics_daily", "topic", "conversations")


def handoff_reasons(reader: Reader, selection: Selection) -> list[Row]:
    """Returns the most frequent reasons: `name`, `now`, `before`, and their number in `names`."""
    return _most_frequent(
        reader, selection, "handoff_reasons_daily", "handoff_reason", "handed_off_conversations"
    )


def _most_frequent(
    reader: Reader, selection: Selection, view: str, name: str, counted: str
) -> list[Row]:
    where, values = selection.where(period=selection.both)
    return reader.query(
        f"SELECT {name} AS name, sum(CASE WHEN local_date >= $begin THEN {counted} ELSE 0 END) "
        f"AS now, sum(CASE WHEN local_date < $begin THEN {counted} ELSE 0 END) AS before, "
        f"count(*) OVER () AS names FROM {view} WHERE {where} GROUP BY {name} "
        f"ORDER BY now DESC, before DESC, name LIMIT {SHOWN}",
        begin=selection.period.since,
        **values,
    )


def topic_days(reader: Reader, selection: Selection, names: Sequence[str]) -> list[Row]:
    """Returns the conversations of these topics by `name` and `local_date`."""
    return _by_day(reader, selection, "topics_daily", "topic", "conversations", names)


def reason_days(reader: Reader, selection: Selection, names: Sequence[str]) -> list[Row]:
    """Returns the handoffs of these reasons by `name` and `local_date`."""
    view, name = "handoff_reasons_daily", "handoff_reason"
    return _by_day(reader, selection, view, name, "handed_off_conversations", names)


def _by_day(
    reader: Reader, selection: Selection, view: str, name: str, counted: str, names: Sequence[str]
) -> list[Row]:
    where, values = selection.where()
    parameters = {f"name_{index}": value for index, value in enumerate(names)}
    marks = ", ".join(f"${parameter}" for parameter in parameters)
    return reader.query(
        f"SELECT {name} AS name, local_date, sum({counted}) AS number FROM {view} "
        f"WHERE {where} AND {name} IN ({marks}) GROUP BY {name}, local_date",
        **values,
        **parameters,
    )


def functions(reader: Reader, selection: Selection) -> list[Row]:
    """Returns the most called functions: `name`, `calls`, `errors`, and durations in ms."""
    where, values = selection.where("l")
    return reader.query(
        "SELECT coalesce(f.name, 'unknown') AS name, count(*) AS calls, "
        "count(f.error) AS errors, quantile_cont(f.duration_ms, 0.5) AS p50, "
        "quantile_cont(f.duration_ms, 0.95) AS p95, count(*) OVER () AS names "
        "FROM conversations_local AS l JOIN function_events AS f "
        "ON f.agent_id = l.agent_id AND f.conversation_id = l.conversation_id "
        f"WHERE {where} GROUP BY coalesce(f.name, 'unknown') "
        f"ORDER BY calls DESC, coalesce(f.name, 'unknown') LIMIT {2 * SHOWN}",
        **values,
    )


def function_days(reader: Reader, selection: Selection) -> list[Row]:
    """Returns calls and errors of all functions by local date, of both periods."""
    where, values = selection.where(period=selection.both)
    return reader.query(
        "SELECT local_date, sum(function_calls) AS calls, sum(function_errors) AS errors "
        f"FROM function_health_daily WHERE {where} GROUP BY local_date",
        **values,
    )


def conversations(
    reader: Reader, selection: Selection, search: str, outcome: str | None, page: int
) -> tuple[list[Row], int]:
    """Returns a page of conversations, newest first, and their total number.

    Args:
        reader: Reader of the warehouse.
        selection: The filters.
        search: Text contained in the summary, note, number, id, handoff reason or a turn.
        outcome: A key of `OUTCOMES`.
        page: Page number, from 0.
    """
    where, values = selection.where("c")
    view = "conversations_local"
    if outcome:
        where += f" AND ({OUTCOMES[outcome]})"
        view = "fct_conversations" if outcome == "annotated" else view
    if search:
        columns = " OR ".join(f"strpos(lower(c.{name}), $search) > 0" for name in _SEARCHED)
        where += (
            f" AND ({columns} OR (c.agent_id, c.conversation_id) IN (SELECT t.agent_id, "
            "t.conversation_id FROM turns AS t WHERE strpos(lower(t.user_input), $search) > 0 "
            "OR strpos(lower(t.agent_response), $search) > 0))"
        )
        values["search"] = search.lower()
    return _with_total(
        reader,
        reader.query(
            "SELECT agent_id, conversation_id, channel, environment, local_started_at, "
            "is_finished, is_handed_off, handoff_reason, handle_time_seconds, duration_seconds, "
            "poly_score, poly_score_scale, num_turns, summary_heading, summary, "
            f"count(*) OVER () AS number FROM {view} AS c WHERE {where} "
            f"ORDER BY local_started_at DESC, conversation_id {_limit(page)}",
            **values,
        ),
    )


def _limit(page: int) -> str:
    return f"LIMIT {ROWS_OF_A_PAGE} OFFSET {page * ROWS_OF_A_PAGE}"


def _with_total(reader: Reader, rows: list[Row]) -> tuple[list[Row], int]:
    return named(reader, rows), rows[0]["number"] if rows else 0


@dataclass(frozen=True)
class Conversation:
    """One conversation with its children.

    Attributes:
        facts: Row of `fct_conversations`.
        turns: In order.
        events: Function calls, in order.
        annotations: Annotations of its turns.
        tags: In order.
    """

    facts: Row
    turns: list[Row]
    events: list[Row]
    annotations: list[Row]
    tags: list[str]


def conversation(reader: Reader, agent_id: str, conversation_id: str) -> Conversation | None:
    """Returns a conversation; None if it is not in the warehouse."""
    where = "agent_id = $agent_id AND conversation_id = $conversation_id"
    key: Any = {"agent_id": agent_id, "conversation_id": conversation_id}
    facts = reader.query(f"SELECT * FROM fct_conversations WHERE {where}", **key)
    if not facts:
        return None
    turns = reader.query(
        "SELECT turn_index, user_input, user_input_at, user_input_dtmf, agent_response, "
        "agent_response_at, latency_seconds, barge_in, is_ood, is_silence, translated_user_input, "
        f"english_agent_response FROM turns WHERE {where} ORDER BY turn_index",
        **key,
    )
    events = reader.query(
        "SELECT turn_index, coalesce(name, 'unknown') AS name, duration_ms, error, handoff_reason "
        f"FROM function_events WHERE {where} ORDER BY turn_index, event_index",
        **key,
    )
    annotations = reader.query(
        "SELECT turn_index, role, annotation_type, comment, annotated_by, annotated_at "
        f"FROM annotations WHERE {where} ORDER BY turn_index, position",
        **key,
    )
    tags = rows_if_table_exists(
        reader, f"SELECT tag FROM conversation_tags WHERE {where} ORDER BY position", **key
    )
    return Conversation(facts[0], turns, events, annotations, [row["tag"] for row in tags])


def recordings(reader: Reader, agent_id: str, conversation_id: str) -> list[Row]:
    """Returns the rows of its recordings, the redacted and combined one first."""
    return rows_if_table_exists(
        reader,
        "SELECT direction, redacted, status, uri, bytes, duration_seconds FROM recordings "
        "WHERE agent_id = $agent_id AND conversation_id = $conversation_id "
        "ORDER BY CASE WHEN redacted THEN 0 ELSE 1 END, "
        "CASE WHEN direction = 'combined' THEN 0 ELSE 1 END, direction",
        agent_id=agent_id,
        conversation_id=conversation_id,
    )


def queue(reader: Reader, selection: Selection, page: int) -> tuple[list[Row], int]:
    """Returns a page of the review queue, most reasons first, and the total number."""
    where, values = selection.where()
    return _with_total(
        reader,
        reader.query(
            f"SELECT *, count(*) OVER () AS number FROM annotation_queue WHERE {where} "
            f"ORDER BY num_reasons DESC, local_started_at DESC, conversation_id {_limit(page)}",
            **values,
        ),
    )


def rows_if_table_exists(reader: Reader, sql: str, **values: object) -> list[Row]:
    """Returns the rows; none if the table or a column does not exist before the first run."""
    try:
        return reader.query(sql, **values)
    except DestinationError:
        return []


def of_period(rows: Sequence[Row], period: Period) -> list[Row]:
    """Returns the rows with a local date in the period."""
    return [row for row in rows if period.since <= row["local_date"] <= period.until]
