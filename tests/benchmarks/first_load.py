"""First load of very many conversations: time to the first commit, and constant memory.

The details are the sandbox's small ones. Commits are observed in dlt's working directory, which has
a record of each loaded package; the load itself is not modified.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import orjson
from rich.table import Table as Grid

from polyai.tables.declaration import Table
from polyai.tables.registry import conversation_tables

from .measuring import Server, environment, report, serve
from .sides import DATABASE

POLL_SECONDS = 0.02
_EARLY_REQUESTS = 10_000
_LOADED = Path("pipelines", "polyai", "load", "loaded")
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Mark:
    """Measurement of the load at one moment; the peak is that since the previous mark."""

    seconds: float
    cpu_seconds: float
    requests: int
    rss_bytes: int
    peak_rss_bytes: int
    file_bytes: int
    load_average: float


class Process:
    """A load in its own process, observed through `/proc`.

    Args:
        server: The API.
        folder: Working directory.
        workers: Concurrent requests.
    """

    def __init__(self, server: Server, folder: Path, workers: int) -> None:
        self._server = server
        self._folder = folder
        self._began = time.monotonic()
        command = [sys.executable, "-m", "benchmarks.sides", "ours", "--base-url", server.base_url]
        self.popen = subprocess.Popen(
            [*command, "--workers", str(workers)],
            cwd=folder,
            env=environment(),
            stdout=subprocess.DEVNULL,
        )
        self._proc = Path("/proc", str(self.popen.pid))

    def has_committed(self) -> bool:
        """Returns whether the first chunk is committed."""
        loaded = self._folder / _LOADED
        return loaded.is_dir() and any(loaded.iterdir())

    def mark(self) -> Mark:
        """Measures the load, and resets the peak."""
        requests = self._server.cost()["requests"]
        seconds = time.monotonic() - self._began
        status = (self._proc / "status").read_text().splitlines()
        sizes = dict(line.split(":", 1) for line in status)
        rss, peak = (int(sizes[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM"))
        (self._proc / "clear_refs").write_text("5")
        # user and system time are fields 12 and 13 after the name, which may contain blanks
        times = (self._proc / "stat").read_text().rpartition(")")[2].split()[11:13]
        database = self._folder / DATABASE
        return Mark(
            seconds=seconds,
            cpu_seconds=sum(map(int, times)) / _TICKS,
            requests=requests,
            rss_bytes=rss,
            peak_rss_bytes=peak,
            file_bytes=database.stat().st_size if database.exists() else 0,
            load_average=os.getloadavg()[0],
        )


def watch(server: Server, folder: Path, workers: int, every: int) -> Iterator[Mark]:
    """Yields a mark after the first chunk, after 10,000 requests, and per `every` requests."""
    process = Process(server, folder, workers)
    due = 0
    with process.popen as popen:
        try:
            while popen.poll() is None:
                if process.has_committed() if not due else server.cost()["requests"] >= due:
                    yield process.mark()
                    if not due and every > _EARLY_REQUESTS:
                        due = _EARLY_REQUESTS
                    else:
                        due = (due // every + 1) * every
                time.sleep(1 if due else POLL_SECONDS)
        finally:
            popen.terminate()
    if popen.returncode:
        raise RuntimeError(f"the load ended with {popen.returncode}")


def main() -> None:
    """Loads, prints the marks as they come, and checks the loaded rows."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.first_load", description=__doc__)
    parser.add_argument("--conversations", type=int, default=1_000_000)
    parser.add_argument("--detail", choices=("small", "full"), default="small")
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--every", type=int, default=100_000, help="requests between two marks")
    options = parser.parse_args()
    marks: list[Mark] = []
    with (
        serve(options.conversations, detail=options.detail) as server,
        tempfile.TemporaryDirectory() as name,
    ):
        for mark in watch(server, Path(name), options.workers, options.every):
            marks.append(mark)
            sys.stderr.write(f"{mark}\n")
        with duckdb.connect(str(Path(name, DATABASE)), read_only=True) as connection:
            problems = list(_problems(connection, options.conversations))
    _show(f"first load of {options.conversations:,}, {options.workers} workers", marks)
    _show_verdict(marks)
    for problem in problems or ["no row is missing or duplicated"]:
        report(problem)
    if problems:
        sys.exit(1)


def _show(title: str, marks: Sequence[Mark]) -> None:
    grid = Grid(title=title)
    for heading in (
        "requests",
        "seconds",
        "per second",
        "CPU ms",
        "MB",
        "peak MB",
        "file MB",
        "load",
    ):
        grid.add_column(heading, justify="right")
    before = Mark(0, 0, 0, 0, 0, 0, 0)
    for mark in marks:
        requests = mark.requests - before.requests
        grid.add_row(
            f"{mark.requests:,}",
            f"{mark.seconds:,.0f}",
            f"{requests / (mark.seconds - before.seconds):,.0f}",
            f"{(mark.cpu_seconds - before.cpu_seconds) / requests * 1000:.2f}",
            f"{mark.rss_bytes / 1e6:.0f}",
            f"{mark.peak_rss_bytes / 1e6:.0f}",
            f"{mark.file_bytes / 1e6:,.0f}",
            f"{mark.load_average:.1f}",
        )
        before = mark
    report(grid)


def _show_verdict(marks: Sequence[Mark]) -> None:
    first = marks[0]
    report(
        f"first chunk committed after {first.requests:,} requests and {first.seconds:.1f} s "
        "(at most 1,000 requests or 30 s)"
    )
    peaks = [mark.peak_rss_bytes for mark in marks]
    # up to the first mark of `every` requests
    early, whole = max(peaks[:3]), max(peaks)
    at = marks[min(2, len(marks) - 1)].requests
    report(f"peak memory: {whole / 1e6:.0f} MB, {whole / early:.2f} x that of the first {at:,}")


def _problems(connection: duckdb.DuckDBPyConnection, conversations: int) -> Iterator[str]:
    """Yields what is wrong with the tables: missing, unexpected or duplicate rows."""
    run = connection.execute("SELECT status, error, rows FROM polyai.sync_runs").fetchall()[-1]
    if run[0] != "complete":
        yield f"the run ended as {run[0]}: {run[1]}"
    sent = orjson.loads(run[2])
    for table in conversation_tables():
        rows, duplicates = _counted(connection, table)
        report(f"{table.name}: {rows:,} rows")
        if not rows or rows != sent.get(table.name):
            yield f"{table.name} has {rows:,} rows, {sent.get(table.name)} were sent"
        if duplicates:
            yield f"{table.name} has {duplicates:,} duplicate keys"
        if table.name == "conversations" and rows != conversations:
            yield f"{rows:,} of {conversations:,} conversations"


def _counted(connection: duckdb.DuckDBPyConnection, table: Table) -> tuple[int, int]:
    """Returns the number of rows, and of duplicate keys."""
    keys = ", ".join(("agent_id", "conversation_id", *table.key))
    found = connection.execute(
        "SELECT coalesce(sum(n), 0), count(*) FILTER (n > 1) FROM "
        f"(SELECT count(*) AS n FROM polyai.{table.name} GROUP BY {keys})"
    ).fetchone()
    assert found is not None  # an aggregate always has a row
    return int(found[0]), int(found[1])


if __name__ == "__main__":
    main()
