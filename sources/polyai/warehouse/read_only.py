"""Read-only access to a warehouse that another process may be loading."""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import dlt
from dlt.common.destination import Destination
from dlt.destinations.impl.duckdb.configuration import DuckDbCredentials

from ..errors import BusyError, DestinationError
from .held import Warehouse
from .open import duckdb_file, open_pipeline, place

WAIT = timedelta(seconds=30)
"""How long a DuckDB file may be locked: a load opens and closes it again and again."""


_READ_SECONDS = 1.0
"""How long a DuckDB file is read without a pause in which a load can open it."""


_PAUSE_SECONDS = 0.2


_LOCKED = re.compile(r"Could not set lock on file(?:.*(\(PID \d+\)))?")
"""DuckDB's own words."""


@contextmanager
def open_to_read(
    destination: str | Destination[Any, Any] | None = None,
    dataset: str | None = None,
    *,
    wait: timedelta = WAIT,
) -> Iterator[Warehouse]:
    """A warehouse that is only read, from a working directory that is gone afterwards.

    Args:
        destination: As `open_pipeline` takes it.
        dataset: As `open_pipeline` takes it.
        wait: How long a query waits for a DuckDB file that another process writes.

    Raises:
        ConfigurationError: The destination is unknown or not configured.
        DestinationError: There is no such DuckDB file.
    """
    with tempfile.TemporaryDirectory() as folder:
        pipeline = open_pipeline(destination, dataset, pipelines_dir=folder)
        if (database := duckdb_file(pipeline)) is not None:
            if not database.exists():
                raise DestinationError(
                    f"there is no warehouse at {database}. Load one with polyai-warehouse load, or "
                    "go to its folder, or set DESTINATION__DUCKDB__CREDENTIALS to its file"
                )
            # without what keeps a load small beside threads that fetch; the user's own is kept
            read_only: Any = dlt.destinations.duckdb(
                DuckDbCredentials(str(database), read_only=True)
            )
            pipeline.destination = read_only
        yield _PatientWarehouse(pipeline, wait)


class _PatientWarehouse(Warehouse):
    """Shares a DuckDB file with a load: waits while it is locked, and lets go of it in between."""

    def __init__(self, pipeline: dlt.Pipeline, wait: timedelta) -> None:
        super().__init__(pipeline)
        self._patience = wait.total_seconds()
        self._seconds_waited = 0.0
        self._seconds_read = 0.0

    def rows(self, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
        return self._patiently(lambda: super(_PatientWarehouse, self).rows(sql, *parameters))

    def records(self, sql: str) -> list[dict[str, Any]]:
        return self._patiently(lambda: super(_PatientWarehouse, self).records(sql))

    def _patiently(self, read: Callable[[], T]) -> T:
        while True:
            began = time.monotonic()
            try:
                found = read()
            except DestinationError as error:
                self._seconds_waited += time.monotonic() - began
                self._give_up_if_over(error)
            else:
                self._pause_if_long(time.monotonic() - began)
                return found
            time.sleep(_PAUSE_SECONDS)
            self._seconds_waited += _PAUSE_SECONDS

    def _give_up_if_over(self, error: DestinationError) -> None:
        if not (locked := _LOCKED.search(str(error))):
            raise error
        if self._seconds_waited >= self._patience:
            who = f"process {locked[1]}" if locked[1] else "another process"
            raise BusyError(
                f"{place(self.pipeline)} is being written by {who}, for "
                f"{self._seconds_waited:.0f} s already. Try again when it is done, or wait longer "
                "with --wait"
            ) from error

    def _pause_if_long(self, seconds: float) -> None:
        """Gives a load that waits its turn: it fails where it cannot open the file for long."""
        self._seconds_read += seconds
        if self._seconds_read >= _READ_SECONDS and duckdb_file(self.pipeline) is not None:
            self._seconds_read = 0.0
            time.sleep(_PAUSE_SECONDS)


T = TypeVar("T")
