"""Backfill of very many conversations through the Conversations API v3, by several workers.

The command runs unmodified, as a user would run it. CPU and memory of its processes are read from
`/proc`, and the server counts its requests.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import duckdb
import orjson
import psycopg2

from polyai.tables.registry import conversation_tables
from postgres_server import postgres

from .measuring import Server, environment, serve
from .server import ACCOUNT_ID, AGENT_ID, BEFORE, MAX_V3_LIMIT, SINCE

POLL_SECONDS = 0.1
PARTS = 10
"""Parts of a run whose CPU seconds are measured separately, to detect a growing cost."""

DATABASE = "polyai.duckdb"
EMPTY_SINCE = SINCE - timedelta(days=365)
"""Start of a period without conversations."""

_TICKS = os.sysconf("SC_CLK_TCK")

Rows = list[tuple[Any, ...]]
Query = Callable[[str], Rows]


@dataclass
class CommandCost:
    """Cost of a command.

    Attributes:
        seconds: Duration, imports included.
        cpu_seconds: CPU seconds of all its processes.
        peaks: Peak memory of each process in bytes, the command's own first.
        peak_together: Peak of the sum of all processes in bytes.
        parts: Numbers of served conversations, and the CPU seconds until then.
        answer: Its `--json` output.
    """

    seconds: float = 0
    cpu_seconds: float = 0
    peaks: list[int] = field(default_factory=list)
    peak_together: int = 0
    parts: list[tuple[int, float]] = field(default_factory=list)
    answer: Any = None


@dataclass(frozen=True)
class Run:
    """One backfill: cost of the command, of the server and of the destination."""

    workers: int
    command: CommandCost
    cost: Mapping[str, int]
    server_cpu_seconds: float
    destination_cpu_seconds: float
    load_average: float

    @property
    def conversations(self) -> int:
        return sum(int(slice_["counts"]["new"]) for slice_ in self.command.answer["slices"])


class ProcessTree:
    """A process and its descendants, observed through `/proc`."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._peaks: dict[int, int] = {}
        self._together = 0

    def sample(self) -> float:
        """Records their memory; returns their CPU seconds, including those of ended processes."""
        ticks = together = 0
        for pid in _descendants(self._pid):
            with suppress(OSError, ValueError, KeyError):
                proc = Path("/proc", str(pid))
                lines = (proc / "status").read_text().splitlines()
                sizes = dict(line.split(":", 1) for line in lines)
                together += _bytes(sizes["VmRSS"])
                if b"resource_tracker" not in (proc / "cmdline").read_bytes():
                    self._peaks[pid] = max(self._peaks.get(pid, 0), _bytes(sizes["VmHWM"]))
                # fields after the name: user and system time, then those of ended children
                ticks += sum(
                    map(int, (proc / "stat").read_text().rpartition(")")[2].split()[11:15])
                )
        self._together = max(self._together, together)
        return ticks / _TICKS

    @property
    def peaks(self) -> list[int]:
        return list(self._peaks.values())

    @property
    def peak_together(self) -> int:
        return self._together


def _bytes(size: str) -> int:
    """Converts a size of `/proc/…/status` to bytes."""
    return int(size.split()[0]) * 1024


def _descendants(pid: int) -> Iterator[int]:
    yield pid
    with suppress(OSError):
        for task in Path("/proc", str(pid), "task").iterdir():
            for child in (task / "children").read_text().split():
                yield from _descendants(int(child))


class Destination:
    """A destination, and the working directory from which it is loaded.

    Args:
        folder: Working directory of the command.
        server: The API.
        postgres_url: The database; None for a DuckDB file in the folder.
    """

    def __init__(self, folder: Path, server: Server, postgres_url: str | None) -> None:
        self.folder = folder
        self.server = server
        self._url = postgres_url

    def run(self, *arguments: str, watch: Callable[[], None] = lambda: None) -> CommandCost:
        """Runs the command with the v3 listing.

        Args:
            arguments: Arguments of the command.
            watch: Called repeatedly while it runs.
        """
        ran = CommandCost()
        own = {
            "POLYAI_AGENT_ID": AGENT_ID,
            "POLYAI_ACCOUNT_ID": ACCOUNT_ID,
            "POLYAI_API_KEY": "key",
            "POLYAI_BASE_URL": self.server.base_url,
        }
        command = [sys.executable, "-m", "polyai", *arguments, "--api", "conversations_v3"]
        if self._url:
            own["DESTINATION__POSTGRES__CREDENTIALS"] = self._url
            command += ["--destination", "postgres"]
        served = self.server.cost()["v3"]["rows"]
        due = step = max(1, self.server.conversations // PARTS)
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        with (
            (self.folder / "answer.json").open("w+b") as answer,
            (self.folder / "log.txt").open("w+b") as log,
            subprocess.Popen(
                [*command, "--json"],
                cwd=self.folder,
                env=environment() | own,
                stdout=answer,
                stderr=log,
            ) as popen,
        ):
            try:
                processes = ProcessTree(popen.pid)
                while popen.poll() is None:
                    cpu_seconds = processes.sample()
                    watch()
                    read = self.server.cost()["v3"]["rows"] - served
                    if read >= due:
                        ran.parts.append((read, cpu_seconds))
                        sys.stderr.write(f"{read:,} served, {cpu_seconds:.0f} CPU s\n")
                        due = (read // step + 1) * step
                    time.sleep(POLL_SECONDS)
            finally:
                popen.terminate()
            ran.seconds = time.monotonic() - began
            log.seek(0)
            if popen.wait():
                raise RuntimeError(
                    f"the command ended with {popen.returncode}: {log.read()[-2000:]!r}"
                )
            answer.seek(0)
            ran.answer = orjson.loads(answer.read())
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        ran.cpu_seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        ran.peaks, ran.peak_together = processes.peaks, processes.peak_together
        return ran

    def backfill(self, since: datetime, before: datetime, slice_: str, workers: int) -> Run:
        """Runs `backfill` over a range."""
        earlier, earlier_cpu = self.server.cost(), self.cpu_seconds()
        ran = self.run(
            *("backfill", "--from", f"{since:%Y-%m-%dT%H:%M:%SZ}"),
            *("--to", f"{before:%Y-%m-%dT%H:%M:%SZ}"),
            *("--slice", slice_, "--workers", str(workers)),
        )
        later = self.server.cost()
        return Run(
            workers=workers,
            command=ran,
            cost={name: number - earlier["v3"][name] for name, number in later["v3"].items()},
            server_cpu_seconds=later["cpu_seconds"] - earlier["cpu_seconds"],
            destination_cpu_seconds=self.cpu_seconds() - earlier_cpu,
            load_average=os.getloadavg()[0],
        )

    @contextmanager
    def opened(self) -> Iterator[Query]:
        """Yields a function for queries with unqualified table names."""
        if self._url:
            connection = psycopg2.connect(self._url, options="-c search_path=polyai")
            connection.autocommit = True
            try:
                with connection.cursor() as cursor:

                    def query(sql: str) -> Rows:
                        cursor.execute(sql)
                        return cursor.fetchall() if cursor.description else []

                    yield query
            finally:
                connection.close()
            return
        with duckdb.connect(str(self.folder / DATABASE)) as file:
            yield lambda sql: file.execute(sql).fetchall()

    def cpu_seconds(self) -> float:
        """Returns the CPU seconds of PostgreSQL so far; 0 for DuckDB, part of the command."""
        if not self._url:
            return 0
        with self.opened() as query:
            ((folder,),) = query("SHOW data_directory")
        pid = Path(folder, "postmaster.pid").read_text().split()[0]
        return ProcessTree(int(pid)).sample()

    def problems(self, conversations: int) -> Iterator[str]:
        """Yields what is wrong with the rows: missing, unexpected or duplicate ones."""
        with self.opened() as query:
            # an id ends with the conversation's number in eight hexadecimal digits
            found = query(
                "SELECT count(*), count(DISTINCT right(conversation_id, 8)), "
                "max(right(conversation_id, 8)), "
                "sum(CASE WHEN is_transcript_withheld THEN 0 ELSE num_turns END) FROM conversations"
            )[0]
            turns = found[3]
            if found[:3] != (conversations, conversations, f"{conversations - 1:08x}"):
                yield f"conversations: {found[:3]} of {conversations:,}"
            for table in conversation_tables():
                keys = ", ".join(("agent_id", "conversation_id", *table.key))
                ((rows, duplicates),) = query(
                    "SELECT coalesce(sum(n), 0), count(CASE WHEN n > 1 THEN 1 END) "
                    f"FROM (SELECT count(*) AS n FROM {table.name} GROUP BY {keys}) AS each_key"
                )
                if duplicates:
                    yield f"{table.name} has {duplicates:,} duplicate keys"
                if table.name == "turns" and rows != turns:
                    yield f"turns has {rows:,} rows, the conversations have {turns:,} turns"

    def sizes(self) -> dict[str, int]:
        """Returns the bytes in the destination and, for DuckDB, in a copy and as Parquet."""
        with self.opened() as query:
            if self._url:
                ((size,),) = query(
                    "SELECT sum(pg_total_relation_size(c.oid)) FROM pg_class c "
                    "JOIN pg_namespace n ON n.oid = c.relnamespace "
                    "WHERE n.nspname = 'polyai' AND c.relkind = 'r'"
                )
                return {"PostgreSQL": int(size)}
            query("CHECKPOINT")
            parquet = 0
            for table in conversation_tables():
                path = self.folder / f"{table.name}.parquet"
                query(f"COPY {table.name} TO '{path}' (FORMAT parquet, COMPRESSION zstd)")
                parquet += path.stat().st_size
            query(f"ATTACH '{self.folder / 'copied.duckdb'}' AS copied")
            query("COPY FROM DATABASE polyai TO copied")
            query("DETACH copied")
        return {
            "DuckDB": (self.folder / DATABASE).stat().st_size,
            "DuckDB, copied": (self.folder / "copied.duckdb").stat().st_size,
            "Parquet, zstd": parquet,
        }

    def packages(self) -> int:
        """Returns the number of load packages so far."""
        with self.opened() as query:
            return int(query("SELECT count(*) FROM _dlt_loads")[0][0])


@contextmanager
def new_destination(server: Server, destination: str) -> Iterator[Destination]:
    """Yields a new, empty destination."""
    with ExitStack() as opened:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory()))
        url = opened.enter_context(postgres()) if destination == "postgres" else None
        yield Destination(folder, server, url)


def print_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints a Markdown table; the first column is text, the others are numbers."""
    marks = ["---", *["---:"] * (len(headings) - 1)]
    lines = [f"| {' | '.join(cells)} |" for cells in (headings, marks, *rows)]
    sys.stdout.write("\n".join(lines) + "\n\n")
    sys.stdout.flush()


def report(line: str) -> None:
    """Prints a line."""
    sys.stdout.write(f"{line}\n\n")
    sys.stdout.flush()


def show(runs: Sequence[Run]) -> None:
    """Prints the costs of the runs, one line per run."""
    rows = []
    for run in runs:
        ran, count = run.command, run.conversations
        parent, *others = ran.peaks
        rows.append(
            (
                f"{run.workers}",
                f"{ran.seconds:.1f}",
                f"{count / ran.seconds:,.0f}",
                f"{ran.cpu_seconds:.1f}",
                f"{ran.cpu_seconds / count * 1000:.3f}",
                f"{run.destination_cpu_seconds:.1f}",
                f"{run.server_cpu_seconds:.1f}",
                f"{parent / 1e6:.0f}",
                ", ".join(f"{peak / 1e6:.0f}" for peak in others) or "-",
                f"{sum(ran.peaks) / 1e6:.0f}",
                f"{ran.peak_together / 1e6:.0f}",
                f"{run.cost['pages']:,} + {run.cost['empty']:,}",
                f"{run.cost['bytes'] / 1e6:,.0f}",
                f"{run.load_average:.1f}",
            )
        )
    print_table(
        (
            "workers",
            "seconds",
            "per second",
            "CPU s",
            "CPU ms each",
            "PostgreSQL CPU s",
            "server CPU s",
            "MB parent",
            "MB workers",
            "MB sum",
            "MB together",
            "pages + empty",
            "MB read",
            "load",
        ),
        rows,
    )


def show_parts(runs: Sequence[Run]) -> None:
    """Prints the CPU time of each tenth, which shows whether it grows with the warehouse."""
    rows = []
    for run in runs:
        marks = [(0, 0.0), *run.command.parts]
        costs = [
            (cpu - cpu_before) / (read - read_before) * 1000
            for (read_before, cpu_before), (read, cpu) in pairwise(marks)
        ]
        rows.append((f"{run.workers}", " ".join(f"{cost:.2f}" for cost in costs)))
    print_table(("workers", "CPU ms per conversation, in each tenth of the conversations"), rows)


def show_sizes(place: Destination, run: Run) -> None:
    """Prints the bytes per conversation."""
    sizes = {"JSON": run.cost["bytes"]} | place.sizes()
    rows = [
        (name, f"{size / 1e6:,.1f}", f"{size / run.conversations:,.0f}")
        for name, size in sizes.items()
    ]
    print_table(("format", "MB", "bytes per conversation"), rows)


def show_empty(place: Destination, loaded: int, slices: int) -> None:
    """Prints the costs of empty slices, with this number of loaded conversations."""
    one = place.backfill(EMPTY_SINCE, EMPTY_SINCE + timedelta(days=1), "1d", 1)
    packages = place.packages()
    many = place.backfill(EMPTY_SINCE, EMPTY_SINCE + timedelta(days=1 + slices), "1d", 1)
    each = [slice_["seconds"] for slice_ in many.command.answer["slices"][1:]]
    print_table(
        ("loaded", "slices", "seconds", "CPU s", "PostgreSQL CPU s", "packages", "requests"),
        [
            (
                f"{loaded:,}",
                f"{slices}",
                f"{median(each):.2f}",
                f"{(many.command.cpu_seconds - one.command.cpu_seconds) / slices:.2f}",
                f"{many.destination_cpu_seconds / (slices + 1):.3f}",
                f"{(place.packages() - packages) / (slices + 1):.0f}",
                f"{many.cost['empty'] / (slices + 1):.0f}",
            )
        ],
    )


def flat(server: Server, destination: str) -> None:
    """Measures one `load`: requests compared with the minimum, and memory over time."""
    with new_destination(server, destination) as place:
        loaded = place.folder / ".dlt" / "pipelines" / "polyai" / "load" / "loaded"
        marks: list[tuple[int, int, int, float]] = []
        chunk, every = 1_000, 10

        def watch() -> None:
            # the first package contains the run's own row
            chunks = sum(1 for _ in loaded.iterdir()) - 1 if loaded.is_dir() else 0
            if chunks >= (marks[-1][0] if marks else 0) + every:
                rss, peak, cpu = _sample_and_reset_peak()
                marks.append((chunks // every * every, rss, peak, cpu))

        ran = place.run("load", "--chunk-size", str(chunk), watch=watch)
        cost = server.cost()["v3"]
        for problem in place.problems(server.conversations):
            report(problem)
        ideal = -(-server.conversations // MAX_V3_LIMIT)
        report(
            f"load of {server.conversations:,}: {ran.seconds:.1f} s, {ran.cpu_seconds:.1f} CPU s, "
            f"{cost['pages']} pages (ideal {ideal}), {cost['probes']} probes with limit=1, "
            f"{cost['empty']} for empty environments; {cost['rows']:,} rows served; "
            f"peak {ran.peaks[0] / 1e6:.0f} MB; load average {os.getloadavg()[0]:.1f}"
        )
        print_table(
            ("committed", "MB", "peak MB since the previous line", "CPU s"),
            [
                (f"{chunks * chunk:,}", f"{rss / 1e6:.0f}", f"{peak / 1e6:.0f}", f"{cpu:.1f}")
                for chunks, rss, peak, cpu in marks
            ],
        )


def _sample_and_reset_peak() -> tuple[int, int, float]:
    """Returns memory, peak and CPU seconds of the newest child process, and resets the peak."""
    newest = max(pid for pid in _descendants(os.getpid()) if _is_load(pid))
    proc = Path("/proc", str(newest))
    lines = (proc / "status").read_text().splitlines()
    sizes = dict(line.split(":", 1) for line in lines)
    rss, peak = (_bytes(sizes[name]) for name in ("VmRSS", "VmHWM"))
    (proc / "clear_refs").write_text("5")
    times = (proc / "stat").read_text().rpartition(")")[2].split()[11:13]
    return rss, peak, sum(map(int, times)) / _TICKS


def _is_load(pid: int) -> bool:
    return b"\0polyai\0load\0" in Path("/proc", str(pid), "cmdline").read_bytes()


def main() -> None:
    """Runs the backfills, checks the loaded rows, and prints Markdown tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.backfill", description=__doc__)
    parser.add_argument("--conversations", type=int, default=1_000_000)
    parser.add_argument("--workers", default="1,2,4", help="numbers of workers to compare")
    parser.add_argument("--detail", choices=("small", "full"), default="small")
    parser.add_argument("--pool", type=int, help="different conversations; default 2,000")
    parser.add_argument("--destination", choices=("duckdb", "postgres"), default="duckdb")
    parser.add_argument("--slice", default="1d")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument(
        "--empty", type=int, default=0, help="also measure this number of empty slices"
    )
    parser.add_argument("--sizes", action="store_true", help="also measure the size of the rows")
    parser.add_argument("--flat", action="store_true", help="measure one `load` instead")
    options = parser.parse_args()
    with serve(options.conversations, detail=options.detail, pool=options.pool) as server:
        if options.flat:
            flat(server, options.destination)
            return
        runs: list[Run] = []
        is_bad = False
        for _ in range(options.rounds):
            for workers in map(int, options.workers.split(",")):
                with new_destination(server, options.destination) as place:
                    if options.empty and not runs:
                        show_empty(place, 0, options.empty)
                    run = place.backfill(SINCE, BEFORE, options.slice, workers)
                    problems = list(place.problems(options.conversations))
                    is_bad = is_bad or bool(problems)
                    runs.append(run)
                    show([run])
                    for problem in problems or ["no row is missing or duplicated"]:
                        report(problem)
                    if options.sizes and len(runs) == 1:
                        show_sizes(place, run)
                    if options.empty and len(runs) == 1:
                        show_empty(place, options.conversations, options.empty)
        report(
            f"{options.conversations:,} {options.detail} conversations, slices of {options.slice}, "
            f"{os.cpu_count()} cores, {options.destination}"
        )
        show(sorted(runs, key=lambda run: run.workers))
        show_parts(runs)
    if is_bad:
        sys.exit(1)


if __name__ == "__main__":
    main()
