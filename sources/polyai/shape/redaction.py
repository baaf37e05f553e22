"""What is hidden of a payload before it is shaped: numbers, addresses, the words that were said."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from ..config.settings import Pii, Transcripts
from .caller_identity import caller_hash

Json = dict[str, Any]

REDACTED = "REDACTED"
"""What PolyAI sends in place of a number to a key without PII access: never hashed or joined."""

DROPPED = "[dropped]"

# the look-behind keeps a long text without an address linear: each word is tried from its start
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
"""Fields of ids, times and paths, whose digits are nobody's number."""

_CUSTOMERS_OWN = frozenset({"arguments", "entities", "logs", "state", "state_changes"})
"""Objects with names of the customer's choice, where an `id` can be a phone number."""

_SMALLEST_NUMBER = 10**9
"""Whole numbers from here on can be phone numbers that lost their plus."""

_SPOKEN = frozenset(
    {
        "user_input", "agent_response", "translated_user_input", "english_agent_response",
        "user_input_dtmf", "user_input_dtmf_finish_key", "entities", "llm_requests", "metadata",
        "shortSummary", "utterance", "content", "arguments", "logs", "state", "state_changes",
        "CSAT_FREE_FEEDBACK",
    }
)  # fmt: skip
"""Fields that carry words of the conversation, or what was taken from them."""


def are_redacted(conversations: Iterable[Mapping[str, Any]]) -> bool:
    """Whether list rows or details show that the key has no access to personal data.

    Such a key is also given redacted recordings only, whatever it asks for.
    """
    return any(
        conversation.get(name) == REDACTED
        for conversation in conversations
        for name in ("fromNumber", "toNumber")
    )


class Redaction:
    """Hides personal data as the settings say.

    Args:
        pii: `keep`; `hash` puts HMAC-SHA256 with the user's secret in the place of phone numbers
            and e-mail addresses, so that callers can still be joined; `drop` puts a mark there.
        secret: Key of the hash.
        transcripts: `drop` leaves out what was said.
    """

    def __init__(self, pii: Pii, secret: str, transcripts: Transcripts) -> None:
        self._pii = pii
        self._secret = secret
        self._drops_transcripts = transcripts == "drop"

    def applied(self, detail: Json) -> Json:
        """The detail with everything hidden that is to be hidden; itself where nothing is."""
        if self._drops_transcripts:
            detail = _without_speech(detail)
        if self._pii != "keep":
            detail = {name: self._hidden(name, value) for name, value in detail.items()}
        return detail

    def _hidden(self, name: str, value: Any) -> Any:
        if isinstance(value, str):
            return value if _MACHINE_FIELD.fullmatch(name) else _PERSONAL.sub(self._mark, value)
        if isinstance(value, list):
            return [self._hidden(name, item) for item in value]
        if isinstance(value, dict):
            if name in _CUSTOMERS_OWN:
                return {
                    self._hidden(name, key): self._hidden(name, item) for key, item in value.items()
                }
            return {key: self._hidden(key, item) for key, item in value.items()}
        if isinstance(value, int) and value >= _SMALLEST_NUMBER:
            hidden = self._hidden(name, str(value))
            return value if hidden == str(value) else hidden
        return value

    def _mark(self, match: re.Match[str]) -> str:
        if self._pii == "drop":
            return DROPPED
        return caller_hash(match[0], self._secret)


def _without_speech(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_speech(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {name: _without_speech(item) for name, item in value.items() if name not in _SPOKEN}
