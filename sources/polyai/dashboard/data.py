"""The page that tells whether the numbers can be trusted: how fresh, how complete."""

from __future__ import annotations

from ..views.query_reader import Reader, Row
from . import pieces, queries, wording
from .markup import Child, Markup, tag

_FRESHNESS = (
    ("Agent", False),
    ("Last complete load", False),
    ("Newest conversation", False),
    ("Held", True),
    ("At PolyAI", True),
    ("Missing", True),
    ("Failed", True),
    ("Without turns", True),
)

_RUNS = (
    ("Began", False),
    ("Agent", False),
    ("Command", False),
    ("Outcome", False),
    ("Took", True),
    ("New", True),
    ("Changed", True),
    ("Failed", True),
)

_FAILURES = (
    ("Last tried", False),
    ("Conversation", False),
    ("Stage", False),
    ("Attempts", True),
    ("What was said", False),
)


def page(reader: Reader) -> Markup:
    """The page, which no filter changes."""
    fresh = queries.freshness(reader)
    return pieces.page(
        pieces.card(
            "Freshness",
            pieces.table(_FRESHNESS, [_fresh(row) for row in fresh], label="Freshness"),
            note=f"Shown as the warehouse was at {wording.moment(reader.as_of)} UTC. "
            f"Local dates are in {queries.time_zone(reader)}; times on this page are UTC.",
        ),
        _failures(queries.failures(reader)),
        pieces.card(
            "Last runs",
            pieces.table(_RUNS, [_run(row) for row in queries.runs(reader)], label="Last runs"),
        ),
        name="data",
    )


def _fresh(row: Row) -> list[Child]:
    return [
        tag("strong", row["agent_id"]),
        pieces.lines_of(
            wording.moment(row["last_complete_load_at"]),
            tag("span", f"{wording.age(row['load_age_minutes'])} ago", class_="pw-quiet")
            if row["load_age_minutes"] is not None
            else None,
        ),
        wording.moment(row["newest_conversation_at"]),
        wording.count(row["conversations"]),
        wording.count(row["api_conversations"]),
        _alarming(row["missing_conversations"]),
        _alarming(row["open_failures"]),
        wording.count(row["withheld_conversations"]),
    ]


def _alarming(number: int | None) -> Child:
    said = wording.count(number)
    return tag("strong", said, class_="pw-bad") if number else said


def _run(row: Row) -> list[Child]:
    kinds = {"complete": "pw-good", "failed": "pw-bad", "partial": "pw-bad"}
    took = (row["finished_at"] - row["started_at"]).total_seconds() if row["finished_at"] else None
    return [
        wording.moment(row["started_at"]),
        row["agent_id"],
        row["command"],
        pieces.lines_of(
            pieces.chip(row["status"] or wording.UNKNOWN, kinds.get(row["status"], "")),
            tag("span", row["error"], class_="pw-quiet") if row["error"] else None,
        ),
        wording.duration(took),
        wording.count(row["new"]),
        wording.count(row["changed"]),
        wording.count(row["failed"]),
    ]


def _failures(rows: list[Row]) -> Markup:
    title = "Conversations that cannot be read"
    if not rows:
        return pieces.card(title, pieces.nothing("None: everything that is listed was read."))
    cells: list[list[Child]] = [
        [
            wording.moment(row["last_failed_at"]),
            pieces.lines_of(
                row["conversation_id"], tag("span", row["agent_id"], class_="pw-quiet")
            ),
            row["stage"],
            wording.count(row["attempts"]),
            " ".join(
                str(part)
                for part in (row["http_status"], row["error_code"], row["message"])
                if part is not None
            ),
        ]
        for row in rows
    ]
    return pieces.card(
        title,
        pieces.table(_FAILURES, cells, label=title),
        pieces.more(len(rows), rows[0]["failures"], "conversations"),
        note="The next load tries them again",
    )
