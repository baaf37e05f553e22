"""Retention as terminal output and as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.markup import escape

from ..console.format import number_of
from ..errors import without_credentials
from .result import Retention


def retention(console: Console, done: Retention, *, dry_run: bool) -> None:
    """Prints what was deleted, one paragraph per agent; errors are printed separately."""
    word = "would be deleted" if dry_run else "deleted"
    for one in done.agents:
        console.print(
            f"[bold]{escape(one.agent_id)}[/]: {number_of(one.conversations, 'conversation')}, "
            f"{number_of(one.recordings, 'recording')}, and words of "
            f"{number_of(one.transcripts, 'conversation')} {word}"
        )
        for what, before in asdict(one.limits).items():
            if before is not None:
                console.print(f"  {what} before {before:%Y-%m-%d} UTC")
        if one.locked:
            console.print(f"  {number_of(one.locked, 'deleted file')} locked in the bucket")
        if one.rows:
            console.print(f"  rows: {_listed(one.rows)}")
        if one.changed_rows:
            console.print(f"  rows without their words: {_listed(one.changed_rows)}")
    for copy in done.copies:
        again = "would be made again" if dry_run else "made again"
        console.print(f"{again}: {escape(without_credentials(copy))}", soft_wrap=True)
    if done.is_rewritten:
        console.print("the warehouse's files were rewritten; backups still contain the rows")


def retention_as_json(done: Retention, *, dry_run: bool) -> dict[str, Any]:
    """Returns the object that `--json` prints."""
    return {
        "exit_code": int(done.exit_code),
        "dry_run": dry_run,
        "is_rewritten": done.is_rewritten,
        "copies": [without_credentials(copy) for copy in done.copies],
        "agents": [
            asdict(one) | {"rows": dict(one.rows), "changed_rows": dict(one.changed_rows)}
            for one in done.agents
        ],
    }


def _listed(rows: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {table}" for table, count in sorted(rows.items()))
