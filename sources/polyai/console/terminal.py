"""Output on stdout and stderr: the consoles, error lines, JSON."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson
from rich.console import Console, ConsoleOptions, RenderableType
from rich.markup import escape
from rich.segment import Segment

from ..errors import printable


class PrintableConsole(Console):
    """Console on which no text, wherever it comes from, can control the terminal."""

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Yields the segments of a renderable; those of rich itself control the terminal."""
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else printable(text), style, control)


# in a log, each line stays in one piece
stdout = PrintableConsole(highlight=False, emoji=False, soft_wrap=not sys.stdout.isatty())
stderr = PrintableConsole(stderr=True, highlight=False, emoji=False)


def print_error(message: str) -> None:
    """Prints one error line to stderr."""
    stderr.print(f"[bold red]error:[/] {escape(message)}", soft_wrap=True)


def print_failed(reports: Sequence[Any]) -> None:
    """Prints the error of each report that has one, with the agent id if there are several agents.

    Args:
        reports: Reports of a run, with `agent_id` and `error`.
    """
    agents = {report.agent_id for report in reports}
    for report in reports:
        if report.error:
            print_error(f"{report.agent_id}: {report.error}" if len(agents) > 1 else report.error)


def print_on_hold(left: Iterable[Mapping[str, str | None]]) -> None:
    """Prints one error line per conversation or caller that was left because of a legal hold.

    Args:
        left: Reasons of the holds by conversation or caller.
    """
    for group in left:
        for name, reason in group.items():
            print_error(
                f"{name} is on legal hold ({reason}) and was left: release it first with hold "
                "--release, if that is allowed"
            )


def print_json(value: object) -> None:
    """Prints one JSON object to stdout."""
    sys.stdout.write(orjson.dumps(value, option=orjson.OPT_INDENT_2, default=str).decode() + "\n")
