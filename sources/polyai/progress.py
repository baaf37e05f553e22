"""What a person sees while a load runs: a live bar on a terminal, plain lines in a log."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable
from types import TracebackType
from typing import Self

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from .report import RunReport

logger = logging.getLogger("polyai")

BAR_SECONDS = 0.2
LOG_SECONDS = 15.0


class _Bar(Progress):
    """A bar with the counts in a line under it: side by side they need a wide terminal."""

    def get_renderables(self) -> Iterable[RenderableType]:
        """The bar, then the counts."""
        yield from super().get_renderables()
        yield from (f"  {task.fields['counts']}" for task in self.tasks)


class LoadProgress:
    """Shows the counts of the agent that is being loaded, from a thread of its own.

    Use as a context manager around the load, and hand `watch` to it.

    Args:
        console: Where to show it; its kind decides between a bar and lines.
    """

    def __init__(self, console: Console) -> None:
        self._is_live = console.is_terminal
        self._bar = _Bar(
            SpinnerColumn(),
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            disable=not self._is_live,
            transient=True,
        )
        self._report: RunReport | None = None
        self._since = time.monotonic()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._tick, name="polyai-progress", daemon=True)

    def __enter__(self) -> Self:
        self._bar.start()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._done.set()
        self._thread.join()
        self._bar.stop()

    def watch(self, report: RunReport) -> None:
        """Shows this report from now on."""
        if report is self._report:
            return
        self._report, self._since = report, time.monotonic()
        for task_id in self._bar.task_ids:
            self._bar.remove_task(task_id)
        self._bar.add_task(escape(report.agent_id), total=None, counts="")

    def _tick(self) -> None:
        while not self._done.wait(BAR_SECONDS if self._is_live else LOG_SECONDS):
            if (report := self._report) is None:
                continue
            counts = self._counts(report)
            if not self._is_live:
                logger.info("%s: %d read, %s", report.agent_id, report.read, counts)
            for task_id in self._bar.task_ids:
                self._bar.update(
                    task_id,
                    completed=report.read + report.unchanged,
                    total=report.expected,
                    counts=counts,
                )

    def _counts(self, report: RunReport) -> str:
        seconds = max(time.monotonic() - self._since, 0.001)
        return (
            f"{report.listed:,} listed · {sum(report.rows.values()):,} rows · "
            f"{report.read / seconds:,.0f}/s · {report.traffic.retries} retries"
        )
