"""Batches of answers, limited in number and in bytes."""

from __future__ import annotations

from .fetch import Fetched

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
