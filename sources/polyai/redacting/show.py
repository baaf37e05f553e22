"""Redactions as terminal output and as JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.markup import escape

from ..console.format import number_of
from .run import Redactions


def redactions(console: Console, done: Redactions, place: str, *, dry_run: bool) -> None:
    """Prints the summary of a run, one paragraph per agent; errors are printed separately."""
    verb = "would be redacted" if dry_run else "redacted"
    for one in done.agents:
        tables = ", ".join(f"{rows:,} {table}" for table, rows in sorted(one.rows.items()))
        former = " and ".join(one.modes) or "settings that were not recorded"
        console.print(
            f"[bold]{escape(one.agent_id)}[/]: {number_of(one.rows.total(), 'row')} {verb}"
            f"{f' ({tables})' if tables else ''}; loaded under {escape(former)}"
        )
    console.print(f"now: {escape(done.mode)}" if not dry_run else f"set: {escape(done.mode)}")
    if dry_run:
        return
    if done.is_interrupted:
        console.print("[red]not complete[/]: run redact again; no load is accepted until then")
    elif done.is_rewritten:
        console.print("the warehouse's files were rewritten; backups still have the former rows")
    else:
        console.print(
            "the destination may keep former rows in snapshots, time travel and backups: delete "
            "them there too"
        )
    console.print(f"warehouse: {escape(place)}", soft_wrap=True)


def redactions_as_json(done: Redactions, code: int, *, dry_run: bool) -> dict[str, Any]:
    """Returns the redactions as the object that `--json` prints."""
    return {
        "exit_code": int(code),
        "dry_run": dry_run,
        "mode": done.mode,
        "is_rewritten": done.is_rewritten,
        "agents": [asdict(one) | {"rows": dict(one.rows)} for one in done.agents],
    }
