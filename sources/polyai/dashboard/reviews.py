"""Review queue: conversations that should be reviewed first."""

from __future__ import annotations

from ..views.query_reader import Reader, Row
from . import components, conversations, queries
from .conversations import Found
from .markup import Markup, joined
from .selection import Selection

_REASONS = {
    "has_low_score": "Low score",
    "is_handed_off": "Handed off",
    "has_ood": "Out of domain",
    "has_long_silence": "Long silence",
    "has_high_latency": "High latency",
}


def find(reader: Reader, selection: Selection, page: int) -> Found:
    """Returns a page of the queue; pages are numbered from 0."""
    rows, number = queries.queue(reader, selection, page)
    return conversations.found(rows, [_shown(row) for row in rows], number, page)


def _shown(row: Row) -> Markup:
    chips = [components.chip(text, "pw-bad") for name, text in _REASONS.items() if row[name]]
    scored = f"PolyScore {row['poly_score']:g}" if row["poly_score"] is not None else ""
    turns = f"{row['num_turns']} turns" if row["num_turns"] is not None else ""
    return conversations.summary_of(
        row, joined(*chips), " · ".join(fact for fact in (turns, scored) if fact)
    )
