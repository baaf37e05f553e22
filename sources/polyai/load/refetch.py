"""Rules for reading conversations again, and for how much of the listing is read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from ..warehouse.fallback import Fallback
from ..warehouse.held import Due, LoadState

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

CATCH_UP = timedelta(days=30)
"""Time before the newest read in which re-fetch ages count as not yet applied, where no run is
recorded, because the source runs in a pipeline of the user."""

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


def may_be_loading(
    row: Due, unfinished: Iterable[Mapping[str, Any]], policy: RefetchPolicy
) -> bool:
    """Checks whether a slice that may be running is loading a conversation.

    Args:
        row: The conversation.
        unfinished: Runs without an end, other than this one.
        policy: Rules of this run. A slice is alone in its range.
    """
    if policy.span is not None or not (at := row.created_at):
        return False
    return any(
        Span(run["range_from"], run["range_to"]).overlaps(at, at + _SECOND)
        for run in unfinished
        if may_be_running(run, policy.now)
    )


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


def ages_applied_until(
    warehouse: LoadState, agent_id: str, fallback: Fallback | None, now: datetime
) -> datetime | None:
    """Returns the time until which conversations past a re-fetch age have been read.

    An age that was added since does not apply to conversations that had crossed it before: an
    upgrade would otherwise read all of them at once.

    Args:
        warehouse: State of the load.
        agent_id: The agent.
        fallback: Fallback of the newest runs.
        now: Start of the run.
    """
    if fallback is not None and fallback.since is not None:
        return fallback.since  # later runs may have read no details
    last = warehouse.last_complete_run(agent_id, now)
    if last is not None:
        return last
    last = warehouse.last_fetched_at(agent_id)
    return min(last, now) - CATCH_UP if last is not None else None
