"""One scenario in every destination that is proven: after each step, the same rows as in DuckDB.

The small form runs in CI, which compares rows after the steps whose rows no later step replaces; of
DuckLake, with one of its catalogs. The others, and a larger form that compares after each step, by

    python -m pytest -m matrix tests/test_destinations.py
"""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from datetime import timedelta
from itertools import islice
from pathlib import Path

import pytest

from command import AGENT
from destinations import (
    Scenario,
    Snapshot,
    assert_same,
    in_duckdb,
    in_ducklake,
    in_ducklake_of_files,
    in_ducklake_on_s3,
    in_mariadb,
    in_postgres,
    in_sqlite,
)
from mariadb_server import needs_mariadb
from optional import needs_ducklake, needs_s3
from polyai import ExitCode
from polyai.sandbox import Sandbox, SandboxConfig, serve
from postgres_server import needs_postgres

pytestmark = [pytest.mark.process, pytest.mark.slow]

Place = Callable[[Path], AbstractContextManager[dict[str, str]]]


PLACES = [
    pytest.param(in_postgres, marks=needs_postgres, id="postgres"),
    pytest.param(
        in_ducklake_on_s3,
        marks=[needs_ducklake, needs_s3, pytest.mark.matrix],
        id="ducklake on S3",
    ),
    pytest.param(
        in_ducklake, marks=[needs_postgres, needs_ducklake, pytest.mark.matrix], id="ducklake"
    ),
    pytest.param(
        in_ducklake_of_files, marks=[needs_ducklake, pytest.mark.matrix], id="ducklake of files"
    ),
    pytest.param(in_mariadb, marks=needs_mariadb, id="mariadb"),
    pytest.param(in_sqlite, marks=pytest.mark.matrix, id="sqlite"),
]

BEGUN = [
    pytest.param(in_ducklake_on_s3, marks=[needs_ducklake, needs_s3], id="ducklake on S3"),
    pytest.param(in_sqlite, id="sqlite"),
]
"""Places of which CI plays the beginning only; of DuckLake, `test_ducklake` has the erasure."""

_FEW = 24
"""Conversations of the small form."""

Steps = dict[str, Snapshot]
"""Rows after each step, by its name."""

_SQL = (
    "SELECT conversation_id, {value} FROM {table} WHERE conversation_id IN "
    "(SELECT min(conversation_id) FROM turns WHERE turn_index = 1)"
)


def play(
    place: Place, folder: Path, conversations: int, *, in_full: bool
) -> Generator[tuple[str, Snapshot], None, None]:
    """Runs the scenario in a destination, and yields rows after its steps, each one if in full."""
    sandbox = Sandbox(SandboxConfig(conversations=conversations, inventions=True))
    with ExitStack() as stack:
        destination = stack.enter_context(place(folder))
        base_url = stack.enter_context(serve(sandbox))
        one = Scenario(sandbox, base_url, destination, folder)
        chunked = {"POLYAI_CHUNK_SIZE": str(conversations // 4)}

        # killed as soon as a chunk has been committed, and run again
        killed = one.start("load", settings=chunked)
        deadline = time.monotonic() + 180
        while sandbox.requests.count(r"/conversations/[^/?]+$") < conversations // 2:
            assert killed.poll() is None, killed.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        killed.send_signal(signal.SIGKILL)
        killed.communicate()
        report, _ = one.load(settings=chunked)
        assert report["status"] == "complete"
        yield "first load, killed and run again", one.snapshot()

        report, details = one.load()
        assert (report["status"], report["fetched"], details) == ("complete", 0, 0)
        if in_full:
            yield "nothing new", one.snapshot()

        ids = [sandbox.traits(AGENT, index).conversation_id for index in sandbox.listed(AGENT)]
        sandbox.edit(AGENT, ids[0], note='It\'s "new": 100 % \\ ü 🙂 :later', tags=["b", "a"])
        sandbox.edit(AGENT, ids[1], keep_turns=1, poly_score=None, summary=None)
        sandbox.edit(AGENT, ids[2], extra={"price": 1.5, "deep": {"list": [1, None, "x"]}})
        sandbox.edit(AGENT, ids[3], withhold_turns=True)
        sandbox.delete(AGENT, ids[4])
        sandbox.advance(timedelta(hours=12), arrivals=5)
        report, details = one.load("--full")
        assert report["new"] == 5
        assert report["status"] == "complete"
        yield "mutations and vanished children", one.snapshot()

        one.machine = "second"
        report, details = one.load()
        assert (report["status"], report["fetched"], details) == ("complete", 0, 0)
        sandbox.advance(timedelta(hours=1), arrivals=6)
        machines = []
        for one.machine in ("second", "first"):
            machines.append(one.start("load"))
        for machine in machines:
            _, errors = machine.communicate()
            assert machine.returncode in (ExitCode.DONE, ExitCode.BUSY), errors
        report, _ = one.load()
        assert report["status"] == "complete"
        if in_full:
            yield "two working directories at once", one.snapshot()

        one.command("recordings", settings={"POLYAI_RECORDINGS_WAIT": "90d"})
        if in_full:
            yield "recordings", one.snapshot()

        one.command(
            "annotate",
            "--query",
            _SQL.format(
                table="conversations",
                value="1 AS turn_index, 'agent' AS role, 'wrong_info' AS annotation_type",
            ),
        )
        one.command(
            "note",
            "--query",
            _SQL.format(table="conversations", value="'a note from a query' AS note"),
        )
        report, _ = one.load()
        assert report["changed"] == 1
        if in_full:
            yield "annotate and note from a query", one.snapshot()

        one.command("forget", ids[5], "--yes")
        one.load()
        yield "forget", one.snapshot()

        backfill = ("backfill", "--from", "2026-08-01", "--to", "2026-10-20", "--slice", "50d")
        again = (*backfill, "--workers", "2", "--no-resume")
        sandbox.faults.add("status", path=re.escape(ids[len(ids) // 2]), status=500)
        one_attempt = {"POLYAI_MAX_ATTEMPTS": "1"}
        one.command(*again, settings=one_attempt, exit_code=ExitCode.SOME_FAILED)
        sandbox.faults.clear()
        report, _ = one.load()
        assert report["status"] == "complete"
        if in_full:
            one.command(*again)
        yield "backfill with two workers", one.snapshot()

        (status,) = one.command("status")["agents"]
        assert status["is_consistent"]
        yield "status", {name: {"": status[name]} for name in ("conversations", "turns", "tables")}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Steps:
    """The small form in DuckDB, the reference."""
    folder = tmp_path_factory.mktemp("small")
    return dict(play(in_duckdb, folder, _FEW, in_full=False))


@pytest.mark.parametrize("place", PLACES)
def test_scenario(place: Place, small: Steps, tmp_path: Path) -> None:
    for step, found in play(place, tmp_path, _FEW, in_full=False):
        with _named(step):
            assert_same(small[step], found)


@pytest.mark.parametrize("place", BEGUN)
def test_beginning(place: Place, small: Steps, tmp_path: Path) -> None:
    """Loads, a kill, mutations and vanished children."""
    with closing(play(place, tmp_path, _FEW, in_full=False)) as steps:
        for step, found in islice(steps, 2):
            with _named(step):
                assert_same(small[step], found)


@pytest.mark.matrix
@pytest.mark.parametrize("place", PLACES)
def test_larger_scenario(place: Place, tmp_path: Path) -> None:
    reference = dict(play(in_duckdb, _folder(tmp_path, "duckdb"), 600, in_full=True))
    for step, found in play(place, _folder(tmp_path, "other"), 600, in_full=True):
        with _named(step):
            assert_same(reference[step], found)


def _folder(parent: Path, name: str) -> Path:
    folder = parent / name
    folder.mkdir()
    return folder


@contextmanager
def _named(step: str) -> Iterator[None]:
    """Names the step after which an assertion of the block fails."""
    try:
        yield
    except AssertionError as error:
        error.add_note(f"after the step: {step}")
        raise
