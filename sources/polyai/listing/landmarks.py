"""Where to look first for a moment in a listing: remembered, and never trusted.

A place is counted from the oldest row, which is 1: it does not move when conversations arrive at
the head, as an offset does. Deletions do move it, and the landmarks may be another agent's:
whoever looks where they point has to tell from what is there.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from operator import itemgetter

MOST_LANDMARKS = 1_000
"""Landmarks that are kept: two for each of the last pages, ever fewer for what was read earlier."""

_MOST_GUESSES = 2
"""Guesses by which a search has to halve before it looks in the middle instead."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass
class Landmarks:
    """Which place of one agent's listing had which moment.

    It can be pickled, and both fields are JSON: `Landmarks(**json.loads(json.dumps(asdict(it))))`.

    Attributes:
        count: Rows of the listing, as it was told last; None where nothing is known.
        points: Moments, in microseconds since 1970, and their places; both ascend.
    """

    count: int | None = None
    points: list[tuple[int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        points, self.points = self.points, []
        self._add(points)

    def learn(self, count: int, seen: Iterable[tuple[datetime, int]]) -> None:
        """Remembers the count that a page told, and moments with their offsets."""
        self.count = count
        self._add((_microseconds(moment), count - offset) for moment, offset in seen)

    def update(self, other: Landmarks) -> None:
        """Adds what another knows; where the two contradict each other, the other is right."""
        self.count = self.count if other.count is None else other.count
        self._add(other.points)

    def place_before(self, moment: datetime) -> int | None:
        """About the place of the newest row before the moment; None where there is no telling.

        It lies on the line through the nearest landmarks on both sides. Where one side has none,
        the line goes through the first and the last: further apart, they are the more typical.
        """
        at = _microseconds(moment)
        index = bisect_left(self.points, at, key=itemgetter(0))
        sides = self.points[index - 1 : index + 1] if 0 < index < len(self.points) else self.points
        if not sides or sides[0][0] == sides[-1][0]:
            return None
        (first, place), (last, last_place) = sides[0], sides[-1]
        return place + (last_place - place) * (at - first) // (last - first)

    def _add(self, points: Iterable[tuple[int, int]]) -> None:
        for at, place in points:
            low = high = bisect_left(self.points, (at, place))
            # what is newer lies at a higher place: all that contradicts the newest word is outdated
            while low > 0 and self.points[low - 1][1] >= place:
                low -= 1
            while high < len(self.points) and self.points[high][1] <= place:
                high += 1
            self.points[low:high] = [(at, place)]
        while len(self.points) > MOST_LANDMARKS:
            del self.points[1:-1:2]


class Bracket:
    """The places between which a search goes on.

    Args:
        count: Rows of the listing.

    Attributes:
        older: A place that is too old, or 0.
        newer: A place that is not old enough, or the newest.
    """

    def __init__(self, count: int) -> None:
        self.older, self.newer = 0, count
        self._width = count
        self._guesses = 0

    def next(self, guess: int | None) -> int:
        """Where to look next: at the guess, if guesses have paid so far, or in the middle.

        So a halving takes no more than two guesses and a look in the middle, whatever is guessed.
        """
        width = self.newer - self.older
        if width <= self._width // 2:
            self._width, self._guesses = width, 0
        if guess is None or self._guesses == _MOST_GUESSES:
            return (self.older + self.newer) // 2
        self._guesses += 1
        return min(max(guess, self.older + 1), self.newer - 1)


def _microseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1)
