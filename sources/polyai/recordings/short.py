"""Recordings that are much shorter than their calls, and back-off of requests for them.

PolyAI may answer with a part of a recording while it is still being processed. The answer does not
show that; the length of the call does.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

SHORT_SECONDS = 3
"""Missing seconds that never count: ringing, and the end of the call after the last word."""

PROMPT_RETRIES = 2
"""Retries that come with the next runs; later ones back off."""

MIN_PAUSE = timedelta(minutes=15)
"""Shortest pause before a retry that backs off."""

_CALL_SECONDS = (
    "coalesce(nullif({0}polyai_duration_seconds, 0), nullif({0}duration_seconds, 0), "
    "CASE WHEN NOT coalesce({0}handoff, FALSE) THEN {0}total_duration_seconds END)"
)


def call_seconds_sql(alias: str = "") -> str:
    """Returns the SQL expression for the part of a call that is recorded; NULL if unknown.

    That is the agent's part: after a handoff, `total_duration_seconds` contains more.

    Args:
        alias: Alias of `conversations` in the query; empty for none.
    """
    return _CALL_SECONDS.format(f"{alias}." if alias else "")


def is_short(call_seconds: float | None, recording_seconds: float | None) -> bool:
    """Returns whether a recording is much shorter than its call.

    It is if more than half of the call is missing, and more than `SHORT_SECONDS`. Without both
    lengths it is not.
    """
    if call_seconds is None or recording_seconds is None:
        return False
    return 2 * recording_seconds < call_seconds and call_seconds - recording_seconds > SHORT_SECONDS


def short_sql(call_seconds: str, recording_seconds: str) -> str:
    """Returns the SQL condition for `is_short`; never NULL."""
    return (
        f"coalesce(2 * {recording_seconds} < {call_seconds} "
        f"AND {call_seconds} - {recording_seconds} > {SHORT_SECONDS}, FALSE)"
    )


def is_retry_due(row: Mapping[str, Any], since: datetime, now: datetime) -> bool:
    """Returns whether a recording is to be requested again, with exponential back-off.

    The next runs retry it `PROMPT_RETRIES` times. Then the time since `since` has to double before
    each retry: about ten of them in a week.

    Args:
        row: Row of `recordings`.
        since: Time from which on it was expected.
        now: Current time.
    """
    if (row["attempts"] or 0) <= PROMPT_RETRIES:
        return True
    asked_at: datetime = row["fetched_at"]
    return now - asked_at >= max(asked_at - since, MIN_PAUSE)
