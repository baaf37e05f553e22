"""Publication of a DuckDB warehouse as Parquet files, in a folder or a bucket.

Each table and view has a folder of files, partitioned by agent and month in Hive's style; see
`parquet_parts`. A partition is one file of a constant name, which is replaced atomically: plain
globs find each row once, and no reader finds a partially written file. Only partitions whose
content has changed are written: on this machine first, then all of them are moved or uploaded. The
manifest is written last.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dlt
import orjson
from filelock import Timeout

from ..errors import BusyError, ConfigurationError, StoreError
from ..warehouse.duckdb_file import duckdb_path
from ..warehouse.errors import destination_errors
from ..warehouse.file_store import Store
from ..warehouse.incoming import Incoming
from ..warehouse.stores import open_store
from ..warehouse.working_directory import lock_on
from .copies import register
from .parquet_parts import FILE_NAME, MEMORY, Part, parts, relation_names, relations, write
from .publishing import Draft, drafted, opened

MANIFEST = "manifest.json"
"""File that lists all files, and the state of the warehouse that they belong to."""

PENDING = "manifest.pending.json"
"""File that lists the files that a publication is replacing; it exists until the manifest does."""

_FORMAT = 1
"""Version of the manifest."""

_DRAFTS = ".publishing"
"""Ending of the name of the folder, beside the warehouse, in which files are made."""

_LOCK = ".publishing.lock"


@dataclass(frozen=True)
class PublishedParquet:
    """Published Parquet files.

    Attributes:
        url: Folder or URL of the files.
        as_of: Time of the data, UTC.
        files: Number of files.
        bytes: Size of the files.
        written: Number of files that this publication has written.
        deleted: Number of files that this publication has deleted.
        seconds: Duration of publishing.
    """

    url: str
    as_of: datetime
    files: int
    bytes: int
    written: int
    deleted: int
    seconds: float

    @property
    def place(self) -> str:
        """Path or URL for readers."""
        return self.url


def open_parquet_store(pipeline: dlt.Pipeline, url: str) -> Store:
    """Opens the folder or bucket of the files.

    Args:
        pipeline: Pipeline of the warehouse.
        url: Folder or fsspec URL.

    Raises:
        ConfigurationError: The warehouse is not a DuckDB file, or the folder or bucket cannot be
            used.
    """
    warehouse = duckdb_path(pipeline)
    if warehouse is None:
        raise ConfigurationError(
            "only a DuckDB file can be published as Parquet. Readers of other destinations read "
            "the destination itself; the tables of DuckLake are Parquet files"
        )
    store = open_store(url, setting="publish_to", section="publish")
    folder = store.local_folder
    if folder is not None and folder.resolve() == warehouse.parent:
        raise ConfigurationError(
            f"{folder} is the folder of the warehouse: publish into another one"
        )
    if folder is not None and (folder / warehouse.name).exists():
        raise ConfigurationError(
            f"{folder} has a published DuckDB file, which would no longer be updated. Write "
            f"publish_to without / at its end to update it, or delete {folder / warehouse.name} to "
            "publish Parquet files"
        )
    return store


def is_parquet_published(pipeline: dlt.Pipeline, url: str) -> bool:
    """Returns whether the files are those of the warehouse's present state.

    Reads the manifest, and the modification time of the warehouse.

    Raises:
        ConfigurationError: As for `open_parquet_store`.
        StoreError: The folder or bucket cannot be read.
    """
    store = open_parquet_store(pipeline, url)
    warehouse: Any = duckdb_path(pipeline)
    if not warehouse.exists():
        return False  # publishing then reports the error
    state = _state(pipeline, warehouse.stat().st_mtime_ns)
    return _read(store, MANIFEST).get("warehouse") == state and not _read(store, PENDING)


def publish_parquet(
    pipeline: dlt.Pipeline, url: str, *, wait: timedelta = timedelta()
) -> PublishedParquet:
    """Writes the files of all tables and views that have changed; the views have to exist.

    Temporarily needs disk space beside the warehouse for a copy of it, and for the files that have
    changed. A killed run leaves complete files; until it has made all of them, the older ones.

    Args:
        pipeline: Pipeline of the warehouse.
        url: Folder or fsspec URL; a folder is created if needed.
        wait: Maximum wait for another run that publishes.

    Raises:
        BusyError: Another run publishes Parquet files of the warehouse.
        ConfigurationError: As for `open_parquet_store`, or another warehouse is published there.
        DestinationError: The warehouse has no views, or cannot be read.
        StoreError: The folder or bucket cannot be read or written.
    """
    began = time.monotonic()
    store = open_parquet_store(pipeline, url)
    warehouse: Any = duckdb_path(pipeline)
    if store.local_folder is not None and not store.local_folder.exists():
        try:
            store.local_folder.mkdir(mode=0o700, parents=True)
        except OSError as error:
            raise StoreError(f"{store} cannot be created: {error.strerror}") from error
    store.check()
    folder = warehouse.with_name(f"{warehouse.name}{_DRAFTS}")
    with destination_errors():
        try:
            lock = lock_on(warehouse.with_name(f"{warehouse.name}{_LOCK}"))
            with lock.acquire(timeout=wait.total_seconds()):
                register(pipeline, "parquet", store.local_folder or str(store))
                with drafted(pipeline, folder) as draft, Incoming(store, folder) as incoming:
                    return _Publication(pipeline, store, incoming, draft).run(began)
        except Timeout:
            raise BusyError(f"another run is publishing {warehouse} as Parquet") from None


class _Publication:
    """One publication.

    Args:
        pipeline: Pipeline of the warehouse.
        store: Target of the files.
        incoming: Folder for files that are being written.
        draft: Copy of the warehouse.
    """

    def __init__(
        self, pipeline: dlt.Pipeline, store: Store, incoming: Incoming, draft: Draft
    ) -> None:
        self._pipeline = pipeline
        self._store = store
        self._incoming = incoming
        self._draft = draft
        self._older = _read(store, MANIFEST)
        self._in_doubt = frozenset(_read(store, PENDING).get("files", ()))
        self._found = dict(store.walk())
        self._files: dict[str, dict[str, Any]] = {}
        self._tables: dict[str, dict[str, Any]] = {}
        self._changed: dict[str, Path] = {}

    def run(self, began: float) -> PublishedParquet:
        """Makes, moves and deletes files, then writes the manifest."""
        state = _state(self._pipeline, self._draft.modified_ns)
        _check_same_warehouse(self._store, self._older, state)
        with ExitStack() as files:
            self._make(files)
            stale = [path for path in self._found if _is_ours(path) and path not in self._files]
            if self._changed or stale or self._in_doubt or self._older.get("warehouse") != state:
                self._replace(stale)
                self._put_json(MANIFEST, self._manifest(state))
                self._store.delete([PENDING])
        return PublishedParquet(
            str(self._store),
            self._draft.as_of,
            len(self._files),
            sum(file["bytes"] for file in self._files.values()),
            len(self._changed),
            len(stale),
            time.monotonic() - began,
        )

    def _make(self, files: ExitStack) -> None:
        """Writes the files of changed parts on this machine; `files` removes what is not moved."""
        known = {file["path"]: file for file in self._older.get("files", ())}
        with opened(self._pipeline, self._draft.file) as copy:
            found = relations(copy)
        for relation in found:
            self._tables[relation.name] = {
                "columns": relation.types,
                "partitions": relation.partitions,
            }
            # opened for each table, because DuckDB keeps memory until the file is closed
            with opened(self._pipeline, self._draft.file) as copy:
                copy.execute(f"SET memory_limit = '{MEMORY}'")
                for part in parts(copy, relation):
                    older = known.get(part.path)
                    if older and self._is_current(older, part.content):
                        self._files[part.path] = older
                        continue
                    file = files.enter_context(self._incoming.file(".parquet"))
                    write(copy, relation, part, file)
                    self._changed[part.path] = file
                    self._files[part.path] = _entry(part, file)

    def _is_current(self, older: Mapping[str, Any], content: str) -> bool:
        """Returns whether the store has a file with this content, according to the manifest."""
        path = older["path"]
        return (
            older["content"] == content
            and self._found.get(path) == older["bytes"]
            and path not in self._in_doubt
        )

    def _replace(self, stale: Sequence[str]) -> None:
        """Moves or uploads the changed files, and deletes those that have no rows any more."""
        self._put_json(
            PENDING, {"format": _FORMAT, "files": sorted({*self._in_doubt, *self._changed, *stale})}
        )
        folder = self._store.local_folder
        for path, file in self._changed.items():
            if folder is not None:
                _share(folder, file, path)
            self._store.put(file, path)
        self._store.sync(self._store.uri(path) for path in self._changed)
        self._store.delete(stale)

    def _manifest(self, state: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "format": _FORMAT,
            "as_of": self._draft.as_of,
            "written_at": datetime.now(UTC),
            "warehouse": state,
            "tables": self._tables,
            "files": [self._files[path] for path in sorted(self._files)],
        }

    def _put_json(self, path: str, content: Mapping[str, Any]) -> None:
        with self._incoming.file(".json") as file:
            file.write_bytes(orjson.dumps(content, option=orjson.OPT_INDENT_2))
            if (folder := self._store.local_folder) is not None:
                _share(folder, file, path)
            self._store.put(file, path)
        self._store.sync([self._store.uri(path)])


def _entry(part: Part, file: Path) -> dict[str, Any]:
    """Returns the manifest's description of a new file."""
    return {
        "path": part.path,
        "table": part.table,
        "partition": part.partition,
        "rows": part.rows,
        "bytes": file.stat().st_size,
        "sha256": _sha256(file),
        "content": part.content,
        "written_at": datetime.now(UTC),
    }


def _state(pipeline: dlt.Pipeline, modified_ns: int) -> dict[str, Any]:
    """Returns what identifies the warehouse and its state."""
    warehouse: Any = duckdb_path(pipeline)
    return {
        "name": warehouse.stem,
        "dataset": pipeline.dataset_name,
        "modified_ns": modified_ns,
    }


def _check_same_warehouse(
    store: Store, manifest: Mapping[str, Any], state: Mapping[str, Any]
) -> None:
    """Checks that no other warehouse is published there, whose files would be replaced.

    Raises:
        ConfigurationError: One is.
    """
    other = manifest.get("warehouse", state)
    if any(other[name] != state[name] for name in ("name", "dataset")):
        raise ConfigurationError(
            f"{store} has the files of another warehouse, {other['name']}, dataset "
            f"{other['dataset']}: publish into another folder"
        )


def _read(store: Store, path: str) -> dict[str, Any]:
    """Returns a JSON file; empty if there is none, or none of this version."""
    try:
        content = orjson.loads(b"".join(store.parts(path)))
    except (FileNotFoundError, orjson.JSONDecodeError):
        return {}
    is_known = isinstance(content, dict) and content.get("format") == _FORMAT
    return content if is_known else {}


def _is_ours(path: str) -> bool:
    """Returns whether publications write a file of this path."""
    return path.partition("/")[0] in relation_names() and path.endswith(f"/{FILE_NAME}")


def _share(folder: Path, file: Path, path: str) -> None:
    """Gives a new file, and missing folders above it, the permissions and group of the folder."""
    access = folder.stat()
    missing = [parent for parent in (folder / path).parents if not parent.exists()]
    for parent in reversed(missing):
        parent.mkdir(exist_ok=True)
    for changed in (*missing, file):
        changed.chmod(access.st_mode & (0o777 if changed.is_dir() else 0o666))
        with contextlib.suppress(PermissionError):
            os.chown(changed, -1, access.st_gid)


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
