"""When each conversation of an agent began, without a table of them."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import accumulate

MICROSECOND = timedelta(microseconds=1)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1) // MICROSECOND
RECENT = timedelta(minutes=30)
"""The newest calls crowd here, so that some are in progress and some still await a summary."""
RECENT_CALLS = 20
BURST = 8
"""Calls of one burst share their time of creation."""

_HOURLY_CALLS = (1, 1, 1, 1, 1, 2, 4, 8, 12, 14, 14, 13, 12, 11, 11, 12, 14, 16, 17, 14, 9, 6, 3, 2)
_CALLS_UNTIL_HOUR = (0, *accumulate(_HOURLY_CALLS))
_HOUR = DAY // 24


def to_microseconds(moment: datetime) -> int:
    """Microseconds since 1970 of an aware datetime."""
    return (moment - EPOCH) // MICROSECOND


def to_datetime(microseconds: int) -> datetime:
    """The aware UTC datetime of microseconds since 1970."""
    return EPOCH + timedelta(microseconds=microseconds)


@dataclass(frozen=True, slots=True)
class Stretch:
    """Conversations `first` … `first + count - 1`, spread over (start, start + length]."""

    first: int
    count: int
    start: int
    length: int


@dataclass(frozen=True, slots=True)
class Timeline:
    """The times of creation of all conversations up to now: ascending by index."""

    stretches: tuple[Stretch, ...] = ()

    @classmethod
    def spread(cls, conversations: int, now: datetime, span: timedelta) -> Timeline:
        """The conversations that are there at the start: most over the span, a few just now."""
        recent = min(RECENT_CALLS, max(1, conversations // 20)) if conversations else 0
        end, crowd = to_microseconds(now), min(RECENT, span) // MICROSECOND
        timeline = cls().extended(
            conversations - recent, end - span // MICROSECOND, span // MICROSECOND - crowd
        )
        return timeline.extended(recent, end - crowd, crowd)

    @property
    def count(self) -> int:
        """Conversations that exist."""
        return self.stretches[-1].first + self.stretches[-1].count if self.stretches else 0

    def extended(self, count: int, start: int, length: int) -> Timeline:
        """With further conversations; times in microseconds."""
        if count <= 0:
            return self
        if self.stretches:
            last = self.stretches[-1]
            joins = last.start + last.length == start
            if joins and last.length and last.length * count == length * last.count:
                # the same pace goes on: a drift of thousands stays one stretch
                grown = replace(last, count=last.count + count, length=last.length + length)
                return Timeline((*self.stretches[:-1], grown))
        return Timeline((*self.stretches, Stretch(self.count, count, start, length)))

    def created(self, index: int, jitter: int) -> int:
        """When conversation `index` was created, in microseconds, whole milliseconds.

        Args:
            index: of the conversation, below `count`.
            jitter: 0 to 255, moves it within its own slot.
        """
        stretches = self.stretches
        stretch = (
            stretches[0]
            if len(stretches) == 1
            else stretches[bisect_right(stretches, index, key=_first) - 1]
        )
        place = index - stretch.first
        if place // BURST % 12 == 5:
            place, jitter = place // BURST * BURST, 0
        slots = stretch.count * 256
        moment = stretch.start + stretch.length * (place * 256 + jitter + 1) // slots
        return _by_hour(moment, stretch) // 1000 * 1000


def _first(stretch: Stretch) -> int:
    return stretch.first


def _by_hour(moment: int, stretch: Stretch) -> int:
    """Moves a moment within its day so that calls come when people are awake."""
    day, share = divmod(moment, DAY)
    if day * DAY < stretch.start or (day + 1) * DAY > stretch.start + stretch.length:
        return moment
    calls = share * _CALLS_UNTIL_HOUR[-1]
    hour = bisect_right(_CALLS_UNTIL_HOUR, calls // DAY) - 1
    rest = calls - _CALLS_UNTIL_HOUR[hour] * DAY
    return day * DAY + hour * _HOUR + rest * _HOUR // (_HOURLY_CALLS[hour] * DAY)
