"""Removal of API keys from what a server sends, however it writes them."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator

MASK = "***"

_RUN = 8
"""Consecutive characters of a key that are masked: shorter runs do not help to guess it."""

_SHORTEST = 4
"""Length of a key from which on it is looked for."""

_CHARACTER = re.compile(
    r"%(?:25)*([0-9a-f]{2})|\\(?:u00|x)([0-9a-f]{2})|&#x0*([0-9a-f]{2});|&#0*(\d{2,3});|(\S)",
    re.IGNORECASE,
)
"""A character as itself, or escaped as in URLs, JSON or HTML; white space between is skipped."""


class KeyMask:
    """Mask of API keys: whole, in pieces, in Base64 or hexadecimal, escaped, or in another case.

    Args:
        keys: The keys; empty ones count for nothing.
    """

    def __init__(self, *keys: str) -> None:
        self._runs: dict[int, set[str]] = {}
        for form, length in (one for key in set(keys) for one in _forms(key)):
            runs = self._runs.setdefault(length, set())
            runs |= {form[start : start + length] for start in range(len(form) - length + 1)}

    def masked(self, text: str) -> str:
        """Returns a text in which each run of characters of a key is `***`."""
        places = list(_CHARACTER.finditer(text))
        characters = "".join(map(_character, places)).casefold()
        result, end = [], 0
        for first, last in _merged(self._found(characters)):
            result += [text[end : places[first].start()], MASK]
            end = places[last].end()
        return "".join([*result, text[end:]])

    def _found(self, characters: str) -> Iterator[tuple[int, int]]:
        """Yields the first and last position of each run."""
        for length, runs in self._runs.items():
            for start in range(len(characters) - length + 1):
                if characters[start : start + length] in runs:
                    yield start, start + length - 1


def _forms(key: str) -> Iterator[tuple[str, int]]:
    """Yields the ways to write a key, and how many characters of each are masked."""
    length = min(_RUN, len(key))
    if length < _SHORTEST:
        return
    yield key.casefold(), length
    if length < _RUN:
        return
    content = key.encode()
    yield content.hex(), 2 * _RUN
    # in Base64 a text looks different after one or two other bytes; what they share is left out
    for before, shared in enumerate((0, 2, 3)):
        encoded = base64.b64encode(b"\0" * before + content).decode().rstrip("=")[shared:-1]
        for form in (encoded, encoded.translate(str.maketrans("+/", "-_"))):
            yield form.casefold(), _RUN * 4 // 3


def _character(place: re.Match[str]) -> str:
    *hexadecimal, decimal, plain = place.groups()
    code = next((int(digits, 16) for digits in hexadecimal if digits), None)
    if code is None:
        code = int(decimal) if decimal else None
    return plain if code is None else chr(code)


def _merged(runs: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Yields runs in order, with those joined that overlap or touch."""
    current: tuple[int, int] | None = None
    for first, last in sorted(runs):
        if current and first <= current[1] + 1:
            current = current[0], max(current[1], last)
            continue
        if current:
            yield current
        current = first, last
    if current:
        yield current
