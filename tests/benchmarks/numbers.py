"""Table of the numbers that the package promises, each with what was measured and if it is reached.

Takes an hour and 30 GB of disk at the default sizes; `--quick` takes minutes, at sizes at which the
promises do not apply, and shows that every measurement works.
"""

from __future__ import annotations

import argparse
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from statistics import median

import duckdb
from rich.console import Console
from rich.table import Table

from . import commands, views
from .measuring import Cost, Ratio, serve
from .server import BEFORE

WORKERS = 16
"""Requests in flight, as in the measurements that the promises were derived from."""

YEAR = 365

A_YEAR = (BEFORE - timedelta(days=YEAR)).date()
"""First day of a year at whose end the server's conversations began."""

QUICK_QUERIES = (
    "kpi_daily, a week",
    "fct_conversations, a day",
    "red_flags, a week",
    "annotation_queue, a day",
)
"""Queries of `benchmarks.views` that a person waits for."""


@dataclass(frozen=True)
class Line:
    """A promise and its measurement.

    Attributes:
        subject: Subject of the promise.
        promise: The promise.
        measured: Median and range.
        is_reached: Whether the median is within the promise.
    """

    subject: str
    promise: str
    measured: str
    is_reached: bool


@dataclass(frozen=True)
class Sizes:
    """Sizes of the measurements.

    Attributes:
        rounds: Runs of each side.
        loads: Conversations of the loads that are compared with other sides.
        memory: Conversations of a small and of a large load.
        held: Conversations of the large warehouse.
    """

    rounds: int
    loads: tuple[int, int, int]
    memory: tuple[int, int]
    held: int


SIZES = Sizes(3, (1_000, 4_000, 10_000), (10_000, 100_000), 1_000_000)
QUICK = Sizes(1, (100, 200, 300), (200, 400), 2_000)


def loads(sizes: Sizes) -> Iterator[Line]:
    """Compares whole processes with the floor and with dlt's REST source, at the same sizes."""
    _, middle, large = sizes.loads
    promised = {middle: 1.7, large: 1.6}
    for conversations in sizes.loads:
        sides = ["ours", "floor"] + ["rest_api"] * (conversations <= middle)
        runs: dict[str, list[Cost]] = {side: [] for side in sides}
        with serve(conversations) as server:
            for _ in range(sizes.rounds):
                for side, costs in runs.items():
                    costs.append(server.run(side, WORKERS))
        seconds = {side: [run.whole_cpu_seconds for run in costs] for side, costs in runs.items()}
        to_floor = Ratio.of(seconds["ours"], seconds["floor"])
        limit = promised.get(conversations)
        yield Line(
            f"{conversations:,} conversations, to the floor",
            f"at most {limit} x" if limit else "no promise",
            f"{to_floor}; {_range(seconds['ours'])} and {_range(seconds['floor'])} CPU s",
            limit is None or to_floor.median <= limit,
        )
        if rest := seconds.get("rest_api"):
            faster = Ratio.of(rest, seconds["ours"])
            is_promised = conversations == middle
            yield Line(
                f"{conversations:,} conversations, to dlt's rest_api",
                "at least 6 x" if is_promised else "no promise",
                f"{faster}; {_range(rest)} CPU s",
                not is_promised or faster.median >= 6,
            )


def fixed_costs(sizes: Sizes) -> Iterator[Line]:
    """Measures commands that have nothing to load."""
    with commands.loaded_site(sizes.loads[0]) as site:
        for title, limit, arguments in (
            ("a run with nothing new", 1.2, ["load"]),
            ("--help", 0.3, ["--help"]),
            ("--version", 0.3, ["--version"]),
            ("check", None, ["check"]),
            ("status --quick", None, ["status", "--quick"]),
        ):
            costs = [site.run(*arguments).cpu_seconds for _ in range(sizes.rounds + 1)]
            yield _at_most(title, limit, costs[1:], "CPU s")


def slices(sizes: Sizes) -> Iterator[Line]:
    """Measures empty slices, and a year of a small agent by day and by month."""
    with serve(sizes.loads[0]) as server:
        empty, years, months = [], [], []
        for _ in range(sizes.rounds):
            # fewer than are needed for slices to be joined
            few, many = (
                commands.backfill(server, days, 1, since=commands.EMPTY_SINCE).cpu_seconds
                for days in (1, 7)
            )
            empty.append((many - few) / 6)
            by_day, by_month = (
                commands.backfill(server, YEAR, days, since=A_YEAR).cpu_seconds for days in (1, 30)
            )
            years.append(by_day)
            months.append(by_month)
    yield _at_most("an empty slice of a backfill", 0.3, empty, "CPU s")
    ratio = Ratio.of(years, months)
    yield Line(
        f"a year of {sizes.loads[0]:,} by day, to by month",
        "at most 1.5 x",
        f"{ratio}; {_range(years)} and {_range(months)} CPU s",
        ratio.median <= 1.5,
    )


def memory(sizes: Sizes) -> Iterator[Line]:
    """Measures the peak memory of commands, at several sizes."""
    peaks: dict[int, list[float]] = {}
    for conversations in sizes.memory:
        with commands.loaded_site(conversations) as site:
            peaks[conversations] = [site.first.peak_rss_bytes / 1e6]
    small, large = peaks.values()
    ratio = Ratio.of(large, small)
    yield Line(
        f"peak memory of a load of {sizes.memory[1]:,}",
        f"under 400 MB, at most 1.1 x that of {sizes.memory[0]:,}",
        f"{large[0]:.0f} MB, {ratio.median:.2f} x",
        large[0] < 400 and ratio.median <= 1.1,
    )


def large_warehouse(sizes: Sizes) -> Iterator[Line]:
    """Measures views and commands on a large warehouse."""
    with commands.loaded_site(10) as site:
        database = site.folder / "polyai.duckdb"
        with duckdb.connect(str(database)) as connection:
            ((load_id,),) = connection.execute(
                "SELECT DISTINCT _dlt_load_id FROM polyai.conversations"
            ).fetchall()
            views.insert(connection, sizes.held, turns=10, load_id=load_id)
        for name in QUICK_QUERIES:
            costs = [views.cpu_seconds(database, views.QUERIES[name]) for _ in range(sizes.rounds)]
            yield _at_most(f"{name}, of {sizes.held:,}", 1.5, costs, "CPU s")
        for title, limit, arguments in (
            ("status", 5.0, ["status"]),
            ("views --publish", None, ["views", "--publish", "published"]),
            (
                "forget",
                None,
                ["forget", f"CA{hashlib.md5(b'1').hexdigest()}", "--agent", "PROJECT-1", "--yes"],  # noqa: S324 - as in `views.FILLING`
            ),
        ):
            cost = site.run(*arguments)
            subject = f"{title}, {sizes.held:,} held"
            yield _at_most(subject, limit, [cost.cpu_seconds], "CPU s")
            yield _at_most(f"{subject}: memory", 400, [cost.peak_rss_bytes / 1e6], "MB")


PARTS: dict[str, Callable[[Sizes], Iterator[Line]]] = {
    part.__name__: part for part in (fixed_costs, slices, loads, memory, large_warehouse)
}
"""Measurements; `benchmarks.recordings` and `benchmarks.dashboard` have those of their subject."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the table, line by line as it is measured."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.numbers", description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="default: all")
    parser.add_argument("--quick", action="store_true", help="small sizes")
    options = parser.parse_args(arguments)
    console = Console(width=150, highlight=False)
    console.print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    shown = Table("subject", "promised", "median (range)", "reached")
    for name in options.parts or PARTS:
        for line in PARTS[name](QUICK if options.quick else SIZES):
            reached = "yes" if line.is_reached else "NO"
            shown.add_row(line.subject, line.promise, line.measured, reached)
            console.print(f"{line.subject}: {line.measured} ({line.promise}): {reached}")
    console.print(shown)


def _at_most(subject: str, limit: float | None, figures: Sequence[float], unit: str) -> Line:
    return Line(
        subject,
        "no promise" if limit is None else f"at most {limit:g} {unit}",
        f"{_range(figures)} {unit}",
        limit is None or median(figures) <= limit,
    )


def _range(figures: Sequence[float]) -> str:
    return f"{median(figures):.2f} ({min(figures):.2f} to {max(figures):.2f})"


if __name__ == "__main__":
    main()
