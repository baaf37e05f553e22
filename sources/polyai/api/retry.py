"""Retries of API requests: retryable statuses, `Retry-After`, backoff with jitter, attempts.

Every request of a client goes through one `Retrier`, which alone decides whether and when it is
sent again.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TypeVar

from ..clock import parse_timestamp
from ..errors import ErrorDetails, UnavailableError, UncertainError
from .throttle import Throttle, Traffic

logger = logging.getLogger("polyai")

BACKOFF_CAP_SECONDS = 30
"""Longest wait between two attempts, unless the API asks for a longer one."""

WARNING_INTERVAL_SECONDS = 60
"""Minimum time between two warnings about retries; each attempt is logged at debug level."""

T = TypeVar("T")


def is_retryable(status: int) -> bool:
    """Returns whether the same request may succeed later: 408, 429 and all 5xx."""
    return status >= 500 or status in (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS)


class RetryableError(Exception):
    """A failed attempt; the next one may succeed.

    Args:
        message: What happened.
        details: Details of the `ApiError` that is raised if no attempt is left.
        retry_after_seconds: Pause that the API asks for; None where it does not.
        may_have_taken_effect: Whether the API may have carried the request out.
    """

    def __init__(
        self,
        message: str,
        details: ErrorDetails,
        *,
        retry_after_seconds: float | None = None,
        may_have_taken_effect: bool = True,
    ) -> None:
        super().__init__(message)
        self.message = message.rstrip(".")
        self.details = details
        self.retry_after_seconds = retry_after_seconds or 0.0
        self.may_have_taken_effect = may_have_taken_effect

    @property
    def is_rate_limit(self) -> bool:
        """Whether the API answered 429."""
        return self.details.get("status") == HTTPStatus.TOO_MANY_REQUESTS

    def unavailable(self, reason: str = "") -> UnavailableError:
        """Returns the error for the caller if no attempt is left."""
        return UnavailableError(f"{self.message}{reason}", **self.details)

    def uncertain(self) -> UncertainError:
        """Returns the error for the caller where another attempt could take effect twice."""
        return UncertainError(f"{self.message}: it may have been carried out", **self.details)


@dataclass(frozen=True)
class RetryPolicy:
    """Limits of retries.

    Attributes:
        max_attempts: Attempts per request.
        backoff_seconds: Upper bound of the first wait; doubles with each attempt, up to
            `BACKOFF_CAP_SECONDS`. The wait is drawn at random below it (full jitter).
        max_pause_seconds: Longest `Retry-After` that is waited for.
    """

    max_attempts: int = 5
    backoff_seconds: float = 0.5
    max_pause_seconds: float = 600

    def delay_seconds(self, error: RetryableError, attempts: int) -> float:
        """Returns the wait before the next attempt.

        Args:
            error: The failure of the last attempt.
            attempts: Attempts that count, the last one included; 0 where none does.

        Raises:
            UnavailableError: The attempts are used up, or the API asks for too long a pause.
        """
        requested = error.retry_after_seconds
        if requested > self.max_pause_seconds:
            unavailable = error.unavailable(f"; it asks to wait {requested:.0f} s")
            unavailable.advice = "Run again after that time"
            raise unavailable from error
        if attempts >= self.max_attempts:
            tries = "1 attempt" if attempts == 1 else f"{attempts} attempts"
            raise error.unavailable(f", after {tries}") from error
        ceiling = min(self.backoff_seconds * 2 ** max(attempts - 1, 0), BACKOFF_CAP_SECONDS)
        return requested or random.uniform(0, ceiling)  # noqa: S311 jitter, no cryptography


class Retrier:
    """Retry loop shared by all threads of a client.

    Args:
        policy: Limits of retries.
        traffic: Counters of the client; `answers` shows whether other requests succeed meanwhile.
    """

    def __init__(self, policy: RetryPolicy, traffic: Traffic) -> None:
        self._policy = policy
        self._traffic = traffic
        self._throttle = Throttle(spread_seconds=policy.backoff_seconds)
        self._warning_lock = threading.Lock()
        self._next_warning_at = 0.0

    def run(self, attempt: Callable[[], T], *, is_idempotent: bool) -> T:
        """Calls `attempt` until it returns, with backoff after each `RetryableError`.

        Args:
            attempt: Sends the request once.
            is_idempotent: Whether the request may safely take effect twice. Otherwise it is sent
                again only where the API cannot have carried it out.

        Raises:
            UncertainError: It may have taken effect, and is not idempotent.
            UnavailableError: As `RetryPolicy.delay_seconds` raises it.
            StoppedError: `stop` was called.
        """
        attempts = 0
        while True:
            self._throttle.wait()
            answers = self._traffic.answers
            try:
                return attempt()
            except RetryableError as error:
                if error.may_have_taken_effect and not is_idempotent:
                    raise error.uncertain() from error
                # rate limited while others succeed: all share the rate, so this is no failure
                if not error.is_rate_limit or answers == self._traffic.answers:
                    attempts += 1
                delay_seconds = self._policy.delay_seconds(error, attempts)
                self._traffic.add(retries=1)
                self._log(error, attempts, delay_seconds)
                if error.retry_after_seconds or error.is_rate_limit:
                    self._throttle.pause(delay_seconds)
                else:
                    self._throttle.sleep(delay_seconds)

    def stop(self) -> None:
        """Ends all waits, current and later ones, with `StoppedError`."""
        self._throttle.stop()

    def _log(self, error: RetryableError, attempts: int, delay_seconds: float) -> None:
        shown = error.unavailable()
        logger.debug("attempt %d/%d: %s", attempts, self._policy.max_attempts, shown)
        with self._warning_lock:
            is_due = time.monotonic() >= self._next_warning_at
            if is_due:
                self._next_warning_at = time.monotonic() + WARNING_INTERVAL_SECONDS
        if is_due:
            logger.warning("retrying in %.1f s: %s", delay_seconds, shown)


def parse_retry_after(header: str | None, now: datetime | None = None) -> float | None:
    """Parses a `Retry-After` header, a number of seconds or a date.

    Args:
        header: Value of the header.
        now: Time that a date is compared with; the current time where None.

    Returns:
        Seconds from now, 0 for a date in the past, None for a missing or invalid header.
    """
    text = (header or "").strip()
    if text.isascii() and text.replace(".", "", 1).isdigit():
        seconds = float(text)
        return seconds if seconds < threading.TIMEOUT_MAX else None
    try:
        date = parse_timestamp(text)
    except ValueError:
        return None
    return max(0.0, (date - (now or datetime.now(UTC))).total_seconds()) if date else None
