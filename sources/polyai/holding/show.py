"""Legal holds as terminal output and as JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.markup import escape

from ..console.format import number_of
from ..warehouse.holds import Hold
from .command import HoldsResult


def holds(console: Console, result: HoldsResult) -> None:
    """Prints what was changed, and the active holds."""
    if result.placed:
        console.print(f"{number_of(len(result.placed), 'hold')} placed")
    if result.released:
        console.print(f"{number_of(len(result.released), 'hold')} released")
    active = [one for one in result.holds if one.released_at is None]
    released = len(result.holds) - len(active)
    console.print(f"{number_of(len(active), 'active hold')}, {released:,} released")
    for one in active:
        console.print(
            f"  [bold]{escape(one.agent_id)}[/] {escape(_named(one))}: {escape(one.reason or '')} "
            f"({one.placed_at:%Y-%m-%d %H:%M} UTC, {escape(one.placed_by or '')})"
        )


def holds_as_json(result: HoldsResult) -> dict[str, Any]:
    """Returns the object that `--json` prints."""
    return {
        "exit_code": int(result.exit_code),
        "placed": result.placed,
        "released": result.released,
        "not_found": result.not_found,
        "holds": [asdict(one) for one in result.holds],
    }


def _named(one: Hold) -> str:
    # of a caller, the number is not stored
    return one.conversation_id or f"caller {(one.caller_hash or '')[:8]}"
