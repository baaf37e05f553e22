"""Folder or bucket of files, in which each file is complete or absent."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from fsspec import AbstractFileSystem

from ..clock import in_utc, utc_now
from ..errors import StoreError, first_line
from .s3_objects import Locked, S3Objects

INCOMING = ".incoming"
"""Folder for files that are being written, where the store can move files; readers skip it."""

# which `Incoming` leaves
_GATE = f"{INCOMING}.lock"

_PART_BYTES = 8 * 2**20
"""Part size of a multipart upload; two parts per file are in memory."""

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
"""Stores in which an upload appears atomically, with the options for uploads in parts."""

_EXCLUSIVE = frozenset({"s3", "s3a"})
"""Stores that refuse an upload in place of an existing file, if asked to."""

_ABANDONED_AFTER = timedelta(days=1)
"""Age at which a draft on a file server is an orphan: no upload takes that long."""


class Digest(NamedTuple):
    """SHA-256 of a file in hexadecimal digits, and its size."""

    sha256: str
    bytes: int


class Store:
    """Files by their path below one folder or bucket.

    Args:
        fs: The file system.
        root: Path of the folder in it.
        protocol: For example `file` or `s3`.

    Attributes:
        local_folder: The folder, if it is on this machine; else None.
    """

    def __init__(self, fs: AbstractFileSystem, root: str, protocol: str) -> None:
        self._fs = fs
        self._root = root.rstrip("/")
        self._protocol = protocol
        self._s3 = S3Objects(fs, self._root) if protocol in _EXCLUSIVE else None
        self.local_folder = Path(self._root) if protocol == "file" else None

    def __str__(self) -> str:
        return self.uri("")

    def uri(self, path: str) -> str:
        """Address for readers: a path on this machine, else a URL."""
        whole = f"{self._root}/{path}".rstrip("/")
        return whole if self.local_folder else str(self._fs.unstrip_protocol(whole))

    def path_of(self, uri: str) -> str | None:
        """The path of a `uri` in this store; None if it is elsewhere."""
        prefix = f"{self.uri('')}/"
        return uri.removeprefix(prefix) if uri.startswith(prefix) else None

    def is_within(self, path: str) -> bool:
        """Checks that a path leads to a place in this store, also through links and `..`."""
        if ".." in path.split("/"):
            return False
        folder = self.local_folder
        return folder is None or (folder / path).resolve().is_relative_to(folder.resolve())

    def is_link(self, path: str) -> bool:
        """Returns whether a path is a symbolic link; buckets have none."""
        return self.local_folder is not None and (self.local_folder / path).is_symlink()

    def check(self) -> None:
        """Checks that the bucket exists: a missing one looks like an empty one.

        Raises:
            StoreError: It does not exist or cannot be reached.
        """
        if self._protocol in _PUTS_WHOLE:
            bucket = self._root.partition("/")[0]
            try:
                self._fs.info(bucket)
            except FileNotFoundError:
                raise StoreError(f"{self}: bucket {bucket} does not exist") from None
            except PermissionError:
                # permission to write into one folder need not include the whole bucket
                return
            except Exception as error:
                raise StoreError(f"{self} cannot be reached: {first_line(error)}") from error

    def put(self, file: Path, path: str) -> None:
        """Stores a file atomically; an existing one is replaced.

        Args:
            file: File on this machine; may be moved away.
            path: Target in the store.

        Raises:
            StoreError: It cannot be written.
        """
        target = f"{self._root}/{path}"
        with _store_errors(f"{self.uri(path)} cannot be written", may_be_missing=False):
            if self.local_folder is not None:
                # a rename: `Incoming` puts both on the same disk
                try:
                    file.replace(target)
                except FileNotFoundError:
                    Path(target).parent.mkdir(parents=True, exist_ok=True)
                    file.replace(target)
            elif self._protocol in _PUTS_WHOLE:
                self._fs.put_file(str(file), target, **_PUTS_WHOLE[self._protocol])
            else:
                draft = f"{self._root}/{INCOMING}/{uuid.uuid4().hex}"
                self._fs.makedirs(self._fs._parent(draft), exist_ok=True)
                self._fs.makedirs(self._fs._parent(target), exist_ok=True)
                self._fs.put_file(str(file), draft)
                self._fs.mv(draft, target)

    def sync(self, uris: Iterable[str]) -> None:
        """Flushes files to the disk, so that they survive a power failure.

        Args:
            uris: Files that were put. No-op for buckets, which have stored what they confirmed.

        Raises:
            StoreError: The disk fails, or a file is gone.
        """
        if self.local_folder is None:
            return
        for uri in uris:
            with _store_errors(f"{uri} cannot be written", may_be_missing=False):
                file = os.open(uri, os.O_RDWR)
                try:
                    os.fsync(file)
                finally:
                    os.close(file)

    def sizes(self, folder: str) -> dict[str, int]:
        """Sizes in bytes of the files directly in a folder, by name; empty if it does not exist."""
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

    def walk(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        """Yields path and size in bytes of all files whose paths begin so, in order of their bytes.

        On S3 that is one request per thousand files, whatever their folders.

        Args:
            prefix: Beginning of the paths, which may end within a name.
        """
        with _store_errors(f"{self} cannot be listed"):
            try:
                found = self._s3.walk if self._s3 else self._tree
                for path, size in found(prefix):
                    if path != _GATE and not path.startswith(f"{INCOMING}/"):
                        yield path, size
            except FileNotFoundError:
                return

    def _tree(self, prefix: str) -> Iterator[tuple[str, int]]:
        folder, _, name = prefix.rpartition("/")
        start = f"{self._root}/{folder}".rstrip("/")
        found = []
        for entry in self._fs.ls(start, detail=True):
            own = str(entry["name"]).rstrip("/").rpartition("/")[2]
            if own.startswith(name):
                path = f"{folder}/{own}" if folder else own
                is_folder = entry["type"] == "directory"
                found.append((f"{path}/" if is_folder else path, int(entry["size"] or 0)))
        for path, size in sorted(found, key=lambda one: one[0].encode(errors="surrogateescape")):
            if path.endswith("/"):
                yield from self._tree(path)
            else:
                yield path, size

    def folders(self, folder: str) -> list[str]:
        """Names of the folders directly in a folder; empty if it does not exist."""
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
        """Yields the file's bytes.

        Raises:
            FileNotFoundError: It does not exist.
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

    def digest(self, path: str) -> Digest:
        """Hashes a file, without having it in memory as a whole; errors as `parts`."""
        digest, size = hashlib.sha256(), 0
        for part in self.parts(path):
            digest.update(part)
            size += len(part)
        return Digest(digest.hexdigest(), size)

    def download(self, path: str, file: Path) -> None:
        """Writes the bytes of a file into one on this machine; errors as `parts`."""
        with file.open("wb") as copy:
            for part in self.parts(path):
                copy.write(part)

    def read(self, path: str) -> bytes:
        """Reads a small file in one request.

        Raises:
            FileNotFoundError: It does not exist.
            StoreError: It cannot be read.
        """
        with _store_errors(f"{self.uri(path)} cannot be read"):
            # s3fs asks for the size first, unless it is told to read in one piece
            options = {"max_concurrency": 1} if self._protocol in _EXCLUSIVE else {}
            return bytes(self._fs.cat_file(f"{self._root}/{path}", **options))

    def create(self, file: Path, path: str) -> bool:
        """Stores a file unless there is one already; atomic on this machine and on S3.

        Args:
            file: File on this machine.
            path: Target in the store.

        Returns:
            False if there was one.

        Raises:
            StoreError: It cannot be written.
        """
        target = f"{self._root}/{path}"
        with _store_errors(f"{self.uri(path)} cannot be written", may_be_missing=False):
            try:
                if self.local_folder is not None:
                    try:
                        os.link(file, target)
                    except FileNotFoundError:
                        Path(target).parent.mkdir(parents=True, exist_ok=True)
                        os.link(file, target)
                    return True
                if self._protocol in _EXCLUSIVE:
                    options = _PUTS_WHOLE[self._protocol]
                    self._fs.put_file(str(file), target, mode="create", **options)
                    return True
            except FileExistsError:
                return False
            except OSError as error:
                if not _is_unsupported(error):
                    raise
            if self._fs.exists(target):
                return False
        self.put(file, path)
        return True

    def move(self, path: str, target: str) -> None:
        """Moves a file within the store; the target must not exist.

        Raises:
            FileNotFoundError: The file does not exist.
            StoreError: It cannot be moved.
        """
        if self.local_folder is not None:
            with _store_errors(f"{self.uri(path)} cannot be moved"):
                moved = Path(self._root, target)
                moved.parent.mkdir(parents=True, exist_ok=True)
                Path(self._root, path).rename(moved)
            return
        # through this machine: a copy within a bucket lacks the checksum that Object Lock requires
        with tempfile.TemporaryDirectory() as folder:
            draft = Path(folder, "file")
            self.download(path, draft)
            self.put(draft, target)
        self.delete([path])

    def delete(self, paths: Sequence[str]) -> None:
        """Deletes files; idempotent."""
        for path in paths:
            with (
                _store_errors(f"{self.uri(path)} cannot be deleted"),
                contextlib.suppress(FileNotFoundError),
            ):
                self._fs.rm_file(f"{self._root}/{path}")
        if self._protocol not in _PUTS_WHOLE:
            for folder in {path.rpartition("/")[0] for path in paths}:
                # if it is empty now; buckets have no folders
                with contextlib.suppress(Exception):
                    self._fs.rmdir(f"{self._root}/{folder}")

    def purge(self, prefix: str, is_due: Callable[[str], bool]) -> list[Locked]:
        """Deletes what a bucket on S3 with versioning keeps of deleted files; see `S3Objects`."""
        if self._s3 is None:
            return []
        with _store_errors(f"{self}: versions of deleted files cannot be deleted"):
            return self._s3.purge(prefix, is_due)

    def delete_orphans(self) -> None:
        """Deletes drafts that killed runs have left on a file server."""
        if self.local_folder is not None or self._protocol in _PUTS_WHOLE:
            return
        oldest = utc_now() - _ABANDONED_AFTER
        for name in self.sizes(INCOMING):
            draft = f"{self._root}/{INCOMING}/{name}"
            # another run may have stored or deleted it meanwhile
            with contextlib.suppress(FileNotFoundError):
                modified = self._modified_at(draft)
                # a draft of unknown age is kept: a run may be writing it
                if modified is not None and modified < oldest:
                    self._fs.rm_file(draft)

    def _modified_at(self, path: str) -> datetime | None:
        """Returns the modification time of a file; None if the file server has none."""
        try:
            modified: datetime = self._fs.modified(path)
        except NotImplementedError:
            return None
        return in_utc(modified)


def _is_unsupported(error: OSError) -> bool:
    """Returns whether a store cannot refuse existing files, or a disk has no hard links."""
    is_linkless = error.errno in (errno.EPERM, errno.ENOTSUP, errno.EMLINK)
    return is_linkless or "NotImplemented" in repr(error)


@contextmanager
def _store_errors(what: str, *, may_be_missing: bool = True) -> Iterator[None]:
    """Turns whatever a driver raises into a `StoreError` of one line.

    Args:
        what: The failure, as the message begins.
        may_be_missing: Let `FileNotFoundError` pass.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, StoreError) or (
            may_be_missing and isinstance(error, FileNotFoundError)
        ):
            raise
        raise StoreError(f"{what}: {first_line(error)}") from error
