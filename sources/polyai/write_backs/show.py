"""Terminal and JSON output of write-backs."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.markup import escape

from ..console.format import without_internals
from .report import DONE, Outcome, WriteBacks

SHOWN_RESULTS = 50
"""Rows that the terminal shows; JSON has all of them."""

_WORDS: dict[Outcome, str] = {
    "sent": "sent",
    "there": "there already",
    "to send": "would be sent",
    "rejected": "rejected",
    "unknown": "unknown",
    "not sent": "not sent",
}

_COLOURS: dict[Outcome, str] = {"rejected": "red", "unknown": "yellow", "not sent": "yellow"}


def write_backs(console: Console, done: WriteBacks, source: str, place: str) -> None:
    """Prints each row that needs action, then the number of rows by outcome.

    Args:
        console: Output.
        done: Results of the rows.
        source: Name of the file.
        place: Unit of a row's place: line or row.
    """
    if done.unused:
        columns = escape(", ".join(done.unused))
        console.print(f"PolyAI has no field for {columns}: ignored", soft_wrap=True)
    left = [result for result in done.results if result.outcome not in DONE]
    for result in left[:SHOWN_RESULTS]:
        colour = _COLOURS[result.outcome]
        about = " ".join(part for part in (result.conversation_id, result.said) if part)
        console.print(
            f"{place} {result.place}: [{colour}]{_WORDS[result.outcome]}[/] "
            f"{escape(about)}{': ' if about else ''}{escape(result.reason or '')}",
            soft_wrap=True,
        )
    if len(left) > SHOWN_RESULTS:
        console.print(f"… and {len(left) - SHOWN_RESULTS:,} more: --json lists all of them")
    counts: Counter[Outcome] = done.outcomes
    stated = ", ".join(f"{counts[one]:,} {_WORDS[one]}" for one in _WORDS if counts[one])
    console.print(
        f"[bold]{escape(source)}[/]: {len(done.results):,} rows: {stated or 'nothing to do'}"
    )
    if counts["unknown"] or counts["not sent"]:
        console.print("run the same command again to continue: nothing is sent twice")


def write_backs_as_json(done: WriteBacks, code: int) -> dict[str, Any]:
    """JSON with all rows."""
    return {
        "exit_code": int(code),
        "dry_run": done.dry_run,
        "counts": {_WORDS[one]: count for one, count in done.outcomes.items()},
        "unused_columns": done.unused,
        "rows": [asdict(result) for result in done.results],
        "agents": [without_internals(report.as_row()) for report in done.reports],
    }
