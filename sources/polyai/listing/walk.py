"""Record of one walk up a list: what it saw, and whether its pages fit together."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import islice

from ..api.answers import Page
from .pages import Row, created_at, key_of, keys_of
from .seen_ids import SeenIds

_RECENT_PAGES = 10
"""Pages whose ids and positions are kept exactly: a step back rarely goes further."""

LARGEST_INVERSION = timedelta(days=1)
"""Inversion beyond which a time is absurd, and not a sign of a list out of order."""

_NEIGHBOURS = 3
"""Rows whose median time a row is compared with."""


class Walk:
    """One walk from older to newer pages.

    Positions count from the oldest row, which is 1, so that arrivals at the head do not move them.

    Args:
        number: Number of the walk over this list, from 0.
        seen: Ids of all walks.
        mark_at: Position whose digest is kept, to compare it with an earlier walk.

    Attributes:
        is_regular: All pages joined, in one order, without a repeated row.
        is_exact: All pages that overlap had the same rows at the same positions.
        deleted: Rows that were seen, and deleted before the walk ended.
        has_moved: Rows changed their positions by more than the fall of the count explains: they
            may have changed their order, or a row was inserted below them.
        new: Rows that no earlier walk saw.
        top: Highest position read.
        inversion: Largest plausible step back in time between neighbouring rows.
        absurd: Rows with a time that is more than a day off.
        dated: Rows with a valid time.
        marked: Digest of the positions up to `mark_at`; None where it was not reached.
    """

    def __init__(self, number: int, seen: SeenIds, mark_at: int | None = None) -> None:
        self.number = number
        self.is_regular = True
        self.is_exact = True
        self.deleted = 0
        self.has_moved = False
        self.new = 0
        self.top = 0
        self.inversion = timedelta(0)
        self.absurd = 0
        self.dated = 0
        self.marked: bytes | None = None
        self._seen = seen
        self._mark_at = mark_at
        self._digest = hashlib.blake2b(digest_size=16)
        self._recent: dict[str, int] = {}
        self._at: dict[int, str] = {}
        self._total = 0
        self._times: deque[datetime] = deque(maxlen=_NEIGHBOURS)

    @property
    def digest(self) -> bytes:
        """Digest of the ids in their order."""
        return self._digest.digest()

    @property
    def is_disordered(self) -> bool:
        """True if the times give no order that a range could be searched by."""
        return 2 * self.inversion > LARGEST_INVERSION or self.absurd > max(3, self.dated // 100)

    def joins(self, page: Page) -> bool:
        """Returns whether no unseen row can be below the page, if the list keeps its order.

        Its oldest row was seen recently, or all of its rows were seen. A newer row that was seen
        proves nothing: it may be listed twice.
        """
        rows = page.conversations
        return bool(rows) and (key_of(rows[-1]) in self._recent or self.saw_all(page))

    def saw_all(self, page: Page) -> bool:
        """Returns whether the walk saw all rows of the page."""
        return all(self._seen.has(key_of(row), self.number) for row in page.conversations)

    def shares(self, page: Page) -> bool:
        """Returns whether the walk saw any row of the page."""
        return any(self._seen.has(key_of(row), self.number) for row in page.conversations)

    def unseen_above(self, page: Page) -> set[str]:
        """Returns the keys of a page's rows above the newest one that the walk saw."""
        keys: set[str] = set()
        for key in keys_of(page):
            if self._seen.has(key, self.number):
                break
            keys.add(key)
        return keys

    def restart(self) -> None:
        """Continues from the oldest row, because all rows seen were deleted."""
        self.deleted = self._seen.count(self.number)
        self.is_exact = False
        self.top = 0
        self._recent.clear()
        self._times.clear()

    def take(self, page: Page, total: int) -> tuple[list[Row], bool]:
        """Records a page.

        Args:
            page: The page.
            total: Rows of the list when it was read.

        Returns:
            The rows that no walk saw before, oldest first, and whether this walk saw a new one.
        """
        rows = page.conversations[::-1]
        lowest = total - page.offset - len(rows) + 1
        new_rows: list[Row] = []
        unseen: list[Row] = []
        positions: dict[str, int] = {}
        last_known = 0
        joint: tuple[int, int] | None = None
        for position, row in enumerate(rows, lowest):
            key = key_of(row)
            if key in positions:
                self.is_regular = False  # listed twice in one page
                self._take_position(position, key, positions)
                continue
            is_new, is_new_here = self._seen.add(key, self.number)
            if is_new:
                new_rows.append(row)
            if is_new_here:
                unseen.append(row)
            else:
                known = self._recent.get(key)
                # unseen below seen, listed twice, or in another order than before
                if unseen or known is None or known <= last_known:
                    self.is_regular = False
                if known is not None:
                    last_known, joint = known, (known, position)
            self._take_position(position, key, positions)
        if joint is not None:
            is_newest = lowest + len(rows) - 1 == joint[1]
            self._move(*joint, is_newest=is_newest, fell_by=max(0, self._total - total))
        self._total = total
        self._remember(positions)
        self._compare_times(unseen)
        self.new += len(new_rows)
        return new_rows, bool(unseen)

    def _take_position(self, position: int, key: str, positions: dict[str, int]) -> None:
        if position <= self.top:
            self.is_exact = self.is_exact and self._at.get(position) == key
        else:
            self.is_exact = self.is_exact and position == self.top + 1
            self.top = position
            self._digest.update(key.encode("utf-8", "surrogatepass") + b"\0")
            if position == self._mark_at:
                self.marked = self.digest
            self._at[position] = key
        positions[key] = position

    def _move(self, known: int, position: int, *, is_newest: bool, fell_by: int) -> None:
        """Counts deletions: the newest row seen before has moved down, or is no longer the top."""
        moved = known - position
        highest = max(self._recent.values())
        deleted = max(0, moved) + (0 if is_newest else max(0, highest - known))
        self.deleted += deleted
        self.has_moved = self.has_moved or moved < 0 or deleted > fell_by
        if moved:
            self._recent = {key: place - moved for key, place in self._recent.items()}

    def _remember(self, positions: dict[str, int]) -> None:
        for key, position in positions.items():
            self._recent.pop(key, None)
            self._recent[key] = position
        limit = _RECENT_PAGES * max(len(positions), 10)
        for key in list(islice(self._recent, max(0, len(self._recent) - limit))):
            del self._recent[key]
        for position in list(islice(self._at, max(0, len(self._at) - limit))):
            del self._at[position]

    def _compare_times(self, rows: Sequence[Row]) -> None:
        """Measures how far times are out of order, against the median of the rows before."""
        for row in rows:
            at = created_at(row)
            if at is None:
                continue
            self.dated += 1
            if len(self._times) == _NEIGHBOURS:
                usual = sorted(self._times)[_NEIGHBOURS // 2]
                if usual - at > LARGEST_INVERSION:
                    self.absurd += 1
                else:
                    self.inversion = max(self.inversion, usual - at)
            self._times.append(at)
