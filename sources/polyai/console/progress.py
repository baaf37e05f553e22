"""Progress of runs: a live bar on a terminal, plain lines in a log."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
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
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from ..load.report import RunReport
from ..load.slices import Slice, SliceReport

logger = logging.getLogger("polyai")

BAR_SECONDS = 0.2
LOG_SECONDS = 15.0


class _Bar(Progress):
    """Progress bar with the counts in a second line, so that it fits a narrow terminal."""

    def __init__(self, console: Console) -> None:
        super().__init__(
            SpinnerColumn(),
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )

    def get_renderables(self) -> Iterable[RenderableType]:
        """Yields the bar, then the counts."""
        yield from super().get_renderables()
        yield from (f"  {task.fields['counts']}" for task in self.tasks)


class LoadProgress:
    """Progress of a load, per agent, updated from a thread of its own.

    Use as a context manager around the load, and pass it `watch`.

    Args:
        console: Console for the bar on a terminal, or for lines in a log.
    """

    def __init__(self, console: Console) -> None:
        self._is_live = console.is_terminal
        self._bar = _Bar(console)
        self._watched: dict[str, tuple[RunReport, TaskID, float]] = {}
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
        """Shows a report until it ends."""
        if report.run_id not in self._watched:
            task = self._bar.add_task(escape(report.agent_id), total=None, counts="")
            self._watched[report.run_id] = report, task, time.monotonic()

    def _tick(self) -> None:
        while not self._done.wait(BAR_SECONDS if self._is_live else LOG_SECONDS):
            for report, task, since in list(self._watched.values()):
                counts = report.counts(max(time.monotonic() - since, 0.001))
                if report.finished_at is not None:
                    self._bar.update(task, visible=False)
                    continue
                if not self._is_live:
                    logger.info("%s: %d read, %s", report.agent_id, report.read, counts)
                self._bar.update(
                    task,
                    completed=report.done,
                    total=report.expected,
                    counts=counts,
                )


class FilesProgress:
    """Progress of a check of files on a terminal; nothing in a log.

    Use as a context manager, and pass `update` to the check.

    Args:
        console: Console for the bar.
    """

    def __init__(self, console: Console) -> None:
        self._bar = _Bar(console)
        self._task = self._bar.add_task("files", total=None, counts="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def update(self, files: int) -> None:
        """Shows the number of checked files."""
        self._bar.update(self._task, completed=files)


class CopyProgress:
    """Progress of a copy: a bar on a terminal, a line now and then in a log.

    Use as a context manager, and pass `update` to the copy.

    Args:
        console: Console for the bar, or for lines in a log.
    """

    def __init__(self, console: Console) -> None:
        self._is_live = console.is_terminal
        self._bar = _Bar(console)
        self._task = self._bar.add_task("conversations", total=None, counts="")
        self._logged_at = time.monotonic()

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def update(self, done: int, total: int) -> None:
        """Shows the number of conversations that are done, and of all."""
        self._bar.update(self._task, completed=done, total=total)
        if not self._is_live and time.monotonic() - self._logged_at >= LOG_SECONDS:
            self._logged_at = time.monotonic()
            logger.info("copied %s of %s conversations", f"{done:,}", f"{total:,}")


class BackfillProgress:
    """Progress of the slices of a backfill; in a log, one line per finished slice.

    Use as a context manager around the backfill, and pass it `watch`.

    Args:
        console: Console for the bar on a terminal, or for lines in a log.
        slices: Number of slices.
    """

    def __init__(self, console: Console, slices: int) -> None:
        self._is_live = console.is_terminal
        self._slices = slices
        self._bar = _Bar(console)
        self._task = self._bar.add_task("slices", total=slices, counts="")
        self._reports: dict[Slice, SliceReport] = {}
        self._since = time.monotonic()

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def watch(self, report: SliceReport) -> None:
        """Shows the current report of a slice."""
        self._reports[report.slice] = report
        ended = sum(one.joined for one in self._reports.values() if one.status != "running")
        self._bar.update(self._task, completed=ended, counts=self._counts())
        if report.status != "running" and not self._is_live:
            counts = report.counts
            logger.info(
                "%s: %s in %.1f s, %d new, %d changed, %d unchanged, %d failed (%d of %d slices)",
                report.slice,
                report.status,
                report.seconds,
                counts["new"],
                counts["changed"],
                counts["unchanged"],
                counts["failed"],
                ended,
                self._slices,
            )

    def _counts(self) -> str:
        total: Counter[str] = Counter()
        running = []
        for one in self._reports.values():
            total.update(one.counts)
            if one.status == "running":
                running.append(str(one.slice))
        seconds = max(time.monotonic() - self._since, 0.001)
        loaded = total["new"] + total["changed"]
        counts = (
            f"{loaded:,} loaded · {total['unchanged']:,} unchanged · {total['rows']:,} rows · "
            f"{loaded / seconds:,.0f}/s · {total['retries']} retries"
        )
        return "\n  ".join([counts, *(f"[dim]{escape(name)}[/]" for name in running)])
