"""Deviations of payloads from their documentation, and the conversations that have them.

Recordings of the real API, or PolyAI's documentation, show the recorded ones. The invented ones are
for tests: whatever the API sends, a conversation has to be loaded. Each oddity recurs with a
period, so that all of them occur within 2,000 conversations, alone and combined with others.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from .config import SandboxConfig

RECORDED: dict[str, int] = {
    # conversation
    "language unknown": 17,
    "deployment unknown": 19,
    "caller by e-mail": 13,
    "caller by SIP": 37,
    "callee polyai": 7,
    "other project id": 67,
    "no turns": 43,
    "turns missing": 97,
    "turns null": 103,
    "summary as text": 11,
    "emoji": 5,
    "metric names": 36,
    # turns
    "flags null": 3,
    "flags missing": 27,
    "entities missing": 25,
    "intents missing": 22,
    "topics joined": 2,
    # format
    "times with Z": 10,
    "times without zone": 12,
    "missing for null": 20,
}
"""Periods of the recorded oddities: each occurs in one of that many conversations."""
INVENTED: dict[str, int] = {
    # conversation
    "language not text": 1009,
    "direction unknown": 101,
    "channel unknown": 461,
    "start unknown": 89,
    "duration unknown": 83,
    "progress unknown": 107,
    "handoff unknown": 109,
    "handoff reason not text": 23,
    "variant not text": 131,
    "caller unknown": 41,
    "audio URL absolute": 59,
    "tags null": 29,
    "tags missing": 31,
    "metrics missing": 127,
    "metrics null": 137,
    "events missing": 47,
    "events null": 53,
    "summary with extra": 73,
    "huge transcript": 1999,
    "metric shapes": 3,
    "metric list empty": 179,
    "durations with fractions": 6,
    # unknown keys
    "unknown in conversation": 61,
    "unknown in turn": 71,
    "unknown in event": 14,
    "unknown in review": 4,
    "unknown in handoff": 6,
    "event values as objects": 2,
    # turns
    "texts null": 3,
    "latency number": 8,
    "latency null": 21,
    "latency missing": 26,
    "latency incomplete": 33,
    "entities as object": 9,
    "entity as number": 30,
    "metadata null": 149,
    "metadata missing": 151,
    "huge turn id": 15,
    "reviews missing": 16,
    "reviews null": 35,
    # format
    "durations as text": 139,
    "empty text for null": 18,
    "NUL in text": 157,
    "NUL alone": 163,
    "tag as number": 28,
    "NUL in keys": 167,
    "ISO event times": 24,
    "event identity differs": 173,
    "event extras missing": 34,
}
"""Periods of the invented oddities."""

Odd = frozenset[str]
"""Names of a conversation's oddities."""
_NONE: Odd = frozenset()


class Oddities:
    """Assignment of oddities to conversations; none if disabled.

    Args:
        config: Configuration of the sandbox.
    """

    def __init__(self, config: SandboxConfig) -> None:
        self._enabled = config.oddities
        self._of = _with_inventions if config.inventions else _recorded

    def of(self, index: int) -> Odd:
        """Returns the oddities of conversation `index`."""
        return self._of(index) if self._enabled else _NONE


def _scheduled(periods: Mapping[str, int]) -> tuple[tuple[str, int, int], ...]:
    return tuple((name, period, period * 2 // 3) for name, period in periods.items())


_SCHEDULE = _scheduled(RECORDED)
_FULL_SCHEDULE = _scheduled(RECORDED | INVENTED)


# cached: both the model and the payload of a conversation need them
@lru_cache(maxsize=256)
def _recorded(index: int) -> Odd:
    return frozenset([name for name, period, offset in _SCHEDULE if index % period == offset])


@lru_cache(maxsize=256)
def _with_inventions(index: int) -> Odd:
    return frozenset([name for name, period, offset in _FULL_SCHEDULE if index % period == offset])
