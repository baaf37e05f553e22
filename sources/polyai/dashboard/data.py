"""Page about the data: freshness, completeness, recordings, failures and runs."""

from __future__ import annotations

from ..views.query_reader import Reader, Row
from . import components, data_queries, formats
from .markup import Child, Markup, tag

_FRESHNESS = (
    ("Agent", False),
    ("Last complete load", False),
    ("Newest conversation", False),
    ("In warehouse", True),
    ("At PolyAI", True),
    ("Missing", True),
    ("Failed", True),
    ("Without turns", True),
    ("Findings in recordings", True),
)

_RUNS = (
    ("Started", False),
    ("Agent", False),
    ("Command", False),
    ("Outcome", False),
    ("Duration", True),
    ("New", True),
    ("Changed", True),
    ("Failed", True),
)

_FAILURES = (
    ("Last attempt", False),
    ("Conversation", False),
    ("Stage", False),
    ("Attempts", True),
    ("Error", False),
)


def page(reader: Reader) -> Markup:
    """Returns the page, which ignores the filters."""
    fresh = data_queries.freshness(reader)
    verified = data_queries.verifications(reader)
    return components.page(
        components.card(
            "Freshness",
            components.table(
                _FRESHNESS,
                [[*_fresh(row), _verified(reader, verified.get(row["agent_id"]))] for row in fresh],
                label="Freshness",
            ),
            note=f"State of the warehouse at {formats.moment(reader.as_of)} UTC. "
            f"Local dates use {data_queries.time_zone(reader)}; times on this page are UTC.",
        ),
        _failures(data_queries.failures(reader)),
        components.card(
            "Last runs",
            components.table(
                _RUNS, [_run(row) for row in data_queries.runs(reader)], label="Last runs"
            ),
        ),
        name="data",
    )


def _fresh(row: Row) -> list[Child]:
    return [
        components.lines_of(
            tag("strong", row["agent_name"] or row["agent_id"]),
            tag("span", row["agent_id"], class_="pw-quiet") if row["agent_name"] else None,
        ),
        components.lines_of(
            formats.moment(row["last_complete_load_at"]),
            tag("span", f"{formats.age(row['load_age_minutes'])} ago", class_="pw-quiet")
            if row["load_age_minutes"] is not None
            else None,
        ),
        formats.moment(row["newest_conversation_at"]),
        formats.count(row["conversations"]),
        formats.count(row["api_conversations"]),
        _alarming(row["missing_conversations"]),
        _alarming(row["open_failures"]),
        formats.count(row["withheld_conversations"]),
    ]


def _verified(reader: Reader, row: Row | None) -> Child:
    """Findings of the last verification of an agent's recordings, and its age."""
    if row is None:
        return formats.UNKNOWN
    minutes = (reader.as_of - row["finished_at"]).total_seconds() / 60
    return components.lines_of(
        _alarming(row["findings"]),
        tag("span", row["error"], class_="pw-quiet") if row["error"] else None,
        tag("span", f"verified {formats.age(minutes)} ago", class_="pw-quiet"),
    )


def _alarming(number: int | None) -> Child:
    text = formats.count(number)
    return tag("strong", text, class_="pw-bad") if number else text


def _run(row: Row) -> list[Child]:
    kinds = {"complete": "pw-good", "failed": "pw-bad", "partial": "pw-bad"}
    seconds = (
        (row["finished_at"] - row["started_at"]).total_seconds() if row["finished_at"] else None
    )
    return [
        formats.moment(row["started_at"]),
        formats.named(row["agent_name"], row["agent_id"]),
        row["command"],
        components.lines_of(
            components.chip(row["status"] or formats.UNKNOWN, kinds.get(row["status"], "")),
            tag("span", row["error"], class_="pw-quiet") if row["error"] else None,
        ),
        formats.duration(seconds),
        formats.count(row["new"]),
        formats.count(row["changed"]),
        formats.count(row["failed"]),
    ]


def _failures(rows: list[Row]) -> Markup:
    title = "Conversations that cannot be read"
    if not rows:
        return components.card(title, components.empty("None: all listed conversations were read."))
    cells: list[list[Child]] = [
        [
            formats.moment(row["last_failed_at"]),
            components.lines_of(
                row["conversation_id"],
                tag("span", formats.named(row["agent_name"], row["agent_id"]), class_="pw-quiet"),
            ),
            row["stage"],
            formats.count(row["attempts"]),
            " ".join(
                str(part)
                for part in (row["http_status"], row["error_code"], row["message"])
                if part is not None
            ),
        ]
        for row in rows
    ]
    return components.card(
        title,
        components.table(_FAILURES, cells, label=title),
        components.more(len(rows), rows[0]["failures"], "conversations"),
        note="The next load retries them",
    )
