"""Loads that are killed at any point, any number of times: no row is lost or duplicated.

Each test kills real loads (see `killed_load`), and goes on with the same machine or a new one after
each, while conversations arrive and change. Then a load runs to its end, and the warehouse has to
equal what the sandbox serves. The default tests cover one point. One point per step of a load, and
the full matrix of some 900 kills on DuckDB and PostgreSQL, are run by

    python -m pytest -m 'slow and not matrix' tests/test_kills.py
    python -m pytest -m matrix tests/test_kills.py
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import psycopg2
import pytest

import killed_load
import polyai
from command import access, run, start
from killed_load import ANY_POINT, POINTS, LoadRequest, Outcome
from polyai.sandbox import Sandbox, SandboxConfig, serve
from postgres_server import needs_postgres, postgres
from warehouse_rows import (
    assert_equals_truth,
    from_duckdb,
    from_postgres,
    rows_by_table,
    truth_by_table,
)

pytestmark = pytest.mark.process

AGENT = "PROJECT-BOOKINGS"
CONVERSATIONS = 60
CHUNK_SIZE = 20

SETTINGS: dict[str, Any] = {
    "agent_id": AGENT,
    "api_key": "sandbox-key",
    "chunk_size": CHUNK_SIZE,
    "page_size": 25,
    "workers": 2,
    "max_attempts": 2,
    "request_timeout": 20,
    # old conversations are edited too
    "lookback": "60d",
}

A_HANDFUL = (
    "state: committed but not marked",
    "job: committed but not marked",
    "normalize: before the extracted package goes",
    "merge: between statements and commit",
    "job: followed up but not completed",
    "end: after the row in _dlt_loads",
)

ONE_PER_STEP = (
    "listing: after a page",
    "fetching: after a detail",
    "extract: after a table's items",
    "extract: before the package is committed",
    "extract: after the package is committed",
    "pipeline: after the state is kept",
    "normalize: files spooled",
    "normalize: before the extracted package goes",
    "normalize: half of the extracted package is gone",
    "load: after the destination is prepared",
    "load: after the update is marked",
    "job: after it is started",
    "job: after its commit",
    "job: marked but not moved",
    "state: committed but not marked",
    "merge: between statements and commit",
    "direct: between deleted and new rows",
    "direct: after the rows",
    "end: after the row in _dlt_loads",
    "end: marked but not archived",
    "end: half of the jobs are gone",
    "discard: before the directory is dropped",
    "discard: half of it is gone after a kill in extract",
    "discard: half of it is gone after a kill in load",
    "discard: after staging is dropped",
    "tidy: after old records are removed",
    "half a file: items",
    "half a file: pipeline's state",
    "half a file: package's state",
    "half a temporary file: schema, as abc",  # schemas are written in first runs
)
"""Points of each kind, in the order of a load, without those that differ little from another.

The matrix kills at all points.
"""

When = Literal["first", "later"]


class Loader:
    """Process that forks the loads."""

    def __init__(self, folder: Path) -> None:
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("POLYAI_", "SOURCES__", "DESTINATION__", "DLT_"))
        }
        environment |= {
            "PYTHONPATH": str(Path(polyai.__file__).parents[1]),
            "RUNTIME__DLTHUB_TELEMETRY": "false",
            "DLT_DATA_DIR": str(folder / "dlt"),
        }
        self._process = subprocess.Popen(
            [sys.executable, killed_load.__file__],
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, request: LoadRequest) -> Outcome:
        """Runs a load until it ends or is killed."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(asdict(request)) + "\n")
        self._process.stdin.flush()
        return Outcome(**json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        """Ends the process."""
        self._process.communicate()


@dataclass
class Tally:
    """Counts of kills by point, for one destination."""

    destination: str
    kills: Counter[str] = field(default_factory=Counter)
    missed: Counter[str] = field(default_factory=Counter)
    checks: int = 0

    def __str__(self) -> str:
        return (
            f"{self.destination}: {self.kills.total()} kills at {len(self.kills)} points, "
            f"{self.checks} warehouses equal to the truth, {self.missed.total()} points not reached"
        )


class Warehouse:
    """Sandbox, the destination that it is loaded into, and the machine that loads it."""

    def __init__(
        self,
        loader: Loader,
        tally: Tally,
        folder: Path,
        database: str | None = None,
        seed: int = 1,
        **settings: Any,
    ) -> None:
        self._loader = loader
        self._tally = tally
        self._folder = folder
        self._url = database
        self._random = random.Random(seed)
        self._settings = SETTINGS | settings
        self._stack = ExitStack()
        self._changes = 0
        self.history: list[str] = []
        self.seconds = 1.0
        self.sandbox = Sandbox(
            SandboxConfig(
                conversations=CONVERSATIONS, inventions=True, span=timedelta(days=20), seed=seed
            )
        )
        # all these calls have ended and do not change any more
        self.sandbox.advance(timedelta(days=30))
        self._old = list(self.sandbox.conversation_ids(AGENT))
        # so few conversations may have no annotation
        self.sandbox.annotate(AGENT, self._old.pop(), [(0, "agent", "wrong-answer")])

    def __enter__(self) -> Warehouse:
        self._settings["base_url"] = self._stack.enter_context(serve(self.sandbox))
        self._folder.mkdir(parents=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def kill(self, point: str | None, nth: int = 1, *, after_seconds: float | None = None) -> bool:
        """Runs a load that is killed; returns False if it completed without reaching the point."""
        if needed := point in POINTS and POINTS[point].needs:
            self.kill(needed)
        name = point or "by the clock"
        outcome = self._run(point, nth, after_seconds)
        self.history.append(f"{outcome.end} at {name!r} {nth} {after_seconds or ''}")
        if outcome.end == "killed":
            self._tally.kills[name] += 1
            return True
        assert outcome.end == "done", self._describe(outcome)
        assert [report["status"] for report in outcome.reports] == ["complete"], self._describe(
            outcome
        )
        self._tally.missed[name] += 1
        return False

    def complete(self) -> Outcome:
        """Runs a load to its end, and compares the warehouse with the truth."""
        outcome = self._run(None, 1, None)
        assert outcome.end == "done", self._describe(outcome)
        assert [report["status"] for report in outcome.reports] == ["complete"], self._describe(
            outcome
        )
        self.seconds = outcome.seconds
        try:
            self.check()
        except AssertionError as error:
            error.add_note(self._differences())
            error.add_note(self._describe(outcome))
            raise
        self._tally.checks += 1
        self.history.append("complete")
        return outcome

    def check(self) -> None:
        """Asserts that no table lacks or duplicates a row."""
        assert_equals_truth(self.sandbox, AGENT, self.fetch)
        for table, key in (
            ("sync_runs", "run_id"),
            ("fetch_failures", "conversation_id, stage"),
            ("_dlt_loads", "load_id"),
        ):
            duplicates = self.fetch(
                f"SELECT {key}, count(*) AS n FROM polyai.{table} "
                f"GROUP BY {key} HAVING count(*) > 1"
            )
            assert not duplicates, f"{table}: {duplicates}"
        # versions of a note do not overlap, and at most one is open
        broken = self.fetch(
            "SELECT * FROM (SELECT conversation_id, valid_from, valid_to, "
            "lead(valid_from) OVER (PARTITION BY conversation_id ORDER BY valid_from) AS next "
            "FROM polyai.notes) AS versions WHERE next IS NOT NULL AND "
            "(valid_to IS NULL OR valid_to > next)"
        )
        assert not broken, f"notes: {broken}"

    def change(self) -> None:
        """Adds conversations, and edits others: some lose children, down to none."""
        self._changes += 1
        number = self._changes
        self.sandbox.advance(arrivals=3)
        some = self._random.sample(self._old, 6)
        note = f"note {number}"
        edits: list[dict[str, Any]] = [
            {"tags": [], "keep_turns": 1},
            {"tags": [], "note": note, "keep_turns": 2},
            {"tags": [f"a{number}", f"b{number}"], "note": None},
            {"tags": [f"c{number}"], "note": note, "keep_turns": None},
            {"metrics": {f"metric {number}": number}, "note": note},
            {"tags": None, "note": None},
        ]
        for conversation_id, edit in zip(some, edits):
            # each change shows in the listing, otherwise no run would look for it
            self.sandbox.edit(AGENT, conversation_id, summary=f"change {number}", **edit)

    def move(self) -> None:
        """Replaces the machine by a new one, after the leases of the old one have expired."""
        shutil.rmtree(self._folder / "pipelines", ignore_errors=True)
        if self._url and self.fetch("SELECT to_regclass('polyai.load_leases') AS name")[0]["name"]:
            self._execute("UPDATE polyai.load_leases SET expires_at = now()")
        self.history.append("new machine")

    def _execute(self, sql: str) -> None:
        assert self._url
        with closing(psycopg2.connect(self._url)) as connection, connection.cursor() as cursor:
            cursor.execute(sql)
            connection.commit()

    def fetch(self, sql: str) -> list[dict[str, Any]]:
        """Returns the rows of a query on the warehouse."""
        if self._url is None:
            return from_duckdb(self._folder / "polyai.duckdb")(sql)
        return from_postgres(self._url)(sql)

    def _run(self, point: str | None, nth: int, after_seconds: float | None) -> Outcome:
        environment = {"DESTINATION__POSTGRES__CREDENTIALS": self._url} if self._url else {}
        destination = "postgres" if self._url else "duckdb"
        request = LoadRequest(
            str(self._folder),
            environment,
            self._settings,
            destination,
            point=point,
            nth=nth,
            after_seconds=after_seconds,
        )
        return self._loader.run(request)

    def _differences(self) -> str:
        """Describes the first rows that differ from the truth."""
        try:
            loaded = rows_by_table(self.fetch)
        except AssertionError as error:
            return str(error)
        found = []
        for table, expected in truth_by_table(self.sandbox.truth(AGENT)).items():
            if table == "notes":
                continue
            for key in sorted(loaded[table].keys() ^ expected.keys(), key=str)[:5]:
                found.append(f"{table} {'missing' if key in expected else 'unexpected'}: {key}")
            for key in sorted(loaded[table].keys() & expected.keys(), key=str):
                actual, right = loaded[table][key], expected[key]
                other = {
                    name: (actual[name], right[name])
                    for name in right
                    if actual[name] != right[name]
                }
                if other and len(found) < 20:
                    found.append(f"{table} {key}, actual and expected: {other}")
        return "\n".join(found)

    def _describe(self, outcome: Outcome) -> str:
        """Describes the history and the last outcome for a failed test."""
        return "\n".join([*self.history, str(outcome.reports), outcome.end, outcome.error])


class Bench:
    """Loader, tally and reference runs that the tests of one destination share."""

    def __init__(self, destination: str, folder: Path, cluster: str | None = None) -> None:
        self.tally = Tally(destination)
        self._loader = Loader(folder)
        self._folder = folder
        self._cluster = cluster
        self._cases = 0
        self._passes: dict[str, dict[str, int]] = {}

    def new(self, *, seed: int = 1, **settings: Any) -> Warehouse:
        """Creates an empty destination, and a sandbox to load into it."""
        self._cases += 1
        name = f"case_{self._cases}"
        url = None if self._cluster is None else self._new_database(name)
        folder = self._folder / name
        return Warehouse(self._loader, self.tally, folder, url, seed, **settings)

    def passes(self, when: When, point: str) -> int:
        """Counts the passes of a point in a run that is not killed."""
        if not self._passes:
            with self.new() as warehouse:
                self._passes["first"] = warehouse.complete().passes
                warehouse.change()
                self._passes["later"] = warehouse.complete().passes
        return self._passes[when].get(point, 0)

    def close(self) -> None:
        """Ends the loader process."""
        self._loader.close()

    def _new_database(self, name: str) -> str:
        assert self._cluster
        with closing(psycopg2.connect(self._cluster)) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(f"CREATE DATABASE {name}")
        return f"{self._cluster.rpartition('/')[0]}/{name}"


@contextmanager
def bench(request: pytest.FixtureRequest, folder: Path, cluster: str | None) -> Iterator[Bench]:
    """Opens a bench, and prints its tally at the end."""
    made = Bench("PostgreSQL" if cluster else "DuckDB", folder, cluster)
    began = time.monotonic()
    try:
        yield made
    finally:
        made.close()
        capture = request.config.pluginmanager.getplugin("capturemanager")
        with capture.global_and_fixture_disabled():
            sys.stderr.write(f"\n{made.tally}, {time.monotonic() - began:.0f} s\n")


@pytest.fixture(scope="class")
def on_duckdb(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Bench]:
    with bench(request, tmp_path_factory.mktemp("duckdb"), None) as made:
        yield made


@pytest.fixture(scope="class")
def on_postgres(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Bench]:
    with (
        postgres() as url,
        bench(request, tmp_path_factory.mktemp("postgres"), url) as made,
    ):
        yield made


def kill_at_each(bench: Bench, points: Sequence[str], **settings: Any) -> None:
    """Kills once at each point, beginning with the first run ever, then runs to the end."""
    with bench.new(seed=len(points), **settings) as warehouse:
        for number, point in enumerate(points):
            if number:
                warehouse.change()
            if not warehouse.kill(point, pass_over_conversations(point)):
                # some points are passed on a new machine only
                warehouse.move()
                warehouse.change()
                assert warehouse.kill(point), f"{point} was not reached"
            if number % 4 == 2:
                warehouse.move()
        warehouse.complete()


def pass_over_conversations(point: str) -> int:
    """Picks a pass in the second package of a run; the first one only has the run's own row."""
    kind = point.partition(":")[0]
    if POINTS[point].needs or kind in ("listing", "discard", "tidy", "lease", "state"):
        return 1
    if point in ("job: before its commit", "job: after its commit"):
        return 2
    if point.startswith("half a temporary file: schema"):
        return 3  # the first one after which the state contains its name
    return {"fetching": 4, "job": 9, "merge": 4}.get(kind, 4 if "items" in point else 2)


def kill_at(bench: Bench, point: str) -> None:
    """Kills at one point in first and later runs, on the same machine and on new ones.

    The warehouse is compared twice, because a new machine could repair what the old one broke.
    """
    first, later = bench.passes("first", point), bench.passes("later", point)
    drawn = random.Random(point)
    before = bench.tally.kills[point]
    with bench.new(seed=drawn.randint(1, 99)) as warehouse:
        warehouse.kill(point, drawn.randint(1, max(1, first)))
        warehouse.kill(point)
        warehouse.change()
        warehouse.kill(point, drawn.randint(1, max(1, later)))
        warehouse.complete()

        warehouse.change()
        warehouse.kill(point, max(1, later))
        warehouse.move()
        warehouse.change()
        warehouse.kill(point, drawn.randint(1, max(1, later)))
        if drawn.random() < 0.5:
            warehouse.move()
        warehouse.complete()
    kills = bench.tally.kills[point] - before
    assert kills >= POINTS[point].passes, f"{point}: {warehouse.history}"


def kill_anywhere(bench: Bench, seed: int) -> None:
    """Kills at random passes and times."""
    drawn = random.Random(seed)
    with bench.new(seed=seed, chunk_size=drawn.choice([7, 15, 30])) as warehouse:
        for _ in range(6):
            if drawn.random() < 0.5:
                warehouse.kill(ANY_POINT, drawn.randint(1, 500))
            else:
                warehouse.kill(None, after_seconds=drawn.uniform(0, warehouse.seconds))
            if drawn.random() < 0.3:
                warehouse.move()
            if drawn.random() < 0.7:
                warehouse.change()
        warehouse.complete()
        warehouse.change()
        warehouse.kill(None, after_seconds=drawn.uniform(0, warehouse.seconds))
        warehouse.kill(ANY_POINT, drawn.randint(1, 200))
        warehouse.complete()


def kill_between_chunks(bench: Bench) -> None:
    """Kills between chunks, with an empty look-back window that would not repair a gap."""
    with bench.new(lookback="0s", page_size=10, chunk_size=10) as warehouse:
        for point in (
            "end: after the package is archived",
            "merge: after a table",
            "end: after the row in _dlt_loads",
            "end: before the row in _dlt_loads",
        ):
            assert warehouse.kill(point, 2)
            warehouse.move()
        warehouse.complete()


def points_of(destination: str) -> list[str]:
    """Lists the points that a load into this destination passes."""
    return [name for name, point in POINTS.items() if destination in point.destinations]


def groups(kinds: str, size: int = 12) -> list[Any]:
    """Groups one point per step of these kinds; a group shares a warehouse."""
    names = [name for name in ONE_PER_STEP if re.match(f"({kinds}):", name)]
    return [
        pytest.param(names[start : start + size], id=f"from {names[start]}")
        for start in range(0, len(names), size)
    ]


def test_a_load_recovers_after_a_kill(on_duckdb: Bench) -> None:
    kill_at_each(on_duckdb, [name for name in A_HANDFUL if name.startswith("end")])


class TestDuckDBUpToNormalize:
    @pytest.mark.slow
    @pytest.mark.parametrize("points", groups(r"listing|fetching|extract|pipeline|normalize"))
    def test_a_load_recovers_after_a_kill_at_any_point(
        self, on_duckdb: Bench, points: list[str]
    ) -> None:
        kill_at_each(on_duckdb, points)

    @pytest.mark.slow
    def test_no_gap_is_left_before_the_watermark(self, on_duckdb: Bench) -> None:
        kill_between_chunks(on_duckdb)

    @pytest.mark.slow
    @pytest.mark.parametrize("points", groups("half a temporary file"))
    def test_a_load_recovers_after_a_file_was_partially_written(
        self, on_duckdb: Bench, points: list[str]
    ) -> None:
        kill_at_each(on_duckdb, points)


class TestDuckDBFromLoadOn:
    @pytest.mark.slow
    @pytest.mark.parametrize(
        "points",
        groups("load|job|merge|direct|end|discard|tidy|half a file") + groups("state", size=1),
    )
    def test_a_load_recovers_after_a_kill_at_any_point(
        self, on_duckdb: Bench, points: list[str]
    ) -> None:
        kill_at_each(on_duckdb, points)


@needs_postgres
class TestPostgres:
    @pytest.mark.slow
    def test_a_load_recovers_after_a_kill(self, on_postgres: Bench) -> None:
        kill_at_each(on_postgres, A_HANDFUL)


@pytest.mark.matrix
class TestMatrixOfDuckDB:
    @pytest.mark.parametrize("point", points_of("duckdb"))
    def test_kills_at_one_point(self, on_duckdb: Bench, point: str) -> None:
        kill_at(on_duckdb, point)

    @pytest.mark.parametrize("seed", range(12))
    def test_kills_anywhere(self, on_duckdb: Bench, seed: int) -> None:
        kill_anywhere(on_duckdb, seed)


@needs_postgres
@pytest.mark.matrix
class TestMatrixOfPostgres:
    @pytest.mark.parametrize("point", points_of("postgres"))
    def test_kills_at_one_point(self, on_postgres: Bench, point: str) -> None:
        kill_at(on_postgres, point)

    @pytest.mark.parametrize("seed", range(12))
    def test_kills_anywhere(self, on_postgres: Bench, seed: int) -> None:
        kill_anywhere(on_postgres, seed)

    def test_no_gap_is_left_before_the_watermark(self, on_postgres: Bench) -> None:
        kill_between_chunks(on_postgres)


@pytest.mark.matrix
def test_the_command_is_killed_from_outside() -> None:
    drawn = random.Random(5)
    sandbox = Sandbox(SandboxConfig(conversations=200, inventions=True, seed=4))
    sandbox.advance(timedelta(days=30))
    kills = 0
    with serve(sandbox) as base_url:
        environment = access(base_url) | {"POLYAI_CHUNK_SIZE": "40"}
        for _ in range(12):
            process = start("load", **environment)
            try:
                process.wait(drawn.uniform(0.3, 6))
            except subprocess.TimeoutExpired:
                process.kill()
                kills += 1
            process.communicate()
            sandbox.advance(arrivals=1)
        result = run("load", **environment)
    assert result.returncode == 0, result.stderr
    assert kills > 5
    assert_equals_truth(sandbox, AGENT, from_duckdb())
