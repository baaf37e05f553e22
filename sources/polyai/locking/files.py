"""Locks and leases of a run, so that two runs never load the same data at once.

Each covers what the other cannot:

- Locks on files: one on dlt's working directory and, for DuckDB, which only one process can write,
  one beside the database. The operating system releases them when a process ends in any way.
- A lease in the warehouse for each agent (`Leases`), on every other destination that can keep
  leases, which excludes other machines too. A run in the same working directory takes over the
  lease of a killed run immediately, one in another directory when the lease expires.

Merges are separated as well: each working directory has a staging dataset of its own.
"""

from __future__ import annotations

import hashlib
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import dlt
from filelock import Timeout

from ..errors import BusyError
from ..warehouse.capabilities import support_of
from ..warehouse.clients import sql_client
from ..warehouse.duckdb_file import locked_file
from ..warehouse.working_directory import lock_file, lock_on
from .leases import Holder, Leases
from .names import LOAD_WRITER

logger = logging.getLogger("polyai")

POLL_SECONDS = 0.5
"""Time between two attempts to acquire a lock."""


class LockTimeout:
    """Time limit of a run's wait for other runs, shared by all locks that it needs.

    Args:
        wait: Time in total; zero for one attempt.
        stop: Set to end the wait early.
    """

    def __init__(self, wait: timedelta, stop: threading.Event) -> None:
        self._deadline = time.monotonic() + wait.total_seconds()
        self._stop = stop
        self._is_logged = False

    def keep_waiting(self, reason: str) -> bool:
        """Pauses before another attempt; logs the reason of the first pause.

        Returns:
            False if no time is left.
        """
        if time.monotonic() >= self._deadline or self._stop.is_set():
            return False
        if not self._is_logged:
            logger.info("waiting for another run: %s", reason)
            self._is_logged = True
        return not self._stop.wait(POLL_SECONDS)


@contextmanager
def working_directory_lock(pipeline: dlt.Pipeline, timeout: LockTimeout) -> Iterator[None]:
    """Locks dlt's working directory, and gives the pipeline a staging dataset of its own.

    Raises:
        BusyError: Another run on this machine has it locked.
    """
    folder = Path(pipeline.pipelines_dir)
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as locks:
        _acquire(locks, lock_file(Path(pipeline.working_dir)), timeout)
        params = pipeline.destination.config_params
        params["staging_dataset_name_layout"] = _staging_layout(folder, pipeline.pipeline_name)
        yield


@contextmanager
def free_pipeline_name(pipelines_dir: Path, prefix: str, first: int, limit: int) -> Iterator[str]:
    """Finds a pipeline that no run is using, and locks its working directory without opening it.

    Args:
        pipelines_dir: Folder of the working directories.
        prefix: Prefix of the pipelines' names; a number follows.
        first: Number to begin with.
        limit: Number of pipelines to try.

    Raises:
        BusyError: All of them are in use.
    """
    pipelines_dir.mkdir(parents=True, exist_ok=True)
    for number in range(first, first + limit):
        name = f"{prefix}_{number}"
        try:
            with lock_on(lock_file(pipelines_dir / name)).acquire(timeout=0):
                yield name
        except Timeout:
            continue
        return
    raise BusyError(
        f"{limit} slices of backfills are being loaded from {pipelines_dir}, which is the limit. "
        "Run again when some of them are done"
    )


@contextmanager
def database_lock(
    pipeline: dlt.Pipeline, timeout: LockTimeout, ending: str = LOAD_WRITER.lock_ending
) -> Iterator[None]:
    """Locks the destination's DuckDB file against other loads; no-op for other destinations.

    Args:
        pipeline: Pipeline with the destination.
        timeout: Limit of the wait.
        ending: Ending of the lock file's name. Runs with different endings may be concurrent.

    Raises:
        BusyError: Another run on this machine has it locked.
    """
    database = locked_file(pipeline)
    with ExitStack() as locks:
        # locking would create a missing folder, for which DuckDB raises its own error
        if database is not None and database.parent.is_dir():
            _acquire(locks, database.with_name(f"{database.name}{ending}"), timeout)
        yield


@contextmanager
def agent_leases(
    pipeline: dlt.Pipeline, agent_ids: Iterable[str], timeout: LockTimeout
) -> Iterator[tuple[Leases | None, dict[str, Holder]]]:
    """Acquires the leases of as many agents as possible, and renews them within the block.

    Yields:
        The leases, None if the destination needs or supports none; the holders of the others.
    """
    if locked_file(pipeline) is not None or not support_of(pipeline).has_leases:
        yield None, {}
        return
    identity = _identity(pipeline.pipelines_dir, pipeline.pipeline_name)
    owner = f"{socket.gethostname()}/{identity}"
    leases = Leases(pipeline, owner, staging_dataset_name(pipeline))
    with leases:
        others = leases.acquire(agent_ids)
        while others and timeout.keep_waiting(f"{', '.join(others)} is being loaded"):
            others = leases.acquire(others)
        yield leases, others


def staging_dataset_name(pipeline: dlt.Pipeline) -> str:
    """Returns the name of a pipeline's staging dataset, in which rows wait to be merged."""
    client: Any = sql_client(pipeline)
    return str(client.staging_dataset_name)


def staging_datasets(pipeline: dlt.Pipeline, names: Iterable[str]) -> list[str]:
    """Returns the names of other pipelines' staging datasets.

    Args:
        pipeline: A pipeline with the same destination, dataset and folder of working directories.
        names: Names of the other pipelines.
    """
    folder = Path(pipeline.pipelines_dir)
    return [_staging_layout(folder, name) % pipeline.dataset_name for name in names]


def _staging_layout(pipelines_dir: Path, name: str) -> str:
    """Template of a pipeline's staging dataset name, `%s` for the dataset."""
    return f"%s_staging_{_identity(pipelines_dir, name)}"


def _acquire(locks: ExitStack, path: Path, timeout: LockTimeout) -> None:
    lock = lock_on(path)
    while True:
        try:
            locks.enter_context(lock.acquire(timeout=0))
            return
        except Timeout:
            if not timeout.keep_waiting(f"{path} is locked"):
                raise BusyError(
                    f"another run is loading into the same warehouse or working directory: it has "
                    f"locked {path}. Run again when it is done, or wait for it with --wait"
                ) from None


def _identity(pipelines_dir: str | Path, name: str) -> str:
    """Returns a stable id of a working directory on this machine, 16 hexadecimal digits.

    A copy of the folder gets an id of its own: the two may be used at the same time.
    """
    path = Path(pipelines_dir, f"{name}.id")
    folder = str(Path(pipelines_dir).resolve())
    stored = path.read_text(encoding="utf-8") if path.exists() else ""
    known, _, place = stored.strip().partition("\n")
    if not known or place != folder:
        # version 0.1 did not store the folder
        known = known if known and not place else uuid.uuid4().hex
        draft = path.with_suffix(f".{os.getpid()}")
        draft.write_text(f"{known}\n{folder}", encoding="utf-8")
        draft.replace(path)
    # the host name distinguishes a directory that was copied to another machine
    host_and_id = f"{known}/{socket.gethostname()}"
    return hashlib.blake2b(host_and_id.encode(), digest_size=8).hexdigest()
