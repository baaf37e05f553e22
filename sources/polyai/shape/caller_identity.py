"""Identity of callers: normalized numbers, and the hashes by which erased callers are recognized.

The caller is `fromNumber`, or `toNumber` of an outbound call. Some are SIP addresses.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any, NamedTuple
from urllib.parse import unquote

from ..clock import timestamp_or_none
from ..tables.rules import BEGAN_AT, caller_column, direction_of

MOST_DIGITS = 15
"""Digits of the longest international number (E.164)."""

_BARE_DIGITS = 11
"""Digits from which a number without `+` is taken for an international one, if there is one."""

_SCHEME = re.compile(r"(?:tel|sips?|whatsapp|sms|callto):(?://)?", re.IGNORECASE)
_IN_BRACKETS = re.compile(r".*<(.+)>.*")
_NUMBER = re.compile(r"[\d\s()+./_\u2010-\u2015-]*\d[\d\s()./_\u2010-\u2015-]*(?:(?:ext|x)\D*\d+)?")


def normalize_number(number: str, region: str = "") -> str:
    """Reduces a phone number to its international digits, as in E.164 without the plus.

    `+44 (0)20 7946 0018`, `0044 20 7946 0018`, and with the region `GB` also `020 7946 0018`, are
    `442079460018`.

    Args:
        number: The number in any notation. An extension is left out.
        region: Country, in two letters, in whose notation numbers without country code are written;
            empty for none: they are reduced to their digits.
    """
    # imported here, because few commands have a caller to normalize
    import phonenumbers

    def international(text: str, default: str | None) -> str:
        try:
            parsed = phonenumbers.parse(text, default)
        except phonenumbers.NumberParseException:
            return ""
        is_one = phonenumbers.is_possible_number(parsed)
        return f"{parsed.country_code}{phonenumbers.national_significant_number(parsed)}" * is_one

    text = number.replace("(0)", "").strip()
    digits = "".join(filter(str.isdigit, text))
    plain = digits.removeprefix("00")
    if text.startswith("+") or digits.startswith("00"):
        extended = text if text.startswith("+") else f"+{text.lstrip('(0')}"
        return international(extended, None) or plain
    if digits.startswith("0") or len(digits) < _BARE_DIGITS:
        return (international(text, region) if region else "") or plain
    # a country's longest national numbers begin like another country's international ones
    return international(f"+{digits}", None) or (region and international(text, region)) or plain


def country_of(number: str) -> str:
    """Returns the country of an international number, in two letters; empty for other text."""
    import phonenumbers

    try:
        parsed = phonenumbers.parse(number)
    except phonenumbers.NumberParseException:
        return ""
    return phonenumbers.region_code_for_country_code(parsed.country_code or 0)


def normalize_caller(caller: str, region: str = "") -> str:
    """Normalizes a caller's phone number or address, so that spellings compare equal.

    Of a SIP address whose user is a number, it is the number: the host is that of a provider.

    Args:
        caller: Number or address, as a URI or not.
        region: As for `normalize_number`.
    """
    bracketed = _IN_BRACKETS.fullmatch(caller.strip())
    text = unquote(bracketed[1] if bracketed else caller.strip())
    text = _SCHEME.sub("", text, count=1).partition(";")[0]
    user, at, _ = text.partition("@")
    if not at or _NUMBER.fullmatch(user):
        return normalize_number(user, region)
    return text.lower()


def has_country(caller: str, region: str = "") -> bool:
    """Returns whether the country of a caller's number is known; true for an address."""
    form = normalize_caller(caller)
    is_international = bool(re.match(r"\D*(?:\+|00)", _SCHEME.sub("", caller.strip())))
    return bool(region) or is_international or "@" in form or len(form) >= _BARE_DIGITS


def spellings(caller: str, region: str = "") -> frozenset[str]:
    """Returns all forms in which the caller may have been hashed: also those of version 0.1."""
    text = caller.strip()
    earlier = (
        text.lower()
        if "@" in text
        else "".join(filter(str.isdigit, text.replace("(0)", ""))).removeprefix("00")
    )
    return frozenset(
        form for form in (normalize_caller(text, region), normalize_caller(text), earlier) if form
    )


def caller_hash(caller: str, salt: str, region: str = "") -> str:
    """Hashes a number or an address with HMAC-SHA256, independently of its spelling."""
    return keyed_hash(normalize_caller(caller, region), salt)


def keyed_hash(text: str, key: str) -> str:
    """Returns the HMAC-SHA256 of a text, in hexadecimal digits."""
    return hmac.new(key.encode(), text.encode(), hashlib.sha256).hexdigest()


_FIELDS = {
    "from_number": "fromNumber",
    "to_number": "toNumber",
    "started_at": "startedAt",
    "created_at": "createdAt",
}
"""Field of the Data API for each column that identifies a caller's conversation."""


class ForgottenCaller(NamedTuple):
    """A row of `forgotten_callers`."""

    caller_hash: str
    salt: str
    requested_at: datetime


class ForgottenCallers:
    """Recognizes conversations of erased callers.

    Args:
        callers: Erased callers of one agent.
        region: Country of numbers without country code; see `normalize_number`.
    """

    def __init__(self, callers: Iterable[ForgottenCaller] = (), region: str = "") -> None:
        self._region = region
        self._by_salt: dict[str, dict[str, datetime]] = {}
        for caller in callers:
            of_salt = self._by_salt.setdefault(caller.salt, {})
            of_salt[caller.caller_hash] = caller.requested_at

    def __bool__(self) -> bool:
        return bool(self._by_salt)

    @property
    def salt(self) -> str | None:
        """Salt of the hashes; None if there is no caller."""
        return next(iter(self._by_salt), None)

    def includes(self, caller: str) -> bool:
        """Returns whether this caller was erased before."""
        return next(self._requests(caller), None) is not None

    def _requests(self, caller: str) -> Iterator[datetime]:
        for form in spellings(caller, self._region):
            for salt, of_salt in self._by_salt.items():
                if requested_at := of_salt.get(keyed_hash(form, salt)):
                    yield requested_at

    def match(self, detail: dict[str, Any]) -> bool:
        """Returns whether a conversation is of an erased caller and began before the request.

        A conversation without a known start matches too.

        Args:
            detail: The conversation, with the field names of the Data API.
        """
        own_id = str(detail.get("conversationId") or "")
        direction = direction_of(detail.get("direction"), own_id)
        caller = detail.get(_FIELDS[caller_column(direction)])
        if not caller:
            return False
        times = {name: timestamp_or_none(detail.get(_FIELDS[name])) for name in BEGAN_AT.columns}
        began = BEGAN_AT.of(times)
        return any(
            began is None or began < requested_at for requested_at in self._requests(str(caller))
        )
