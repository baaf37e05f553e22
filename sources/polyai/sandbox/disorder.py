"""Listings that deviate from their documentation: out of order, with duplicates and wrong counts.

All are off by default. What a conversation's place in the list says of it stays the same in every
answer, except for the order of rows with equal times.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from hashlib import blake2b

from .config import SandboxConfig
from .traits import generator


class Disorder:
    """Order, duplicates and count of the Data API's listing, as configured.

    Args:
        config: Configuration of the sandbox.
    """

    def __init__(self, config: SandboxConfig) -> None:
        self._config = config
        self._random = generator(config.seed)
        middle = config.conversations // 2
        self._middle = middle
        self._tied = range(middle, min(middle + config.ties, config.conversations))
        """Indices of the conversations with the time of the first of them."""

    @property
    def is_active(self) -> bool:
        """True if a page of the listing differs from the conversations in their order."""
        config = self._config
        return bool(
            config.ties or config.listed_twice or config.count_error or config.max_count is not None
        )

    def index_of_time(self, index: int) -> int:
        """Returns the index of the conversation whose creation time this one has."""
        return self._tied.start if index in self._tied else index

    def created_at(self, index: int, moment: datetime) -> datetime:
        """Returns the creation time shown for a conversation."""
        config = self._config
        if config.absurd_created_at is not None and index == self._middle:
            return config.absurd_created_at
        if not config.disorder_seconds or index in self._tied:
            return moment
        digest = blake2b(f"{config.seed}/{index}".encode(), digest_size=4).digest()
        share = int.from_bytes(digest) / 2**32
        return moment - timedelta(milliseconds=int(config.disorder_seconds * 1000 * share))

    def has_id(self, index: int) -> bool:
        """Returns whether the list row of a conversation has its id."""
        step = self._config.conversations // (self._config.rows_without_id + 1)
        numbered = range(step, step * self._config.rows_without_id + 1, max(step, 1))
        return index not in numbered

    def page(self, listed: Sequence[int], limit: int, offset: int) -> tuple[list[int], int]:
        """Returns the indices on a page, and the count that the answer states.

        Args:
            listed: Indices of all listed conversations, newest first.
            limit: Rows of the page.
            offset: Rows before it.
        """
        config = self._config
        rows = list(listed)
        places = [place for place, index in enumerate(rows) if index in self._tied]
        tied = [rows[place] for place in places]
        self._random.shuffle(tied)
        for place, index in zip(places, tied):
            rows[place] = index
        for number in range(config.listed_twice):
            # on another page, as far as there is one
            copied = rows[len(rows) * (number + 1) // (config.listed_twice + 2)]
            rows.insert(len(rows) * (number + 2) // (config.listed_twice + 2), copied)
        count = max(0, len(rows) + config.count_error)
        if config.max_count is not None:
            count = min(count, config.max_count)
        return rows[offset : offset + limit], count
