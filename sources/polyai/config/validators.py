"""Validators for settings, given as values or as text. Errors state the accepted format."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from ..errors import ConfigurationError

LONGEST_DURATION = timedelta(days=100 * 365)
"""Upper limit of durations, so that now minus a duration is a valid date."""

_UNITS = {
    "y": timedelta(days=365),
    "mo": timedelta(days=30),
    "w": timedelta(weeks=1),
    "d": timedelta(days=1),
    "h": timedelta(hours=1),
    "m": timedelta(minutes=1),
    "s": timedelta(seconds=1),
}
"""Units of durations. A month is 30 days, a year 365 days."""

_DURATION = re.compile("".join(rf"(?:(\d{{1,9}}){unit})?" for unit in _UNITS), re.ASCII)

_AMBIGUOUS_M = re.compile(r"\dM(?![Oo])", re.ASCII)

_QUOTES = {'"': '"', "'": "'", "“": "”", "‘": "’", "„": "“", "«": "»", "`": "`"}


def parse_duration(text: str) -> timedelta:
    """Parses `90s`, `30m`, `24h`, `7d`, `2w`, `6mo`, `1y`, or several, largest first: `1d12h`.

    Capitals count as small letters, except for `M`, which could be minutes or months.

    Raises:
        ConfigurationError: Any other text, or more than a hundred years.
    """
    if _AMBIGUOUS_M.search(text):
        raise ConfigurationError(
            f"{text!r} is ambiguous: a capital M is not a unit. Write m for minutes, such as 12m, "
            "or mo for months of 30 days, such as 12mo"
        )
    match = _DURATION.fullmatch(text.strip().lower())
    if match and match[0]:
        try:
            duration = sum(
                (int(count or 0) * unit for count, unit in zip(match.groups(), _UNITS.values())),
                timedelta(0),
            )
        except OverflowError:
            duration = timedelta.max
        if duration <= LONGEST_DURATION:
            return duration
    raise ConfigurationError(
        f"{text!r} is not a duration such as 90s, 30m, 24h, 7d, 2w, 6mo or 1d12h, "
        "of at most a hundred years"
    )


def text(value: object) -> str:
    """Strips text. The error shows only the type of the value, which may be a key."""
    if not isinstance(value, str):
        raise ConfigurationError(f"expected text, not {type(value).__name__}")
    return value.strip()


def unquoted(value: str) -> str:
    """Removes spaces and pairs of quotes around text, left by copying."""
    value = value.strip()
    while len(value) > 1 and _QUOTES.get(value[0]) == value[-1]:
        value = value[1:-1].strip()
    return value


def key_text(value: object) -> str:
    """Removes what is copied along with a key: spaces, quotes around it, `Bearer`."""
    key = unquoted(text(value))
    scheme, _, rest = key.partition(" ")
    return unquoted(rest) if scheme.lower() == "bearer" else key


def publish_target(value: object) -> Path | str | None:
    """Returns the target of publishing; None for empty text.

    Returns:
        The path of a folder for a copy of a DuckDB file. For Parquet files, which a URL and a
        folder that ends with `/` stand for, a text.
    """
    if value is None or isinstance(value, Path):
        return value
    name = text(value)
    if "://" in name:
        return name
    is_parquet = name.endswith("/")
    path = Path(name).expanduser()
    return None if not name else f"{path}/" if is_parquet else path


def choice(*allowed: str) -> Callable[[object], str]:
    """Returns a validator for one of a few words."""

    def validate(value: object) -> str:
        if value not in allowed:
            raise ConfigurationError(f"{value!r} is not one of {', '.join(allowed)}")
        return str(value)

    return validate


def phone_region(value: object) -> str:
    """Validates the two letters of a country that has phone numbers; empty text remains."""
    code = text(value).upper()
    if not code:
        return ""
    # imported here, because few commands need it
    from phonenumbers import SUPPORTED_REGIONS

    if code not in SUPPORTED_REGIONS:
        raise ConfigurationError(f"{value!r} is not a country of two letters, such as GB or US")
    return code


def number(
    kind: type[int] | type[float], lowest: int, highest: int
) -> Callable[[object], int | float]:
    """Returns a validator for a number within bounds, also given as text."""

    def validate(value: Any) -> int | float:
        try:
            found = kind(value)
            # int() truncates 1.5 and accepts True
            is_valid = found == (kind(value) if isinstance(value, str) else value)
        except (ValueError, TypeError, OverflowError):
            is_valid = False
        if not is_valid or isinstance(value, bool) or not lowest <= found <= highest:
            name = "an integer" if kind is int else "a number"
            raise ConfigurationError(f"{value!r} is not {name} from {lowest} to {highest:,}")
        return found

    return validate


def duration(value: object) -> timedelta:
    """Validates a duration, given as a `timedelta` or as text for `parse_duration`."""
    if isinstance(value, timedelta) and timedelta(0) <= value <= LONGEST_DURATION:
        return value
    return parse_duration(str(value))


def duration_from(shortest: timedelta) -> Callable[[object], timedelta]:
    """Returns a validator for a duration of at least `shortest`."""

    def validate(value: object) -> timedelta:
        found = duration(value)
        if found < shortest:
            raise ConfigurationError(f"{value!r} is shorter than {shortest.total_seconds():g}s")
        return found

    return validate


_BYTE_SIZE = re.compile(r"(\d{1,12}) ?(KB|MB|GB)?", re.ASCII)
_BYTES_PER_UNIT = {"": 1, "KB": 2**10, "MB": 2**20, "GB": 2**30}
_BYTE_SIZES = range(2**16, 2**31)


def byte_size(value: object) -> int:
    """Validates a number of bytes, also as text such as `64MB`; units are powers of 1,024."""
    match = _BYTE_SIZE.fullmatch(str(value).strip().upper())
    size = int(match[1]) * _BYTES_PER_UNIT[match[2] or ""] if match else -1
    if size not in _BYTE_SIZES:
        raise ConfigurationError(
            f"{value!r} is not a size such as 64MB, from 64KB to less than 2GB"
        )
    return size


def durations(value: object) -> tuple[timedelta, ...]:
    """Validates durations, as a list or separated by commas: sorted, distinct, without zero."""
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, Sequence):
        raise ConfigurationError(f"{value!r} is not a list of durations such as 1h,24h,7d")
    return tuple(sorted({duration(part) for part in parts} - {timedelta(0)}))


def boolean(value: object) -> bool:
    """Validates a boolean, also given as text."""
    known = {"true": True, "false": False, "1": True, "0": False, "yes": True, "no": False}
    found = known.get(str(value).strip().lower())
    if found is None:
        raise ConfigurationError(f"{value!r} is neither true nor false")
    return found


def several(*allowed: str) -> Callable[[object], tuple[str, ...]]:
    """Returns a validator for several of a few words, as a list or separated by commas."""

    def validate(value: object) -> tuple[str, ...]:
        names = value.split(",") if isinstance(value, str) else value
        if not isinstance(names, Sequence):
            raise ConfigurationError(f"{value!r} is not a list such as {','.join(allowed)}")
        validate_one = choice(*allowed)
        return tuple(dict.fromkeys(validate_one(text(name)) for name in names))

    return validate


def names_of_columns(value: object) -> tuple[str, ...]:
    """Validates names of columns, as `table.column`, as a list or separated by commas."""
    names = value.split(",") if isinstance(value, str) else value
    if not isinstance(names, Sequence):
        raise ConfigurationError(f"{value!r} is not a list such as turns.metadata,turns.entities")
    return tuple(dict.fromkeys(name for part in names if (name := text(part))))


def names_by_id(*tables: str) -> Callable[[object], dict[str, dict[str, str]]]:
    """Returns a validator for names by id, by name of the table; also given as JSON text."""

    def validate(value: object) -> dict[str, dict[str, str]]:
        try:
            given = json.loads(value) if isinstance(value, str) else value
        except ValueError:
            given = None
        expected = f"expected names by id, for one or several of {', '.join(tables)}"
        if not isinstance(given, Mapping):
            raise ConfigurationError(
                f'{expected}, such as {{"{tables[0]}": {{"an id": "its name"}}}}'
            )
        if unknown := [name for name in given if name not in tables]:
            raise ConfigurationError(f"{expected}, not of {', '.join(map(str, unknown))}")
        found = {table: dict(_names_of(table, names)) for table, names in given.items()}
        return {table: names for table, names in found.items() if names}

    return validate


def _names_of(table: str, names: object) -> Iterator[tuple[str, str]]:
    if not isinstance(names, Mapping):
        raise ConfigurationError(f"{table} is not a table of names by id")
    for id_, name in names.items():
        # as in everything that is loaded
        cleaned = name.replace("\0", "").strip() if isinstance(name, str) else ""
        if not cleaned or not _is_encodable(cleaned) or not _is_encodable(str(id_)):
            raise ConfigurationError(f"the name of {id_!r} in {table} is not a text")
        yield id_, cleaned


def _is_encodable(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
