"""A copy of a DuckDB warehouse for readers, who then keep no load from writing, nor it them.

One process has a DuckDB file open for writing, and none meanwhile for reading. So dashboards and BI
tools read a copy, which is put in place as a whole: who has opened the older one keeps reading it,
and who opens it anew reads the newer one. In the copy the views that cost much are tables of the
same names and columns.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dlt
import duckdb
from filelock import Timeout

from ..errors import BusyError, ConfigurationError, DestinationError
from ..warehouse.duckdb_file import duckdb_path, file_lock, retry_while_locked
from ..warehouse.errors import destination_errors
from ..warehouse.working_directory import lock_on
from .definitions import INFO_VIEW, View, views
from .wording import Wording

INFO_TABLE = "published_info"
"""One row that tells `as_of`, when the copy was taken from the warehouse."""

STAYING = frozenset({"conversations_local", "dim_dates", "data_freshness", INFO_VIEW})
"""Views that stay such in the copy: they cost little, or tell what the time is."""

_LOCK = ".publishing.lock"

_DRAFTS = ".draft"

_IN_PARTS = "fct_conversations"
"""Built a range of days at a time: percentiles of each conversation take memory."""

_PART_CONVERSATIONS = 250_000


_WORDING = Wording("duckdb", lambda name: name, zone="")
"""For comments alone, which tell no zone; in the schema that is in use."""


@dataclass(frozen=True)
class Published:
    """A copy that is in place.

    Attributes:
        file: Where it is.
        as_of: When it was taken from the warehouse, UTC.
        bytes: Its size.
        seconds: How long it took.
    """

    file: Path
    as_of: datetime
    bytes: int
    seconds: float


def published_file(pipeline: dlt.Pipeline, folder: Path) -> Path:
    """Where the copy lies: its name is that of the warehouse, so that queries are the same.

    DuckDB names a database after its file.

    Args:
        pipeline: Whose warehouse it is.
        folder: Of copies.

    Raises:
        ConfigurationError: The warehouse is no DuckDB file, or lies in that folder itself.
    """
    warehouse = duckdb_path(pipeline)
    if warehouse is None:
        raise ConfigurationError(
            "only a DuckDB file is published: other destinations are read while they are written"
        )
    if folder.resolve() == warehouse.parent:
        raise ConfigurationError(f"{folder} is the warehouse's own folder: publish into another")
    return folder.resolve() / warehouse.name


def is_published(pipeline: dlt.Pipeline, folder: Path) -> bool:
    """Whether the copy is of the warehouse as it is now; opens neither.

    DuckDB hands out a file that the process has open already, also where another one has taken its
    place, so it is not asked: a copy has the time of the warehouse that it was taken from.
    """
    copy = published_file(pipeline, folder)
    warehouse: Any = duckdb_path(pipeline)
    try:
        return bool(copy.stat().st_mtime_ns == warehouse.stat().st_mtime_ns)
    except OSError:
        return False  # to publish says what is wrong


def publish(pipeline: dlt.Pipeline, folder: Path, *, wait: timedelta = timedelta()) -> Published:
    """Copies the warehouse and puts the copy in place; the views have to be there already.

    Nobody can write the warehouse while its file is copied, which takes a second for some GB, and
    can again while the tables are made. One that is killed leaves the older copy as it was.

    Args:
        pipeline: Whose warehouse it is.
        folder: Of copies; made where it is missing.
        wait: How long to wait for another run that publishes into it.

    Raises:
        BusyError: Another run publishes into it.
        ConfigurationError: as `published_file`.
        DestinationError: The warehouse has no views, or the copy cannot be written.
    """
    began = time.monotonic()
    target = published_file(pipeline, folder)
    with destination_errors():
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock = lock_on(target.with_name(_LOCK))
            with lock.acquire(timeout=wait.total_seconds()):
                as_of = _replace(pipeline, target)
        except Timeout:
            raise BusyError(f"another run is publishing into {folder}") from None
        return Published(target, as_of, target.stat().st_size, time.monotonic() - began)


def _replace(pipeline: dlt.Pipeline, target: Path) -> datetime:
    """Makes the copy in a folder of its own, then moves it into place."""
    drafts = target.with_name(_DRAFTS)
    shutil.rmtree(drafts, ignore_errors=True)  # of a run that was killed
    drafts.mkdir(mode=0o700)
    try:
        # of the same name, because that is what DuckDB calls the database
        draft = drafts / target.name
        as_of, modified_ns = _copied(pipeline, draft)
        with duckdb.connect(str(draft)) as copy:
            copy.execute(f"USE {_schema(pipeline)}")
            _materialize(copy)
            copy.execute(f"DROP TABLE IF EXISTS {INFO_TABLE}")
            copy.execute(f"CREATE TABLE {INFO_TABLE} AS SELECT ?::TIMESTAMPTZ AS as_of", [as_of])
        take_over_access(target, draft)
        with draft.open("rb") as file:
            os.fsync(file.fileno())
        os.utime(draft, ns=(modified_ns, modified_ns))
        draft.replace(target)
    finally:
        shutil.rmtree(drafts, ignore_errors=True)
    return as_of


def _copied(pipeline: dlt.Pipeline, draft: Path) -> tuple[datetime, int]:
    """Copies the file while nobody writes it; when that was, and the file's own time."""
    warehouse: Any = duckdb_path(pipeline)
    if not warehouse.exists():
        raise DestinationError(f"there is no warehouse {warehouse} yet: run load first")
    with file_lock(pipeline):
        if warehouse.with_name(f"{warehouse.name}.wal").exists():
            # of a run that was killed; opened for writing, it becomes part of the file
            retry_while_locked(lambda: duckdb.connect(str(warehouse))).close()
        # keeps out those who write without taking turns
        with retry_while_locked(lambda: duckdb.connect(str(warehouse), read_only=True)):
            as_of, modified_ns = datetime.now(UTC), warehouse.stat().st_mtime_ns
            shutil.copyfile(warehouse, draft)
    draft.chmod(0o600)
    return as_of, modified_ns


def _materialize(copy: duckdb.DuckDBPyConnection) -> None:
    """Makes tables of the views that cost much; what reads a view then reads the table."""
    held = {name for (name,) in copy.execute("SELECT view_name FROM duckdb_views()").fetchall()}
    if not held & views().keys():
        raise DestinationError("the warehouse has no views: run views first")
    # rows need no order, and to keep it takes memory
    copy.execute("SET preserve_insertion_order = false")
    for view in views().values():
        if view.name in held - STAYING:
            _make_table(copy, view)


def _make_table(copy: duckdb.DuckDBPyConnection, view: View) -> None:
    name, draft = view.name, f"{view.name}__draft"
    parts = list(_parts(copy)) if name == _IN_PARTS else [""]
    copy.execute(f"CREATE TABLE {draft} AS SELECT * FROM {name}{parts[0]}")
    for part in parts[1:]:
        copy.execute(f"INSERT INTO {draft} SELECT * FROM {name}{part}")
    copy.execute(f"DROP VIEW {name}")
    copy.execute(f"ALTER TABLE {draft} RENAME TO {name}")
    for statement in _WORDING.comments_on_copy(view):
        copy.execute(statement)


def _parts(copy: duckdb.DuckDBPyConnection) -> Iterator[str]:
    """Conditions on days, which together are all of them."""
    since: date | None = None
    conversations = 0
    for day, number in copy.execute(
        "SELECT local_date, count(*) FROM conversations_local GROUP BY ALL ORDER BY ALL"
    ).fetchall():
        if conversations and conversations + number > _PART_CONVERSATIONS:
            yield _between(since, day)
            since, conversations = day, 0
        conversations += number
    yield _between(since, None)


def _between(since: date | None, before: date | None) -> str:
    bounds = [f"local_date >= DATE '{since}'"] if since else []
    bounds += [f"local_date < DATE '{before}'"] if before else []
    return f" WHERE {' AND '.join(bounds)}" if bounds else ""


def _schema(pipeline: dlt.Pipeline) -> str:
    return f'"{pipeline.dataset_name}"'


def take_over_access(target: Path, draft: Path) -> None:
    """Who could read the older copy can read the newer one; a first one is for its owner alone."""
    with contextlib.suppress(FileNotFoundError):
        held = target.stat()
        draft.chmod(held.st_mode & 0o777)
        with contextlib.suppress(PermissionError):
            os.chown(draft, -1, held.st_gid)
