"""Compact set of the ids that a listing returned, for lists with millions of conversations."""

from __future__ import annotations

import hashlib
from array import array

MAX_WALKS = 4
"""Walks over one list that the set tells apart: one bit each in every slot."""

_FIRST_SLOTS = 1 << 10

_MAX_LOAD_PERCENT = 60


class SeenIds:
    """Ids as hashes of 60 bits, each with the walks that saw it.

    A hash table of 8 bytes per slot, at most 60 % full: 3 million ids take 64 MiB, and 96 MiB while
    it grows; Python's own set takes four times as much. Two of 3 million ids have the same hash
    with a probability of 1 in 250,000; the proof of the walk would then fail.
    """

    def __init__(self) -> None:
        self._slots = array("Q", [0]) * _FIRST_SLOTS
        self._size = 0
        self._per_walk = [0] * MAX_WALKS

    def __len__(self) -> int:
        return self._size

    def add(self, key: str, walk: int) -> tuple[bool, bool]:
        """Adds an id.

        Args:
            key: The id.
            walk: Number of the walk that saw it, from 0.

        Returns:
            Whether it is new, and whether it is new in this walk.
        """
        hashed = _hash(key)
        slot = self._slot(hashed)
        found = self._slots[slot]
        bit = 1 << walk
        if found & bit:
            return False, False
        self._per_walk[walk] += 1
        self._slots[slot] = (found or hashed) | bit
        if found:
            return False, True
        self._size += 1
        if self._size * 100 > len(self._slots) * _MAX_LOAD_PERCENT:
            self._grow()
        return True, True

    def __contains__(self, key: str) -> bool:
        return bool(self._slots[self._slot(_hash(key))])

    def has(self, key: str, walk: int) -> bool:
        """Returns whether a walk saw an id."""
        return bool(self._slots[self._slot(_hash(key))] & (1 << walk))

    def count(self, walk: int) -> int:
        """Returns the number of ids that a walk saw."""
        return self._per_walk[walk]

    def count_around(self, walk: int) -> int:
        """Returns the number of ids seen both before a walk began and since.

        All of them were listed at that moment.
        """
        before = (1 << walk) - 1
        since = ((1 << MAX_WALKS) - 1) ^ before
        return sum(1 for slot in self._slots if slot & before and slot & since)

    def _slot(self, hashed: int) -> int:
        """Returns the index of the slot that has the hash, or else of the empty one for it."""
        slots, mask = self._slots, len(self._slots) - 1
        index = (hashed >> MAX_WALKS) & mask
        while (found := slots[index]) and found >> MAX_WALKS != hashed >> MAX_WALKS:
            index = (index + 1) & mask
        return index

    def _grow(self) -> None:
        old = self._slots
        self._slots = array("Q", [0]) * (2 * len(old))
        for slot in old:
            if slot:
                self._slots[self._slot(slot)] = slot


def _hash(key: str) -> int:
    """Returns a hash of 60 bits above the bits of the walks; never 0, which is an empty slot."""
    digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return (int.from_bytes(digest) >> MAX_WALKS or 1) << MAX_WALKS
