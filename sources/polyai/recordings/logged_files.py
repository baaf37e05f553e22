"""Comparison of the files that custody logs are about with those that are answered for.

Whoever changes a file, its row and the manifest alike leaves the log as the only witness.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from .custody import Entry

_RELEASING = frozenset({"deleted", "quarantined"})
"""Events after which a file is no longer at its path."""

_PLACES = {"quarantined": "kept_as"}
"""Fields with the path of the file, where that is not `path`."""

_DIGEST_BYTES = 16


class LoggedFiles:
    """Files of all logs, each by its path and hash; some 150 bytes of memory per file."""

    def __init__(self) -> None:
        self._logged: dict[bytes, bool] = {}
        """Files that a log has, and whether something answers for them."""
        self._released: set[bytes] = set()

    def add(self, entry: Entry) -> None:
        """Adds an entry of a log."""
        for file, is_released in _files(entry):
            if is_released:
                self._released.add(file)
            else:
                self._logged.setdefault(file, False)

    def answer(self, path: str, sha256: str | None) -> bool:
        """Registers that warehouse or manifest answer for a file; returns whether a log has it."""
        file = _digest(path, sha256)
        if file in self._logged:
            self._logged[file] = True
            return True
        return False

    @property
    def are_answered(self) -> bool:
        """True if something answers for every file that was not deleted or set aside."""
        return all(
            is_answered or file in self._released for file, is_answered in self._logged.items()
        )

    def unanswered(self, entry: Entry) -> Iterator[str]:
        """Yields the path of an entry's file if nothing answers for it, once per file."""
        for file, is_released in _files(entry):
            if not is_released and not self._logged[file] and file not in self._released:
                self._logged[file] = True
                yield str(entry[_PLACES.get(entry["event"], "path")])


def _files(entry: Entry) -> Iterator[tuple[bytes, bool]]:
    """Yields the file at a path that an entry is about, and whether it left its path."""
    kind, sha256 = entry.get("event"), entry.get("sha256")
    if "path" in entry and sha256:
        if kind in _RELEASING:
            yield _digest(entry["path"], sha256), True
        if kind != "deleted":
            yield _digest(entry[_PLACES.get(str(kind), "path")], sha256), False


def _digest(path: str, sha256: str | None) -> bytes:
    name = f"{path}\n{sha256}".encode(errors="surrogateescape")
    return hashlib.blake2b(name, digest_size=_DIGEST_BYTES).digest()
