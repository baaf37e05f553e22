"""Decoding of JSON bodies into values that Arrow and every destination accept."""

from __future__ import annotations

import json
import math
from typing import Any

import orjson


class NotAcceptedError(ValueError):
    """An answer is not what was requested; the message continues "the answer …"."""


def decode(body: bytes) -> Any:
    """Decodes JSON into values that Arrow and every destination accept.

    U+0000 is removed from texts and keys, and lone surrogates become U+FFFD. Integers beyond 64
    bits become floats; NaN and numbers beyond the range of a double become null.

    Raises:
        NotAcceptedError: The body is not JSON.
    """
    try:
        try:
            payload = orjson.loads(body)
        except orjson.JSONDecodeError:
            hooks: dict[str, Any] = {"parse_float": parse_float, "parse_int": parse_int}
            return clean(json.loads(body, parse_constant=lambda _: None, **hooks))
        return clean(payload) if b"\\u0000" in body else payload
    except (ValueError, RecursionError) as error:
        raise NotAcceptedError("is empty" if not body.strip() else "is not JSON") from error


def clean(value: Any) -> Any:
    """Returns `value` with clean text throughout; keys that become equal get a number."""
    if isinstance(value, str):
        return _clean_text(value)
    if isinstance(value, list):
        return [clean(item) for item in value]
    if not isinstance(value, dict):
        return value
    found = {key: clean(item) for key, item in value.items() if key == _clean_text(key)}
    for key, item in value.items():
        name = _clean_text(key)
        if name == key:
            continue
        number = 2
        while name in found:
            name = f"{_clean_text(key)}_{number}"
            number += 1
        found[name] = clean(item)
    return found


def _clean_text(text: str) -> str:
    """Removes U+0000 and lone surrogates; adjacent halves of a surrogate pair are joined."""
    text = text.replace("\0", "")
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def parse_float(digits: str) -> float | None:
    """Parses a JSON number as a float; None beyond the range of a double."""
    number = float(digits)
    return number if math.isfinite(number) else None


def parse_int(digits: str) -> float | None:
    """Parses a JSON integer as orjson does: as a float where it exceeds 64 bits."""
    if len(digits) <= len(str(-(2**63))) and -(2**63) <= (number := int(digits)) < 2**64:
        return number
    return parse_float(digits)
