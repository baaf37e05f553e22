"""Batches and chunks of answers, limited in number and in bytes, and groups of list rows."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from .fetch import Fetched

T = TypeVar("T")

BATCH_SIZE = 250
"""Details that are shaped together; larger batches are hardly faster and take more memory."""

BATCH_BYTES = 4 * 2**20
"""Answers that are shaped together; decoded, they take five times the memory."""

CHUNK_BYTES = 64 * 2**20
"""Answers of a chunk, whatever their number: those of 5,000 usual conversations.
DuckDB keeps the long texts of a transaction in memory until its commit."""

FIRST_CHUNK_SIZE = 500
"""Conversations with which the first chunk of a first load ends after `FIRST_CHUNK_SECONDS`."""

FIRST_CHUNK_SECONDS = 15.0
"""Time from which on a first load commits what it has, so that rows appear soon. A small chunk
takes 0.6 CPU s more than the same rows in a large one: for the package, and because DuckDB writes
them again with the next ones."""

_FILL_SECONDS = 3.0
"""Time that a chunk waits for more answers while other agents have some ready."""


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


class ChunkLimit:
    """Decides when a chunk ends.

    Args:
        batcher: Answers of the chunk.
        size: Maximum number of answers.
        is_first: It is the first chunk of a first load.
    """

    def __init__(self, batcher: Batcher, size: int, *, is_first: bool) -> None:
        self._batcher = batcher
        self._size = size
        self._full_at = time.monotonic() + _FILL_SECONDS
        self._soon_at = time.monotonic() + FIRST_CHUNK_SECONDS if is_first else math.inf

    def is_reached(self, others_have_more: Callable[[], bool]) -> bool:
        """Returns whether the chunk ends here.

        Args:
            others_have_more: Whether none has arrived, while other agents have answers ready.
        """
        return (
            len(self._batcher) >= self._size
            or self._batcher.bytes >= CHUNK_BYTES
            or (len(self._batcher) >= FIRST_CHUNK_SIZE and time.monotonic() > self._soon_at)
            or (time.monotonic() > self._full_at and others_have_more())
        )


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
