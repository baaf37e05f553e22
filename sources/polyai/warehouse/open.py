"""The destination: how it is opened, kept, and what its failures are called."""

from __future__ import annotations

import os
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import dlt
from dlt.common.configuration.exceptions import ConfigurationException
from dlt.common.destination import Destination
from dlt.common.exceptions import DltException
from dlt.destinations.job_client_impl import SqlJobClientBase
from dlt.pipeline.exceptions import PipelineStepFailed
from filelock import FileLock

from ..errors import ConfigurationError, DestinationError, PolyAIError
from .working_directory import begin_anew_if_torn, lock_on

T = TypeVar("T")

PIPELINE_NAME = "polyai"
BACKFILL_PIPELINE = "polyai_backfill"
"""What the pipelines of slices are called; each has a number too."""

DATASET_NAME = "polyai"

_DUCKDB_CONFIG = {"threads": 1, "memory_limit": "80MB"}
"""DuckDB loads beside the threads that fetch: one of its own costs a quarter less CPU and memory
than one a core. Without a limit it takes more the larger the file grows; what does not fit it puts
into a folder beside the file. A `global_config` of the user's own goes before these."""


READERS_SECONDS = 20.0
"""How long a load waits for another process to close the DuckDB file."""

_RETRY_SECONDS = 0.05

_LOCKED = "Could not set lock on file"
"""What DuckDB says where another process has the file open."""

_OUT_OF_MEMORY = ("Out of Memory Error", "failed to pin block", "failed to allocate")
"""What DuckDB says where its limit is too low."""

_CONFLICTS = (
    "Failed to commit DuckLake transaction",
    "Failed to initialize DuckLake",
    "Transaction conflict",
    "could not serialize access",
    "deadlock detected",
)
"""What DuckLake, DuckDB and PostgreSQL say where two transactions got in each other's way."""

ATTEMPTS = 5
"""Times that a step is tried where other runs commit meanwhile."""

_DUCKDBS = ("dlt.destinations.duckdb", "dlt.destinations.ducklake")

_DUCKDB_LOAD_WORKERS = 1
"""Tables that are loaded at once: each needs memory, and DuckDB takes them one by one anyway. For
DuckLake each would begin with a DuckDB of its own, which takes a second."""


def open_pipeline(
    destination: str | Destination[Any, Any] | None = None,
    dataset: str | None = None,
    pipelines_dir: str | Path | None = None,
    name: str = PIPELINE_NAME,
) -> dlt.Pipeline:
    """The dlt pipeline that loads the warehouse; nothing is connected yet.

    The DuckDB file is `polyai.duckdb` in the working directory unless dlt's configuration says
    otherwise. DuckDB names a database after its file, and refuses `polyai.conversations` as
    ambiguous where both the database and a schema are called `polyai`. So in a file of the
    dataset's own name the tables live in its `main` schema; there `polyai.conversations` means the
    same, and in every other file the schema is the dataset.

    Args:
        destination: dlt's name of it, or one of `dlt.destinations`; by default dlt's
            setting `destination_type`, else `duckdb`.
        dataset: Its dataset, `polyai` by default.
        pipelines_dir: Working directory; by default `.dlt/pipelines`, so that two folders with a
            warehouse each never load each other's pending packages.
        name: The pipeline's, and that of its working directory.

    Raises:
        ConfigurationError: The destination is unknown, not configured, or no database.
    """
    folder = working_folder(pipelines_dir)
    folder.mkdir(parents=True, exist_ok=True)
    # dlt empties a new working directory, also one that another process has just made
    with lock_on(folder / "opening.lock"):
        begin_anew_if_torn(folder / name)
        return _opened(destination, dataset or DATASET_NAME, folder, name)


def _opened(
    destination: str | Destination[Any, Any] | None, dataset: str, folder: Path, name: str
) -> dlt.Pipeline:
    # a signal ends a run between two conversations, not in the middle of dlt's steps
    dlt.config["runtime.intercept_signals"] = False
    # dlt would keep a copy of every conversation beside the warehouse
    dlt.config["load.delete_completed_jobs"] = True
    wanted = destination or dlt.config.get("destination_type", str) or "duckdb"
    try:
        # without a dataset: dlt keeps its name in the working directory, from where a run that is
        # loading takes it too, so that a wrong one must not stand there for a moment
        pipeline = dlt.pipeline(name, pipelines_dir=str(folder), destination=wanted)
        found, dataset = _found(pipeline, dataset)
        return dlt.pipeline(
            name, pipelines_dir=str(folder), destination=found, dataset_name=dataset
        )
    except (DltException, ConfigurationException, ImportError) as error:
        raise ConfigurationError(f"destination: {first_line(error)}") from error


def _found(pipeline: dlt.Pipeline, dataset: str) -> tuple[Destination[Any, Any], str]:
    """The destination as dlt's configuration has it, and its dataset."""
    destination = pipeline.destination
    if not issubclass(destination.client_class, SqlJobClientBase):
        raise ConfigurationError(
            f"destination: {destination.destination_name} is no database, and cannot replace the "
            "rows of a conversation that has changed"
        )
    kind = destination.destination_type
    if kind in _DUCKDBS and dlt.config.get("load.workers") is None:
        dlt.config["load.workers"] = _DUCKDB_LOAD_WORKERS
    if kind != "dlt.destinations.duckdb":
        return destination, dataset
    credentials: Any = pipeline.destination_client().config.credentials
    credentials.global_config = _DUCKDB_CONFIG | (credentials.global_config or {})
    credentials.database = _shared(Path(str(credentials.database)), pipeline.pipeline_name)
    is_own_name = Path(str(credentials.database)).stem == dataset
    return dlt.destinations.duckdb(credentials), "main" if is_own_name else dataset


def working_folder(pipelines_dir: str | Path | None = None) -> Path:
    """Where dlt's working directories are: `.dlt/pipelines` unless said otherwise."""
    return Path(pipelines_dir or Path(".dlt", "pipelines")).resolve()


def _shared(database: Path, pipeline_name: str) -> str:
    """The file for all pipelines: dlt names it after the pipeline where nothing else is said."""
    is_own = database.name == f"{pipeline_name}.duckdb"
    return str(database.with_name(f"{PIPELINE_NAME}.duckdb") if is_own else database)


@lru_cache(maxsize=16)
def duckdb_file(pipeline: dlt.Pipeline) -> Path | None:
    """The destination's DuckDB file; None where it is something else, or in memory.

    Found out once: dlt keeps the errors that it meets while it looks settings up, and with them
    all that is in use where it is asked.
    """
    if pipeline.destination.destination_type != "dlt.destinations.duckdb":
        return None
    credentials: Any = pipeline.destination_client().config.credentials
    database = str(credentials.database)
    return None if database.startswith(":") else Path(database).resolve()


@contextmanager
def kept_open(pipeline: dlt.Pipeline) -> Iterator[None]:
    """Keeps a DuckDB file open; does nothing for other destinations.

    dlt opens and closes it for each of its steps, which takes longer than many a step, and a reader
    of another process that gets in between makes the next step fail.
    """
    if duckdb_file(pipeline) is None:
        yield
        return
    client = pipeline.sql_client()
    with turn(pipeline):
        when_unlocked(client.open_connection)
        try:
            yield
        finally:
            client.close_connection()


class _Turn:
    """A lock on a file between processes, which the threads of one process share."""

    def __init__(self, path: Path) -> None:
        self._lock = FileLock(path, mode=0o600, thread_local=False)
        self._guard = threading.Lock()
        self._holders = 0

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


_turns: dict[Path, _Turn] = {}


def turn(pipeline: dlt.Pipeline) -> AbstractContextManager[None]:
    """Holds the DuckDB file for a step; does nothing for other destinations.

    One process has it open at a time. Whole loads keep each other away by another lock; this one
    lets the slices of a backfill take turns with each other and with a load.
    """
    database = duckdb_file(pipeline)
    if database is None or not database.parent.is_dir():
        return nullcontext()
    path = database.with_name(f"{database.name}.turn.lock")
    return _turns.setdefault(path, _Turn(path))


def lift_memory_limit(pipeline: dlt.Pipeline, error: BaseException) -> bool:
    """Lets DuckDB have what memory it wants from now on, where our own limit made it fail.

    It cannot put everything aside: texts of many kilobytes each stay in memory until a transaction
    is committed.

    Returns:
        Whether the same step may work now.
    """
    if duckdb_file(pipeline) is None or not _says(error, _OUT_OF_MEMORY):
        return False
    credentials: Any = pipeline.destination.config_params["credentials"]
    if credentials.global_config.get("memory_limit") != _DUCKDB_CONFIG["memory_limit"]:
        return False
    credentials.global_config.pop("memory_limit")
    return True


def connect(pipeline: dlt.Pipeline) -> None:
    """Opens the destination, and takes over from it what dlt needs to go on.

    Where there is nothing yet, runs that begin at once get in each other's way: DuckLake makes its
    catalog when it is first opened.

    Raises:
        DestinationError: It cannot be opened.
    """
    dataset = pipeline.dataset_name
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with destination_errors(), kept_open(pipeline):
                pipeline.sync_destination()
            # it takes over what the working directory says, and another run into another dataset
            # may have opened that since
            pipeline.dataset_name = dataset
            return
        except DestinationError as error:
            if attempt == ATTEMPTS or not is_conflict(error):
                raise
            pause(attempt)


def is_conflict(error: BaseException) -> bool:
    """Whether a step failed because another run committed meanwhile, and may work the next time."""
    return _says(error, _CONFLICTS)


def pause(attempt: int) -> None:
    """Lets another run go first, each time by another while."""
    time.sleep(random.uniform(0, attempt))  # noqa: S311


def _says(error: BaseException, words: Sequence[str]) -> bool:
    """Whether any of these words stand in the error or in what led to it."""
    said: BaseException | None = error
    while said is not None:
        if any(part in str(said) for part in words):
            return True
        said = said.__cause__ or said.__context__
    return False


def when_unlocked(action: Callable[[], T]) -> T:
    """Does it, and tries again for a while where another process is reading the DuckDB file."""
    deadline = time.monotonic() + READERS_SECONDS
    while True:
        try:
            return action()
        except Exception as error:
            if _LOCKED not in str(_root_cause(error)) or time.monotonic() > deadline:
                raise
        time.sleep(_RETRY_SECONDS)


_DONE_BY_DESTINATION = {"load": "did not take the load", "sync": "cannot be opened"}


@contextmanager
def destination_errors() -> Iterator[None]:
    """Turns what dlt raises for a destination that cannot be used into one clear line."""
    try:
        yield
    except PipelineStepFailed as error:
        cause = _root_cause(error)
        if isinstance(cause, (PolyAIError, KeyboardInterrupt)):
            raise cause from None
        if error.step not in _DONE_BY_DESTINATION:
            raise
        raise DestinationError(
            f"the destination {_DONE_BY_DESTINATION[error.step]}: {first_line(cause)}"
        ) from error
    except (DltException, OSError) as error:
        raise DestinationError(
            f"the destination cannot be used: {first_line(_root_cause(error))}"
        ) from error
    except Exception as error:
        # dlt lets through what some drivers raise when they connect
        if not _is_of_driver(error):
            raise
        raise DestinationError(f"the destination cannot be used: {first_line(error)}") from error


def _is_of_driver(error: Exception) -> bool:
    """Whether a database driver raised it, all of whose errors are its module's `Error`."""
    driver = sys.modules.get(type(error).__module__.partition(".")[0])
    return isinstance(error, getattr(driver, "Error", ()))


@contextmanager
def owner_only() -> Iterator[None]:
    """Files and folders that are made meanwhile are for their owner alone."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


def _root_cause(error: BaseException) -> BaseException:
    cause = error
    while (deeper := cause.__cause__ or cause.__context__) is not None:
        cause = deeper
    return cause


def first_line(error: BaseException) -> str:
    """What an error says, as far as one line goes."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), repr(error))


def place(pipeline: dlt.Pipeline) -> str:
    """Where the pipeline loads to, as its user names it."""
    name, dataset = str(pipeline.destination.destination_name), pipeline.dataset_name
    credentials: Any = pipeline.destination_client().config.credentials
    if not (database := getattr(credentials, "database", None)):
        return f"{name}, dataset {dataset}"
    # in a file of the dataset's own name, see `open_pipeline`
    dataset = Path(database).stem if dataset == "main" else dataset
    return f"{name} {database}, dataset {dataset}"
