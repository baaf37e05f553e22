"""Checks of what a setting is given, as itself or as text; each says what it would take."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from ..errors import ConfigurationError

LONGEST_DURATION = timedelta(weeks=100 * 52)
"""Keeps now minus a duration within what a date can hold."""

_DURATION = re.compile("".join(rf"(?:(\d{{1,9}}){unit})?" for unit in "wdhms"), re.ASCII)


def parse_duration(text: str) -> timedelta:
    """Reads `90s`, `30m`, `24h`, `7d`, `2w`, or several, the largest first, such as `1d12h`.

    Raises:
        ConfigurationError: for anything else, or more than a hundred years.
    """
    match = _DURATION.fullmatch(text.strip().lower())
    if match and match[0]:
        weeks, days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
        try:
            duration = timedelta(days, seconds, 0, 0, minutes, hours, weeks)
        except OverflowError:
            duration = timedelta.max
        if duration <= LONGEST_DURATION:
            return duration
    raise ConfigurationError(
        f"{text!r} is no duration: write one like 90s, 30m, 24h, 7d, 2w or 1d12h, "
        "a hundred years at most"
    )


def text(value: Any) -> str:
    """Text without space around it; the error shows the kind of a value only, it may be a key."""
    if not isinstance(value, str):
        raise ConfigurationError(f"text is needed, not {type(value).__name__}")
    return value.strip()


def folder(value: Any) -> Path | None:
    """A folder's path; none where the text is empty."""
    if value is None or isinstance(value, Path):
        return value
    name = text(value)
    return Path(name).expanduser() if name else None


def choice(*allowed: str) -> Callable[[Any], str]:
    """A check for one of a few words."""

    def check(value: Any) -> str:
        if value not in allowed:
            raise ConfigurationError(f"{value!r} is none of {', '.join(allowed)}")
        return str(value)

    return check


def number(kind: type[int] | type[float], lowest: int, highest: int) -> Callable[[Any], Any]:
    """A check for a number within bounds, also as text."""

    def check(value: Any) -> int | float:
        try:
            found = kind(value)
            # int() cuts 1.5 off, and True is a number to python only
            is_right = found == (kind(value) if isinstance(value, str) else value)
        except (ValueError, TypeError, OverflowError):
            is_right = False
        if not is_right or isinstance(value, bool) or not lowest <= found <= highest:
            name = "a whole number" if kind is int else "a number"
            raise ConfigurationError(f"{value!r} is not {name} from {lowest} to {highest:,}")
        return found

    return check


def duration(value: Any) -> timedelta:
    """A duration that is one already, or is written as `parse_duration` reads it."""
    if isinstance(value, timedelta) and timedelta(0) <= value <= LONGEST_DURATION:
        return value
    return parse_duration(str(value))


def durations(value: Any) -> tuple[timedelta, ...]:
    """Durations as a list or separated by commas: ascending, each once, none of them zero."""
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, Sequence):
        raise ConfigurationError(f"{value!r} is no list of durations such as 1h,24h,7d")
    return tuple(sorted({duration(part) for part in parts} - {timedelta(0)}))


def boolean(value: Any) -> bool:
    """True or false, also as text."""
    known = {"true": True, "false": False, "1": True, "0": False, "yes": True, "no": False}
    found = known.get(str(value).strip().lower())
    if found is None:
        raise ConfigurationError(f"{value!r} is neither true nor false")
    return found


def several(*allowed: str) -> Callable[[Any], tuple[str, ...]]:
    """A check for some of a few words, as a list or separated by commas, each once."""

    def check(value: Any) -> tuple[str, ...]:
        names = value.split(",") if isinstance(value, str) else value
        if not isinstance(names, Sequence):
            raise ConfigurationError(f"{value!r} is no list of words such as {','.join(allowed)}")
        one = choice(*allowed)
        return tuple(dict.fromkeys(one(text(name)) for name in names))

    return check
