"""Redaction of payloads before shaping: phone numbers, e-mail addresses, transcripts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Self

from ..config.settings import Pii, Settings, Transcripts
from ..tables.rules import DROPPED, REDACTED
from .caller_identity import caller_hash

Json = dict[str, Any]

# the look-behind keeps the search linear in long texts: a match is tried at word starts only
_EMAIL = r"(?<![\w.%+'-])[\w.%+'-]+@[\w-]+(?:\.[\w-]+)+"
_YEAR = r"(?:19|20)\d\d"
_DATE = rf"(?:{_YEAR}([-.])\d\d\1\d\d|\d\d?([-.])\d\d?\2{_YEAR})(?!\d|[-.]\d)"
_DECIMAL = r"(?:0|[1-9]\d*)\.\d+(?![ ().-]{0,2}\d)"
_PHONE = (
    r"(?<![\w./-])(?<!\d:)"  # not inside a word, path, decimal or time
    rf"(?!\(?(?:{_DATE}|{_DECIMAL}))"
    r"(?:\+|00)?\(?\d(?:[ \t\u00a0\u2009\u202f().\u2010-\u2015-]{0,2}\d){6,14}"
    r"(?!(?!x\d)\w|[:-]\w)"  # an extension may follow
)
_PERSONAL = re.compile(f"{_EMAIL}|{_PHONE}")

_MACHINE_FIELD = re.compile(
    r"(?!.*(?i:caller|phone|mail))"
    r"(id|.*(_id|Id|_datetime|At|_at|_url|Url|timestamp|start_time|[dD]uration))",
    re.ASCII,
)
"""Fields of ids, times and paths, whose digits are not phone numbers."""

_CUSTOM_OBJECTS = frozenset({"arguments", "entities", "logs", "state", "state_changes"})
"""Objects with customer-defined keys, in which even an `id` can be a phone number."""

_SMALLEST_NUMBER = 10**9
"""Smallest integer that can be a phone number without its plus."""

_TRANSCRIPT_FIELDS = frozenset(
    {
        "user_input", "agent_response", "translated_user_input", "english_agent_response",
        "user_input_dtmf", "user_input_dtmf_finish_key", "entities", "llm_requests", "metadata",
        "shortSummary", "utterance", "content", "arguments", "logs", "state", "state_changes",
        "CSAT_FREE_FEEDBACK",
    }
)  # fmt: skip
"""Fields that contain words of the conversation, or values extracted from them."""


def has_redacted_numbers(conversations: Iterable[Mapping[str, Any]]) -> bool:
    """Returns whether list rows or details show that the key has no access to personal data.

    Such a key also gets redacted recordings only.
    """
    return any(
        conversation.get(name) == REDACTED
        for conversation in conversations
        for name in ("fromNumber", "toNumber")
    )


class Redaction:
    """Redacts personal data according to the settings.

    Args:
        pii: `hash` replaces phone numbers and e-mail addresses by their HMAC-SHA256, so that
            callers can still be joined; `drop` replaces them by `DROPPED`; `keep` changes nothing.
        secret: Key of the hash.
        transcripts: `drop` removes the fields with words of the conversation.
        region: Country of numbers without country code; see `normalize_number`.
    """

    def __init__(self, pii: Pii, secret: str, transcripts: Transcripts, region: str = "") -> None:
        self._region = region
        self._pii = pii
        self._secret = secret
        self._drops_transcripts = transcripts == "drop"

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Returns the redaction that the settings ask for."""
        return cls(settings.pii, settings.pii_secret, settings.transcripts, settings.phone_region)

    def apply(self, detail: Json) -> Json:
        """Returns the redacted detail; the same object where nothing is to be redacted."""
        if self._drops_transcripts:
            detail = _without_transcript(detail)
        if self._pii != "keep":
            detail = {name: self._redacted(name, value) for name, value in detail.items()}
        return detail

    def _redacted(self, name: str, value: Any) -> Any:
        if isinstance(value, str):
            return (
                value if _MACHINE_FIELD.fullmatch(name) else _PERSONAL.sub(self._replacement, value)
            )
        if isinstance(value, list):
            return [self._redacted(name, item) for item in value]
        if isinstance(value, dict):
            if name in _CUSTOM_OBJECTS:
                return {
                    self._redacted(name, key): self._redacted(name, item)
                    for key, item in value.items()
                }
            return {key: self._redacted(key, item) for key, item in value.items()}
        if isinstance(value, int) and value >= _SMALLEST_NUMBER:
            redacted = self._redacted(name, str(value))
            return value if redacted == str(value) else redacted
        return value

    def _replacement(self, match: re.Match[str]) -> str:
        if self._pii == "drop":
            return DROPPED
        return caller_hash(match[0], self._secret, self._region)


def _without_transcript(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_transcript(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        name: _without_transcript(item)
        for name, item in value.items()
        if name not in _TRANSCRIPT_FIELDS
    }
