"""What PolyAI shows of a conversation, and what that means for a row."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from ..shape.turns import reviews
from ..shape.values import integer
from .rows import Row

Json = Mapping[str, Any]


def shows(detail: Json, row: Row) -> bool | None:
    """Whether PolyAI has the annotation or the note already.

    Args:
        detail: `GET …/conversations/{conversationId}`.
        row: What may have been sent.

    Returns:
        None where the answer does not tell: the turns are withheld, or a review on the turn does
        not say what it is.
    """
    if row.kind == "note":
        return _as_compared(detail.get("note")) == _as_compared(row.note)
    turns = detail.get("turns")
    if not isinstance(turns, list) or row.turn_index is None or row.turn_index >= len(turns):
        return None
    turn = turns[row.turn_index]
    found = list(reviews(turn.get("reviews") if isinstance(turn, dict) else None))
    said = {
        (_as_compared(one.get("role")), _as_compared(one.get("annotationType"))) for one in found
    }
    if (row.role, row.annotation_type) in said:
        return True
    # the shape of a review is not documented
    return None if any("" in one for one in said) else False


def objection(
    detail: Json, row: Row, known_notes: Collection[str], *, overwrite: bool
) -> str | None:
    """Why the row is not to be sent; None where it is.

    Args:
        detail: `GET …/conversations/{conversationId}`.
        row: What is to be sent; PolyAI does not have it yet.
        known_notes: Notes of the conversation that whoever wrote the row may have seen: what the
            warehouse holds, and what was written back last.
        overwrite: Whether a note that nobody has seen here is replaced all the same.
    """
    if row.kind == "annotation":
        count = _turn_count(detail)
        if row.turn_index is None or count is None or row.turn_index < count:
            return None
        there_are = f"the conversation has turns 0 to {count - 1}" if count else "it has no turns"
        return f"turn {row.turn_index} is out of range: {there_are}"
    there = _as_compared(detail.get("note"))
    if overwrite or not there or there in map(_as_compared, known_notes):
        return None
    return (
        "PolyAI has a newer note than the warehouse, which would be lost: look at it after the "
        "next load, or give --overwrite"
    )


def _turn_count(detail: Json) -> int | None:
    """Turns of the conversation; None where the answer does not tell."""
    turns = detail.get("turns")
    if isinstance(turns, list) and turns:
        return len(turns)
    try:
        # the API's own count of turns that it withholds
        return integer(detail.get("num_turns")) or None
    except ValueError:
        return None


def _as_compared(value: Any) -> str:
    """Text without what a form or a database does to it."""
    return "" if value is None else str(value).replace("\r\n", "\n").strip()
