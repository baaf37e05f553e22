"""Runs over recordings that are killed at any time: no partial file, orphan or second download.

Requests are counted at the server: a file that was in place when a run was killed is not requested
again, whatever the warehouse had registered. The small version runs with the other tests; a hundred
kills into a folder and into S3, with a fifth of all answers failing:

    python -m pytest -m slow tests/test_recordings_kills.py
"""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from pathlib import Path
from urllib.parse import unquote

import fsspec
import pyarrow.parquet as pq
import pytest

from command import AGENT, access, query, run, start
from optional import needs_s3
from polyai import open_pipeline, resolve
from polyai.load.run import load
from polyai.sandbox import Sandbox, SandboxConfig, serve
from s3_server import s3

pytestmark = pytest.mark.process

Store = tuple[str, dict[str, str], fsspec.AbstractFileSystem, str]
"""URL, environment, and the file system with its root for inspection."""


@contextmanager
def in_folder() -> Iterator[Store]:
    yield "recordings", {}, fsspec.filesystem("file"), str(Path("recordings").resolve())


@contextmanager
def in_s3() -> Iterator[Store]:
    with s3() as server:
        place = f"{server.bucket}/calls"
        yield f"s3://{place}", server.environment(), server.files(), place


class Killed:
    """A sandbox whose recordings are downloaded by runs that are killed."""

    def __init__(self, conversations: int, store: Store) -> None:
        self.config = SandboxConfig(
            conversations=conversations,
            span=timedelta(days=12),
            recording_rate_hz=20,
            detail="small",
        )
        self.sandbox = Sandbox(self.config)
        self.url, self.environment, self.fs, self.root = store
        self.seen = 0
        self.doubled: list[str] = []

    def files(self) -> set[str]:
        """Paths of the audio files in the store."""
        found = self.fs.find(self.root) if self.fs.exists(self.root) else []
        return {path.removeprefix(f"{self.root}/") for path in found if path.endswith(".wav")}

    def in_place(self) -> set[str]:
        """Names of the files that are in place."""
        return {
            path.rpartition("/")[2] for path in self.files() if not path.startswith(".incoming/")
        }

    def kill_one(self, base_url: str, pick: random.Random) -> None:
        """Starts a run and kills it after some answers and a delay that reaches all steps."""
        before, asked = self.in_place(), len(self.sandbox.requests.matching("/audio"))
        process = start("recordings", **self.environment_of(base_url))
        wanted = asked + pick.choice([0, 1, 3, 10, 30, 60])
        deadline = time.monotonic() + 60
        while (
            len(self.sandbox.requests.matching("/audio")) < wanted
            and process.poll() is None
            and time.monotonic() < deadline
        ):
            time.sleep(0.005)
        time.sleep(pick.choice([0, 0.02, 0.1, 0.4, 1.0, 2.0]))
        process.kill()
        process.communicate()
        self.check_asked(asked, before)

    def check_asked(self, asked: int, before: set[str]) -> None:
        """Notes requests for files that were in place already."""
        for request in self.sandbox.requests.matching("/audio")[asked:]:
            name = unquote(request.path.split("/")[5])
            self.doubled += [one for one in before if unquote(one).startswith(f"{name}.")]

    def environment_of(self, base_url: str) -> dict[str, str]:
        given = {"POLYAI_RECORDINGS_URL": self.url, "POLYAI_MAX_ATTEMPTS": "12"}
        return access(base_url) | self.environment | given

    def go(self, kills: int, base_url: str, seed: int) -> None:
        """Kills runs, then completes one and checks the result."""
        pick = random.Random(seed)
        load(resolve(agent_id=AGENT, api_key="sandbox-key", base_url=base_url), open_pipeline())
        self.sandbox.faults.add("status", path="/audio", rate=0.1, status=503)
        self.sandbox.faults.add("truncated", path="/audio", rate=0.1)
        for _ in range(kills):
            self.kill_one(base_url, pick)
        before, asked = self.in_place(), len(self.sandbox.requests.matching("/audio"))
        last = run("recordings", **self.environment_of(base_url))
        assert last.returncode == 0, last.stderr
        self.check_asked(asked, before)
        assert self.doubled == []
        again = len(self.sandbox.requests.matching("/audio"))
        assert run("recordings", **self.environment_of(base_url)).returncode == 0
        assert len(self.sandbox.requests.matching("/audio")) == again
        self.check_end()
        verified = run("recordings", "verify", **self.environment_of(base_url))
        assert verified.returncode == 0, verified.stdout

    def check_end(self) -> None:
        """Asserts that each recording is there once, complete, and nothing else."""
        served = {
            name: body
            for index in self.sandbox.listed(AGENT)
            for name in [self.sandbox.traits(AGENT, index).conversation_id]
            if (body := self.sandbox.recording(AGENT, name)) is not None
        }
        rows = query(
            "SELECT conversation_id, uri, sha256 FROM polyai.recordings WHERE status = 'stored'"
        )
        assert sorted(str(name) for name, *_ in rows) == sorted(served)
        for name, uri, sha256 in rows:
            body = self.fs.cat_file(str(uri))
            assert body == served[str(name)]
            assert sha256 == hashlib.sha256(body).hexdigest()
        assert len(self.files()) == len(served), "an orphan"
        assert not [path for path in self.fs.find(self.root) if "/.incoming/" in path]
        manifest = self.fs.find(f"{self.root}/manifest")
        parts = [path for path in manifest if path.endswith(".parquet")]
        assert len(manifest) == len(parts) + 1, "more than the parts and their index"
        listed = sum(self.rows_in(path) for path in parts)
        assert query("SELECT count(*) FROM polyai.recordings") == [(listed,)]
        assert query("SELECT count(*) FROM polyai.sync_runs WHERE status = 'running'") == [(0,)]
        assert [str(path) for path in Path().rglob(".incoming")] == []

    def rows_in(self, path: str) -> int:
        """Number of rows of a manifest."""
        with self.fs.open(path) as file:
            return int(pq.read_metadata(file).num_rows)


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.matrix)])
@pytest.mark.slow
def test_a_few_kills(seed: int) -> None:
    with in_folder() as store:
        killed = Killed(120, store)
        with serve(killed.sandbox) as url:
            killed.go(4, url, seed)


@pytest.mark.matrix
@needs_s3
def test_a_few_kills_into_s3() -> None:
    with in_s3() as store:
        killed = Killed(80, store)
        with serve(killed.sandbox) as url:
            killed.go(3, url, 3)


PLACES: list[object] = [
    pytest.param(in_folder, id="folder"),
    pytest.param(in_s3, id="s3", marks=needs_s3),
]


@pytest.mark.matrix
@pytest.mark.parametrize("place", PLACES)
def test_a_hundred_kills(place: Callable[[], AbstractContextManager[Store]]) -> None:
    with place() as store:
        killed = Killed(2_900, store)
        with serve(killed.sandbox) as url:
            killed.go(100, url, 7)
