"""Traits of a conversation, available without generating it."""

from __future__ import annotations

from datetime import datetime, timedelta
from random import Random
from typing import Literal, NamedTuple

from . import texts

Outcome = Literal["human", "menu", "hangup", "voicemail", "unavailable", "busy"]
"""Course of an outbound call; `menu` is a human reached through an IVR."""
_CHATS = frozenset({"CHAT", "WEBCHAT", "SMS", "RCS"})


class Traits(NamedTuple):
    """Traits of a conversation, drawn from one hash."""

    conversation_id: str
    environment: str
    channel: str
    language: str
    topic: int
    variant: int
    outcome: Outcome | None
    is_abandoned: bool
    is_handed_off: bool
    total_seconds: int
    jitter: int
    entropy: int

    @property
    def duration(self) -> timedelta:
        """Time from creation to the end."""
        return timedelta(seconds=self.total_seconds, milliseconds=750)

    @property
    def is_reached(self) -> bool:
        """False for outbound calls that nobody and nothing answered."""
        return self.outcome not in ("unavailable", "busy")

    @property
    def is_chat(self) -> bool:
        """True for text channels, which have no recordings."""
        return self.channel in _CHATS

    @property
    def variant_id(self) -> str | None:
        """Id of the variant; one conversation in four has none."""
        return variant_id(self.variant) if self.variant < len(texts.VARIANTS) else None

    @property
    def variant_name(self) -> str | None:
        """Name of the variant in Agent Studio."""
        return texts.VARIANTS[self.variant] if self.variant < len(texts.VARIANTS) else None


def variant_id(variant: int) -> str:
    """Id of a variant by its place in `texts.VARIANTS`."""
    return f"VARIANT-{variant}"


def generator(entropy: int) -> Random:
    """Random number generator of a conversation, seeded by its entropy."""
    return Random(entropy)  # noqa: S311 - not a secret


def slots(traits: Traits, created_at: datetime) -> dict[str, str]:
    """Values for the placeholders of the phrases."""
    names = texts.NAMES[traits.language[:2]]
    date = created_at + timedelta(days=1 + traits.entropy % 20)
    return {
        "name": names[traits.entropy // 7 % len(names)],
        "date": f"{date.day}.{date.month}.",
        "time": f"{18 + traits.entropy // 11 % 4}:{('00', '15', '30', '45')[traits.jitter % 4]}",
        "guests": str(2 + traits.entropy // 13 % 7),
    }
