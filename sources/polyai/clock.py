"""What time it is: a run is told, so that what depends on it can be tried."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], datetime]
"""Gives the time, with its zone."""


def utc_now() -> datetime:
    """The time in UTC."""
    return datetime.now(UTC)


def in_utc(moment: datetime | None) -> datetime | None:
    """A moment that a destination gives in its own zone; None for none."""
    return moment.astimezone(UTC) if moment else None
