"""Formats of counts, durations and rows that several commands print."""

from __future__ import annotations

from typing import Any

from rich.markup import escape

from ..load.report import RunReport

SHOWN_FAILURES = 10
"""Failed conversations that a summary names; all of them are in `fetch_failures`."""


def number_of(number: int, thing: str) -> str:
    """Formats a count with its noun, which is given in the singular."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def agent_heading(agent_id: str, name: str | None) -> str:
    """Formats an agent as markup: its id in bold, with its name if that is known."""
    return f"[bold]{escape(agent_id)}[/]" + (f" ({escape(name)})" if name else "")


def seconds_of(report: RunReport) -> float:
    """Returns the duration of a run; 0 if it has not ended."""
    if report.finished_at is None:
        return 0.0
    return (report.finished_at - report.started_at).total_seconds()


def without_internals(row: dict[str, Any]) -> dict[str, Any]:
    """Returns a row without dlt's own columns."""
    return {name: value for name, value in row.items() if not name.startswith("_")}
