"""Creation times of an agent's conversations, computed without storing them."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import accumulate

MICROSECOND = timedelta(microseconds=1)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1) // MICROSECOND
RECENT = timedelta(minutes=30)
"""Period with more calls at the start, so that some are in progress or without a summary yet."""
RECENT_CALLS = 20
BURST = 8
"""Number of calls with the same creation time."""

_HOURLY_CALLS = (1, 1, 1, 1, 1, 2, 4, 8, 12, 14, 14, 13, 12, 11, 11, 12, 14, 16, 17, 14, 9, 6, 3, 2)
_CALLS_UNTIL_HOUR = (0, *accumulate(_HOURLY_CALLS))
_HOUR = DAY // 24


def to_microseconds(moment: datetime) -> int:
    """Converts an aware datetime to microseconds since 1970."""
    return (moment - EPOCH) // MICROSECOND


def to_datetime(microseconds: int) -> datetime:
    """Converts microseconds since 1970 to an aware datetime in UTC."""
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
    """Creation times of all conversations up to now, ascending by index."""

    stretches: tuple[Stretch, ...] = ()

    @classmethod
    def spread(cls, conversations: int, now: datetime, span: timedelta) -> Timeline:
        """Distributes the initial conversations over the span, with more of them at its end."""
        recent = min(RECENT_CALLS, max(1, conversations // 20)) if conversations else 0
        end, crowd = to_microseconds(now), min(RECENT, span) // MICROSECOND
        timeline = cls().extended(
            conversations - recent, end - span // MICROSECOND, span // MICROSECOND - crowd
        )
        return timeline.extended(recent, end - crowd, crowd)

    @property
    def count(self) -> int:
        """Number of conversations."""
        return self.stretches[-1].first + self.stretches[-1].count if self.stretches else 0

    def extended(self, count: int, start: int, length: int) -> Timeline:
        """Returns a timeline with further conversations; times in microseconds."""
        if count <= 0:
            return self
        if self.stretches:
            last = self.stretches[-1]
            joins = last.start + last.length == start
            if joins and last.length and last.length * count == length * last.count:
                # same rate: thousands of arrivals stay one stretch
                grown = replace(last, count=last.count + count, length=last.length + length)
                return Timeline((*self.stretches[:-1], grown))
        return Timeline((*self.stretches, Stretch(self.count, count, start, length)))

    def created(self, index: int, jitter: int) -> int:
        """Returns the creation time in microseconds since 1970, in whole milliseconds.

        Args:
            index: Index of the conversation, below `count`.
            jitter: 0 to 255, shifts the time within the conversation's slot.
        """
        stretches = self.stretches
        stretch = (
            stretches[0]
            if len(stretches) == 1
            else stretches[bisect_right(stretches, index, key=_first) - 1]
        )
        position = index - stretch.first
        if position // BURST % 12 == 5:
            position, jitter = position // BURST * BURST, 0
        slots = stretch.count * 256
        moment = stretch.start + stretch.length * (position * 256 + jitter + 1) // slots
        return _by_hour(moment, stretch) // 1000 * 1000


def _first(stretch: Stretch) -> int:
    return stretch.first


def _by_hour(moment: int, stretch: Stretch) -> int:
    """Shifts a time within its day to follow the distribution of calls by hour."""
    day, share = divmod(moment, DAY)
    if day * DAY < stretch.start or (day + 1) * DAY > stretch.start + stretch.length:
        return moment
    calls = share * _CALLS_UNTIL_HOUR[-1]
    hour = bisect_right(_CALLS_UNTIL_HOUR, calls // DAY) - 1
    rest = calls - _CALLS_UNTIL_HOUR[hour] * DAY
    return day * DAY + hour * _HOUR + rest * _HOUR // (_HOURLY_CALLS[hour] * DAY)
