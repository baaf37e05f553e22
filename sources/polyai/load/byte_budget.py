"""Limit of the memory of answers that wait to be shaped."""

from __future__ import annotations

import threading


class ByteBudget:
    """Backpressure by bytes: requests begin only while the waiting answers are few enough.

    The request whose answer is due next always begins, so that the order of the answers cannot
    block. Safe to share between threads.

    Args:
        limit: Bytes of answers from which on no other request begins. Those that have begun can
            exceed it. Waiting requests begin again below three quarters of it: to wake them for
            each answer that is taken would cost more than the requests.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._resume_at = limit * 3 // 4
        self._used = 0
        self._due = 0
        self._waiting: set[int] = set()
        self._is_closed = False
        self._changed = threading.Condition()

    def wait(self, number: int) -> None:
        """Waits until the request with this number, counted from 0, may begin."""
        with self._changed:
            self._waiting.add(number)
            self._changed.wait_for(
                lambda: self._is_closed or self._used < self._limit or number <= self._due
            )
            self._waiting.discard(number)

    def add(self, size: int) -> None:
        """Counts an answer."""
        with self._changed:
            self._used += size

    def take(self, size: int) -> None:
        """Discounts the answer that is due, which does not wait any more."""
        with self._changed:
            self._used -= size
            self._due += 1
            if self._waiting and (self._used <= self._resume_at or self._due in self._waiting):
                self._changed.notify_all()

    def close(self) -> None:
        """Ends all waits."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
