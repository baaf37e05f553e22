"""Formats of numbers, durations and reports that several commands show."""

from __future__ import annotations

from typing import Any

from ..load.report import RunReport

SHOWN_FAILURES = 10
"""Failed conversations that a summary names; all are in `fetch_failures`."""


def number_of(number: int, thing: str) -> str:
    """So many of a thing, which is named in the singular."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def seconds_of(report: RunReport) -> float:
    """How long a run took."""
    if report.finished_at is None:
        return 0.0
    return (report.finished_at - report.started_at).total_seconds()


def without_internals(row: dict[str, Any]) -> dict[str, Any]:
    """A row without dlt's own columns."""
    return {name: value for name, value in row.items() if not name.startswith("_")}
