"""Redaction of payloads before shaping, and of messages: numbers, addresses, transcripts."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple, Self

from ..config.settings import Pii, Settings, Transcripts
from ..tables.children import ANNOTATIONS, FUNCTION_EVENTS
from ..tables.conversations import CONVERSATIONS
from ..tables.declaration import ColumnType, Table
from ..tables.registry import name_tables
from ..tables.rules import DROPPED, REDACTED
from ..tables.turns import LLM_REQUESTS, TURNS
from .caller_identity import caller_hash
from .column_rules import NO_RULES, PREFIXES, ColumnRules
from .personal_data import is_suspect, is_time, replace_personal_data
from .transcripts import without_transcript

Json = dict[str, Any]

_WHOLE_NUMBER = re.compile(r"-?(\d{7,15})(?:\.0+)?", re.ASCII)

_TIME_NAME = re.compile(r".*(?:_datetime|At|_at|_?[tT]ime|_?[tT]imestamp|_ts|_?[dD]ate)", re.ASCII)
_MEASURE_NAME = re.compile(
    "amount|bytes|cost|(?<!c)count(?!r)|duration|latency|price|revenue|score|seconds|size|tokens|total|_ms$",
    re.ASCII | re.IGNORECASE,
)

_EPOCH = range(1_262_304_000, 2_208_988_800)
"""Unix times of the years 2010 to 2039."""

_COMPACT_DATES = range(1900_01_01, 2100_01_01)

_FEWEST_OF_A_NUMBER = 10**7
"""Smallest JSON number that can be a phone number."""

_MOST_OF_A_COLUMN = 10**9
_MOST_OF_A_MEASURE = 10**10
_MOST_OF_A_NUMBER = 10**15
"""Ends of the numbers that numeric columns and fields with the name of a measure keep, and of phone
numbers (exclusive)."""


class Level(NamedTuple):
    """Known fields of one object of the API."""

    types: Mapping[str, ColumnType] = {}
    nested: Mapping[str, Level] = {}
    others: Level | None = None
    """Level of all fields that are not in `nested`."""
    kept: frozenset[str] = frozenset()
    """Fields that are not redacted."""


def levels(rules: ColumnRules) -> dict[Table, Level]:
    """Returns the level of the objects that rows of a table are made of."""

    def level(table: Table, **nested: Level) -> Level:
        types = {column.name: column.type for column in table.columns}
        fields = table.fields(PREFIXES[table])
        typed = {field: types[name] for name, field in fields.items() if types[name] != "text"}
        return Level(typed, nested, kept=rules.kept_fields(table))

    reviews, requests, events = map(level, (ANNOTATIONS, LLM_REQUESTS, FUNCTION_EVENTS))
    turns = level(TURNS, reviews=reviews, llm_requests=requests)
    detail = level(
        CONVERSATIONS,
        turns=turns,
        functionEvents=Level(others=events),
        metrics=Level(others=Level({"timestamp": "timestamp"})),
    )
    return {
        CONVERSATIONS: detail,
        TURNS: turns,
        ANNOTATIONS: reviews,
        LLM_REQUESTS: requests,
        FUNCTION_EVENTS: events,
        **{table: Level(kept=rules.kept_fields(table)) for table in name_tables()},
    }


NO_LEVEL = Level()
"""Level of objects without known fields."""

_LEVELS = levels(NO_RULES)

_is_suspect_key = lru_cache(maxsize=10_000)(is_suspect)


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
        transcripts: `drop` removes words of the conversation; see `without_transcript`.
        region: Country of numbers without country code; see `normalize_number`.
        rules: Columns that are not redacted, and notes that are not loaded.

    Attributes:
        levels: Level of the objects that rows of a table are made of.
    """

    def __init__(
        self,
        pii: Pii,
        secret: str,
        transcripts: Transcripts,
        region: str = "",
        rules: ColumnRules = NO_RULES,
    ) -> None:
        self._region = region
        self._pii = pii
        self._secret = secret
        self._drops_transcripts = transcripts == "drop"
        self._drops_notes = rules.drops_notes
        self.levels = levels(rules) if rules.kept else _LEVELS

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Returns the redaction that the settings ask for."""
        return cls(
            settings.pii,
            settings.pii_secret,
            settings.transcripts,
            settings.phone_region,
            ColumnRules.of(settings),
        )

    def apply(self, detail: Json) -> Json:
        """Returns the redacted detail; the same object where nothing is to be redacted.

        The conversation id stays as it is, because requests need it.
        """
        if self._drops_transcripts:
            detail = without_transcript(detail)
        if self._drops_notes:
            detail = {name: item for name, item in detail.items() if name != "note"}
        if self._pii == "keep":
            return detail
        own = {"conversationId": detail["conversationId"]} if "conversationId" in detail else {}
        rest = {name: item for name, item in detail.items() if name not in own}
        redacted: Json = self._object(
            rest, "", self.levels[CONVERSATIONS], own.get("conversationId")
        )
        return own | redacted

    def value(self, value: Any, table: Table | None = None) -> Any:
        """Returns any other JSON value without numbers and addresses, in keys and values.

        Args:
            value: The value.
            table: Table of names whose row it becomes.
        """
        if self._pii == "keep":
            return value
        return self._redacted(value, "", self.levels[table] if table else NO_LEVEL, None)

    def text(self, text: str) -> str:
        """Returns a text, such as a message, without numbers and addresses."""
        if self._pii == "keep":
            return text
        return replace_personal_data(text, self._region, self._replacement)

    def _redacted(
        self, value: Any, name: str, level: Level, own_id: Any, kind: ColumnType | None = None
    ) -> Any:
        of = type(value)
        if of is str:
            return value if name == _OWN_ID and value == own_id else self._text(value, name, kind)
        if of is dict:
            return self._object(value, name, level, own_id)
        if of is list:
            return [self._redacted(item, name, level, own_id, kind) for item in value]
        if of is int or isinstance(value, float):
            return self._number(value, name, kind)
        return value

    def _object(self, value: Json, name: str, level: Level, own_id: Any) -> Json:
        types, nested, others, kept = level
        result: Json = {}
        for key, item in value.items():
            if key in kept:
                result[key] = item
                continue
            # the value of a metric has the name of the metric
            redacted = self._redacted(
                item,
                name if key == "value" else key,
                nested.get(key) or others or NO_LEVEL,
                own_id,
                types.get(key),
            )
            if self._is_suspect(key) and (new := self._text(key, "", None)) != key:
                key = unused_key(new, result, value)
            result[key] = redacted
        return result

    def _is_suspect(self, key: str) -> bool:
        return _is_suspect_key(key)

    def _text(self, text: str, name: str, kind: ColumnType | None) -> str:
        if not is_suspect(text) or (kind == "timestamp" and is_time(text)):
            return text
        if whole := _WHOLE_NUMBER.fullmatch(text):
            if _is_other_number(int(whole[1]), name, kind):
                return text
            return self._replacement(whole[1])
        return replace_personal_data(text, self._region, self._replacement)

    def _number(self, number: int | float, name: str, kind: ColumnType | None) -> Any:
        size = abs(number)
        if not _FEWEST_OF_A_NUMBER <= size < _MOST_OF_A_NUMBER or size != int(size):
            return number
        is_other = _is_other_number(int(size), name, kind)
        return number if is_other else self._replacement(str(int(size)))

    def _replacement(self, found: str) -> str:
        if self._pii == "drop":
            return DROPPED
        return caller_hash(found, self._secret, self._region)


def request_options(settings: Settings) -> dict[str, Any]:
    """Returns the options of API clients: limits of requests, and the redaction of messages."""
    return {**settings.request_limits, "redact": Redaction.of(settings).text}


_OWN_ID = "conversation_id"
"""Field of function events that repeats the id of their conversation."""


def _is_other_number(number: int, name: str, kind: ColumnType | None) -> bool:
    """Returns whether a whole number is a time, a measure or the id of a turn, by its field."""
    if kind == "timestamp" or _TIME_NAME.fullmatch(name):
        return number in _EPOCH or number // 1000 in _EPOCH or number in _COMPACT_DATES
    if kind in ("bigint", "double"):
        return name == "turn_id" or number < _MOST_OF_A_COLUMN
    return number < _MOST_OF_A_MEASURE and _MEASURE_NAME.search(name) is not None


def unused_key(key: str, result: Container[str], value: Container[str]) -> str:
    """Returns the key, with a number if another one of the object has become the same."""
    name, number = key, 2
    while name in result or name in value:
        name, number = f"{key}_{number}", number + 1
    return name
