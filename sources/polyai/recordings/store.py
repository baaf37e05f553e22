"""The folder or bucket that keeps recordings: each file in it is whole or absent."""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any, Self

from dlt.common.configuration.exceptions import ConfigurationException
from dlt.common.configuration.resolve import resolve_configuration
from dlt.common.exceptions import DltException, MissingDependencyException
from dlt.common.storages.configuration import FilesystemConfiguration
from dlt.common.storages.fsspec_filesystem import fsspec_from_config
from filelock import FileLock, Timeout
from fsspec import AbstractFileSystem

from ..clock import in_utc, utc_now
from ..errors import ConfigurationError, StoreError, first_line
from ..warehouse.working_directory import lock_on

_INCOMING = ".incoming"
"""Folder in which files of a store that can move them are written; readers leave it out."""

_PLACES = (("sources", "polyai", "recordings"), ("destination", "filesystem"))
"""Where dlt's configuration may have the bucket's credentials."""

_PART_BYTES = 8 * 2**20
"""Of an upload in parts: two of them are in memory for each file."""

_READ_BYTES = 2**20

_PUTS_WHOLE: Mapping[str, Mapping[str, Any]] = {
    "s3": {"chunksize": _PART_BYTES, "max_concurrency": 2},
    "s3a": {"chunksize": _PART_BYTES, "max_concurrency": 2},
    "gs": {"chunksize": _PART_BYTES},
    "gcs": {"chunksize": _PART_BYTES},
    "az": {"overwrite": True},
    "abfs": {"overwrite": True},
    "abfss": {"overwrite": True},
}
"""Stores in which a file is there once all of it is, and how that is said to be done in parts."""

_LOCAL = "file"

_ABANDONED_AFTER = timedelta(days=1)
"""No upload to a server of files takes that long."""


class Store:
    """Files by their path below one folder or bucket.

    Args:
        fs: The file system.
        root: Its path there.
        protocol: Such as `file` or `s3`.

    Attributes:
        local_folder: The folder, where it is one of this machine; else None.
    """

    def __init__(self, fs: AbstractFileSystem, root: str, protocol: str) -> None:
        self._fs = fs
        self._root = root.rstrip("/")
        self._protocol = protocol
        self.local_folder = Path(self._root) if protocol == _LOCAL else None

    def __str__(self) -> str:
        return self.uri("")

    def uri(self, path: str) -> str:
        """What a reader opens: a path on this machine, else a URL."""
        whole = f"{self._root}/{path}".rstrip("/")
        return whole if self.local_folder else str(self._fs.unstrip_protocol(whole))

    def path_of(self, uri: str) -> str | None:
        """The path behind a `uri`; None where it lies elsewhere."""
        prefix = f"{self.uri('')}/"
        return uri.removeprefix(prefix) if uri.startswith(prefix) else None

    def check(self) -> None:
        """Asks whether there is such a bucket: one that is missing looks like one that is empty.

        Raises:
            StoreError: There is none.
        """
        if self._protocol in _PUTS_WHOLE:
            bucket = self._root.partition("/")[0]
            try:
                self._fs.info(bucket)
            except FileNotFoundError:
                raise StoreError(f"{self}: there is no bucket {bucket}") from None
            except PermissionError:
                # who may write into a folder of it need not be allowed to look at all of it
                return
            except Exception as error:
                raise StoreError(f"{self} cannot be reached: {first_line(error)}") from error

    def put(self, file: Path, path: str) -> None:
        """Takes a file in; what was there is replaced in one step.

        Args:
            file: On this machine; may be gone afterwards.
            path: Where to.

        Raises:
            StoreError: It cannot be written.
        """
        target = f"{self._root}/{path}"
        with _store_errors(f"{self.uri(path)} cannot be written", has_to_be=False):
            if self.local_folder is not None:
                # a move, for both are on one disk, which `Incoming` sees to
                try:
                    file.replace(target)
                except FileNotFoundError:
                    Path(target).parent.mkdir(parents=True, exist_ok=True)
                    file.replace(target)
            elif self._protocol in _PUTS_WHOLE:
                self._fs.put_file(str(file), target, **_PUTS_WHOLE[self._protocol])
            else:
                draft = f"{self._root}/{_INCOMING}/{uuid.uuid4().hex}"
                self._fs.makedirs(self._fs._parent(draft), exist_ok=True)
                self._fs.makedirs(self._fs._parent(target), exist_ok=True)
                self._fs.put_file(str(file), draft)
                self._fs.mv(draft, target)

    def settle(self, uris: Iterable[str]) -> None:
        """Returns once files lie on the disk itself: a power failure takes what does not.

        Args:
            uris: Of files that were put. A bucket has them when it has answered.

        Raises:
            StoreError: The disk fails, or one is gone.
        """
        if self.local_folder is None:
            return
        for uri in uris:
            with _store_errors(f"{uri} cannot be written", has_to_be=False):
                file = os.open(uri, os.O_RDWR)
                try:
                    os.fsync(file)
                finally:
                    os.close(file)

    def sizes(self, folder: str) -> dict[str, int]:
        """The files right in a folder, by name, with their bytes; none where it is not there."""
        with _store_errors(f"{self.uri(folder)} cannot be listed"):
            try:
                entries = self._fs.ls(f"{self._root}/{folder}", detail=True)
            except FileNotFoundError:
                return {}
            return {
                str(entry["name"]).rpartition("/")[2]: int(entry["size"])
                for entry in entries
                if entry["type"] == "file"
            }

    def folders(self, folder: str) -> list[str]:
        """The names of the folders right in a folder."""
        with _store_errors(f"{self.uri(folder)} cannot be listed"):
            try:
                entries = self._fs.ls(f"{self._root}/{folder}".rstrip("/"), detail=True)
            except FileNotFoundError:
                return []
            return sorted(
                str(entry["name"]).rstrip("/").rpartition("/")[2]
                for entry in entries
                if entry["type"] == "directory"
            )

    def parts(self, path: str) -> Iterator[bytes]:
        """The file's bytes, as they come.

        Raises:
            FileNotFoundError: There is none.
            StoreError: It cannot be read.
        """
        what = f"{self.uri(path)} cannot be read"
        with _store_errors(what):
            file = self._fs.open(f"{self._root}/{path}", "rb", block_size=_PART_BYTES)
        with file:
            while True:
                with _store_errors(what):
                    part = file.read(_READ_BYTES)
                if not part:
                    return
                yield part

    def delete(self, paths: Sequence[str]) -> None:
        """Deletes files; those that are gone already are no error."""
        for path in paths:
            with (
                _store_errors(f"{self.uri(path)} cannot be deleted"),
                contextlib.suppress(FileNotFoundError),
            ):
                self._fs.rm_file(f"{self._root}/{path}")
        if self._protocol not in _PUTS_WHOLE:
            for folder in {path.rpartition("/")[0] for path in paths}:
                # one that is empty now; a bucket has none
                with contextlib.suppress(Exception):
                    self._fs.rmdir(f"{self._root}/{folder}")

    def forget_abandoned(self) -> None:
        """Deletes what a killed run left half-way on a server of files."""
        if self.local_folder is not None or self._protocol in _PUTS_WHOLE:
            return
        oldest = utc_now() - _ABANDONED_AFTER
        for name in self.sizes(_INCOMING):
            draft = f"{self._root}/{_INCOMING}/{name}"
            with contextlib.suppress(FileNotFoundError, NotImplementedError):
                if in_utc(self._fs.modified(draft)) < oldest:
                    self._fs.rm_file(draft)


class Incoming:
    """A folder on this machine for files that are being written, of one run alone.

    Use as a context manager; what killed runs have left is removed first.

    Args:
        store: Whose files they will be.
        elsewhere: Where to make it if the store is not on this machine.
    """

    def __init__(self, store: Store, elsewhere: Path) -> None:
        self._folder = (store.local_folder or elsewhere) / _INCOMING
        self._own = self._folder / uuid.uuid4().hex
        self._held = ExitStack()
        self._numbers = count()

    def __enter__(self) -> Self:
        self._folder.parent.mkdir(parents=True, exist_ok=True)
        with self._door():
            self._folder.mkdir(exist_ok=True)
            self._held.enter_context(lock_on(self._own.with_suffix(".lock")).acquire(timeout=0))
            self._own.mkdir()
            for other in self._folder.glob("*.lock"):
                if other.stem != self._own.name:
                    with contextlib.suppress(Timeout), lock_on(other).acquire(timeout=0):
                        _remove(other)
        return self

    def __exit__(self, *_: object) -> None:
        with self._door():
            _remove(self._own.with_suffix(".lock"))
            self._held.close()
            with contextlib.suppress(OSError):  # others are at work
                self._folder.rmdir()

    def _door(self) -> FileLock:
        """Lets one run at a time come or go: the lock of one that comes is not yet its own."""
        return lock_on(self._folder.with_suffix(".lock"))

    @contextmanager
    def file(self, suffix: str) -> Iterator[Path]:
        """A path that nothing has; removed at the end unless it was moved."""
        path = self._own / f"{next(self._numbers)}{suffix}"
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)


def _remove(lock: Path) -> None:
    """Removes a run's folder, then the lock that told whether it is at work."""
    shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
    lock.unlink(missing_ok=True)


def open_store(url: str) -> Store:
    """The store at an fsspec URL or in a folder, with the credentials that dlt's settings have.

    Args:
        url: `recordings/`, `s3://bucket/path`, `gs://…`, `az://…` or any other that fsspec knows.

    Raises:
        ConfigurationError: The URL is not understood, its driver is missing, or credentials are.
    """
    first_error: Exception | None = None
    for sections in _PLACES:
        try:
            config = resolve_configuration(FilesystemConfiguration(url), sections=sections)
            fs, root = fsspec_from_config(config)
        except (MissingDependencyException, ImportError) as error:
            protocol = url.partition("://")[0]
            raise ConfigurationError(
                f"recordings_url {url}: its driver is missing: pip install 'dlt[{protocol}]'"
            ) from error
        except (ConfigurationException, DltException, ValueError) as error:
            first_error = first_error or error
            continue
        if config.is_local_filesystem:
            # fsspec leaves it encoded as a URL
            root = config.make_local_path(config.bucket_url)
        return Store(fs, root, config.protocol)
    said = first_line(first_error) if first_error else ""
    names = " or ".join(f"[{'.'.join(place)}.credentials]" for place in _PLACES)
    raise ConfigurationError(
        f"recordings_url {url}: {said}. Credentials stand in {names} of .dlt/secrets.toml"
    )


@contextmanager
def _store_errors(what: str, *, has_to_be: bool = True) -> Iterator[None]:
    """One clear line for whatever a driver raises.

    Args:
        what: Happened.
        has_to_be: Let through that a file is not there.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, StoreError) or (has_to_be and isinstance(error, FileNotFoundError)):
            raise
        raise StoreError(f"{what}: {first_line(error)}") from error
