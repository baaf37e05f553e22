"""Progress of scenarios: a bar on a terminal, one line per scenario in a log."""

from __future__ import annotations

import logging
from collections import Counter
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from .results import ScenarioResult

logger = logging.getLogger("polyai")


class ScenariosProgress:
    """Progress display of finished scenarios and their outcomes.

    Use as a context manager around the run, with `add` as its `on_result`.

    Args:
        console: A terminal shows a bar; anything else gets log lines.
        scenarios: Number of scenarios.
    """

    def __init__(self, console: Console, scenarios: int) -> None:
        self._is_live = console.is_terminal
        self._outcomes: Counter[str] = Counter()
        self._bar = Progress(
            TextColumn("[bold]scenarios"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[counts]}"),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._task = self._bar.add_task("", total=scenarios, counts="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def add(self, result: ScenarioResult) -> None:
        """Counts a finished scenario."""
        self._outcomes[result.outcome] += 1
        counts = " · ".join(f"{count} {name}" for name, count in self._outcomes.items())
        self._bar.update(self._task, advance=1, counts=counts)
        if not self._is_live:
            logger.info(
                "%s: %s / %s in %.1f s",
                result.outcome,
                result.suite,
                result.scenario,
                result.seconds,
            )
