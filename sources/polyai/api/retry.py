"""Retries of API requests: retryable statuses, rate limits, backoff with jitter, attempts.

Every request of a client goes through one `Retrier`, which alone decides whether and when it is
sent again.
"""

from __future__ import annotations

import logging
import math
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import TypeVar

from ..errors import ErrorDetails, UnavailableError, UncertainError
from .throttle import Throttle, Traffic

logger = logging.getLogger("polyai")

BACKOFF_CAP_SECONDS = 30
"""Longest wait between two attempts, unless the API asks for a longer one."""

RATE_LIMIT_SECONDS = 75.0
"""Wait before the last attempt after a 429 that names no time: limits are mostly per minute."""

MAX_RATE_LIMITED = 200
"""Rate-limited attempts of one request after which it fails, though other requests succeed."""

WARNING_INTERVAL_SECONDS = 60
"""Minimum time between two warnings about retries; each attempt is logged at debug level."""

_TIMEOUTS = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.GATEWAY_TIMEOUT)

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
        is_timeout: Whether there was no answer in time.
    """

    def __init__(
        self,
        message: str,
        details: ErrorDetails,
        *,
        retry_after_seconds: float | None = None,
        may_have_taken_effect: bool = True,
        is_timeout: bool = False,
    ) -> None:
        super().__init__(message)
        self.message = message.rstrip(".")
        self.details = details
        self.retry_after_seconds = retry_after_seconds
        self.may_have_taken_effect = may_have_taken_effect
        self.is_timeout = is_timeout or details.get("status") in _TIMEOUTS

    @property
    def is_rate_limit(self) -> bool:
        """True if the API answered 429."""
        return self.details.get("status") == HTTPStatus.TOO_MANY_REQUESTS

    def unavailable(self, reason: str = "") -> UnavailableError:
        """Returns the error for the caller if no attempt is left."""
        error = UnavailableError(f"{self.message}{reason}", **self.details)
        status = self.details.get("status")
        # without a status, the request has at least reached the API
        has_failed = status >= 500 if status else self.may_have_taken_effect
        error.is_overload = has_failed or self.is_timeout
        return error

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
        max_pause_seconds: Longest pause that is waited for where the API asks for one.
        rate_limit_seconds: Wait before the last attempt after a 429 that asks for no pause.
    """

    max_attempts: int = 5
    backoff_seconds: float = 0.5
    max_pause_seconds: float = 600
    rate_limit_seconds: float = RATE_LIMIT_SECONDS

    def delay_seconds(self, error: RetryableError, attempts: int) -> float:
        """Returns the wait before the next attempt.

        Args:
            error: The failure of the last attempt.
            attempts: Attempts that count, the last one included.

        Raises:
            UnavailableError: The attempts are used up, or the API asks for too long a pause.
        """
        requested = error.retry_after_seconds
        if requested and requested > self.max_pause_seconds:
            unavailable = error.unavailable(f"; it asks to wait {requested:.0f} s")
            unavailable.advice = "Run again after that time"
            raise unavailable from error
        if attempts >= self.max_attempts:
            raise error.unavailable(_after(attempts)) from error
        if requested:
            return requested
        ceiling = self.backoff_seconds * 2 ** max(attempts - 1, 0)
        if error.is_rate_limit and requested is None:
            is_last = attempts == self.max_attempts - 1
            return self.rate_limit_seconds if is_last else min(ceiling, self.rate_limit_seconds)
        return random.uniform(0, min(ceiling, BACKOFF_CAP_SECONDS))  # noqa: S311 jitter


class Retrier:
    """Retry loop shared by all threads of a client.

    All requests share the rate that the API allows. Rate-limited attempts are therefore counted by
    rounds of all threads together: a round ends with a pause of all of them, and an answer to any
    of them ends the count. A request fails only where whole rounds had no answer at all.

    Args:
        policy: Limits of retries.
        traffic: Counters of the client; `answers` shows whether other requests succeed meanwhile.
        throttle: Pause of all threads; a new one where None.
    """

    def __init__(
        self, policy: RetryPolicy, traffic: Traffic, throttle: Throttle | None = None
    ) -> None:
        self._policy = policy
        self._traffic = traffic
        self._throttle = throttle or Throttle(spread_seconds=policy.backoff_seconds)
        self._warning_lock = threading.Lock()
        self._next_warning_at = 0.0
        self._rounds_lock = threading.Lock()
        self._in_flight = 0
        self._rounds = 0
        self._round_ended_at = -math.inf
        self._answers_before_rounds = 0

    def run(
        self, attempt: Callable[[], T], *, is_idempotent: bool, max_timeouts: int | None = None
    ) -> T:
        """Calls `attempt` until it returns, with backoff after each `RetryableError`.

        Args:
            attempt: Sends the request once.
            is_idempotent: Whether the request may safely take effect twice. Otherwise it is sent
                again only where the API cannot have carried it out.
            max_timeouts: Attempts without an answer in time after which it fails, where these are
                fewer than those of the policy.

        Raises:
            UncertainError: It may have taken effect, and is not idempotent.
            UnavailableError: As `RetryPolicy.delay_seconds` raises it.
            StoppedError: `stop` was called.
        """
        attempts = rate_limited = timeouts = 0
        while True:
            self._throttle.wait()
            sent_at = self._throttle.now()
            try:
                return self._counted(attempt)
            except RetryableError as error:
                if error.may_have_taken_effect and not is_idempotent:
                    raise error.uncertain() from error
                if error.is_rate_limit:
                    rate_limited += 1
                    self._pause(error, sent_at, rate_limited)
                    continue
                attempts += 1
                timeouts += error.is_timeout
                if max_timeouts is not None and timeouts >= max_timeouts:
                    raise error.unavailable(_after(attempts)) from error
                delay_seconds = self._policy.delay_seconds(error, attempts)
                self._log(error, attempts, delay_seconds)
                self._traffic.add(retries=1)
                if error.retry_after_seconds:
                    self._throttle.pause(delay_seconds)
                else:
                    self._throttle.sleep(delay_seconds)

    def pause(self) -> None:
        """Waits a moment before a request is repeated whose answer is doubtful.

        Raises:
            StoppedError: `stop` was called.
        """
        self._traffic.add(retries=1)
        self._throttle.sleep(self._policy.backoff_seconds)

    def _counted(self, attempt: Callable[[], T]) -> T:
        """Calls `attempt`, counted in `_in_flight`."""
        with self._rounds_lock:
            self._in_flight += 1
        try:
            return attempt()
        finally:
            with self._rounds_lock:
                self._in_flight -= 1

    def _pause(self, error: RetryableError, sent_at: float, rate_limited: int) -> None:
        """Pauses all threads after a rate limit; see the class for what counts as an attempt."""
        if rate_limited >= MAX_RATE_LIMITED:
            raise error.unavailable(_after(rate_limited)) from error
        with self._rounds_lock:
            if self._traffic.answers != self._answers_before_rounds:
                self._answers_before_rounds, self._rounds = self._traffic.answers, 0
            # a request sent before the last pause began belongs to the round that it ended
            if sent_at > self._round_ended_at or not self._rounds:
                self._rounds += 1
                self._round_ended_at = self._throttle.now()
            rounds = self._rounds
            # one more round where another request may be answered before this one is given up
            has_hope = rounds == self._policy.max_attempts > 1 and self._in_flight > 0
            delay_seconds = self._policy.delay_seconds(error, rounds - has_hope)
            since = None if error.retry_after_seconds else self._round_ended_at
            self._throttle.pause(delay_seconds, since)
        self._traffic.add(retries=1)
        self._log(error, rounds, delay_seconds)

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


def _after(attempts: int) -> str:
    return ", after 1 attempt" if attempts == 1 else f", after {attempts} attempts"
