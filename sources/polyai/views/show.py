"""Reports of the command `views`, as text for a terminal and as JSON."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.markup import escape

from ..errors import without_credentials
from .creation import ViewsReport
from .definitions import views
from .parquet import PublishedParquet
from .publishing import Published


def report(console: Console, created: ViewsReport) -> None:
    """Prints one line per view: its name and the question that it answers."""
    if created.tables_made:
        console.print(f"created empty tables: {', '.join(created.tables_made)}")
    width = max(map(len, views()))
    for name in created.created:
        console.print(f"[bold]{name:<{width}}[/]  {escape(views()[name].question)}")
    console.print(f"{len(created.created)} views, local dates in {escape(created.zone)}")


def report_as_json(created: ViewsReport, code: int) -> dict[str, Any]:
    """Returns the report as JSON."""
    return {
        "exit_code": int(code),
        "reporting_time_zone": created.zone,
        "created": list(created.created),
        "failed": created.failed,
        "tables_made": list(created.tables_made),
    }


def published(console: Console, copy: Published | PublishedParquet | None) -> None:
    """Prints the place and size of a new published copy, if there is one."""
    if copy is None:
        return
    size = f"{copy.bytes / 1e6:,.1f} MB"
    if isinstance(copy, PublishedParquet):
        size += f" in {copy.files:,} files, {copy.written:,} of them written"
    console.print(f"published: {escape(without_credentials(copy.place))} ({size})")


def published_as_json(copy: Published | PublishedParquet | None) -> dict[str, Any] | None:
    """Returns the published copy as JSON; None without one."""
    if copy is None:
        return None
    if isinstance(copy, PublishedParquet):
        return {
            "url": without_credentials(copy.url),
            "as_of": copy.as_of,
            "bytes": copy.bytes,
            "files": copy.files,
            "written": copy.written,
            "deleted": copy.deleted,
        }
    return {"file": str(copy.file), "as_of": copy.as_of, "bytes": copy.bytes}
