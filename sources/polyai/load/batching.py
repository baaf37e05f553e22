"""Batches of answers, limited in number and in bytes, and groups of list rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from .fetch import Fetched

T = TypeVar("T")

BATCH_SIZE = 250
"""Details that are shaped together; larger batches are hardly faster and take more memory."""

BATCH_BYTES = 4 * 2**20
"""Answers that are shaped together; decoded, they take five times the memory."""


class Batcher:
    """Collects answers of one load package, each conversation once.

    A listing that shifts can contain a conversation twice; twice in one package, its rows would be
    duplicated.

    Args:
        size: Maximum number of answers of a batch.

    Attributes:
        bytes: Bytes of all answers so far.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._seen: set[str] = set()
        self._pending: list[Fetched] = []
        self._pending_bytes = 0
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._seen)

    def add(self, fetched: Fetched) -> list[Fetched]:
        """Adds an answer; returns the batch that it completes, else an empty list."""
        if fetched.task.conversation_id not in self._seen:
            self._seen.add(fetched.task.conversation_id)
            self._pending.append(fetched)
            self._pending_bytes += fetched.size
            self.bytes += fetched.size
        is_full = len(self._pending) >= self._size or self._pending_bytes >= BATCH_BYTES
        return self.rest() if is_full else []

    def rest(self) -> list[Fetched]:
        """Removes and returns the answers of the last batch."""
        rest, self._pending, self._pending_bytes = self._pending, [], 0
        return rest


def grouped(pages: Iterable[list[T]], size: int) -> Iterator[list[T]]:
    """Combines pages of rows into groups of at least this size, except for the last one."""
    rows: list[T] = []
    for page in pages:
        rows.extend(page)
        if len(rows) >= size:
            yield rows
            rows = []
    if rows:
        yield rows
