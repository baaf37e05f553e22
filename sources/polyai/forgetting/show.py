"""What was forgotten, as a person reads it in a terminal, and as JSON for programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.markup import escape

from ..console.format import number_of
from .run import Erasure, Erasures

SHOWN = 20
"""Conversations that are named; JSON has all of them."""


def plan(console: Console, done: Erasures) -> None:
    """What would be erased."""
    for one in done.agents:
        console.print(
            f"[bold]{escape(one.agent_id)}[/]: "
            f"{number_of(len(one.conversations), 'conversation')} would be erased{_also(one)}"
        )
        absent = [f"{name} (not held: it is not to come)" for name in one.not_held]
        _name(console, [*one.conversations, *absent])


def erasures(console: Console, done: Erasures, place: str) -> None:
    """The summary of a run: a paragraph an agent; an error that stopped one goes elsewhere."""
    for one in done.agents:
        what = number_of(len(one.conversations), "conversation")
        if one.error:
            console.print(f"[bold]{escape(one.agent_id)}[/]: [red]not done[/]: {what}")
            console.print("  no load brings that back; run forget again, which goes on")
            continue
        tables = ", ".join(f"{rows:,} {table}" for table, rows in sorted(one.rows.items()))
        console.print(
            f"[bold]{escape(one.agent_id)}[/]: {what} erased{_also(one)}: "
            f"{number_of(one.rows.total(), 'row')}{f' ({tables})' if tables else ''}, "
            f"{number_of(one.recordings, 'recording')}"
        )
    if done.is_rewritten:
        console.print("the DuckDB file was written anew; its backups still have what was erased")
    else:
        console.print(
            "what the destination keeps of deleted rows (snapshots, time travel, backups) goes by "
            "its own rules: see the README"
        )
    console.print("PolyAI keeps its own: ask there to delete it too")
    console.print(f"warehouse: {escape(place)}", soft_wrap=True)


def erasures_as_json(done: Erasures, code: int, *, dry_run: bool) -> dict[str, Any]:
    """The same for programs."""
    return {
        "exit_code": int(code),
        "dry_run": dry_run,
        "is_rewritten": done.is_rewritten,
        "error": done.error,
        "agents": [asdict(one) | {"rows": dict(one.rows)} for one in done.agents],
    }


def _also(one: Erasure) -> str:
    parts = []
    if one.not_held:
        parts.append(f"of {len(one.not_held):,} more nothing is held, or is to come")
    if one.callers:
        parts.append(f"what {number_of(one.callers, 'caller')} had until now is not to come back")
    return f" ({'; '.join(parts)})" if parts else ""


def _name(console: Console, conversation_ids: Sequence[str]) -> None:
    for name in conversation_ids[:SHOWN]:
        console.print(f"  {escape(name)}")
    if len(conversation_ids) > SHOWN:
        console.print(f"  … and {len(conversation_ids) - SHOWN:,} more")
