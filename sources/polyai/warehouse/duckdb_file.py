"""DuckDB file: settings, the lock that processes share it by, and waiting for its readers."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import dlt
import duckdb
from dlt.common.destination import Destination
from filelock import FileLock

from .clients import sql_client
from .duckdb_destination import DUCKDB, PackageDuckDb
from .ducklake import DUCKLAKE, catalog_file
from .errors import chain_contains, root_cause
from .retry import retry

logger = logging.getLogger("polyai")

T = TypeVar("T")

_STORAGE = {"storage_compatibility_version": "v1.3.0"}
"""Storage format of new files: the oldest one in which texts are compressed as `DICT_FSST`.
Choosing among the compressions of the formats before it takes 70 MB more at each commit, and the
file is larger. Existing files keep theirs."""

_CONFIG = {"threads": 1, "memory_limit": "80MB", **_STORAGE}
"""DuckDB settings for loading. DuckDB shares the processor with the threads that fetch: one thread
costs a quarter less CPU and memory than one per core. Without a limit, its memory grows with the
file; above the limit it spills into a folder beside the file. A `global_config` of the user has
priority."""

COPY_CONFIG: Mapping[str, Any] = {
    "threads": 1,
    "memory_limit": "190MB",
    "preserve_insertion_order": False,
    **_STORAGE,
}
"""DuckDB settings for copying a whole file: what exceeds the limit spills to disk, so that memory
does not grow with the warehouse."""

_RAISED_LIMITS = ("260MB", "520MB", "1TB")
"""Limits for a statement that needs more than `COPY_CONFIG` allows, one after the other."""

READ_CONFIG: Mapping[str, Any] = {
    "threads": 2,
    "memory_limit": "170MB",
    "preserve_insertion_order": False,
}
"""DuckDB settings for reading a whole warehouse: memory grows with the number of threads, and what
exceeds the limit spills to disk."""

READERS_SECONDS = 20.0
"""Time that a load waits for another process to close the DuckDB file."""

_RETRY_SECONDS = 0.05
"""Time between two attempts to open a locked file."""

LOCKED = "Could not set lock on file"
"""DuckDB's message for a file that another process has open."""

_OUT_OF_MEMORY = ("Out of Memory Error", "failed to pin block", "failed to allocate")
"""DuckDB's messages for a memory limit that is too low."""

_LOCK_ENDING = ".step.lock"


def shared_duckdb(
    pipeline: dlt.Pipeline, credentials: Any, file_name: str
) -> tuple[Destination[Any, Any], Path]:
    """Configures a pipeline's DuckDB destination for loading.

    Args:
        pipeline: A pipeline with a DuckDB destination.
        credentials: Resolved credentials of the destination; changed.
        file_name: Name of the file, where dlt would name it after the pipeline: all pipelines
            load into one file.

    Returns:
        The destination and its file.
    """
    credentials.global_config = _CONFIG | (credentials.global_config or {})
    database = Path(str(credentials.database))
    if database.name == f"{pipeline.pipeline_name}.duckdb":
        database = database.with_name(file_name)
    credentials.database = str(database)
    return PackageDuckDb(credentials), database


@lru_cache(maxsize=16)
def duckdb_path(pipeline: dlt.Pipeline) -> Path | None:
    """Path of the destination's DuckDB file; None for other destinations and databases in memory.

    Cached, because dlt keeps the errors that occur while it resolves settings, and with them every
    object of the calling frames.
    """
    if pipeline.destination.destination_type != DUCKDB:
        return None
    credentials: Any = pipeline.destination_client().config.credentials
    database = str(credentials.database)
    return None if database.startswith(":") else Path(database).resolve()


@lru_cache(maxsize=16)
def locked_file(pipeline: dlt.Pipeline) -> Path | None:
    """Path of the DuckDB file that only one process at a time can open for writing.

    That is the DuckDB file of `duckdb_path`, or the catalog of a DuckLake in a DuckDB file.

    Returns:
        The path; None for other destinations.
    """
    if pipeline.destination.destination_type != DUCKLAKE:
        return duckdb_path(pipeline)
    credentials: Any = pipeline.destination_client().config.credentials
    return catalog_file(credentials) if credentials.catalog.drivername == "duckdb" else None


@contextmanager
def kept_open(pipeline: dlt.Pipeline) -> Iterator[None]:
    """Keeps a DuckDB file locked and open; no-op for other destinations.

    dlt opens and closes the file for each of its steps. That takes longer than many of the steps,
    and the next step fails if a reader in another process opens the file in between.
    """
    if locked_file(pipeline) is None:
        yield
        return
    client: Any = sql_client(pipeline)
    with file_lock(pipeline):
        database = duckdb_path(pipeline)
        if database is not None and not database.exists():
            _create(database, client.credentials.global_config or {})
        retry_while_locked(client.open_connection)
        try:
            yield
        finally:
            client.close_connection()


def _create(database: Path, config: Mapping[str, Any]) -> None:
    """Creates an empty file in the configured storage format.

    dlt applies its configuration once the file is open, when the format is settled.
    """
    duckdb.connect(
        str(database), config={name: config[name] for name in _STORAGE if name in config}
    ).close()


def file_lock(pipeline: dlt.Pipeline) -> AbstractContextManager[None]:
    """Lock on the DuckDB file for the duration of one step; no-op for other destinations.

    Only one process at a time can have the file open for writing. The lock between whole loads is
    another one; with this one, the slices of a backfill and a load alternate.
    """
    database = locked_file(pipeline)
    if database is None or not database.parent.is_dir():
        return nullcontext()
    return _lock_of(database)


def exclusive_file_lock(database: Path) -> AbstractContextManager[None]:
    """Like `file_lock`, but also excludes the other threads of this process.

    For opening the file for reading only, which fails while the process has it open for writing.
    Not reentrant.
    """
    return _lock_of(database).exclusive()


@contextmanager
def not_opened_by_threads(database: Path) -> Iterator[bool]:
    """Keeps the threads of this process from opening a DuckDB file with `file_lock`.

    Yields:
        Whether one of them has it open.
    """
    with _lock_of(database).guarded() as is_held:
        yield is_held


def _lock_of(database: Path) -> _ProcessLock:
    path = database.resolve().with_name(f"{database.name}{_LOCK_ENDING}")
    return _locks.setdefault(path, _ProcessLock(path))


class _ProcessLock:
    """Reentrant file lock between processes, shared by the threads of one process."""

    def __init__(self, path: Path) -> None:
        self._lock = FileLock(path, mode=0o600, thread_local=False)
        self._guard = threading.Lock()
        self._holders = 0

    @contextmanager
    def guarded(self) -> Iterator[bool]:
        """Keeps threads from taking or releasing it; yields whether one has it."""
        with self._guard:
            yield self._holders > 0

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Takes the lock for one thread only, once no other thread of this process has it."""
        while True:
            self._guard.acquire()
            if self._holders == 0:
                break
            self._guard.release()
            time.sleep(_RETRY_SECONDS)
        try:
            with self._lock:
                yield
        finally:
            self._guard.release()

    def __enter__(self) -> None:
        with self._guard:
            if self._holders == 0:
                self._lock.acquire()
            self._holders += 1

    def __exit__(self, *_: object) -> None:
        with self._guard:
            self._holders -= 1
            if self._holders == 0:
                self._lock.release()


_locks: dict[Path, _ProcessLock] = {}


def retry_while_locked(action: Callable[[], T]) -> T:
    """Runs an action, and retries it while another process has the DuckDB file open.

    Gives up after `READERS_SECONDS`.
    """
    return retry(
        action,
        retry_if=lambda error: LOCKED in str(root_cause(error)),
        attempts=None,
        within_seconds=READERS_SECONDS,
        pause=lambda _: _RETRY_SECONDS,
    )


def execute_in_memory_limit(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    """Executes a statement on a connection with `COPY_CONFIG`; if need be, with higher limits.

    DuckDB cannot spill everything, such as long texts; without a limit, it spills nothing.
    """
    for limit in _RAISED_LIMITS:
        try:
            connection.execute(sql)
        except duckdb.OutOfMemoryException:
            logger.info("a statement needs more memory than usual: DuckDB's limit is raised")
            connection.execute(f"SET memory_limit = '{limit}'")
        else:
            return
    connection.execute(sql)


def lift_memory_limit(pipeline: dlt.Pipeline, error: BaseException) -> bool:
    """Removes our DuckDB memory limit from a pipeline if a step failed because of it.

    DuckDB cannot spill everything: texts of many kilobytes stay in memory until their transaction
    is committed.

    Returns:
        True if the limit was removed, so that a retry may succeed. A limit of the user's own stays.
    """
    if duckdb_path(pipeline) is None or not chain_contains(error, _OUT_OF_MEMORY):
        return False
    credentials: Any = pipeline.destination.config_params["credentials"]
    if credentials.global_config.get("memory_limit") != _CONFIG["memory_limit"]:
        return False
    credentials.global_config.pop("memory_limit")
    return True
