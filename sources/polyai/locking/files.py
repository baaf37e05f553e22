"""Keeps two runs from loading the same at once.

Two things protect a warehouse, and each covers what the other cannot:

- Locks on files: one on dlt's working directory, and for DuckDB, which one process writes, one
  beside the database. The system lets go of them when a process ends, however it ends.
- A lease in the warehouse for each agent (`Leases`), on every other SQL destination: it also keeps
  a second machine away. One that a killed run has left is taken up at once from the same working
  directory, and from another one when it expires.

Merging is kept apart as well: each working directory has a staging dataset of its own.
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
from ..warehouse.duckdb_file import duckdb_path
from ..warehouse.working_directory import lock_file, lock_on
from .leases import Holder, Leases

logger = logging.getLogger("polyai")

POLL_SECONDS = 0.5
"""Time between two attempts to get a lock."""


class Patience:
    """How long a run waits for another one; shared by all locks that it needs.

    Args:
        wait: Time in all; zero for one attempt.
        stop: Set from outside: wait no longer.
    """

    def __init__(self, wait: timedelta, stop: threading.Event) -> None:
        self._deadline = time.monotonic() + wait.total_seconds()
        self._stop = stop
        self._is_told = False

    def is_over(self, what: str) -> bool:
        """Waits a moment for `what`, once more; True where there is no time left."""
        if time.monotonic() >= self._deadline or self._stop.is_set():
            return True
        if not self._is_told:
            logger.info("waiting for another run: %s", what)
            self._is_told = True
        return self._stop.wait(POLL_SECONDS)


@contextmanager
def working_directory(pipeline: dlt.Pipeline, patience: Patience) -> Iterator[None]:
    """Holds dlt's working directory; inside, the pipeline has a staging dataset of its own.

    Raises:
        BusyError: Another run on this machine holds it.
    """
    folder = Path(pipeline.pipelines_dir)
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as held:
        _hold(held, lock_file(Path(pipeline.working_dir)), patience)
        params = pipeline.destination.config_params
        params["staging_dataset_name_layout"] = _staging_layout(folder, pipeline.pipeline_name)
        yield


@contextmanager
def free_pipeline_name(pipelines_dir: Path, prefix: str, first: int, most: int) -> Iterator[str]:
    """Holds the working directory of a pipeline that nobody is using; opens nothing.

    Args:
        pipelines_dir: Where the working directories are.
        prefix: What such pipelines are called; each has a number too.
        first: The number to begin with.
        most: How many are tried.

    Raises:
        BusyError: All of them are being used.
    """
    pipelines_dir.mkdir(parents=True, exist_ok=True)
    for number in range(first, first + most):
        name = f"{prefix}_{number}"
        try:
            with lock_on(lock_file(pipelines_dir / name)).acquire(timeout=0):
                yield name
        except Timeout:
            continue
        return
    raise BusyError(f"{most} slices of backfills are being loaded from {pipelines_dir}")


@contextmanager
def database_file(
    pipeline: dlt.Pipeline, patience: Patience, ending: str = ".lock"
) -> Iterator[None]:
    """Keeps other loads away from the DuckDB file, where that is the destination.

    Args:
        pipeline: Whose destination it is.
        patience: How long to wait for them.
        ending: Of the lock file's name; runs that may go beside each other have different ones.

    Raises:
        BusyError: Another run on this machine loads into it.
    """
    database = duckdb_path(pipeline)
    with ExitStack() as held:
        # the lock would make a folder that is missing, which DuckDB refuses to do
        if database is not None and database.parent.is_dir():
            _hold(held, database.with_name(f"{database.name}{ending}"), patience)
        yield


@contextmanager
def leases(
    pipeline: dlt.Pipeline, agent_ids: Iterable[str], patience: Patience
) -> Iterator[tuple[Leases | None, dict[str, Holder]]]:
    """Holds the leases of as many agents as can be had, and renews them meanwhile.

    Yields:
        The leases, None where the destination needs none or has none; and who holds the others.
    """
    if duckdb_path(pipeline) is not None or not Leases.supports(pipeline):
        yield None, {}
        return
    identity = _identity(pipeline.pipelines_dir, pipeline.pipeline_name)
    owner = f"{socket.gethostname()}/{identity}"
    mine = Leases(pipeline, owner, staging_dataset_name(pipeline))
    with mine:
        others = mine.acquire(agent_ids)
        while others and not patience.is_over(f"{', '.join(others)} is being loaded"):
            others = mine.acquire(others)
        yield mine, others


def staging_dataset_name(pipeline: dlt.Pipeline) -> str:
    """The dataset in which rows wait to be merged."""
    client: Any = pipeline.sql_client()
    return str(client.staging_dataset_name)


def staging_datasets(pipeline: dlt.Pipeline, names: Iterable[str]) -> list[str]:
    """The datasets in which rows wait to be merged, of other pipelines beside this one.

    Args:
        pipeline: Whose destination and dataset it is.
        names: Of these pipelines, whose working directories are in the same folder.
    """
    folder = Path(pipeline.pipelines_dir)
    return [_staging_layout(folder, name) % pipeline.dataset_name for name in names]


def _staging_layout(pipelines_dir: Path, name: str) -> str:
    """What a pipeline's staging dataset is called, `%s` for the dataset."""
    return f"%s_staging_{_identity(pipelines_dir, name)}"


def _hold(held: ExitStack, path: Path, patience: Patience) -> None:
    lock = lock_on(path)
    while True:
        try:
            held.enter_context(lock.acquire(timeout=0))
            return
        except Timeout:
            if patience.is_over(f"{path} is locked"):
                raise BusyError(
                    f"another run is loading into the same place: it holds {path}. Run again when "
                    "it is done, or wait for it with --wait"
                ) from None


def _identity(pipelines_dir: str | Path, name: str) -> str:
    """An id of a working directory on this machine; the same as long as both are."""
    path = Path(pipelines_dir, f"{name}.id")
    if not path.exists():
        draft = path.with_suffix(f".{os.getpid()}")
        draft.write_text(uuid.uuid4().hex, encoding="ascii")
        draft.replace(path)
    # a directory that was copied with its id is another one on another machine
    place = f"{path.read_text(encoding='ascii').strip()}/{socket.gethostname()}"
    return hashlib.blake2b(place.encode(), digest_size=8).hexdigest()
