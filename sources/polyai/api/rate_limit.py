"""Pause that an answer asks for: `Retry-After`, `RateLimit-Reset` and the headers of Kong."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from datetime import UTC, datetime

from ..clock import parse_timestamp, timestamp_or_none

_RESETS = ("RateLimit-Reset", "X-RateLimit-Reset", "X-Rate-Limit-Reset")
"""Headers with the time at which a limit ends: seconds from now, or a Unix time."""

_COMBINED = re.compile(r"(?:\breset=|;\s*t=)(\d+)")
"""Seconds until the end of a limit in a `RateLimit` header of either draft of its standard."""

_WINDOWS = {"Second": 1, "Minute": 60, "Hour": 3_600, "Day": 86_400}
"""Lengths of Kong's windows, in seconds; they begin with each second, minute, hour and day."""

_UNIX_TIME_FROM = 10**9
"""Smallest number that is a Unix time: as a number of seconds it would be 30 years."""

_MILLISECONDS_FROM = 10**11


def requested_pause(
    headers: Mapping[str, str], *, is_rate_limit: bool, now: datetime | None = None
) -> float | None:
    """Returns the seconds to wait before the next attempt; None where the answer asks for none.

    Args:
        headers: Headers of the answer, with case-insensitive names.
        is_rate_limit: Whether it is a 429. Only then the headers of a rate limit count.
        now: Current time; for tests.
    """
    now = now or datetime.now(UTC)
    seconds = parse_retry_after(headers.get("Retry-After"), now)
    if seconds is not None or not is_rate_limit:
        return seconds
    for name in _RESETS:
        if (seconds := _until_reset(headers.get(name), now)) is not None:
            return seconds
    if match := _COMBINED.search(headers.get("RateLimit", "")):
        return _until_reset(match[1], now)
    return _until_end_of_window(headers, now)


def _until_reset(header: str | None, now: datetime) -> float | None:
    text = (header or "").strip()
    is_number = text.isascii() and text.replace(".", "", 1).isdigit() and len(text) < 20
    number = float(text) if is_number else 0.0
    if number < _UNIX_TIME_FROM:
        return parse_retry_after(text, now)
    if number >= _MILLISECONDS_FROM:
        number /= 1_000
    return max(0.0, number - now.timestamp())


def _until_end_of_window(headers: Mapping[str, str], now: datetime) -> float | None:
    """Returns the seconds until the longest exhausted window of Kong begins again."""
    # the windows follow the server's clock
    now = timestamp_or_none(headers.get("Date")) or now
    exhausted = [
        length
        for name, length in _WINDOWS.items()
        if headers.get(f"X-RateLimit-Remaining-{name}", "").strip() == "0"
    ]
    if not exhausted:
        return None
    length = max(exhausted)
    return length - now.timestamp() % length


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
