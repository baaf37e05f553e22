"""Retry helper for steps that another process or machine can interfere with."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

ATTEMPTS = 5
"""Default limit of attempts at a step that conflicts with the commits of other runs."""


def backoff(attempt: int) -> float:
    """Random pause in seconds after an attempt, so that competing runs do not retry in step.

    Args:
        attempt: Number of the attempt that failed, from 1. The pause is at most as many seconds.
    """
    return random.uniform(0, attempt)  # noqa: S311 - jitter, not a secret


def retry(
    action: Callable[[], T],
    *,
    retry_if: Callable[[Exception], bool],
    attempts: int | None = ATTEMPTS,
    within_seconds: float = math.inf,
    pause: Callable[[int], float] = backoff,
) -> T:
    """Runs an action, and runs it again while it fails with an error that a retry may resolve.

    Args:
        action: The step. A failed attempt must leave nothing behind that a retry would duplicate.
        retry_if: Predicate on the error. It may also prepare the next attempt, such as by
            discarding what the failed one left; it is not called after the last attempt.
        attempts: Limit of attempts; None for no limit.
        within_seconds: No attempt begins later than this after the first one.
        pause: Seconds to wait after the attempt of the given number, from 1.

    Returns:
        The result of the first attempt that succeeds.

    Raises:
        Exception: The error of the last attempt.
    """
    deadline = time.monotonic() + within_seconds
    attempt = 0
    while True:
        attempt += 1
        try:
            return action()
        except Exception as error:
            if attempt == attempts or time.monotonic() > deadline or not retry_if(error):
                raise
        time.sleep(pause(attempt))
