"""Injectable clock, conversion to UTC and parsing of timestamps."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import overload

Clock = Callable[[], datetime]
"""Returns the current time with a time zone; replaced in tests of time-dependent code."""

_RFC_1123 = re.compile(r"(\w{3}, )?\d{1,2} \w{3} \d{4} \d\d:\d\d(:\d\d)? (GMT|UTC?|Z|[+-]\d{4})")
"""Dates that Python's lenient parser may read: it ignores unknown words and time zones."""

_MILLISECONDS_FROM = 1e11
"""Smallest Unix time that is read as milliseconds; in seconds it would be the year 5138."""


def utc_now() -> datetime:
    """Returns the current time in UTC."""
    return datetime.now(UTC)


@overload
def in_utc(moment: datetime) -> datetime: ...
@overload
def in_utc(moment: None) -> None: ...
@overload
def in_utc(moment: datetime | None) -> datetime | None: ...
def in_utc(moment: datetime | None) -> datetime | None:
    """Converts a time with any zone to UTC; without one, it is in UTC. None stays None.

    Database drivers return times in the zone of their session, or in UTC without a zone.
    """
    if moment is not None and moment.tzinfo is None:
        return moment.replace(tzinfo=UTC)
    return None if moment is None else moment.astimezone(UTC)


def parse_timestamp(value: object) -> datetime | None:
    """Parses ISO 8601, RFC 1123 or a Unix time in seconds or milliseconds.

    Args:
        value: JSON value. A time without a time zone is UTC.

    Returns:
        The time in UTC; None for null or empty text.

    Raises:
        ValueError: The value is not such a time.
    """
    if value is None or value == "":
        return None
    try:
        if isinstance(value, int | float) and not isinstance(value, bool):
            seconds = value / 1000 if abs(value) > _MILLISECONDS_FROM else value
            return datetime.fromtimestamp(seconds, UTC)
        if not isinstance(value, str):
            raise ValueError("neither text nor a number")
        text = value.strip()
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            if not _RFC_1123.fullmatch(text):
                raise
            moment = parsedate_to_datetime(text)
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
        return in_utc(moment)
    except (TypeError, ValueError, OverflowError, OSError) as error:
        raise ValueError("not a timestamp") from error


def timestamp_or_none(value: object) -> datetime | None:
    """Parses a timestamp as `parse_timestamp` does; None for an invalid one."""
    try:
        return parse_timestamp(value)
    except ValueError:
        return None
