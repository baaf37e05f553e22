"""Read-only access to a warehouse that another process may be loading."""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar, cast

import dlt
from dlt.common.destination import Destination
from dlt.destinations.impl.duckdb.configuration import DuckDbCredentials

from ..errors import BusyError, DestinationError
from .duckdb_file import LOCKED, READ_CONFIG, READERS_SECONDS, duckdb_path, locked_file
from .open import destination_label, open_pipeline
from .queries import Warehouse
from .retry import retry

T = TypeVar("T")

WAIT = timedelta(seconds=30)
"""Default time to wait for a locked DuckDB file; a load opens and closes it repeatedly."""

_READ_SECONDS = 1.0
"""Time that a DuckDB file is read before a pause in which a load can open it."""

_PAUSE_SECONDS = 0.2

_LOCKED = re.compile(rf"{LOCKED}(?:.*\(PID (\d+)\))?")
"""DuckDB's message, with the id of the process that has the file open, if it is known."""


@contextmanager
def open_to_read(
    destination: str | Destination[Any, Any] | None = None,
    dataset: str | None = None,
    *,
    wait: timedelta = WAIT,
) -> Iterator[Warehouse]:
    """Opens a warehouse for reading only, with a temporary working directory.

    Args:
        destination: As in `open_pipeline`.
        dataset: As in `open_pipeline`.
        wait: Time to wait, over all queries, for a DuckDB file that another process writes.

    Yields:
        The warehouse. Its queries raise `BusyError` if the file stays locked for longer.

    Raises:
        ConfigurationError: The destination is unknown or not configured.
        DestinationError: The DuckDB file does not exist.
    """
    with tempfile.TemporaryDirectory() as folder:
        seconds = min(wait.total_seconds(), READERS_SECONDS)
        pipeline = open_pipeline(destination, dataset, folder, wait_seconds=seconds)
        if (database := duckdb_path(pipeline)) is not None:
            if not database.exists():
                raise DestinationError(
                    f"there is no warehouse at {database}. Load one with polyai-warehouse load, "
                    "run the command in the folder of the warehouse, or set "
                    "DESTINATION__DUCKDB__CREDENTIALS to its file"
                )
            _make_read_only(pipeline, database, Path(folder, "duckdb"))
        yield _SharedWarehouse(pipeline, wait)


def _make_read_only(pipeline: dlt.Pipeline, database: Path, spill: Path) -> None:
    """Lets a pipeline open its DuckDB file for reading, in bounded memory.

    Args:
        pipeline: Pipeline whose destination is replaced.
        database: The file.
        spill: Folder for what exceeds the limit of memory: that of the file may be read only.
    """
    credentials: Any = DuckDbCredentials(str(database), read_only=True)
    # without the limits for loading; the user's own settings remain
    pipeline.destination = cast(Any, dlt.destinations.duckdb(credentials))
    resolved: Any = pipeline.destination_client().config.credentials
    limits = {**READ_CONFIG, "temp_directory": str(spill)}
    resolved.global_config = limits | (resolved.global_config or {})
    pipeline.destination = cast(Any, dlt.destinations.duckdb(resolved))


class _SharedWarehouse(Warehouse):
    """Warehouse that shares its DuckDB file with a load.

    Waits while the file is locked, and pauses between queries so that the load can open it.
    """

    def __init__(self, pipeline: dlt.Pipeline, wait: timedelta) -> None:
        super().__init__(pipeline)
        self._limit_seconds = wait.total_seconds()
        self._waited_seconds = 0.0
        self._read_seconds = 0.0

    def rows(self, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
        return self._shared(lambda: super(_SharedWarehouse, self).rows(sql, *parameters))

    def records(self, sql: str) -> list[dict[str, Any]]:
        return self._shared(lambda: super(_SharedWarehouse, self).records(sql))

    def _shared(self, read: Callable[[], T]) -> T:
        def attempt() -> T:
            began = time.monotonic()
            try:
                found = read()
            except DestinationError:
                self._waited_seconds += time.monotonic() - began
                raise
            self._pause_after_long_reads(time.monotonic() - began)
            return found

        return retry(attempt, retry_if=self._may_wait, attempts=None, pause=self._pause)

    def _may_wait(self, error: Exception) -> bool:
        locked = _LOCKED.search(str(error)) if isinstance(error, DestinationError) else None
        if locked and self._waited_seconds >= self._limit_seconds:
            writer = f"process {locked[1]}" if locked[1] else "another process"
            raise BusyError(
                f"{destination_label(self.pipeline)} has been locked by {writer} for "
                f"{self._waited_seconds:.0f} s. Run the command again later, or wait longer with "
                "--wait"
            ) from error
        return locked is not None

    def _pause(self, _: int) -> float:
        self._waited_seconds += _PAUSE_SECONDS
        return _PAUSE_SECONDS

    def _pause_after_long_reads(self, seconds: float) -> None:
        """Pauses for a waiting load, which fails if it cannot open the file for too long."""
        self._read_seconds += seconds
        if self._read_seconds >= _READ_SECONDS and locked_file(self.pipeline) is not None:
            self._read_seconds = 0.0
            time.sleep(_PAUSE_SECONDS)
