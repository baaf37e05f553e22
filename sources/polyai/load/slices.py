"""A backfill's work, cut into slices: independent of each other, each committed on its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from ..clock import in_utc, parse_timestamp
from ..errors import ConfigurationError
from .plan import Span
from .report import RunReport, Status


@dataclass(frozen=True)
class Slice:
    """What one agent has in one range of time."""

    agent_id: str
    span: Span

    def __str__(self) -> str:
        since, before = (_as_text(moment) for moment in (self.span.since, self.span.before))
        return f"{self.agent_id} {since}/{before}"


def _as_text(moment: datetime) -> str:
    is_midnight = moment.time() == datetime.min.time()
    return f"{moment:%Y-%m-%d}" if is_midnight else f"{moment:%Y-%m-%dT%H:%M:%SZ}"


@dataclass(frozen=True)
class SliceReport:
    """How a slice ended, and what it did so far; plain values, for other processes.

    Attributes:
        agent_id: the agent.
        since: begin of the range.
        before: its end.
        status: as in `sync_runs`; `failed` also where its process died.
        error: what stopped it.
        counts: listed, new, changed, unchanged, failed, requests, retries, bytes_received, rows.
        failures: conversations that could not be read, and why.
        unmapped_fields: fields that no column takes.
        seconds: how long it took.
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

    @property
    def slice(self) -> Slice:
        """What it is about."""
        return Slice(self.agent_id, Span(self.since, self.before))

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            **vars(self),
            "counts": dict(self.counts),
            "unmapped_fields": dict(self.unmapped_fields),
        }


def slice_report(slice_: Slice, report: RunReport, seconds: float) -> SliceReport:
    """What a run over a slice has done so far."""
    counts = Counter(
        listed=report.listed,
        new=report.new,
        changed=report.changed,
        unchanged=report.unchanged,
        failed=report.failed,
        undated=report.undated,
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
    )


def without_run(slice_: Slice, status: Status, error: str | None = None) -> SliceReport:
    """The report of a slice that has no run of its own yet, never got one, or lost it."""
    return SliceReport(slice_.agent_id, slice_.span.since, slice_.span.before, status, error)


def cut(agent_ids: Sequence[str], span: Span, length: timedelta) -> list[Slice]:
    """Cuts a range into slices, oldest first, the agents by turns.

    Raises:
        ConfigurationError: The range is empty, or the slices are.
    """
    if span.since >= span.before:
        raise ConfigurationError(
            f"the range is empty: it begins at {span.since.isoformat()} and ends at "
            f"{span.before.isoformat()}"
        )
    if length <= timedelta(0):
        raise ConfigurationError("a slice of no length would never end: write one like 1d")
    return [Slice(agent_id, part) for part in _parts(span, length) for agent_id in agent_ids]


def _parts(span: Span, length: timedelta) -> Iterator[Span]:
    since = span.since
    while since < span.before:
        before = min(since + length, span.before)
        yield Span(since, before)
        since = before


def parse_moment(text: str) -> datetime:
    """Reads a date, which is its midnight in UTC, or a time in ISO 8601; without a zone it is UTC.

    Raises:
        ConfigurationError: for anything else.
    """
    try:
        moment = parse_timestamp(text) if "-" in text else None
    except ValueError:
        moment = None
    if moment is None:
        raise ConfigurationError(
            f"{text!r} is no date: write one like 2026-03-01 or 2026-03-01T12:00:00Z"
        )
    return in_utc(moment)
