"""Deviations of real payloads from their documentation, and the conversations that have them.

Each oddity recurs with a period, so that all of them occur within 2,000 conversations, alone and
combined with others.
"""

from __future__ import annotations

from functools import lru_cache

PERIODS: dict[str, int] = {
    # conversation
    "language unknown": 17,
    "language not text": 1009,
    "direction unknown": 101,
    "channel unknown": 461,
    "start unknown": 89,
    "duration unknown": 83,
    "progress unknown": 107,
    "handoff unknown": 109,
    "handoff reason not text": 23,
    "variant not text": 131,
    "deployment unknown": 19,
    "caller by e-mail": 13,
    "caller by SIP": 37,
    "caller unknown": 41,
    "callee polyai": 7,
    "other project id": 67,
    "audio URL absolute": 59,
    "no turns": 43,
    "turns missing": 97,
    "turns null": 103,
    "tags null": 29,
    "tags missing": 31,
    "metrics missing": 127,
    "metrics null": 137,
    "events missing": 47,
    "events null": 53,
    "summary as text": 11,
    "summary with extra": 73,
    "emoji": 5,
    "huge transcript": 2000,
    "metric shapes": 3,
    "metric list empty": 179,
    # unknown keys
    "unknown in conversation": 61,
    "unknown in turn": 71,
    "unknown in event": 14,
    "unknown in review": 4,
    "unknown in handoff": 6,
    # turns
    "latency number": 8,
    "latency null": 21,
    "latency missing": 26,
    "latency incomplete": 33,
    "flags null": 3,
    "flags missing": 27,
    "entities as object": 9,
    "entities missing": 25,
    "intents missing": 22,
    "metadata null": 149,
    "metadata missing": 151,
    "topics joined": 2,
    "huge turn id": 15,
    "reviews missing": 16,
    "reviews null": 35,
    # format
    "times with Z": 10,
    "times without zone": 12,
    "durations as text": 139,
    "empty text for null": 18,
    "missing for null": 20,
    "NUL in text": 157,
    "NUL alone": 163,
    "tag as number": 28,
    "NUL in keys": 167,
    "ISO event times": 24,
    "event identity differs": 173,
    "event extras missing": 34,
}
"""Periods of the oddities: each occurs in one of that many conversations."""

Odd = frozenset[str]
"""Names of a conversation's oddities."""
_SCHEDULE = tuple((name, period, period * 2 // 3) for name, period in PERIODS.items())
_NONE: Odd = frozenset()


class Oddities:
    """Assignment of oddities to conversations; none if disabled."""

    def __init__(self, enabled: bool) -> None:
        self._enabled = enabled

    def of(self, index: int) -> Odd:
        """Returns the oddities of conversation `index`."""
        return _of(index) if self._enabled else _NONE


@lru_cache(maxsize=256)
def _of(index: int) -> Odd:
    # cached: both the model and the payload of a conversation need them
    return frozenset([name for name, period, offset in _SCHEDULE if index % period == offset])
