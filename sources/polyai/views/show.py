"""What was made, as a person reads it in a terminal, and as JSON for programs."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.markup import escape

from .creation import ViewsReport
from .definitions import views
from .publishing import Published


def report(console: Console, made: ViewsReport) -> None:
    """A line for each view: its name and the question that it answers."""
    if made.tables_made:
        console.print(f"nothing was loaded yet into {', '.join(made.tables_made)}: made empty")
    width = max(map(len, views()))
    for name in made.created:
        console.print(f"[bold]{name:<{width}}[/]  {escape(views()[name].question)}")
    console.print(f"{len(made.created)} views, local dates in {escape(made.zone)}")


def report_as_json(made: ViewsReport, code: int) -> dict[str, Any]:
    """The same for programs."""
    return {
        "exit_code": int(code),
        "reporting_time_zone": made.zone,
        "created": list(made.created),
        "failed": made.failed,
        "tables_made": list(made.tables_made),
    }


def published(console: Console, copy: Published | None) -> None:
    """Where the copy for readers is, if there is a new one."""
    if copy is not None:
        console.print(
            f"published for readers: {escape(str(copy.file))} ({copy.bytes / 1e6:,.1f} MB)"
        )


def published_as_json(copy: Published | None) -> dict[str, Any] | None:
    """The same for programs."""
    if copy is None:
        return None
    return {"file": str(copy.file), "as_of": copy.as_of, "bytes": copy.bytes}
