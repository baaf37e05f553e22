"""State shared by all threads of a client: traffic counters and the pause after a rate limit."""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Callable

from ..errors import StoppedError


class Traffic:
    """Thread-safe counters of a client's requests.

    Attributes:
        requests: Requests sent, retries included.
        retries: Requests sent again.
        answers: Requests that ended with a valid answer.
        bytes_received: Bytes of all bodies as transferred, before decompression.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.requests = 0
        self.retries = 0
        self.answers = 0
        self.bytes_received = 0

    def add(
        self, *, requests: int = 0, retries: int = 0, answers: int = 0, bytes_received: int = 0
    ) -> None:
        """Adds to the counters atomically."""
        with self._lock:
            self.requests += requests
            self.retries += retries
            self.answers += answers
            self.bytes_received += bytes_received


class Throttle:
    """A pause shared by all threads of a client, which `stop` ends.

    Args:
        spread_seconds: After a pause, threads resume at random times within this many seconds,
            not all at once.
        clock: Injectable monotonic clock, in seconds.
        sleep: Injectable wait: takes seconds, and returns whether `stop` was called meanwhile.
    """

    def __init__(
        self,
        *,
        spread_seconds: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], bool] | None = None,
    ) -> None:
        self._spread_seconds = spread_seconds
        self._lock = threading.Lock()
        self._resume_at = -math.inf
        self._stopped = threading.Event()
        self.now = clock
        self._sleep = sleep or self._stopped.wait

    def pause(self, seconds: float, since: float | None = None) -> None:
        """Pauses all threads; a longer pause that is already active stays.

        Args:
            seconds: Length of the pause.
            since: Begin of the pause; now where None.
        """
        with self._lock:
            begin = self.now() if since is None else since
            self._resume_at = max(self._resume_at, begin + seconds)

    def wait(self) -> None:
        """Returns when no pause is active.

        Raises:
            StoppedError: `stop` was called, also during the pause.
        """
        while (remaining := self._resume_at - self.now()) > 0:
            self.sleep(remaining + random.uniform(0, self._spread_seconds))  # noqa: S311
        self.sleep(0)

    def sleep(self, seconds: float) -> None:
        """Sleeps in this thread only.

        Raises:
            StoppedError: `stop` was called, also during the sleep.
        """
        if self._stopped.is_set() or (seconds > 0 and self._sleep(seconds)):
            raise StoppedError("the client was closed before the request was answered")

    def stop(self) -> None:
        """Ends all waits, current and later ones."""
        self._stopped.set()
