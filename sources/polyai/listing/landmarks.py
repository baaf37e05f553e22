"""Landmarks: cached positions of times in a listing, used as hints for searches.

A position counts from the oldest row, which is 1. Unlike an offset, it does not move when
conversations arrive at the head, but deletions move it. Landmarks can therefore be outdated or even
another agent's: a search has to verify its result with the rows of the page.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from operator import itemgetter

MAX_LANDMARKS = 1_000
"""Limit of landmarks: two per page of the last pages, and fewer for earlier ones."""

_MAX_GUESSES = 2
"""Guesses within which a search has to halve its range, before it bisects instead."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass
class Landmarks:
    """Known positions of times in one agent's listing.

    Can be pickled, and all fields are JSON: `Landmarks(**json.loads(json.dumps(asdict(it))))`.

    Attributes:
        count: Last known number of rows; None before the first page.
        points: Times, in microseconds since 1970, and their positions; both ascending.
        inversion_us: Largest disorder of the times seen so far, in microseconds.
        replaced_by: API that takes the place of one whose listing was refused, whether details are
            read, and the API whose listing was gone, if it was; None for none.
    """

    count: int | None = None
    points: list[tuple[int, int]] = field(default_factory=list)
    inversion_us: int = 0
    replaced_by: tuple[str, bool, str | None] | None = None

    def __post_init__(self) -> None:
        points, self.points = self.points, []
        self._add(points)

    @property
    def inversion(self) -> timedelta:
        """Largest disorder of the times seen so far."""
        return timedelta(microseconds=self.inversion_us)

    @inversion.setter
    def inversion(self, inversion: timedelta) -> None:
        self.inversion_us = inversion // timedelta(microseconds=1)

    def learn(self, count: int, seen: Iterable[tuple[datetime, int]]) -> None:
        """Adds the count of a page, and times with their offsets."""
        self.count = count
        self._add((_microseconds(moment), count - offset) for moment, offset in seen)

    def update(self, other: Landmarks) -> None:
        """Merges other landmarks; where both contradict each other, the other ones win."""
        self.count = self.count if other.count is None else other.count
        self.inversion_us = max(self.inversion_us, other.inversion_us)
        self.replaced_by = other.replaced_by or self.replaced_by
        self._add(other.points)

    def position_before(self, moment: datetime) -> int | None:
        """Estimates the position of the newest row before a time; None where nothing is known.

        Interpolates between the nearest landmarks on both sides. Where one side has none, it
        extrapolates from the first and the last, whose distance gives the more typical rate.
        """
        at = _microseconds(moment)
        index = bisect_left(self.points, at, key=itemgetter(0))
        sides = self.points[index - 1 : index + 1] if 0 < index < len(self.points) else self.points
        if not sides or sides[0][0] == sides[-1][0]:
            return None
        (first, position), (last, last_position) = sides[0], sides[-1]
        return position + (last_position - position) * (at - first) // (last - first)

    def _add(self, points: Iterable[tuple[int, int]]) -> None:
        for at, position in points:
            low = high = bisect_left(self.points, (at, position))
            # newer rows have higher positions: points that contradict the latest one are outdated
            while low > 0 and self.points[low - 1][1] >= position:
                low -= 1
            while high < len(self.points) and self.points[high][1] <= position:
                high += 1
            self.points[low:high] = [(at, position)]
        while len(self.points) > MAX_LANDMARKS:
            del self.points[1:-1:2]


class Bracket:
    """Range of positions in which a search continues.

    Args:
        count: Rows of the listing.

    Attributes:
        older: Highest position known to be too old, or 0.
        newer: Lowest position known not to be old enough, or the newest.
    """

    def __init__(self, count: int) -> None:
        self.older, self.newer = 0, count
        self._width = count
        self._guesses = 0

    def next(self, guess: int | None) -> int:
        """Returns the next position to look at: the guess, or the middle after useless guesses.

        Halving the range therefore takes at most two guesses and one bisection.
        """
        width = self.newer - self.older
        if width <= self._width // 2:
            self._width, self._guesses = width, 0
        if guess is None or self._guesses == _MAX_GUESSES:
            return (self.older + self.newer) // 2
        self._guesses += 1
        return min(max(guess, self.older + 1), self.newer - 1)


def _microseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1)
