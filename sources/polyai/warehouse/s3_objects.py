"""Objects of a bucket on S3: listing by prefix, and the versions that a bucket keeps."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from fsspec import AbstractFileSystem

from ..clock import in_utc, utc_now

logger = logging.getLogger("polyai")


@dataclass(frozen=True)
class Locked:
    """Deleted file of which a bucket keeps a version.

    Attributes:
        uri: Its address.
        until: End of the retention; None for a legal hold.
    """

    uri: str
    until: datetime | None

    def __str__(self) -> str:
        until = f"until {self.until:%Y-%m-%d %H:%M} UTC" if self.until else "by a legal hold"
        return f"{self.uri} is locked {until}"


def locked_error(locked: Sequence[Locked]) -> str:
    """Returns the error of a run that could not delete all versions."""
    return f"{len(locked):,} deleted files are locked in the bucket"


class S3Objects:
    """Objects below a prefix of a bucket.

    Args:
        fs: File system of s3fs.
        root: Bucket and prefix.
    """

    def __init__(self, fs: AbstractFileSystem, root: str) -> None:
        self._fs = fs
        self._bucket, key, _ = fs.split_path(root)
        self._start = f"{key}/" if key else ""

    def walk(self, prefix: str) -> Iterator[tuple[str, int]]:
        """Yields path and size of the objects whose paths begin so, in order of their bytes."""
        for page in self._pages("list_objects_v2", prefix, ("ContinuationToken",)):
            for entry in page.get("Contents", ()):
                # consoles mark folders by an empty object
                if entry["Size"] or not entry["Key"].endswith("/"):
                    yield self._path(entry), int(entry["Size"])

    def purge(self, prefix: str, is_due: Callable[[str], bool]) -> list[Locked]:
        """Deletes all versions of deleted objects, and what marks them as deleted.

        Args:
            prefix: Beginning of the paths.
            is_due: Returns whether the versions of a deleted object are to be deleted.

        Returns:
            Objects of which a version cannot be deleted yet.
        """
        if not self._keeps_versions():
            return []
        markers: dict[str, list[str]] = {}
        locked: dict[str, Locked] = {}
        pages = self._pages("list_object_versions", prefix, ("KeyMarker", "VersionIdMarker"))
        for page in pages:
            for entry in page.get("DeleteMarkers", ()):
                path = self._path(entry)
                if entry["IsLatest"] and is_due(path):
                    markers[path] = []
                if path in markers:
                    markers[path].append(entry["VersionId"])
            for entry in page.get("Versions", ()):
                path = self._path(entry)
                if path in markers and (lock := self._delete(path, entry["VersionId"])):
                    locked.setdefault(path, lock)
        for path in markers.keys() - locked.keys():
            for version in markers[path]:
                self._call("delete_object", path, version)
        return [locked[path] for path in sorted(locked)]

    def _path(self, entry: dict[str, Any]) -> str:
        return str(entry["Key"]).removeprefix(self._start)

    def _pages(
        self, operation: str, prefix: str, places: tuple[str, ...]
    ) -> Iterator[dict[str, Any]]:
        more: dict[str, str] = {}
        while True:
            page = self._fs.call_s3(
                operation, Bucket=self._bucket, Prefix=f"{self._start}{prefix}", **more
            )
            yield page
            if not page.get("IsTruncated"):
                return
            more = {name: page[f"Next{name}"] for name in places}

    def _keeps_versions(self) -> bool:
        try:
            found = self._fs.call_s3("get_bucket_versioning", Bucket=self._bucket)
        except PermissionError:
            logger.warning(
                "bucket %s does not say if it keeps versions (s3:GetBucketVersioning is denied): "
                "it may still have what was deleted",
                self._bucket,
            )
            return False
        except OSError as error:
            if "NotImplemented" not in repr(error):
                raise
            return False
        return "Status" in found

    def _delete(self, path: str, version: str) -> Locked | None:
        """Deletes a version; returns its lock if it has one."""
        try:
            self._call("delete_object", path, version)
        except OSError:
            if lock := self._lock(path, version):
                return lock
            raise
        return None

    def _lock(self, path: str, version: str) -> Locked | None:
        uri = str(self._fs.unstrip_protocol(f"{self._bucket}/{self._start}{path}"))
        facts = self._call("head_object", path, version)
        until = facts.get("ObjectLockRetainUntilDate")
        if until and until > utc_now():
            return Locked(uri, in_utc(until))
        is_held = facts.get("ObjectLockLegalHoldStatus") == "ON"
        return Locked(uri, None) if is_held else None

    def _call(self, operation: str, path: str, version: str) -> dict[str, Any]:
        key = f"{self._start}{path}"
        answer: dict[str, Any] = self._fs.call_s3(
            operation, Bucket=self._bucket, Key=key, VersionId=version
        )
        return answer
