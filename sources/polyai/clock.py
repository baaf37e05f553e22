"""What time it is: a run is told, so that what depends on it can be tried."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, overload

Clock = Callable[[], datetime]
"""Gives the time, with its zone."""


def utc_now() -> datetime:
    """The time in UTC."""
    return datetime.now(UTC)


@overload
def in_utc(moment: datetime) -> datetime: ...
@overload
def in_utc(moment: None) -> None: ...
@overload
def in_utc(moment: datetime | None) -> datetime | None: ...
def in_utc(moment: datetime | None) -> datetime | None:
    """Converts a time with any zone to UTC; None stays None.

    Database drivers return times in the zone of their session.
    """
    return None if moment is None else moment.astimezone(UTC)


_RFC_DATE = re.compile(r"(\w{3}, )?\d{1,2} \w{3} \d{4} \d\d:\d\d(:\d\d)? (GMT|UTC?|Z|[+-]\d{4})")
"""What Python's lenient parser of RFC dates may read: it skips words and zones unknown to it."""


_MILLISECONDS_FROM = 1e11  # as seconds that would be the year 5138


class UnfitError(ValueError):
    """The value cannot be held by the declared type."""


def timestamp(value: Any) -> datetime | None:
    """ISO 8601, RFC 1123 or a Unix time (seconds or milliseconds); without a zone it is UTC."""
    if value is None or value == "":
        return None
    try:
        if isinstance(value, int | float) and not isinstance(value, bool):
            seconds = value / 1000 if abs(value) > _MILLISECONDS_FROM else value
            return datetime.fromtimestamp(seconds, UTC)
        try:
            moment = datetime.fromisoformat(value.strip())
        except ValueError:
            if not _RFC_DATE.fullmatch(value.strip()):
                raise
            moment = parsedate_to_datetime(value)
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
        return in_utc(moment)
    except (AttributeError, TypeError, ValueError, OverflowError, OSError) as error:
        raise UnfitError from error
