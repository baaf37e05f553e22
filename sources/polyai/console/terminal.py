"""Output on stdout and stderr: the consoles, error lines, JSON."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import orjson
from rich.console import Console
from rich.markup import escape

# in a log, each line stays in one piece
stdout = Console(highlight=False, emoji=False, soft_wrap=not sys.stdout.isatty())
stderr = Console(stderr=True, highlight=False, emoji=False)


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


def print_json(value: object) -> None:
    """Prints one JSON object to stdout."""
    sys.stdout.write(orjson.dumps(value, option=orjson.OPT_INDENT_2, default=str).decode() + "\n")
