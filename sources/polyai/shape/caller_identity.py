"""Identity of callers: normalized numbers and addresses, and their hash.

The caller is `fromNumber`, or `toNumber` of an outbound call. Some are SIP addresses.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from urllib.parse import unquote

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
