"""Bodies to JSON values that Arrow and every destination can take."""

from __future__ import annotations

import json
import math
from typing import Any

import orjson


class NotAcceptedError(ValueError):
    """An answer is not what was asked for; the text goes on from 'the answer'."""


def decode(body: bytes) -> Any:
    """Reads JSON that Arrow and every destination can take.

    U+0000 is removed from texts and keys, and lone surrogates become U+FFFD. Whole numbers beyond
    64 bits become floats; NaN, and what is beyond a double, becomes null.

    Raises:
        NotAcceptedError: for anything that is not JSON.
    """
    try:
        try:
            payload = orjson.loads(body)
        except orjson.JSONDecodeError:
            hooks: dict[str, Any] = {"parse_float": _finite, "parse_int": within_64_bits}
            return cleaned(json.loads(body, parse_constant=lambda _: None, **hooks))
        return cleaned(payload) if b"\\u0000" in body else payload
    except (ValueError, RecursionError) as error:
        raise NotAcceptedError("is empty" if not body.strip() else "is not JSON") from error


def cleaned(value: Any) -> Any:
    """`value` with clean text throughout; keys that become alike are numbered, none is lost."""
    if isinstance(value, str):
        return _clean_text(value)
    if isinstance(value, list):
        return [cleaned(item) for item in value]
    if not isinstance(value, dict):
        return value
    found = {key: cleaned(item) for key, item in value.items() if key == _clean_text(key)}
    for key, item in value.items():
        name = _clean_text(key)
        if name == key:
            continue
        number = 2
        while name in found:
            name = f"{_clean_text(key)}_{number}"
            number += 1
        found[name] = cleaned(item)
    return found


def _clean_text(text: str) -> str:
    """Text without U+0000 and lone surrogates; halves of a pair that stand together become one."""
    text = text.replace("\0", "")
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _finite(digits: str) -> float | None:
    """A float, or None beyond the range of a double."""
    number = float(digits)
    return number if math.isfinite(number) else None


def within_64_bits(digits: str) -> float | None:
    """A whole number as orjson reads it, who makes it a float where 64 bits do not hold it."""
    if len(digits) <= len(str(-(2**63))) and -(2**63) <= (number := int(digits)) < 2**64:
        return number
    return _finite(digits)
