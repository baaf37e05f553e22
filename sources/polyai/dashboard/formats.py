"""Display formats of numbers, times and names; an unknown value is a dash, never 0."""

from __future__ import annotations

from datetime import date, datetime

UNKNOWN = "–"

_MINUS = "−"
_KB = 1000


def count(value: float | None) -> str:
    """Formats a count: 1,234."""
    return UNKNOWN if value is None else f"{value:,.0f}"


def percent(value: float | None, digits: int = 1) -> str:
    """Formats a ratio: 61.2 %."""
    return UNKNOWN if value is None else f"{value * 100:.{digits}f} %"


def decimal(value: float | None, digits: int = 2) -> str:
    """Formats a decimal: 4.25."""
    return UNKNOWN if value is None else f"{value:,.{digits}f}"


def duration(seconds: float | None) -> str:
    """Formats a duration: 45 s, 3 m 12 s, 1 h 05 m."""
    if seconds is None:
        return UNKNOWN
    whole = round(seconds)
    minutes, rest = divmod(whole, 60)
    hours, minutes_left = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes_left:02} m"
    return f"{minutes} m {rest:02} s" if minutes else f"{rest} s"


def seconds(value: float | None) -> str:
    """Formats seconds: 1.24 s."""
    return UNKNOWN if value is None else f"{value:.2f} s"


def milliseconds(value: float | None) -> str:
    """Formats milliseconds: 840 ms, 1.24 s."""
    if value is None:
        return UNKNOWN
    return f"{value:,.0f} ms" if value < _KB else seconds(value / _KB)


def day(value: date | None, *, year: bool = True) -> str:
    """Formats a date: 3 Nov 2026."""
    if value is None:
        return UNKNOWN
    return f"{value.day} {value:%b %Y}" if year else f"{value.day} {value:%b}"


def weekday(value: date) -> str:
    """Formats a date with its weekday: Tue 3 Nov 2026."""
    return f"{value:%a} {day(value)}"


def moment(value: datetime | None) -> str:
    """Formats a time: 3 Nov 2026, 14:05."""
    return UNKNOWN if value is None else f"{day(value)}, {value:%H:%M}"


def days(since: date, until: date) -> str:
    """Formats a range of days: 3 – 9 Nov 2026, 28 Dec 2025 – 3 Jan 2026."""
    if since == until:
        return day(since)
    if (since.year, since.month) == (until.year, until.month):
        return f"{since.day} – {day(until)}"
    return f"{day(since, year=since.year != until.year)} – {day(until)}"


def age(minutes: float | None) -> str:
    """Formats an age: 5 min, 3 h, 2 days."""
    if minutes is None:
        return UNKNOWN
    if minutes < 60:
        return f"{minutes:.0f} min"
    hours = minutes / 60
    return f"{hours:.0f} h" if hours < 48 else f"{hours / 24:.0f} days"


def signed(text: str, change: float) -> str:
    """Adds the sign of a change to its formatted absolute value."""
    return f"{'+' if change > 0 else _MINUS if change < 0 else ''}{text}"


def size(value: float | None) -> str:
    """Formats a number of bytes: 1.2 MB."""
    if value is None:
        return UNKNOWN
    amount, unit = value, "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if amount < _KB or unit == "TB":
            break
        amount /= _KB
    return f"{amount:,.0f} {unit}" if unit == "B" else f"{amount:,.1f} {unit}"


def named(name: str | None, identifier: str) -> str:
    """Formats a name with its id: Bookings (PROJECT-1); the id alone if the name is unknown."""
    return f"{name} ({identifier})" if name else identifier


def phrase(name: str | None) -> str:
    """Formats an identifier as words: `wrong_info` is Wrong info."""
    if not name:
        return UNKNOWN
    words = name.replace("_", " ").strip()
    return words[:1].upper() + words[1:]
