"""Slices of a backfill: independent time ranges, each committed on its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from ..clock import in_utc, parse_timestamp
from ..errors import ConfigurationError
from .refetch import Span
from .report import RunReport, Status


@dataclass(frozen=True)
class Slice:
    """Conversations of one agent in one time range.

    Attributes:
        joined: Number of slices of the requested length that it consists of.
    """

    agent_id: str
    span: Span
    joined: int = 1

    def __str__(self) -> str:
        since, before = (_as_text(moment) for moment in (self.span.since, self.span.before))
        return f"{self.agent_id} {since}/{before}"


def _as_text(moment: datetime) -> str:
    is_midnight = moment.time() == datetime.min.time()
    return f"{moment:%Y-%m-%d}" if is_midnight else f"{moment:%Y-%m-%dT%H:%M:%SZ}"


@dataclass(frozen=True)
class SliceReport:
    """Progress or outcome of a slice, as plain values that other processes can read.

    Attributes:
        agent_id: The agent.
        since: Start of the range (inclusive).
        before: End of the range (exclusive).
        status: As in `sync_runs`; `failed` also if its process died.
        error: Error that stopped it.
        counts: listed, new, changed, unchanged, failed, undated, unproven (1 if the
            list was too disordered for a range), requests, retries, bytes_received, rows.
        failures: Error messages by conversation.
        unmapped_fields: Fields without a column, and how often they occurred.
        seconds: Duration so far.
        joined: Number of slices of the requested length that it consists of; more than one where
            there is little to load.
    """

    agent_id: str
    since: datetime
    before: datetime
    status: Status
    error: str | None = None
    counts: Counter[str] = field(default_factory=Counter)
    failures: dict[str, str] = field(default_factory=dict)
    unmapped_fields: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    joined: int = 1

    @property
    def slice(self) -> Slice:
        """The slice that the report is about."""
        return Slice(self.agent_id, Span(self.since, self.before), self.joined)

    def as_json(self) -> dict[str, Any]:
        """Returns the object for `--json`."""
        return {
            **vars(self),
            "counts": dict(self.counts),
            "unmapped_fields": dict(self.unmapped_fields),
        }


def slice_report(slice_: Slice, report: RunReport, seconds: float) -> SliceReport:
    """Makes the report of a slice from that of its run."""
    counts = Counter(
        listed=report.listed,
        new=report.new,
        changed=report.changed,
        unchanged=report.unchanged,
        failed=report.failed,
        undated=report.undated,
        unproven=int(not report.is_proven),
        requests=report.traffic.requests,
        retries=report.traffic.retries,
        bytes_received=report.traffic.bytes_received,
        rows=sum(report.rows.values()),
    )
    return SliceReport(
        slice_.agent_id,
        slice_.span.since,
        slice_.span.before,
        report.status,
        report.error,
        counts,
        {name: str(error) for name, error in list(report.failures.items())},
        Counter(report.unmapped_fields),
        seconds,
        slice_.joined,
    )


def without_run(slice_: Slice, status: Status, error: str | None = None) -> SliceReport:
    """Makes the report of a slice that has no run yet, never had one, or lost it."""
    return SliceReport(
        slice_.agent_id,
        slice_.span.since,
        slice_.span.before,
        status,
        error,
        joined=slice_.joined,
    )


def cut(agent_ids: Sequence[str], span: Span, length: timedelta) -> list[Slice]:
    """Cuts a range into slices, oldest first, alternating between the agents.

    Raises:
        ConfigurationError: The range or the length of a slice is empty.
    """
    if span.since >= span.before:
        raise ConfigurationError(
            f"the range is empty: it begins at {span.since.isoformat()} and ends at "
            f"{span.before.isoformat()}"
        )
    if length <= timedelta(0):
        raise ConfigurationError("the length of a slice must be positive, such as 1d")
    return [Slice(agent_id, part) for part in _parts(span, length) for agent_id in agent_ids]


def _parts(span: Span, length: timedelta) -> Iterator[Span]:
    since = span.since
    while since < span.before:
        before = min(since + length, span.before)
        yield Span(since, before)
        since = before


def parse_moment(text: str) -> datetime:
    """Parses a date (midnight in UTC) or a time in ISO 8601, by default in UTC.

    Raises:
        ConfigurationError: The text is neither.
    """
    try:
        moment = parse_timestamp(text) if "-" in text else None
    except ValueError:
        moment = None
    if moment is None:
        raise ConfigurationError(
            f"{text!r} is not a date or time (expected 2026-03-01 or 2026-03-01T12:00:00Z)"
        )
    return in_utc(moment)
