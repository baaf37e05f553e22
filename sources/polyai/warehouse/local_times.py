"""Local times in dialects without time zones, by the offsets of a zone from UTC.

MySQL knows zones only where an administrator has loaded them, and returns NULL elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo

YEARS = range(2010, 2050)
"""Years in which the offsets are right; before and after, that of the nearest day applies."""


def offset_sql(moment: str, zone: str, *, is_local: bool) -> str:
    """Renders SQL for the offset of a time zone from UTC, in seconds.

    Args:
        moment: SQL expression of a time that compares with text, such as `2026-03-29 01:00:00`.
        zone: IANA name of the time zone.
        is_local: The moment is a local time in this zone, not in UTC.
    """
    first, changes = _offsets(zone)
    offsets = [first, *(after for _, after in changes)]
    starts = [
        (at + timedelta(seconds=after if is_local else 0)).isoformat(" ", "microseconds")
        for at, after in changes
    ]
    return _nested(moment, starts, offsets)


def _nested(moment: str, starts: Sequence[str], offsets: Sequence[int]) -> str:
    """Renders a search by halves: offset `n + 1` applies from start `n` on."""
    if not starts:
        return str(offsets[0])
    half = len(starts) // 2
    before = _nested(moment, starts[:half], offsets[: half + 1])
    after = _nested(moment, starts[half + 1 :], offsets[half + 1 :])
    return f"CASE WHEN {moment} < '{starts[half]}' THEN {before} ELSE {after} END"


@cache
def _offsets(zone: str) -> tuple[int, list[tuple[datetime, int]]]:
    """Returns the first offset of a zone, and the later ones with their times in UTC."""
    known = ZoneInfo(zone)

    def offset(moment: datetime) -> int:
        found = moment.replace(tzinfo=UTC).astimezone(known).utcoffset()
        return int(found.total_seconds()) if found else 0

    moment, end = datetime(YEARS.start, 1, 1), datetime(YEARS.stop, 1, 1)
    first = before = offset(moment)
    changes = []
    while moment < end:
        later = moment + timedelta(days=1)
        if offset(later) != before:
            low, high = moment, later
            while high - low > timedelta(seconds=1):
                middle = low + timedelta(seconds=int((high - low).total_seconds()) // 2)
                low, high = (middle, high) if offset(middle) == before else (low, middle)
            before = offset(high)
            changes.append((high, before))
        moment = later
    return first, changes
