"""Rules for reading conversations again, and for how much of the listing is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from ..warehouse.held import Due

LONGEST_SLICE = timedelta(days=1)
"""Time for which a slice of a backfill without a recorded end counts as running."""

IN_PROGRESS_INTERVALS = (
    (timedelta(days=1), timedelta(0)),
    (timedelta(days=7), timedelta(hours=1)),
    (timedelta(days=30), timedelta(days=1)),
)
"""Time between two reads of a conversation in progress, up to an age; then weekly. One that is as
old was probably never ended at PolyAI."""

LONGEST_IN_PROGRESS_INTERVAL = timedelta(days=7)

LONGEST_GAP = timedelta(hours=1)
"""Longest time between neighbours among conversations that are read in one listing window."""

_SECOND = timedelta(seconds=1)


@dataclass(frozen=True)
class Span:
    """Time range of conversations, by their `created_at`.

    Attributes:
        since: Start of the range (inclusive).
        before: End of the range (exclusive).
    """

    since: datetime
    before: datetime

    def overlaps(self, since: datetime | None, before: datetime | None) -> bool:
        """Checks for a moment in common with another range, which is open where it is None."""
        return (before is None or self.since < before) and (since is None or since < self.before)


@dataclass(frozen=True)
class RefetchPolicy:
    """Rules for reading conversations again, and for how much of the listing is read.

    Attributes:
        now: Start of the run.
        lookback: Length of the look-back window before the watermark.
        settle_after: Re-fetch ages, after the end of a conversation.
        give_up_after: Age at which a failure is no longer retried.
        full: Read the whole listing, and retry failures that were given up.
        span: Read only this range of the listing.
        again: Read listed conversations even if they have not changed.
    """

    now: datetime
    lookback: timedelta
    settle_after: tuple[timedelta, ...]
    give_up_after: timedelta
    full: bool = False
    span: Span | None = None
    again: bool = False


def is_in_progress_due(row: Due, now: datetime) -> bool:
    """Checks whether a conversation in progress is to be read again; less often with its age."""
    return row.fetched_at is None or now - row.fetched_at >= in_progress_interval(row, now)


def in_progress_interval(row: Due, now: datetime) -> timedelta:
    """Returns the time between two reads of a conversation in progress."""
    began_at = row.created_at or row.fetched_at
    if began_at is None:
        return timedelta(0)
    for age, interval in IN_PROGRESS_INTERVALS:
        if now - began_at < age:
            # of unknown age, it could be old
            return interval if row.created_at else max(interval, timedelta(hours=1))
    return LONGEST_IN_PROGRESS_INTERVAL


def may_be_running(run: Mapping[str, Any], now: datetime) -> bool:
    """Checks whether a run without an end may be a slice of a backfill that is still running."""
    return bool(run["range_from"]) and run["started_at"] > now - LONGEST_SLICE


def windows(moments: Sequence[datetime]) -> Iterator[tuple[datetime, datetime]]:
    """Covers ascending times with as few windows as possible, without long gaps in them."""
    start = last = None
    for moment in moments:
        if start is not None and last is not None and moment - last > LONGEST_GAP:
            yield start, last + _SECOND
            start = None
        start, last = start or moment, moment
    if start is not None and last is not None:
        yield start, last + _SECOND
