"""Comparison of a row with the conversation at PolyAI: already present, allowed, or in conflict."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from ..shape.redaction import Redaction
from ..shape.turns import reviews
from ..shape.values import integer
from .rows import Row

Json = Mapping[str, Any]


def is_present(detail: Json, row: Row) -> bool | None:
    """Returns whether PolyAI already has the annotation or the note.

    Args:
        detail: `GET …/conversations/{conversationId}`.
        row: Row that may have been sent.

    Returns:
        None if the response does not show it: the turns are withheld, or a review on the turn
        lacks its role or type.
    """
    if row.kind == "note":
        return _normalized(detail.get("note")) == _normalized(row.note)
    turns = detail.get("turns")
    if not isinstance(turns, list) or row.turn_index is None or row.turn_index >= len(turns):
        return None
    turn = turns[row.turn_index]
    found = list(reviews(turn.get("reviews") if isinstance(turn, dict) else None))
    annotations = {
        (_normalized(one.get("role")), _normalized(one.get("annotationType"))) for one in found
    }
    if (row.role, row.annotation_type) in annotations:
        return True
    # the structure of a review is not documented
    return None if any("" in one for one in annotations) else False


def objection(
    detail: Json, row: Row, known_notes: Collection[str], *, overwrite: bool
) -> str | None:
    """Returns the reason not to send the row; None if it can be sent.

    Args:
        detail: `GET …/conversations/{conversationId}`.
        row: Row that PolyAI does not have yet.
        known_notes: Notes of the conversation that the author of the row may have seen: the one in
            the warehouse, and the last one that was written back.
        overwrite: Replace a note that is not known here, too.
    """
    if row.kind == "annotation":
        count = _turn_count(detail)
        if row.turn_index is None or count is None or row.turn_index < count:
            return None
        turns = f"the conversation has turns 0 to {count - 1}" if count else "it has no turns"
        return f"turn {row.turn_index} is out of range: {turns}"
    current = _normalized(detail.get("note"))
    if overwrite or not current or current in map(_normalized, known_notes):
        return None
    return (
        "PolyAI has a newer note than the warehouse, which would be lost: check it after the next "
        "load, or give --overwrite"
    )


def with_redacted_note(detail: Json, redaction: Redaction) -> Json:
    """Returns the detail with its note as the settings let the warehouse store it."""
    return {**detail, **redaction.value({"note": detail.get("note")})}


def _turn_count(detail: Json) -> int | None:
    """Number of turns; None if the response does not show it."""
    turns = detail.get("turns")
    if isinstance(turns, list) and turns:
        return len(turns)
    try:
        # the API's own count of turns that it withholds
        return integer(detail.get("num_turns")) or None
    except ValueError:
        return None


def _normalized(value: Any) -> str:
    """Text without the changes that forms and databases make."""
    return "" if value is None else str(value).replace("\r\n", "\n").strip()
