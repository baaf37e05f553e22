"""What every command shares: where it writes, how it ends, and how it is told to."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import IntEnum
from types import FrameType
from typing import Any

import orjson
from rich.console import Console
from rich.markup import escape

logger = logging.getLogger("polyai")
# a log keeps a line in one piece
stdout = Console(highlight=False, emoji=False, soft_wrap=not sys.stdout.isatty())
stderr = Console(stderr=True, highlight=False, emoji=False)


class Exit(IntEnum):
    """What the process tells its caller."""

    DONE = 0
    CONFIGURATION = 1
    USAGE = 2
    SOME_FAILED = 3
    BUSY = 75
    INTERRUPTED = 130


class ConsoleHandler(logging.Handler):
    """Writes log lines above the progress bar, not into it; dlt's in the same form as ours."""

    line = logging.Formatter("%(asctime)s %(levelname)s %(message)s")

    def emit(self, record: logging.LogRecord) -> None:
        """Writes one line."""
        # not self.formatter: dlt sets its own on whatever handler it finds
        stderr.print(self.line.format(record), markup=False, soft_wrap=True)


def print_error(message: str) -> None:
    """One line that says what is wrong."""
    stderr.print(f"[bold red]error:[/] {escape(message)}", soft_wrap=True)


def print_failed(reports: Sequence[Any]) -> None:
    """A line for each report that says what stopped it; the agent's name where there are several.

    Args:
        reports: Those of a run, with `agent_id` and `error`.
    """
    agents = {report.agent_id for report in reports}
    for report in reports:
        if report.error:
            print_error(f"{report.agent_id}: {report.error}" if len(agents) > 1 else report.error)


def print_json(value: object) -> None:
    """One JSON object on stdout."""
    sys.stdout.write(orjson.dumps(value, option=orjson.OPT_INDENT_2, default=str).decode() + "\n")


@contextmanager
def stop_on_signals(ending: str) -> Iterator[threading.Event]:
    """An event that SIGTERM and SIGINT set, with `ending` in the log; a second one kills."""
    stop = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            # threads may wait for minutes; what a killed run leaves, the next one makes good
            stderr.show_cursor()
            os._exit(Exit.INTERRUPTED)
        stop.set()
        logger.warning("%s: %s", signal.Signals(number).name, ending)

    before = {number: signal.signal(number, on_signal) for number in _SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


_SIGNALS = (signal.SIGINT, signal.SIGTERM)
