"""Terminal and JSON output of `recordings move`, `recordings adopt` and `recordings prove`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.markup import escape

from .prove import Proof
from .relocate import Relocation

_FIRST = ("at", "event", "log", "entry", "conversation_id", "previous", "sha256_of_entry")


def moved(console: Console, result: Relocation, *, is_stopped: bool) -> None:
    """Prints the result of `move`."""
    if is_stopped:
        console.print(
            f"stopped: {result.files:,} files were copied, and the archive is still at "
            f"{escape(result.url)}; the next call resumes",
            soft_wrap=True,
        )
        return
    console.print(
        f"archive {result.archive_id}: {result.files:,} files copied, all hashes compared; it is "
        f"now at {escape(result.url)}",
        soft_wrap=True,
    )
    console.print(
        f"  set recordings_url to it; {escape(str(result.before))} is no longer used, and can be "
        "deleted",
        soft_wrap=True,
    )


def adopted(console: Console, result: Relocation) -> None:
    """Prints the result of `adopt`."""
    before = f", before at {escape(result.before)}" if result.before else ""
    console.print(
        f"archive {result.archive_id} at {escape(result.url)}{before}: {result.recordings:,} "
        "recordings of this warehouse",
        soft_wrap=True,
    )
    if result.missing:
        console.print(
            f"  [yellow]{result.missing:,} of them are not in it[/]: `recordings verify` names them"
        )


def relocation_as_json(result: Relocation, code: int) -> dict[str, Any]:
    """JSON of `move` and `adopt`."""
    return {"exit_code": int(code), **asdict(result)}


def proof(console: Console, result: Proof) -> None:
    """Prints the chain of custody of a conversation."""
    console.print(
        f"[bold]{escape(result.conversation_id)}[/] in archive {result.archive_id}", soft_wrap=True
    )
    for entry in result.entries:
        console.print(f"{entry['at']} [bold]{entry['event']}[/]", soft_wrap=True)
        facts = {name: value for name, value in entry.items() if name not in _FIRST}
        for name, value in facts.items():
            if value is not None:
                console.print(f"    {name}: {escape(str(value))}", soft_wrap=True)
        place = f"entry {entry['entry']} of {escape(entry['log'])}"
        console.print(f"    {place}, hash {entry['sha256_of_entry']}", soft_wrap=True)
    for file in result.files:
        state = "[green]as recorded[/]" if file["is_intact"] else "[red]not as recorded[/]"
        console.print(f"{escape(file['uri'])}: {state}, SHA-256 {file['sha256']}", soft_wrap=True)
    for problem in result.problems:
        console.print(f"[red]not proven[/]: {escape(problem)}", soft_wrap=True)
    if result.is_proven:
        console.print("[green]proven[/]: the log is unbroken, and each file is what it recorded")


def proof_as_json(result: Proof, code: int) -> dict[str, Any]:
    """JSON of the chain of custody of a conversation."""
    return {"exit_code": int(code), "proven": result.is_proven, **asdict(result)}
