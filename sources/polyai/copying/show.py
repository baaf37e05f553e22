"""Copies as terminal output and as JSON."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..console.format import number_of
from .run import Copy


def copied(console: Console, done: Copy) -> None:
    """Prints the comparison of each table that has rows; the error is printed separately."""
    if done.tables:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for title in ("table", "rows", "copied", "hash", ""):
            table.add_column(title, justify="right" if title in ("rows", "copied") else "left")
        for one in done.tables:
            if one.source.rows or not one.is_equal:
                table.add_row(
                    one.name,
                    f"{one.source.rows:,}",
                    f"{one.copied:,}",
                    one.source.hash[:12],
                    "equal" if one.is_equal else f"[red]{one.target.rows:,} rows there[/]",
                )
        console.print(table)
    if done.is_interrupted:
        console.print("interrupted: the next copy continues")
        return
    rows = number_of(sum(one.copied for one in done.tables), "row")
    console.print(f"{escape(done.source)} → {escape(done.target)}: {rows} copied", soft_wrap=True)


def copy_as_json(done: Copy) -> dict[str, Any]:
    """Returns the copy as the object that `--json` prints."""
    return {
        "exit_code": int(done.exit_code),
        "source": done.source,
        "target": done.target,
        "is_source_changed": done.is_source_changed,
        "error": done.error,
        "tables": [
            {
                "table": one.name,
                "is_equal": one.is_equal,
                "copied_rows": one.copied,
                "source_rows": one.source.rows,
                "target_rows": one.target.rows,
                "source_hash": one.source.hash,
                "target_hash": one.target.hash,
            }
            for one in done.tables
        ],
    }
