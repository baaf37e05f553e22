"""Phone numbers and e-mail addresses in texts: found in many spellings, and replaced.

A number has 7 to 15 digits. What looks like an id (UUID, hexadecimal digits), a time, a date or a
decimal is none. Country codes and lengths are those of the library `phonenumbers`, which decides
where a number ends among more digits.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import unquote

if TYPE_CHECKING:
    from phonenumbers import PhoneNumber

_GLUE = r"\s().\-_/\u00ad\u200b-\u200f\u2010-\u2015\u2060\u2212"
_ENCODED = "%(?:25)*(?:20|28|29|2[dDfFeE]|5[fF])"
_GAP = rf"(?:[{_GLUE}]|{_ENCODED}){{0,4}}"
_BREAK = rf"(?:[{_GLUE}]|{_ENCODED}){{1,4}}"
_NARROW_GAP = r"[ \t\u00a0\u2009\u202f().\u2010-\u2015-]{0,2}"
"""Characters between the digits of a number, as such or percent-encoded."""

_AT = "(?:[@\uff20]|%(?:25)*40)"
_HOST = r"(?:[\w-]+(?:\.[\w-]+)*|\[[\w.:]+\])"
_QUOTED = rf'"[^"\r\n]{{1,64}}"{_AT}{_HOST}'
# the look-behind keeps the search linear in long texts: a match is tried at word starts only
_EMAIL = rf"(?<![\w.%+'-])[\w.%+'-]+{_AT}{_HOST}"

_YEAR = r"(?:19|20)\d\d"
_DATE = rf"(?:{_YEAR}[-./]\d\d[-./]\d\d|\d\d?[-./]\d\d?[-./]{_YEAR})(?!\d|[-.]\d)"
_DECIMAL = r"(?:0|[1-9]\d{0,9})\.\d+(?![ ().-]{0,2}\d)"
_COMPACT_DATE = rf"{_YEAR}[-.]?(?:0[1-9]|1[0-2])[-.]?[0-3]\d"

_ID = (
    r"(?<![0-9A-Za-z])(?:"
    r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}"
    r"|(?:[A-Za-z]{1,10}[-_]?)?(?=(?:[0-9]*[A-Fa-f]){3})[0-9a-fA-F]{24,}"
    r")(?![0-9A-Za-z])"
)
_TIME = (
    r"(?<!\d)\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?"
    r"(?:Z|[+-](?:0\d|1[0-4]):?\d\d)?(?!\d)"
)

# of an area code, rather than around the number
_OPENING = r"(?:\((?=[\d -]{1,7}\)))?"
_INTERNATIONAL = rf"(?:[+\uff0b]|%(?:25)*2[bB]){_GAP}[1-9](?:{_GAP}\d){{6,14}}"
_ZEROS = rf"(?<!\d)(?<!\d[.,])00{_GAP}[1-9](?:{_GAP}\d){{7,14}}(?!\d)"
_TRUNK = (
    rf"(?<![\w.,])(?<!\d\d[:/-])(?!{_DATE}|{_DECIMAL})"
    rf"{_OPENING}0(?:{_GAP}\d){{8,13}}(?!\d|:\d|x\d\B)"
)
_AREA = rf"(?<![\d.,])(?:\(\d{{2,5}}\)|\d{{3}}){_BREAK}\d{{3}}{_BREAK}\d{{4}}(?!\d|:\d)"
_PLAIN = (
    r"(?<![\w./-])(?<!\d:)"  # not inside a word, path, decimal or time
    rf"(?!\(?(?:{_DATE}|{_DECIMAL}))"
    rf"{_OPENING}\d(?:{_NARROW_GAP}\d){{6,14}}"
    r"(?!(?!x\d)\w|[:-]\w)"  # an extension may follow
)
_GLUED = (
    r"(?<!\d)(?<!\d[-.,:])"
    rf"(?!{_COMPACT_DATE}|{_DATE}|{_DECIMAL})"
    rf"\d(?:{_NARROW_GAP}\d){{9,14}}(?!\d|:\d)"
)
"""Number inside a word or path: it has 10 digits or more, and does not begin as a date."""

_PERSONAL = re.compile(
    f"(?P<other>{_ID}|{_TIME})|(?P<address>{_QUOTED}|{_EMAIL})"
    f"|(?P<number>{_INTERNATIONAL}|{_ZEROS}|{_TRUNK}|{_AREA}|{_PLAIN}|{_GLUED})"
)

_SUSPECT = re.compile(
    rf"[@\uff20]|%(?:25)*40|\d(?:(?:[{_GLUE}]|%(?:25)*[0-9A-Fa-f]{{2}}){{0,4}}\d){{6}}"
)
"""Text that may contain a number or an address; cheaper than `_PERSONAL`."""

_ESCAPE = re.compile("%(?:25)*([0-9A-Fa-f]{2})")
_GROUP_END = re.compile(r"\d(?!\d)")


_IS_TIME = re.compile(_TIME)


def is_time(text: str) -> bool:
    """Returns whether a text is a time in ISO 8601."""
    return _IS_TIME.fullmatch(text) is not None


def is_suspect(text: str) -> bool:
    """Returns whether a text may contain a number or an address."""
    return _SUSPECT.search(text) is not None


def replace_personal_data(text: str, region: str, replacement: Callable[[str], str]) -> str:
    """Replaces numbers and addresses in a text.

    Args:
        text: The text.
        region: Country, in two letters, of numbers without country code; empty for none.
        replacement: Replacement for a number, given as `+` and digits, or as digits without a
            country code, or for an address.
    """
    if not is_suspect(text):
        return text
    parts: list[str] = []
    place = 0
    while match := _PERSONAL.search(text, place):
        start, end = match.span()
        parts.append(text[place:start])
        if match["number"]:
            number, length = _number(match[0], region)
            end = start + length
            parts.append(replacement(number))
        else:
            parts.append(match[0] if match["other"] else replacement(_unescaped(match[0])))
        place = end
    return "".join([*parts, text[place:]])


def _unescaped(text: str) -> str:
    while (plain := unquote(text)) != text:
        text = plain
    return text.replace("\uff20", "@")


def _number(found: str, region: str) -> tuple[str, int]:
    """Returns the number at the start of a match, with its length: more digits may follow it."""
    import phonenumbers

    # escapes contain digits
    text = _ESCAPE.sub(_same_length, found)
    ends = [match.end() for match in _GROUP_END.finditer(text)]
    numbers = [(_plain(text[:end]), end) for end in ends]
    for is_right in (phonenumbers.is_valid_number, _has_possible_length):
        for number, end in reversed(numbers):
            try:
                parsed = phonenumbers.parse(number, region or None)
            except phonenumbers.NumberParseException:
                continue
            if is_right(parsed):
                return number, end
    return _plain(text), len(text)


def _has_possible_length(number: PhoneNumber) -> bool:
    import phonenumbers

    reason = phonenumbers.is_possible_number_with_reason(number)
    return bool(reason == phonenumbers.ValidationResult.IS_POSSIBLE)


def _same_length(escape: re.Match[str]) -> str:
    return chr(int(escape[1], 16)).rjust(len(escape[0]))


def _plain(text: str) -> str:
    """Returns the digits of a number, with a plus where its country code is marked."""
    digits = "".join(filter(str.isdecimal, text.replace("(0)", "")))
    if text.lstrip()[:1] in ("+", "\uff0b"):
        return f"+{digits}"
    return f"+{digits[2:]}" if digits.startswith("00") else digits
