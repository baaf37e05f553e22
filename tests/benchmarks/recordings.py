"""Speed and memory of recordings, compared with a plain threaded download of the same files."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

import requests
import urllib3
from requests.adapters import HTTPAdapter

from polyai import open_pipeline, resolve
from polyai.api.client import encode_segment
from polyai.load.run import load
from polyai.recordings.run import PIPELINE_NAME, fetch_recordings
from polyai.sandbox import Sandbox, SandboxConfig, serve
from polyai.sandbox.audio import SAMPLE_RATE_HZ, Direction

from .measuring import environment, report
from .sides import peak_rss_bytes

AGENT, KEY = "PROJECT-BOOKINGS", "sandbox-key"
PART_BYTES = 256 * 1024


class Calls(Sandbox):
    """Conversations whose recordings all have about the same size."""

    def __init__(self, conversations: int, megabytes: float, delay_seconds: float) -> None:
        seconds = megabytes * 1e6 / (2 * SAMPLE_RATE_HZ)
        config = SandboxConfig(
            conversations=conversations,
            detail="small",
            recording_cap_seconds=seconds,
            delay_seconds=delay_seconds,
        )
        super().__init__(config)
        self._large = megabytes > 10
        self._body: bytes | None = None

    def recording(
        self,
        agent_id: str,
        conversation_id: str,
        direction: Direction = "combined",
        *,
        redacted: bool = True,
    ) -> bytes | None:
        """Renders a recording; large ones share one body, because rendering is slow."""
        if not self._large:
            return super().recording(agent_id, conversation_id, direction, redacted=redacted)
        if self._body is None:
            from polyai.sandbox.audio import wav

            seconds = self.config.recording_cap_seconds
            self._body = wav(1, seconds, direction, redacted=redacted)
        return self._body


def _serve(conversations: int, megabytes: float, delay_seconds: float, starter: Connection) -> None:
    with serve(Calls(conversations, megabytes, delay_seconds)) as url:
        starter.send(url)
        starter.recv()


@contextmanager
def server(conversations: int, megabytes: float, delay_seconds: float) -> Iterator[str]:
    """Serves the calls from another process."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(
        target=_serve, args=(conversations, megabytes, delay_seconds, theirs)
    )
    process.start()
    try:
        yield ours.recv()
    finally:
        ours.send(None)
        process.join()


def ours(base_url: str, workers: int) -> tuple[int, int]:
    """Runs `polyai-warehouse recordings`; returns the number of files, and their bytes."""
    settings = resolve(agent_id=AGENT, api_key=KEY, base_url=base_url, workers=workers)
    (done,) = fetch_recordings(settings, open_pipeline(name=PIPELINE_NAME))
    assert done.status == "complete", done.error
    return done.fetched, done.audio_bytes


Parts = Generator[bytes, None, None]
"""Parts of the body of a response; none if there is no recording."""


def by_urllib3(workers: int) -> Callable[[str], Parts]:
    """Requests with urllib3, the client with the least overhead."""
    pool = urllib3.PoolManager(maxsize=workers)

    def parts(url: str) -> Parts:
        answer = pool.request("GET", url, headers={"X-API-KEY": KEY}, preload_content=False)
        if answer.status == 200:
            yield from answer.stream(PART_BYTES)
        answer.drain_conn()
        answer.release_conn()

    return parts


def by_requests(workers: int) -> Callable[[str], Parts]:
    """Requests as a script would: one session with a connection per thread."""
    session = requests.Session()
    session.mount("http://", HTTPAdapter(pool_maxsize=workers))

    def parts(url: str) -> Parts:
        with session.get(url, headers={"X-API-KEY": KEY}, stream=True) as answer:
            if answer.status_code == 200:
                yield from answer.iter_content(PART_BYTES)
            else:
                assert answer.content

    return parts


def plain(
    by: Callable[[int], Callable[[str], Parts]], base_url: str, workers: int
) -> tuple[int, int]:
    """Downloads with as many threads into files, without hashes, manifest and warehouse."""
    import duckdb

    with duckdb.connect("polyai.duckdb", read_only=True) as connection:
        names = connection.execute(
            "SELECT conversation_id FROM polyai.conversations WHERE in_progress IS NOT TRUE "
            "AND coalesce(channel, '') NOT IN ('WEBCHAT', 'SMS')"
        ).fetchall()
    Path("plain").mkdir()
    parts_of = by(workers)

    def download(numbered: tuple[int, tuple[str]]) -> int:
        number, (name,) = numbered
        url = f"{base_url}/v1/agents/{AGENT}/conversations/{encode_segment(name)}/audio"
        parts = parts_of(url)
        first = next(parts, b"")
        if not first:
            return 0
        with Path("plain", f"{number}.wav").open("wb") as file:
            return file.write(first) + sum(map(file.write, parts))

    with ThreadPoolExecutor(workers) as threads:
        sizes = list(threads.map(download, enumerate(names)))
    return sum(size > 0 for size in sizes), sum(sizes)


Side = Callable[[str, int], tuple[int, int]]
"""Downloads from a base URL with a number of workers; returns the number of files, and bytes."""

PLAIN: dict[str, Side] = {
    "requests": partial(plain, by_requests),
    "urllib3": partial(plain, by_urllib3),
}
SIDES: dict[str, Side] = {"ours": ours, **PLAIN}


def measured(side: str, base_url: str, workers: int, loaded: Path) -> dict[str, float]:
    """Runs one side in a new process, in a copy of the loaded folder."""
    folder = tempfile.mkdtemp(dir=loaded.parent)
    shutil.copytree(loaded, folder, dirs_exist_ok=True)
    # so that this side does not bear the cost of writes that another one left pending
    os.sync()
    line = [sys.executable, "-m", "benchmarks.recordings", "--side", side]
    line += ["--base-url", base_url, "--workers", str(workers)]
    done = subprocess.run(line, cwd=folder, env=environment(), stdout=subprocess.PIPE, check=True)
    # truncated, not deleted: for minutes after a deletion ext4 examines each freed inode whenever
    # it creates a file, which would slow down the next side
    for file in Path(folder).rglob("*.wav"):
        os.truncate(file, 0)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def run_side(side: str, base_url: str, workers: int) -> None:
    """Runs one side in this process, and writes its cost."""
    began, cpu = time.perf_counter(), time.process_time()
    files, size = SIDES[side](base_url, workers)
    cost: dict[str, Any] = {
        "files": files,
        "bytes": size,
        "seconds": time.perf_counter() - began,
        "cpu": time.process_time() - cpu,
        "peak": peak_rss_bytes(),
    }
    sys.stdout.write(json.dumps(cost))


def main() -> None:
    """Measures all sides alternately, several times."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recordings", description=__doc__)
    parser.add_argument("--conversations", type=int, default=1_500)
    parser.add_argument("--megabytes", type=float, default=1.0, help="maximum size of a recording")
    parser.add_argument("--delay-ms", type=float, default=0, help="delay of each response")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--base-url", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        run_side(options.side, options.base_url, options.workers)
        return
    rounds: list[dict[str, dict[str, float]]] = []
    with (
        server(options.conversations, options.megabytes, options.delay_ms / 1e3) as url,
        tempfile.TemporaryDirectory() as folder,
    ):
        loaded = Path(folder, "loaded")
        loaded.mkdir()
        settings = resolve(agent_id=AGENT, api_key=KEY, base_url=url)
        before = Path.cwd()
        os.chdir(loaded)
        try:
            load(settings, open_pipeline())
        finally:
            os.chdir(before)
        for _ in range(options.rounds):
            rounds.append({side: measured(side, url, options.workers, loaded) for side in SIDES})
    for side in SIDES:
        runs = [one[side] for one in rounds]
        rate = median(run["bytes"] / run["seconds"] for run in runs)
        report(
            f"{side:>8}: {runs[0]['files']:.0f} files, {runs[0]['bytes'] / 1e6:,.0f} MB, "
            f"{median(run['seconds'] for run in runs):.2f} s, {rate / 1e6:,.0f} MB/s, "
            f"{median(run['cpu'] for run in runs):.2f} CPU s, "
            f"peak {max(run['peak'] for run in runs) / 1e6:,.0f} MB"
        )
    for side in PLAIN:
        ratios = sorted(one["ours"]["seconds"] / one[side]["seconds"] for one in rounds)
        report(f"ours / {side}: {median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})")


if __name__ == "__main__":
    main()
