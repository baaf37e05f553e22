"""Ages at which conversations, their recordings and their words are deleted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Self

from ..errors import ConfigurationError
from .validators import duration

RETENTION = "retention"
RETENTION_RECORDINGS = "retention_recordings"
RETENTION_TRANSCRIPTS = "retention_transcripts"

SHORTEST_RETENTION = timedelta(days=1)
"""Shortest age: limits are whole days, and a shorter one is probably a mistake."""


@dataclass(frozen=True)
class Ages:
    """Ages after the end of a conversation; None where nothing is deleted.

    What is shorter wins: with a conversation, its recordings and words are deleted too.

    Attributes:
        conversations: Age of whole conversations.
        recordings: Age of recordings.
        transcripts: Age of the words.
    """

    conversations: timedelta | None = None
    recordings: timedelta | None = None
    transcripts: timedelta | None = None

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Self:
        """Returns the ages for the values of the settings."""
        whole = settings[RETENTION]
        return cls(
            whole,
            _shorter(whole, settings[RETENTION_RECORDINGS]),
            _shorter(whole, settings[RETENTION_TRANSCRIPTS]),
        )

    def __bool__(self) -> bool:
        return bool(self.conversations or self.recordings or self.transcripts)


NO_AGES = Ages()


def limit(age: timedelta | None, now: datetime) -> datetime | None:
    """Returns the time before which something is too old: the start of a day in UTC.

    So that there is something to delete once a day, and not in each run.
    """
    if age is None:
        return None
    return (now - age).astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def retention_age(value: object) -> timedelta | None:
    """Validates an age; None and empty text for none."""
    if value is None or value == "":
        return None
    found = duration(value)
    if found < SHORTEST_RETENTION:
        raise ConfigurationError(f"{value!r} is shorter than a day")
    return found


def check_lookback(settings: Mapping[str, Any]) -> None:
    """Checks that loads do not read what is too old.

    Raises:
        ConfigurationError: An age is shorter than the look-back window.
    """
    for name in (RETENTION, RETENTION_RECORDINGS, RETENTION_TRANSCRIPTS):
        age = settings[name]
        if age is not None and age < settings["lookback"]:
            raise ConfigurationError(
                f"{name} ({age.days}d) is shorter than lookback: conversations would be deleted "
                "while loads still compare them. Set a longer one, or a shorter lookback"
            )


def _shorter(whole: timedelta | None, part: timedelta | None) -> timedelta | None:
    return min((age for age in (whole, part) if age is not None), default=None)
