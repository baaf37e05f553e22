"""What all workers of one client share: what they have moved, and how they hold back together."""

from __future__ import annotations

import random
import threading
import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from ..errors import StoppedError


class Traffic:
    """Counts what a client has moved; all threads add to it.

    Attributes:
        requests: requests sent, retries among them.
        retries: requests that were sent again.
        answers: requests that ended with an answer that was accepted.
        bytes_received: bytes of all bodies, as they came over the wire.
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
        """Adds to the counters in one step."""
        with self._lock:
            self.requests += requests
            self.retries += retries
            self.answers += answers
            self.bytes_received += bytes_received


class Throttle:
    """A pause that every worker of a client keeps.

    Args:
        spread_seconds: after a pause, workers go on within so many seconds, not all at once.
    """

    def __init__(self, *, spread_seconds: float = 1.0) -> None:
        self._spread_seconds = spread_seconds
        self._lock = threading.Lock()
        self._resume_at = 0.0
        self._stopped = threading.Event()

    def pause(self, seconds: float) -> None:
        """Holds all workers back for so long; a longer pause that is on already stays."""
        with self._lock:
            self._resume_at = max(self._resume_at, time.monotonic() + seconds)

    def wait(self) -> None:
        """Returns when no pause is on.

        Raises:
            StoppedError: when `stop` was called, at once also within a pause.
        """
        while (remaining := self._resume_at - time.monotonic()) > 0:
            self.sleep(remaining + random.uniform(0, self._spread_seconds))  # noqa: S311
        self.sleep(0)

    def sleep(self, seconds: float) -> None:
        """Sleeps for this worker alone.

        Raises:
            StoppedError: when `stop` was called, at once.
        """
        if self._stopped.is_set() or (seconds > 0 and self._stopped.wait(seconds)):
            raise StoppedError("the client was closed before the request was answered")

    def stop(self) -> None:
        """Ends all waiting, now and from now on."""
        self._stopped.set()


def parse_retry_after(header: str | None, now: datetime | None = None) -> float | None:
    """Seconds that a `Retry-After` header asks for, as a number or as a date.

    Args:
        header: the header's value.
        now: what a date is compared with; the clock's time where None.

    Returns:
        Seconds from now, zero for a date that has passed, None where the header says nothing
        that can be understood.
    """
    text = (header or "").strip()
    if text.isascii() and text.replace(".", "", 1).isdigit():
        seconds = float(text)
        return seconds if seconds < threading.TIMEOUT_MAX else None
    try:
        date = parsedate_to_datetime(text)
    except ValueError:
        return None
    # a date with the zone -0000 arrives without one: it is utc all the same
    date = date if date.tzinfo else date.replace(tzinfo=UTC)
    return max(0.0, (date - (now or datetime.now(UTC))).total_seconds())
