"""Bounded worker pool for every feature that sends many requests."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self, TypeVar

MAX_IN_FLIGHT = 1_000
"""Default limit of tasks whose results are outstanding: enough to keep all workers busy while the
caller commits, and some 15 MB of conversation details."""

T = TypeVar("T")
R = TypeVar("R")


class WorkerPool:
    """Threads that work through tasks, a bounded number ahead of the caller.

    Use as a context manager: leaving it cancels the tasks that have not begun and waits for the
    others. It does not end waits between retries; closing the API client does.

    Args:
        workers: Number of threads.
        name: Prefix of the threads' names.
        stop: When set, no further task is submitted.
    """

    def __init__(self, workers: int, name: str, *, stop: threading.Event | None = None) -> None:
        self._executor = ThreadPoolExecutor(workers, thread_name_prefix=name)
        self._stop = stop or threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Cancels the tasks that have not begun and waits for the others."""
        self._executor.shutdown(wait=True, cancel_futures=True)

    def in_order(
        self,
        work: Callable[[T], R],
        tasks: Iterable[T],
        *,
        limit: int = MAX_IN_FLIGHT,
        first_limit: int | None = None,
    ) -> Iterator[R]:
        """Yields the results in the order of the tasks.

        Args:
            work: Called with each task, in a worker thread. An exception reaches the caller when
                the task's result is due.
            tasks: Read lazily, in the caller's thread.
            limit: Maximum number of tasks whose results are outstanding.
            first_limit: The limit at the start, so that the first results are not delayed by a
                long queue; it then grows with half the number of results. `limit` if None.
        """
        waiting: deque[Future[R]] = deque()
        results = 0
        for number, task in enumerate(tasks):
            if self._stop.is_set():
                break
            waiting.append(self._executor.submit(work, task))
            ahead = min(max(limit if first_limit is None else first_limit, results // 2), limit)
            # one result per two tasks: the caller starts before the queue is full
            if len(waiting) >= ahead or (number % 2 and waiting[0].done()):
                results += 1
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    def as_completed(
        self,
        work: Callable[[T], R],
        tasks: Iterable[T],
        *,
        limit: int = MAX_IN_FLIGHT,
        tick_seconds: float | None = None,
    ) -> Iterator[R | None]:
        """Yields the results as they arrive.

        Args:
            work: As for `in_order`; an exception reaches the caller at once.
            tasks: Read lazily, in the caller's thread.
            limit: Maximum number of tasks whose results are outstanding.
            tick_seconds: Yield None after this long without a result, so that the caller can act
                on the time or on a signal; never if None.
        """
        done: queue.SimpleQueue[Future[R]] = queue.SimpleQueue()
        in_flight = 0

        def next_result() -> R | None:
            nonlocal in_flight
            try:
                future = done.get(timeout=tick_seconds)
            except queue.Empty:
                return None
            in_flight -= 1
            return future.result()

        for task in tasks:
            if self._stop.is_set():
                break
            self._executor.submit(work, task).add_done_callback(done.put)
            in_flight += 1
            while in_flight >= limit or not done.empty():
                yield next_result()
        while in_flight:
            yield next_result()
