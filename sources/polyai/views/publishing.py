"""Published copy of a DuckDB warehouse, so that readers and loads do not block each other.

While one process has a DuckDB file open for writing, no other process can read it. Dashboards and
BI tools therefore read a copy that is replaced atomically: open connections keep the older copy,
new connections get the newer one. In the copy, expensive views are tables of the same names and
columns.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dlt
import duckdb
from filelock import Timeout

from ..errors import BusyError, ConfigurationError, DestinationError
from ..warehouse.duckdb_file import (
    COPY_CONFIG,
    duckdb_path,
    exclusive_file_lock,
    execute_in_memory_limit,
    retry_while_locked,
)
from ..warehouse.errors import destination_errors
from ..warehouse.working_directory import lock_on
from .conversation_parts import copy_in_parts
from .copies import register
from .definitions import INFO_VIEW, View, views
from .statements import Statements

INFO_TABLE = "published_info"
"""Table of the copy with one row: `as_of`, the time of the copy."""

_LOCAL = "conversations_local"
"""View with the local date of each conversation."""

KEPT_AS_VIEWS = frozenset({_LOCAL, "dim_dates", "data_freshness", INFO_VIEW})
"""Views that stay views in the copy, because they are cheap or depend on the current time."""

_LOCK = ".publishing.lock"

_DRAFTS = ".draft"

_DAY = "local_date"
"""Column by which views are copied in ranges of days: DuckDB cannot spill percentiles and sets of
distinct values, whose memory would grow with the warehouse."""

_CONVERSATIONS_PER_RANGE = 100_000
"""Conversations in a range of days of a view of daily figures."""

_FEWER_PER_RANGE = {"kpi_daily": 60_000}
"""Conversations in a range of a view that takes more memory per conversation than the others."""

_PER_CONVERSATION = "fct_conversations"
"""View of one row per conversation that joins most children; see `conversation_parts`."""

_STATEMENTS = Statements("duckdb", lambda name: name, zone="")
"""Statements for comments only, which have no time zone, in the current schema."""

Day = tuple[date, int]
"""Day with its number of conversations."""


@dataclass(frozen=True)
class Published:
    """Published copy.

    Attributes:
        file: Path of the copy.
        as_of: Time of the copy, UTC.
        bytes: Size of the copy.
        seconds: Duration of publishing.
    """

    file: Path
    as_of: datetime
    bytes: int
    seconds: float

    @property
    def place(self) -> str:
        """Path or URL for readers."""
        return str(self.file)


@dataclass(frozen=True)
class Draft:
    """Copy of a warehouse that is not published yet.

    Attributes:
        file: DuckDB file.
        as_of: Time of the copy, UTC.
        modified_ns: Modification time of the warehouse at that time.
    """

    file: Path
    as_of: datetime
    modified_ns: int


def published_file(pipeline: dlt.Pipeline, folder: Path) -> Path:
    """Returns the path of the copy.

    Its name is that of the warehouse, because DuckDB names a database after its file, and queries
    are to be the same.

    Args:
        pipeline: Pipeline of the warehouse.
        folder: Folder of copies.

    Raises:
        ConfigurationError: The warehouse is not a DuckDB file, or is in that folder itself.
    """
    warehouse = duckdb_path(pipeline)
    if warehouse is None:
        raise ConfigurationError(
            "only a DuckDB file can be published: other destinations can be read during a load"
        )
    if folder.resolve() == warehouse.parent:
        raise ConfigurationError(
            f"{folder} is the folder of the warehouse: publish into another one"
        )
    return folder.resolve() / warehouse.name


def is_published(pipeline: dlt.Pipeline, folder: Path) -> bool:
    """Returns whether the copy is current, without opening a file.

    The copy has the modification time of the warehouse that it was taken from. Opening it would
    not help: DuckDB returns a file that the process has open already, even if it was replaced.
    """
    copy = published_file(pipeline, folder)
    warehouse: Any = duckdb_path(pipeline)
    try:
        return bool(copy.stat().st_mtime_ns == warehouse.stat().st_mtime_ns)
    except OSError:
        return False  # publishing then reports the error


def publish(pipeline: dlt.Pipeline, folder: Path, *, wait: timedelta = timedelta()) -> Published:
    """Copies the warehouse and replaces the published copy; the views have to exist.

    The warehouse is locked while its file is copied, about a second for several GB, and not while
    the tables are created. A killed run leaves the older copy unchanged.

    Args:
        pipeline: Pipeline of the warehouse.
        folder: Folder of copies; created if needed.
        wait: Maximum wait for another run that publishes into it.

    Raises:
        BusyError: Another run publishes into the folder.
        ConfigurationError: As for `published_file`.
        DestinationError: The warehouse has no views, or the copy cannot be written.
    """
    began = time.monotonic()
    target = published_file(pipeline, folder)
    with destination_errors():
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock = lock_on(target.with_name(_LOCK))
            with lock.acquire(timeout=wait.total_seconds()):
                register(pipeline, "duckdb", target)
                as_of = _replace(pipeline, target)
        except Timeout:
            raise BusyError(f"another run is publishing into {folder}") from None
        return Published(target, as_of, target.stat().st_size, time.monotonic() - began)


def _replace(pipeline: dlt.Pipeline, target: Path) -> datetime:
    """Creates the copy in a temporary folder, then moves it into place; returns its time."""
    with drafted(pipeline, target.with_name(_DRAFTS)) as draft:
        with opened(pipeline, draft.file) as copy:
            copy.execute(f"DROP TABLE IF EXISTS {INFO_TABLE}")
            copy.execute(
                f"CREATE TABLE {INFO_TABLE} AS SELECT ?::TIMESTAMPTZ AS as_of", [draft.as_of]
            )
        take_over_access(target, draft.file)
        with draft.file.open("rb") as file:
            os.fsync(file.fileno())
        os.utime(draft.file, ns=(draft.modified_ns, draft.modified_ns))
        draft.file.replace(target)
    return draft.as_of


@contextmanager
def drafted(pipeline: dlt.Pipeline, folder: Path) -> Iterator[Draft]:
    """Copies the warehouse, with tables for expensive views, into a folder that is then removed."""
    shutil.rmtree(folder, ignore_errors=True)  # left by a killed run
    folder.mkdir(mode=0o700)
    try:
        warehouse: Any = duckdb_path(pipeline)
        # of the same name, because DuckDB names the database after the file
        file = folder / warehouse.name
        as_of, modified_ns = _copied(pipeline, file)
        _materialize(pipeline, file)
        yield Draft(file, as_of, modified_ns)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _copied(pipeline: dlt.Pipeline, draft: Path) -> tuple[datetime, int]:
    """Copies the locked file; returns the time of the copy and the file's modification time."""
    warehouse: Any = duckdb_path(pipeline)
    if not warehouse.exists():
        raise DestinationError(f"there is no warehouse {warehouse} yet: run load first")
    with exclusive_file_lock(warehouse):
        if warehouse.with_name(f"{warehouse.name}.wal").exists():
            # left by a killed run; opening the file for writing merges it
            retry_while_locked(lambda: duckdb.connect(str(warehouse))).close()
        # blocks writers that do not use the lock
        with retry_while_locked(lambda: duckdb.connect(str(warehouse), read_only=True)):
            as_of, modified_ns = datetime.now(UTC), warehouse.stat().st_mtime_ns
            shutil.copyfile(warehouse, draft)
    draft.chmod(0o600)
    return as_of, modified_ns


@contextmanager
def opened(pipeline: dlt.Pipeline, draft: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """Opens the copy with the schema of the warehouse as the current one."""
    with duckdb.connect(str(draft), config=dict(COPY_CONFIG)) as copy:
        copy.execute(f'USE "{pipeline.dataset_name}"')
        yield copy


def _materialize(pipeline: dlt.Pipeline, draft: Path) -> None:
    """Replaces expensive views by tables, which dependent views then read.

    Opening the file takes longer than most views of a small warehouse, so each range is copied with
    one opening.
    """
    with opened(pipeline, draft) as copy:
        found = copy.execute("SELECT view_name FROM duckdb_views()").fetchall()
        existing = {name for (name,) in found}
        if not existing & views().keys():
            raise DestinationError("the warehouse has no views: run views first")
        days = _days(copy) if _LOCAL in existing else []
    for view in views().values():
        if view.name in existing - KEPT_AS_VIEWS:
            _make_table(pipeline, draft, view, days)


def _make_table(pipeline: dlt.Pipeline, draft: Path, view: View, days: Sequence[Day]) -> None:
    name, table = view.name, f"{view.name}__draft"
    if name == _PER_CONVERSATION:
        copy_in_parts(draft, pipeline.dataset_name, name, table)
        with opened(pipeline, draft) as copy:
            _replace_view(copy, view, table)
        return
    *ranges, last = _ranges(view, days)
    verb = f"CREATE TABLE {table} AS"
    # opened for each range, because DuckDB keeps memory until the file is closed
    for where in ranges:
        with opened(pipeline, draft) as copy:
            execute_in_memory_limit(copy, f"{verb} SELECT * FROM {name}{where}")
        verb = f"INSERT INTO {table}"
    with opened(pipeline, draft) as copy:
        execute_in_memory_limit(copy, f"{verb} SELECT * FROM {name}{last}")
        _replace_view(copy, view, table)


def _replace_view(copy: duckdb.DuckDBPyConnection, view: View, table: str) -> None:
    """Gives the table the name and the comments of the view."""
    copy.execute(f"DROP VIEW {view.name}")
    copy.execute(f"ALTER TABLE {table} RENAME TO {view.name}")
    existing = [column for column, *_ in copy.execute(f"DESCRIBE {view.name}").fetchall()]
    for statement in _STATEMENTS.comments_on_copy(view, existing):
        copy.execute(statement)


def _days(copy: duckdb.DuckDBPyConnection) -> list[Day]:
    """Returns the days, in order, with their numbers of conversations."""
    return copy.execute(
        f"SELECT {_DAY}, count(*) FROM {_LOCAL} GROUP BY ALL ORDER BY ALL"
    ).fetchall()


def _ranges(view: View, days: Sequence[Day]) -> Iterator[str]:
    """Yields WHERE clauses for ranges of days that together cover all days; one without for all."""
    if _DAY not in view.key:
        yield ""
        return
    most = min(_CONVERSATIONS_PER_RANGE, _FEWER_PER_RANGE.get(view.name, _CONVERSATIONS_PER_RANGE))
    since: date | None = None
    conversations = 0
    for day, number in days:
        if conversations and conversations + number > most:
            yield _between(since, day)
            since, conversations = day, 0
        conversations += number
    yield _between(since, None)


def _between(since: date | None, before: date | None) -> str:
    bounds = [f"local_date >= DATE '{since}'"] if since else []
    bounds += [f"local_date < DATE '{before}'"] if before else []
    return f" WHERE {' AND '.join(bounds)}" if bounds else ""


def take_over_access(target: Path, draft: Path) -> None:
    """Gives a new file the permissions and group of the file that it replaces, if there is one."""
    with contextlib.suppress(FileNotFoundError):
        replaced = target.stat()
        draft.chmod(replaced.st_mode & 0o777)
        with contextlib.suppress(PermissionError):
            os.chown(draft, -1, replaced.st_gid)
