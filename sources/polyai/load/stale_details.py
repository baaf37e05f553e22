"""Details that are older than their list row, because a replica of the API lags.

They are loaded and read again, at growing distances and a bounded number of times, until list row
and detail agree. The open rows of `fetch_failures` are the only state.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from typing import Any

from ..clock import in_utc
from ..errors import ConversationError
from ..listing.summary import COMPARED_FIELDS, older_fields, value
from ..shape.answer import Json, LoadedConversation
from ..shape.audit_rows import Failure

STALE_DETAIL = "STALE_DETAIL"
"""`error_code` in `fetch_failures`."""

_NEXT_RUN = timedelta(0)
DISTANCES = (
    _NEXT_RUN,
    _NEXT_RUN,
    _NEXT_RUN,
    timedelta(hours=1),
    timedelta(hours=6),
    timedelta(days=1),
)
"""Distance to the next attempt after each one; after the last one the difference is accepted."""

_COLUMNS = {
    "note": "note",
    "polyScore": "poly_score",
    "inProgress": "in_progress",
    "finishedAt": "finished_at",
    "handoff": "handoff",
    "handoffReason": "handoff_reason",
    "handoffDestination": "handoff_destination",
}
"""Columns of the compared fields, except for tags and summaries."""


def is_due(failure: Failure, now: datetime) -> bool:
    """Checks whether a stale detail is to be read again."""
    distance = DISTANCES[min(failure.attempts, len(DISTANCES)) - 1]
    return now - failure.last_failed_at >= distance


def is_given_up(failure: Failure | None) -> bool:
    """Checks whether another failed attempt is the last one."""
    return failure is not None and failure.attempts >= len(DISTANCES)


def stale_fields(
    row: Mapping[str, Any] | None,
    detail: Json,
    redacted: Json,
    loaded: LoadedConversation | None,
    loaded_tags: Collection[str] | None,
    *,
    was_stale: bool,
) -> list[str]:
    """Returns the fields in which a detail is older than its list row, or may be.

    Args:
        row: The list row; None if this run did not list the conversation.
        detail: The detail.
        redacted: The detail as it is loaded.
        loaded: The conversation as it is loaded.
        loaded_tags: Its loaded tags; None if unknown.
        was_stale: An earlier detail was. Without a list row, a detail that has not changed since
            is as old.
    """
    if row is None:
        is_same = was_stale and _is_same(redacted, loaded, loaded_tags)
        return list(COMPARED_FIELDS) if is_same else []
    found = older_fields(row, detail)
    # removed in the list, and still there in the detail
    note = value("note", redacted.get("note"))
    is_note_removed = "note" in row and value("note", row["note"]) is None
    if is_note_removed and note is not None and loaded is not None and loaded.note == note:
        found.append("note")
    tags = value("tags", redacted.get("tags"))
    are_tags_removed = "tags" in row and value("tags", row["tags"]) is None
    if are_tags_removed and tags and loaded_tags is not None and sorted(loaded_tags) == tags:
        found.append("tags")
    return found


def stale_error(fields: Collection[str], *, is_over: bool) -> ConversationError:
    """Builds the error of a stale detail.

    Args:
        fields: Fields that differ.
        is_over: It is not read again.
    """
    outcome = "they still do not agree, and it is not read again" if is_over else "it is read again"
    return ConversationError(
        f"the detail is older than its list row in {', '.join(fields)}: {outcome}",
        error_code=STALE_DETAIL,
    )


def _is_same(
    detail: Json, loaded: LoadedConversation | None, loaded_tags: Collection[str] | None
) -> bool:
    """Checks whether a detail has the values that are loaded, as far as it has any."""
    if loaded is None:
        return False
    summary = value("shortSummary", detail.get("shortSummary")) or {}
    if summary.get("content") not in (None, loaded.columns.get("summary")):
        return False
    if (value("tags", detail.get("tags")) or []) != sorted(loaded_tags or ()):
        return False
    if value("note", detail.get("note")) != loaded.note:
        return False
    for name, column in _COLUMNS.items():
        own, known = value(name, detail.get(name)), loaded.columns.get(column)
        if isinstance(known, datetime):
            known = in_utc(known).isoformat()
        elif name == "polyScore" and known is not None:
            known = float(known)
        if own is not None and own != known:
            return False
    return True
