"""JSON bodies as values that Arrow and every destination accept, numbers with all their digits."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Self

import orjson


class NotAcceptedError(ValueError):
    """An answer is not what was requested; the message continues "the answer …"."""


class UnusableError(NotAcceptedError):
    """An answer that cannot be used, while another attempt would bring the same one.

    Attributes:
        code: Reason, as an error code of this package; None for none.
    """

    def __init__(self, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.code = code


class OversizeError(UnusableError):
    """An answer is too large or too deeply nested.

    Attributes:
        is_too_large: It exceeds `max_body`.
    """

    def __init__(self, message: str, *, is_too_large: bool = False) -> None:
        super().__init__(message)
        self.is_too_large = is_too_large


class Number(float):
    """JSON number whose digits a double would not reproduce, such as 1.10 or 1e400.

    As a float it is the nearest double, so that it fits numeric columns where that is finite;
    `encode` writes its digits.

    Attributes:
        digits: JSON text of the number.
    """

    __slots__ = ("digits",)

    digits: str

    def __new__(cls, digits: str) -> Self:
        """Parses the JSON text of a number."""
        number = super().__new__(cls, digits)
        number.digits = digits
        return number


def join_limited(chunks: Iterable[bytes], most: int) -> bytes:
    """Joins a body in memory.

    Raises:
        OversizeError: It is longer than `most` bytes.
    """
    parts: list[bytes] = []
    size = 0
    for chunk in chunks:
        size += len(chunk)
        if size > most:
            raise OversizeError(f"is longer than {most:,} bytes", is_too_large=True)
        parts.append(chunk)
    return parts[0] if len(parts) == 1 else b"".join(parts)


_DIGITS = bytes(0x30 if 0x30 <= byte <= 0x39 else 0x20 for byte in range(256))
"""Translation of every digit to 0 and of every other byte to a space."""

_LONG_NUMBER = b"0" * 19
"""Translated digits of a number that may exceed 64 bits, or the precision of a double."""

_ROUNDED = (re.compile(rb"\.\d+0[,\]}\s]"), re.compile(rb"-0[,\]}\s]"))
"""Ends of numbers such as 1.10 and -0. Both begin with a literal, which `re` finds quickly."""


def decode(body: bytes, *, exact: bool = True) -> Any:
    """Decodes JSON into values that Arrow and every destination accept.

    U+0000 is removed from texts and keys, and lone surrogates become U+FFFD. Integers beyond 64
    bits stay integers, other numbers that a double cannot reproduce become `Number`, and NaN
    becomes null.

    Args:
        body: JSON document.
        exact: Keep the digits of all numbers. Otherwise integers beyond 64 bits become floats, and
            decimals are rounded, which is enough to validate an answer or to compare rows.

    Raises:
        OversizeError: The document is nested too deeply.
        NotAcceptedError: The body is not JSON.
    """
    try:
        try:
            payload = orjson.loads(body)
        except orjson.JSONDecodeError:
            return clean(_decode_slowly(body))
        if exact and (
            _LONG_NUMBER in body.translate(_DIGITS) or any(end.search(body) for end in _ROUNDED)
        ):
            return clean(_decode_slowly(body))
        return clean(payload) if b"\\u0000" in body else payload
    except RecursionError as error:
        raise OversizeError("is nested too deeply") from error
    except ValueError as error:
        raise NotAcceptedError("is empty" if not body.strip() else "is not JSON") from error


def _decode_slowly(body: bytes) -> Any:
    hooks: dict[str, Any] = {"parse_float": parse_float, "parse_int": parse_int}
    return json.loads(body, parse_constant=lambda _: None, **hooks)


def encode(value: Any, *, sort_keys: bool = False, digits: bool = True) -> bytes:
    """Encodes a JSON value as compact JSON; the inverse of `decode`.

    Args:
        value: Value as `decode` returns it.
        sort_keys: Sort the keys, so that equal objects become equal bytes.
        digits: Write the digits of a `Number`, rather than its nearest double where that is finite.
    """
    written = fragment if digits else _as_double
    option = orjson.OPT_SORT_KEYS if sort_keys else None
    try:
        return orjson.dumps(value, written, option)
    except TypeError:
        # integers beyond 64 bits, lone surrogates, or nested more deeply than orjson supports
        return _encode_slowly(value, written, sort_keys=sort_keys)


def fragment(item: object) -> orjson.Fragment:
    """Writes a `Number` with its digits; for `orjson.dumps`.

    Raises:
        TypeError: It is not a JSON value.
    """
    if not isinstance(item, Number):
        raise TypeError(f"{type(item).__name__} is not a JSON value")
    return orjson.Fragment(item.digits)


def _as_double(item: object) -> orjson.Fragment:
    if isinstance(item, Number) and math.isfinite(item):
        return orjson.Fragment(orjson.dumps(float(item)))
    return fragment(item)


class _Written(str):
    """JSON text among values that are still to be encoded."""

    __slots__ = ()


def _encode_slowly(value: Any, written: Any, *, sort_keys: bool) -> bytes:
    """Encodes a value of any depth, without recursion."""
    # too deep: its texts are cleaned one by one
    with suppress(RecursionError):
        value = clean(value)
    parts: list[str] = []
    waiting: list[Any] = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, _Written):
            parts.append(item)
        elif isinstance(item, dict):
            members = sorted(item.items()) if sort_keys else list(item.items())
            parts.append("{")
            waiting.append(_Written("}"))
            for number, (key, member) in reversed(list(enumerate(members))):
                name = orjson.dumps(_clean_text(key)).decode()
                waiting += (member, _Written(f"{',' if number else ''}{name}:"))
        elif isinstance(item, list):
            parts.append("[")
            waiting.append(_Written("]"))
            for number, member in reversed(list(enumerate(item))):
                waiting += (member, _Written("," if number else ""))
        elif isinstance(item, int) and not isinstance(item, bool):
            parts.append(str(item))
        else:
            text = _clean_text(item) if isinstance(item, str) else item
            parts.append(orjson.dumps(text, written).decode())
    return "".join(parts).encode()


def clean(value: Any) -> Any:
    """Returns `value` with clean text throughout; keys that become equal get a number."""
    if isinstance(value, str):
        return _clean_text(value)
    if isinstance(value, list):
        return [clean(item) for item in value]
    if not isinstance(value, dict):
        return value
    names = "".join(value)
    if names.isascii() and "\0" not in names:
        return {key: clean(item) for key, item in value.items()}
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
    if text.isascii():
        return text.replace("\0", "") if "\0" in text else text
    text = text.replace("\0", "")
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def parse_float(digits: str) -> float:
    """Parses a JSON number as a float that `encode` writes with the same digits."""
    number = float(digits)
    if math.isfinite(number) and orjson.dumps(number).decode() == digits:
        return number
    return Number(digits)


_MOST_DIGITS = 4_000
"""Digits of the longest integer that is parsed: Python refuses to convert longer ones, from 4,300
digits on by default, because that takes quadratic time."""


def parse_int(digits: str) -> int | Number:
    """Parses a JSON integer of any size; -0 and very long ones keep their digits as a `Number`."""
    return Number(digits) if digits == "-0" or len(digits) > _MOST_DIGITS else int(digits)
