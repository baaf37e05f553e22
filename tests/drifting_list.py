"""Lists that change before each page is returned, as the Data API's listing does."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from polyai.api.answers import Page

Row = dict[str, Any]

START = datetime(2026, 9, 1, tzinfo=UTC)
UNREADABLE: list[dict[str, Any]] = [
    {},
    {"createdAt": None},
    {"createdAt": "soon"},
    # another time does not give the position in the list
    {"startedAt": "1999-01-01T00:00:00Z"},
]


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


class DriftingList:
    """A list, newest first, that changes before each page is returned.

    Args:
        seconds: Creation times of the conversations.
        changes: For each request: arrivals at the head, deletions, late insertions somewhere in
            the list, and the maximum rows per page.
        cap: Maximum rows per page after the last change.
        unreadable: Every n-th row has an invalid creation time; 0 for none.
    """

    def __init__(
        self,
        seconds: list[int],
        changes: list[tuple[int, int, int, int]] | None = None,
        cap: int = 10,
        unreadable: int = 0,
    ) -> None:
        self.unreadable = unreadable
        self.changes = list(changes or [])
        self.cap = cap
        self.seconds: dict[str, int] = {}
        self.readable: set[str] = set()
        self.rows = [self._row(f"old-{n}", s) for n, s in enumerate(sorted(seconds, reverse=True))]
        self.newest = max(seconds, default=0)
        self.requests: list[tuple[int, int]] = []
        self.stays_listed = set(self.ids)
        self.arrivals = 0

    @property
    def ids(self) -> list[str]:
        return [row["conversationId"] for row in self.rows]

    def _row(self, conversation_id: str, seconds: int) -> dict[str, Any]:
        self.seconds[conversation_id] = seconds
        number = len(self.seconds)
        if self.unreadable and number % self.unreadable == 0:
            when = UNREADABLE[number // self.unreadable % len(UNREADABLE)]
        else:
            when = {"createdAt": at(seconds).isoformat()}
            self.readable.add(conversation_id)
        return {"conversationId": conversation_id, **when}

    def _change(self, arrivals: int, deletions: int, late: int, offset: int) -> None:
        for _ in range(arrivals):
            self.arrivals += 1
            # bursts: every other arrival shares the newest timestamp
            self.newest += self.arrivals % 2
            self.rows.insert(0, self._row(f"new-{self.arrivals}", self.newest))
        for n in range(deletions):
            if self.rows:
                deleted = self.rows.pop((n * 7 + offset) % len(self.rows))
                self.stays_listed.discard(deleted["conversationId"])
        for n in range(late):
            if self.rows:
                place = (n * 5 + offset) % len(self.rows)
                beside = self.seconds[self.rows[place]["conversationId"]]
                self.rows.insert(place, self._row(f"late-{len(self.seconds)}", beside))

    def fetch(self, limit: int, offset: int) -> Page:
        self.requests.append((limit, offset))
        cap = self.cap
        if self.changes:
            arrivals, deletions, late, cap = self.changes.pop(0)
            self._change(arrivals, deletions, late, offset)
        rows = self.rows[offset : offset + min(limit, cap)]
        return Page(rows, len(self.rows), min(limit, cap), offset)


class MisbehavingList(DriftingList):
    """A drifting list whose order, ids and count cannot be trusted.

    Args:
        shuffles_ties: Rows with the same time are in another order in each answer.
        displaced: Seconds by which the time shown of every row is off, repeated.
        absurd: Row whose time is absurd, by index and time; None for none.
        duplicates: Rows listed a second time: index of the row, and of the copy.
        count: `right`, `capped` (never above 20), `late` (of three requests ago), `low` (7 less)
            or `high` (7 more).
    """

    def __init__(
        self,
        *arguments: Any,
        shuffles_ties: bool = False,
        displaced: list[int] | None = None,
        absurd: tuple[int, str] | None = None,
        duplicates: list[tuple[int, int]] | None = None,
        count: str = "right",
        **options: Any,
    ) -> None:
        super().__init__(*arguments, **options)
        self._shuffles_ties = shuffles_ties
        self._random = random.Random(len(self.rows))
        self._count = count
        self._counts: deque[int] = deque([len(self.rows)] * 3, maxlen=3)
        for number, row in enumerate(self.rows):
            if displaced and "createdAt" in row and row["conversationId"] in self.readable:
                name = row["conversationId"]
                self.seconds[name] += displaced[number % len(displaced)]
                row["createdAt"] = at(self.seconds[name]).isoformat()
        if absurd and self.rows:
            row = self.rows[absurd[0] % len(self.rows)]
            row["createdAt"] = absurd[1]
            self.readable.discard(row["conversationId"])
        for index, place in duplicates or []:
            if self.rows:
                copied = self.rows[index % len(self.rows)]
                self.rows.insert(place % len(self.rows), dict(copied))

    def fetch(self, limit: int, offset: int) -> Page:
        if self._shuffles_ties:
            keyed = [(row.get("createdAt") or "", self._random.random(), row) for row in self.rows]
            groups: list[list[tuple[str, float, Row]]] = []
            for item in keyed:
                if not groups or groups[-1][0][0] != item[0]:
                    groups.append([])
                groups[-1].append(item)
            self.rows = [
                row for group in groups for _, _, row in sorted(group, key=lambda item: item[1])
            ]
        page = super().fetch(limit, offset)
        self._counts.append(len(self.rows))
        count = {
            "right": page.count,
            "capped": min(page.count, 20),
            "late": self._counts[0],
            "low": max(0, page.count - 7),
            "high": page.count + 7,
        }[self._count]
        return replace(page, count=count)
