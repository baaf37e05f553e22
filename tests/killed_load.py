"""Loads that kill themselves: `python killed_load.py` runs one per line of JSON on stdin.

dlt is imported once and each load runs in a fork of that process, because the import would take as
long as many of the loads. Nothing is mocked: the functions named in `POINTS` work as usual, and in
the pass that the request names, the process kills itself before or after the function, or leaves
half of what it wrote.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, NoReturn

# imported here, because each fork would repeat what a load imports late
import dlt.common.libs.sql_alchemy_compat  # noqa: F401
import sqlglot.dialects.duckdb  # noqa: F401
from dlt.extract.storage import ExtractorItemStorage

import polyai
from polyai.load.run import load

TIMEOUT_SECONDS = 90
"""Time after which a load of a few dozen conversations counts as hung."""

Call = Callable[[], Any]
Arguments = tuple[Any, ...]


@dataclass
class LoadRequest:
    """One load, and the point at which it is killed.

    Attributes:
        folder: Working directory of the process; contains the pipeline's folder.
        environment: Environment variables to set.
        settings: Options of `polyai.resolve`.
        destination: dlt's name of the destination.
        full: Whether to read the whole listing.
        point: Name in `POINTS`, `ANY_POINT`, or None for none.
        nth: Number of the fatal pass of the point.
        after_seconds: Time after which to kill from outside, None for never.
    """

    folder: str
    environment: dict[str, str]
    settings: dict[str, Any]
    destination: str
    full: bool = False
    point: str | None = None
    nth: int = 1
    after_seconds: float | None = None


@dataclass
class Outcome:
    """Outcome of a load.

    Attributes:
        end: `done` (returned), `raised`, `killed`, or `hung` (killed after the timeout).
        passes: Number of passes by point.
        reports: Status, error and counts of each agent, if it returned.
        error: Traceback, if it raised.
        seconds: Duration without imports.
    """

    end: Literal["done", "raised", "killed", "hung"]
    passes: dict[str, int] = field(default_factory=dict)
    reports: list[dict[str, Any]] = field(default_factory=list)
    error: str = ""
    seconds: float = 0.0


send_killed: Callable[[], None]
"""Reports to the supervisor that the load is killed at its point."""


def die() -> NoReturn:
    """Kills the process, without handlers or clean-up."""
    send_killed()
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("unreachable")


def before(call: Call, arguments: Arguments) -> None:
    """Dies before the call."""
    die()


def after(call: Call, arguments: Arguments) -> None:
    """Dies after the call."""
    call()
    die()


def half_of_temporary(name: str) -> Callable[[Call, Arguments], None]:
    """Dies in the middle of `FileStorage.save`, before the temporary file is renamed.

    Args:
        name: Name of the temporary file, which dlt draws at random; hexadecimal digits.
    """

    def harm(call: Call, arguments: Arguments) -> None:
        storage, _, data = arguments
        Path(storage.storage_path, name).write_text(data[: len(data) // 2], encoding="utf-8")
        die()

    return harm


def half_of_file(call: Call, arguments: Arguments) -> None:
    """Leaves half of the file that the call writes, as after a power failure."""
    storage, relative_path, *_ = arguments
    call()
    path = Path(storage.make_full_path(relative_path))
    os.truncate(path, path.stat().st_size // 2)
    die()


def half_of_update(call: Call, arguments: Arguments) -> None:
    """Dies while `save_schema_updates` writes into the file itself."""
    packages, load_id, _ = arguments
    half_of_file(call, (packages.storage, f"{load_id}/{packages.SCHEMA_UPDATES_FILE_NAME}"))


def half_of_items(call: Call, arguments: Arguments) -> None:
    """Leaves half of the largest file of a package that was just committed."""
    storage, load_id = arguments
    call()
    package = Path(storage.normalized_packages.storage.make_full_path(load_id))
    largest = max(package.glob("new_jobs/*"), key=lambda path: path.stat().st_size)
    os.truncate(largest, largest.stat().st_size // 2)
    die()


def half_of_folder(call: Call, arguments: Arguments) -> None:
    """Dies after half of a folder's files are deleted."""
    storage, relative_path, *_ = arguments
    files = sorted(p for p in Path(storage.make_full_path(relative_path)).rglob("*") if p.is_file())
    for path in files[: max(1, len(files) // 2)]:
        path.unlink()
    die()


def half_of_package(call: Call, arguments: Arguments) -> None:
    """Dies after half of a package is deleted."""
    packages, load_id, *_ = arguments
    half_of_folder(call, (packages.storage, load_id))


def half_of_directory(call: Call, arguments: Arguments) -> None:
    """Dies after half of the files of a working directory are deleted, the state before."""
    (pipeline,) = arguments
    files = sorted(path for path in Path(pipeline.working_dir).rglob("*") if path.is_file())
    for path in files[::2]:
        path.unlink()
    die()


def _always(arguments: Arguments) -> bool:
    return True


@dataclass(frozen=True)
class Point:
    """Point at which a load can be killed.

    Attributes:
        targets: `module:attribute` or `module:Class.attribute`; several if destinations differ.
        harm: Function that replaces the call in the fatal pass.
        counts: Predicate on the arguments, `self` first, for calls that count as passes.
        needs: Point of an earlier kill, without which this one is not passed.
        destinations: Destinations whose loads pass the point.
        passes: Kills that a series has to reach; some points are passed in first runs only.
    """

    targets: str | tuple[str, ...]
    harm: Callable[[Call, Arguments], None]
    counts: Callable[[Arguments], bool] = _always
    needs: str | None = None
    destinations: tuple[str, ...] = ("duckdb", "postgres")
    passes: int = 3


def file_name(ending: str) -> Callable[[Arguments], bool]:
    """Counts calls of a `FileStorage` method by path; a name without a slash matches as a whole."""
    if "/" in ending:
        return lambda arguments: str(arguments[1]).endswith(ending)
    return lambda arguments: arguments[1] == ending


def package_in(kind: str) -> Callable[[Arguments], bool]:
    """Counts calls of a `PackageStorage` method for packages in this state."""
    return lambda arguments: str(arguments[0].storage.storage_path).endswith(kind)


def job_of(table: str) -> Callable[[Arguments], bool]:
    """Counts calls of a `PackageStorage` method for a job of this table."""
    return lambda arguments: str(arguments[2]).startswith(f"{table}.")


def statement(*parts: str) -> Callable[[Arguments], bool]:
    """Counts calls of `execute_sql` whose text contains all of these."""
    return lambda arguments: all(part in str(arguments[1]) for part in parts)


def is_extraction(arguments: Arguments) -> bool:
    """Counts calls of a `DataItemStorage` method for items that are extracted."""
    return isinstance(arguments[0], ExtractorItemStorage)


_STORAGES = "dlt.common.storages"
_FILES = f"{_STORAGES}.file_storage:FileStorage"
_PACKAGES = f"{_STORAGES}.load_package:PackageStorage"
_LOADS = f"{_STORAGES}.load_storage:LoadStorage"
_SCHEMAS = f"{_STORAGES}.live_schema_storage:LiveSchemaStorage"
_ITEMS = (
    f"{_STORAGES}.data_item_storage:DataItemStorage.import_items_file",
    f"{_STORAGES}.data_item_storage:DataItemStorage.write_data_item",
)
_EXTRACTED = "dlt.extract.storage:ExtractStorage"
_NORMALIZE = "dlt.normalize.normalize:Normalize"
_LOAD = "dlt.load.load:Load"
_JOBS = "dlt.common.destination.client:RunnableLoadJob"
_CLIENT = "dlt.destinations.job_client_impl:SqlJobClientBase"
_MERGES = (
    "polyai.warehouse.duckdb_destination:DuckDbMerge._merge",
    "dlt.destinations.job_client_impl:SqlLoadJob.run",
)
_PIPELINE = "dlt.pipeline.pipeline:Pipeline"
_SQL = (
    "dlt.destinations.impl.duckdb.sql_client:DuckDbSqlClient",
    "dlt.destinations.impl.postgres.sql_client:Psycopg2SqlClient",
)


def _sql(method: str) -> tuple[str, ...]:
    return tuple(f"{client}.{method}" for client in _SQL)


_IN_FIRST_RUNS = ("schema", "version")

_HALF_LOADED = "job: committed but not marked"
_DISCARD = "polyai.load.committer:discard"
_REMOVE_STATE = "polyai.load.discard:_remove_state"
_REPLACE_ROWS = "polyai.load.committer:replace_rows"
_DROP_STAGING = "polyai.load.committer:Committer.drop_staging"

POINTS: dict[str, Point] = {
    # requests to the API
    "listing: before a page": Point("polyai.api.client:DataApi.conversations", before),
    "listing: after a page": Point("polyai.api.client:DataApi.conversations", after),
    "fetching: before a detail": Point("polyai.api.client:DataApi.detail", before),
    "fetching: after a detail": Point("polyai.api.client:DataApi.detail", after),
    # extract
    "extract: package made": Point(f"{_EXTRACTED}.create_load_package", after),
    "extract: files written": Point(
        "polyai.load.source:write_files", after, destinations=("duckdb",)
    ),
    "extract: before a table's items": Point(_ITEMS, before, is_extraction),
    "extract: after a table's items": Point(_ITEMS, after, is_extraction),
    "extract: before the snapshot": Point(f"{_PACKAGES}.save_pipeline_state", before),
    "extract: before the package is committed": Point(
        f"{_EXTRACTED}.commit_new_load_package", before
    ),
    "extract: after the package is committed": Point(
        f"{_EXTRACTED}.commit_new_load_package", after
    ),
    "extract: before the schema is kept": Point(f"{_SCHEMAS}.commit_live_schema", before),
    "extract: after the schema is kept": Point(f"{_SCHEMAS}.commit_live_schema", after),
    "pipeline: before the state is kept": Point(f"{_PIPELINE}._save_state", before),
    "pipeline: after the state is kept": Point(f"{_PIPELINE}._save_state", after),
    # normalize
    "normalize: at the start": Point(f"{_NORMALIZE}.run", before),
    "normalize: package made": Point(f"{_LOADS}.import_extracted_package", after),
    "normalize: files spooled": Point(f"{_PACKAGES}.save_schema_updates", before),
    "normalize: before the package is committed": Point(
        f"{_LOADS}.commit_new_load_package", before
    ),
    "normalize: before the extracted package goes": Point(
        f"{_LOADS}.commit_new_load_package", after
    ),
    "normalize: half of the extracted package is gone": Point(
        f"{_PACKAGES}.delete_package", half_of_package, package_in("extracted")
    ),
    "normalize: after the extracted package is gone": Point(
        f"{_PACKAGES}.delete_package", after, package_in("extracted")
    ),
    # load: preparation of the destination
    "load: at the start": Point(f"{_LOAD}.load_single_package", before),
    "load: before the destination is prepared": Point("dlt.load.load:init_client", before),
    "load: after the destination is prepared": Point("dlt.load.load:init_client", after),
    "load: before a dataset is made": Point(f"{_CLIENT}.initialize_storage", before),
    "load: after a dataset is made": Point(f"{_CLIENT}.initialize_storage", after),
    "load: before a schema is stored": Point(f"{_CLIENT}.update_stored_schema", before),
    "load: after a schema is stored": Point(f"{_CLIENT}.update_stored_schema", after),
    "load: before the update is marked": Point(f"{_LOADS}.commit_schema_update", before),
    "load: while the update is marked": Point(
        f"{_FILES}.save", before, file_name("/applied_schema_updates.json")
    ),
    "load: after the update is marked": Point(f"{_LOADS}.commit_schema_update", after),
    # load: jobs
    "job: before it is started": Point(f"{_PACKAGES}.start_job", before),
    "job: after it is started": Point(f"{_PACKAGES}.start_job", after),
    "job: before it runs": Point(f"{_JOBS}.run_managed", before),
    "job: before its commit": Point(_sql("commit_transaction"), before),
    "job: after its commit": Point(_sql("commit_transaction"), after),
    "job: committed but not marked": Point(f"{_PACKAGES}.save_pending_transition", before),
    "job: marked but not moved": Point(f"{_PACKAGES}.save_pending_transition", after),
    "job: before the followup jobs": Point(f"{_LOAD}.create_followup_jobs", before),
    "job: after a followup job": Point(
        f"{_PACKAGES}.import_job", after, destinations=("postgres",)
    ),
    "job: followed up but not completed": Point(f"{_PACKAGES}.complete_job", before),
    "job: completed but its mark stays": Point(f"{_PACKAGES}.complete_job", after),
    "state: committed but not marked": Point(
        f"{_PACKAGES}.save_pending_transition", before, job_of("_dlt_pipeline_state"), passes=1
    ),
    "state: marked but not moved": Point(
        f"{_PACKAGES}.save_pending_transition", after, job_of("_dlt_pipeline_state"), passes=1
    ),
    "merge: before a table": Point(_MERGES, before),
    "merge: after a table": Point(_MERGES, after),
    "merge: before its statements": Point(_sql("execute_sql"), before, statement("DELETE FROM")),
    "merge: between statements and commit": Point(
        _sql("execute_sql"), after, statement("DELETE FROM")
    ),
    # rows of a run that are written without a package
    "direct: before the rows": Point(_REPLACE_ROWS, before),
    "direct: between deleted and new rows": Point("polyai.warehouse.direct_write:_insert", before),
    "direct: before the row in _dlt_loads": Point(
        "polyai.warehouse.direct_write:_insert",
        before,
        lambda arguments: "_dlt_loads" in arguments[1],
    ),
    "direct: after the rows": Point(_REPLACE_ROWS, after),
    # load: the end of a package
    "end: before the row in _dlt_loads": Point(f"{_CLIENT}.complete_load", before),
    "end: after the row in _dlt_loads": Point(f"{_CLIENT}.complete_load", after),
    "end: before the package is archived": Point(f"{_LOADS}.complete_load_package", before),
    "end: marked but not archived": Point(f"{_PACKAGES}.complete_loading_package", after),
    "end: after the package is archived": Point(f"{_LOADS}.complete_load_package", after),
    "end: half of the jobs are gone": Point(
        f"{_FILES}.delete_folder", half_of_folder, file_name("/completed_jobs")
    ),
    "end: after the jobs are gone": Point(f"{_LOADS}.maybe_remove_completed_jobs", after),
    # discard: removal of what an earlier kill left
    "discard: before it begins": Point(_DISCARD, before),
    "discard: after it ends": Point(_DISCARD, after),
    "discard: before the state is removed": Point(_REMOVE_STATE, before, needs=_HALF_LOADED),
    "discard: before the directory is dropped": Point(
        f"{_PIPELINE}.drop", before, needs=_HALF_LOADED
    ),
    "discard: half of it is gone after a kill in extract": Point(
        f"{_PIPELINE}.drop", half_of_directory, needs="extract: after a table's items"
    ),
    "discard: half of it is gone after a kill before normalize": Point(
        f"{_PIPELINE}.drop", half_of_directory, needs="extract: after the package is committed"
    ),
    "discard: half of it is gone after a kill in normalize": Point(
        f"{_PIPELINE}.drop", half_of_directory, needs="normalize: files spooled"
    ),
    "discard: half of it is gone after a kill before load": Point(
        f"{_PIPELINE}.drop", half_of_directory, needs="load: at the start"
    ),
    "discard: half of it is gone after a kill in load": Point(
        f"{_PIPELINE}.drop", half_of_directory, needs=_HALF_LOADED
    ),
    "discard: half of it is gone after a kill at the end": Point(
        f"{_PIPELINE}.drop", half_of_directory, needs="end: after the row in _dlt_loads"
    ),
    "discard: after the directory is dropped": Point(
        f"{_PIPELINE}.drop", after, needs=_HALF_LOADED
    ),
    "discard: before staging is dropped": Point(_DROP_STAGING, before, needs=_HALF_LOADED),
    "discard: after staging is dropped": Point(_DROP_STAGING, after, needs=_HALF_LOADED),
    # tidy: the end of a run
    "tidy: before staging is dropped": Point(_DROP_STAGING, before, destinations=("postgres",)),
    "tidy: after staging is dropped": Point(_DROP_STAGING, after, destinations=("postgres",)),
    "tidy: after old records are removed": Point("polyai.load.committer:remove_old_records", after),
    "lease: before it is requested": Point(
        "polyai.locking.leases:Leases.acquire", before, destinations=("postgres",)
    ),
    "lease: after it is acquired": Point(
        "polyai.locking.leases:Leases.acquire", after, destinations=("postgres",)
    ),
    "lease: before it is released": Point(
        "polyai.locking.leases:Leases.release", before, destinations=("postgres",)
    ),
    # dlt's own files, partially written; under their final names only after a power failure
    "half a file: items": Point(f"{_LOADS}.commit_new_load_package", half_of_items),
    "half a file: schema updates": Point(f"{_PACKAGES}.save_schema_updates", half_of_update),
    # a temporary name that begins with a letter looks like the name of a schema
    "half a temporary file: schema, as abc": Point(
        f"{_FILES}.save",
        half_of_temporary("abc1e2d3c4b5a697"),
        file_name("polyai.schema.json"),
        passes=1,
    ),
    **{
        f"{what}: {name}": Point(
            f"{_FILES}.save", harm, file_name(ending), passes=1 if name in _IN_FIRST_RUNS else 3
        )
        for what, harm in (
            ("half a temporary file", half_of_temporary("0f1e2d3c4b5a6978")),
            ("half a file", half_of_file),
        )
        for name, ending in {
            "pipeline's state": "state.json",
            "schema": "polyai.schema.json",
            "package's schema": "/schema.json",
            "package's state": "/load_package_state.json",
            "applied updates": "/applied_schema_updates.json",
            "version": ".version",
            "completion": "/package_completed.json",
        }.items()
    },
}
"""All points by name."""

ANY_POINT = "any point"
"""Name of a point that counts the passes of all points together."""


class Trigger:
    """Counter of passes, which kills in the fatal one."""

    def __init__(self, request: LoadRequest) -> None:
        self._request = request
        self._lock = threading.Lock()
        self.passes: Counter[str] = Counter()

    def arm(self) -> None:
        """Wraps every target of every point."""
        for name, point in POINTS.items():
            targets = (point.targets,) if isinstance(point.targets, str) else point.targets
            for target in targets:
                self._wrap(target, name, point)

    def _wrap(self, target: str, name: str, point: Point) -> None:
        module, _, attribute = target.partition(":")
        owner: Any = import_module(module)
        *classes, last = attribute.split(".")
        for part in classes:
            owner = getattr(owner, part)
        real = vars(owner)[last]

        def wrapper(*arguments: Any, **options: Any) -> Any:
            if not (point.counts(arguments) and self._is_fatal(name)):
                return real(*arguments, **options)
            return point.harm(lambda: real(*arguments, **options), arguments)

        setattr(owner, last, wrapper)

    def _is_fatal(self, name: str) -> bool:
        point, nth = self._request.point, self._request.nth
        with self._lock:
            self.passes[name] += 1
            self.passes[ANY_POINT] += 1
            return point in (name, ANY_POINT) and self.passes[point] == nth


def send(results: int, outcome: Outcome) -> None:
    """Writes the outcome to the supervisor."""
    os.write(results, json.dumps(asdict(outcome)).encode())


def run(request: LoadRequest, results: int) -> None:
    """Runs the requested load in this process."""
    os.chdir(request.folder)
    os.environ.update(request.environment)
    trigger = Trigger(request)
    trigger.arm()
    global send_killed

    def send_killed() -> None:
        send(results, Outcome("killed", dict(trigger.passes)))

    try:
        reports = load(
            polyai.resolve(**request.settings),
            polyai.open_pipeline(
                request.destination, pipelines_dir=Path(request.folder, "pipelines")
            ),
            full=request.full,
        )
    except BaseException:
        send(
            results, Outcome("raised", dict(trigger.passes), error=traceback.format_exc()[-20_000:])
        )
        return
    summaries = [
        {
            "status": report.status,
            "error": report.error,
            "fetched": report.fetched,
            "new": report.new,
            "changed": report.changed,
        }
        for report in reports
    ]
    send(results, Outcome("done", dict(trigger.passes), summaries))


def supervise(request: LoadRequest) -> Outcome:
    """Runs the request in a fork and waits for its end."""
    results, sender = os.pipe()
    began = time.monotonic()
    pid = os.fork()
    if pid == 0:
        os.close(results)
        log = os.open(Path(request.folder, "log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(log, 1)
        os.dup2(log, 2)
        run(request, sender)
        # ends like any process, without returning to the server loop
        sys.exit(0)
    os.close(sender)
    timeout = TIMEOUT_SECONDS if request.after_seconds is None else request.after_seconds
    answer = b""
    is_late = False
    # the pipe closes when the process ends; its id is not reused until it is waited for
    while True:
        left = began + timeout - time.monotonic()
        if not is_late and not select.select([results], [], [], max(0.0, left))[0]:
            os.kill(pid, signal.SIGKILL)
            is_late = True
        part = os.read(results, 65536)
        if not part:
            break
        answer += part
    os.close(results)
    _, status = os.waitpid(pid, 0)
    if answer:
        outcome = Outcome(**json.loads(answer))
    elif is_late:
        outcome = Outcome("hung" if request.after_seconds is None else "killed")
    else:
        outcome = Outcome("raised", error=f"ended with status {status} without an outcome")
    outcome.seconds = time.monotonic() - began
    return outcome


def serve() -> None:
    """Runs a request per line of stdin, and writes an outcome per line to stdout."""
    for line in sys.stdin:
        request = LoadRequest(**json.loads(line))
        outcome = supervise(request)
        sys.stdout.write(json.dumps(asdict(outcome)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    serve()
