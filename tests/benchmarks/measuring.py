"""Tools of all benchmarks: server and sides in separate processes, costs, medians, ratios."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any
from urllib.request import urlopen

import orjson
from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Cost:
    """Cost of one run of a side, or the median of several runs.

    `start_up_seconds` and `start_up_cpu_seconds` are those of its imports, which `seconds` and
    `cpu_seconds` exclude.
    """

    conversations: int
    start_up_seconds: float
    start_up_cpu_seconds: float
    seconds: float
    cpu_seconds: float
    peak_rss_bytes: float
    requests: float
    server_cpu_seconds: float

    @property
    def whole_cpu_seconds(self) -> float:
        """CPU seconds with those of the imports."""
        return self.start_up_cpu_seconds + self.cpu_seconds

    @property
    def conversations_per_second(self) -> float:
        return self.conversations / self.seconds

    @classmethod
    def of(cls, runs: Sequence[Cost]) -> Cost:
        """Returns the median of each figure."""
        figures = {
            name: median(getattr(run, name) for run in runs)
            for name in cls.__dataclass_fields__
            if name != "conversations"
        }
        return cls(runs[0].conversations, **figures)


@dataclass(frozen=True)
class Server:
    """A running benchmark server."""

    base_url: str
    conversations: int

    def run(self, side: str, workers: int) -> Cost:
        """Runs one side in a new process and an empty folder."""
        before = self.cost()
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "benchmarks.sides", side, "--base-url", self.base_url]
            finished = subprocess.run(
                [*command, "--workers", str(workers)],
                cwd=folder,
                env=environment(),
                stdout=subprocess.PIPE,
                check=True,
            )
        after = self.cost()
        return Cost(
            conversations=self.conversations,
            requests=after["requests"] - before["requests"],
            server_cpu_seconds=after["cpu_seconds"] - before["cpu_seconds"],
            **orjson.loads(finished.stdout.splitlines()[-1]),
        )

    def cost(self) -> Any:
        """Returns the answered requests and the CPU seconds since the server started."""
        with urlopen(f"{self.base_url}/cost") as answer:  # noqa: S310 - loopback
            return orjson.loads(answer.read())


@contextmanager
def serve(
    conversations: int,
    *,
    seed: int = 1,
    delay_ms: float = 0,
    oddities: bool = True,
    detail: str = "full",
    pool: int | None = None,
) -> Iterator[Server]:
    """Serves conversations from another process within the block."""
    command = [sys.executable, "-m", "benchmarks.server", f"--conversations={conversations}"]
    command += [f"--seed={seed}", f"--delay-ms={delay_ms}", f"--detail={detail}"]
    command += ["--oddities" if oddities else "--no-oddities"]
    command += [f"--pool={pool}"] if pool else []
    with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True) as server:
        try:
            base_url = server.stdout.readline().strip() if server.stdout else ""
            if not base_url:
                raise RuntimeError("the server did not start")
            yield Server(base_url, conversations)
        finally:
            server.terminate()


@dataclass(frozen=True)
class Ratio:
    """Ratio of one side's figure to another's, per round.

    Other processes affect both runs of a round alike, so the ratio varies less than the figures.
    """

    median: float
    lowest: float
    highest: float

    @classmethod
    def of(cls, figures: Sequence[float], others: Sequence[float]) -> Ratio:
        """Compares the figures of two sides, round by round."""
        ratios = [figure / other for figure, other in zip(figures, others)]
        return cls(median(ratios), min(ratios), max(ratios))

    def __str__(self) -> str:
        return f"{self.median:.2f} x ({self.lowest:.2f} to {self.highest:.2f})"


def show_costs(title: str, runs: dict[str, list[Cost]]) -> None:
    """Prints the cost of each side: medians, and the range of the seconds."""
    table = Table(title=title)
    table.add_column("side")
    for name in (
        "per second",
        "seconds",
        "from",
        "to",
        "start-up",
        "CPU",
        "server CPU",
        "MB",
        "requests",
    ):
        table.add_column(name, justify="right")
    for side, costs in runs.items():
        cost = Cost.of(costs)
        table.add_row(
            side,
            f"{cost.conversations_per_second:,.0f}",
            f"{cost.seconds:.2f}",
            f"{min(run.seconds for run in costs):.2f}",
            f"{max(run.seconds for run in costs):.2f}",
            f"{cost.start_up_seconds:.2f}",
            f"{cost.cpu_seconds:.2f}",
            f"{cost.server_cpu_seconds:.2f}",
            f"{cost.peak_rss_bytes / 1e6:.0f}",
            f"{cost.requests:,.0f}",
        )
    report(table)


def report(message: Table | str) -> None:
    """Prints a table or a line."""
    Console(width=100, highlight=False).print(message)


def environment() -> dict[str, str]:
    """Returns the environment without settings of the user, so that all runs have the same."""
    mine = ("POLYAI_", "SOURCES__", "DESTINATION__", "DLT_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(mine)}
    paths = os.pathsep.join(path for path in sys.path if path)
    return kept | {
        "RUNTIME__DLTHUB_TELEMETRY": "false",
        "RUNTIME__LOG_LEVEL": "ERROR",
        "PYTHONPATH": paths,
    }
