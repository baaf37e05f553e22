"""Folder on this machine for files that are being written, before a store gets them."""

from __future__ import annotations

import contextlib
import shutil
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import Self

from filelock import FileLock, Timeout

from .file_store import INCOMING, Store
from .working_directory import lock_on


class Incoming:
    """Folder on this machine for the files that one run is writing.

    Use as a context manager; entering it removes what killed runs have left.

    Args:
        store: Target of the files.
        elsewhere: Parent of the folder if the store is not on this machine.
    """

    def __init__(self, store: Store, elsewhere: Path) -> None:
        self._folder = (store.local_folder or elsewhere) / INCOMING
        self._own = self._folder / uuid.uuid4().hex
        self._own_lock = ExitStack()
        self._numbers = count()

    def __enter__(self) -> Self:
        self._folder.parent.mkdir(parents=True, exist_ok=True)
        with self._gate():
            self._folder.mkdir(exist_ok=True)
            self._own_lock.enter_context(lock_on(self._own.with_suffix(".lock")).acquire(timeout=0))
            self._own.mkdir()
            for other in self._folder.glob("*.lock"):
                if other.stem != self._own.name:
                    with contextlib.suppress(Timeout), lock_on(other).acquire(timeout=0):
                        _remove(other)
        return self

    def __exit__(self, *_: object) -> None:
        with self._gate():
            _remove(self._own.with_suffix(".lock"))
            self._own_lock.close()
            with contextlib.suppress(OSError):  # other runs are using it
                self._folder.rmdir()

    def _gate(self) -> FileLock:
        """Lock for entering and leaving: a run that enters does not hold its own lock yet."""
        return lock_on(self._folder.with_suffix(".lock"))

    @contextmanager
    def file(self, suffix: str) -> Iterator[Path]:
        """Yields an unused path; the file is removed at the end unless it was moved."""
        path = self._own / f"{next(self._numbers)}{suffix}"
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)


def _remove(lock: Path) -> None:
    """Removes a run's folder, then its lock, which shows whether the run is alive."""
    shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
    lock.unlink(missing_ok=True)
