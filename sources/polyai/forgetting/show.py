"""Erasures as terminal output and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.markup import escape

from ..console.format import number_of
from .erasures import Erasure, Erasures

MAX_LISTED = 20
"""Maximum number of listed conversations; JSON has all of them."""


def plan(console: Console, done: Erasures) -> None:
    """Prints what would be erased."""
    for one in done.agents:
        console.print(
            f"[bold]{escape(one.agent_id)}[/]: "
            f"{number_of(len(one.conversations), 'conversation')} would be erased{_also(one)}"
        )
        absent = [f"{name} (not in the warehouse, never to be loaded)" for name in one.not_held]
        _list(console, [*one.conversations, *absent])
        _mentions(console, one)


def not_found(done: Erasures) -> list[str]:
    """Returns one line per caller that no agent has a conversation of."""
    return [
        f"no conversation of {caller} is in the warehouse, nor was one erased before. "
        + (f"Callers that come near: {', '.join(near)}. " if near else "")
        + "Write the number with + and its country code; without one it is taken for a number of "
        "phone_region (POLYAI_PHONE_REGION), else of the country of the agent's own numbers"
        for caller, near in done.not_found.items()
    ]


def erasures(console: Console, done: Erasures, place: str) -> None:
    """Prints the summary of a run, one paragraph per agent; errors are printed separately."""
    for one in done.agents:
        what = number_of(len(one.conversations), "conversation")
        if one.error:
            console.print(f"[bold]{escape(one.agent_id)}[/]: [red]not erased completely[/]: {what}")
            console.print("  they are not loaded again; run forget again to complete the erasure")
            continue
        tables = ", ".join(f"{rows:,} {table}" for table, rows in sorted(one.rows.items()))
        console.print(
            f"[bold]{escape(one.agent_id)}[/]: {what} erased{_also(one)}: "
            f"{number_of(one.rows.total(), 'row')}{f' ({tables})' if tables else ''}, "
            f"{number_of(one.recordings, 'recording')}"
        )
        if one.locked:
            console.print(
                "  [red]not erased completely[/]: the bucket keeps these files under Object Lock; "
                "run forget again after that to complete the erasure"
            )
            _list(console, [str(locked) for locked in one.locked])
        _mentions(console, one)
    if done.is_rewritten:
        console.print("the warehouse's files were rewritten; backups still contain the erased data")
    else:
        console.print(
            "the destination may keep deleted rows in snapshots, time travel and backups: delete "
            "them there too"
        )
    console.print("PolyAI still has the data: ask PolyAI to delete it too")
    console.print(f"warehouse: {escape(place)}", soft_wrap=True)


def erasures_as_json(done: Erasures, code: int, *, dry_run: bool) -> dict[str, Any]:
    """Returns the erasures as the object that `--json` prints."""
    return {
        "exit_code": int(code),
        "dry_run": dry_run,
        "is_rewritten": done.is_rewritten,
        "error": done.error,
        "agents": [
            {
                "agent_id": one.agent_id,
                "run_id": one.run_id or None,
                "conversations": one.conversations,
                "not_held": one.not_held,
                "callers": one.callers,
                "mentions": [
                    {"conversation_id": name, "places": places}
                    for name, places in one.mentions.items()
                ],
                "rows": dict(one.rows),
                "recordings": one.recordings,
                "not_found": one.not_found,
                "on_hold": one.on_hold,
                "callers_on_hold": one.callers_on_hold,
                "error": one.error,
                "locked": [asdict(file) for file in one.locked],
            }
            for one in done.agents
        ],
    }


def _also(one: Erasure) -> str:
    parts = []
    if one.not_held:
        parts.append(f"{len(one.not_held):,} more not in the warehouse, never to be loaded")
    if one.callers:
        parts.append(
            f"earlier conversations of {number_of(one.callers, 'caller')} are never loaded again"
        )
    return f" ({'; '.join(parts)})" if parts else ""


def _mentions(console: Console, one: Erasure) -> None:
    """Lists the conversations in which a caller is mentioned, unless they are erased too."""
    erased = {*one.conversations, *one.not_held}
    others = {name: places for name, places in one.mentions.items() if name not in erased}
    if not others:
        return
    count = number_of(len(others), "other conversation")
    console.print(f"  a caller is mentioned in {count}; --mentions erases these too:")
    _list(console, [f"{name}: {', '.join(places)}" for name, places in others.items()])


def _list(console: Console, conversation_ids: Sequence[str]) -> None:
    for name in conversation_ids[:MAX_LISTED]:
        console.print(f"  {escape(name)}")
    if len(conversation_ids) > MAX_LISTED:
        console.print(f"  … and {len(conversation_ids) - MAX_LISTED:,} more")
