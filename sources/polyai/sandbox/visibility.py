"""Views of a conversation through an API key."""

from __future__ import annotations

from dataclasses import replace

from .keys import Key
from .model import Conversation

REDACTED = "REDACTED"
"""Replacement of the caller's number for keys without access to personal data."""


def visible(call: Conversation, key: Key) -> Conversation:
    """Returns the conversation without what a key may not see.

    Without access to personal data the caller's number is hidden, and the agent's own stays.
    """
    if not key.has_pii_access:
        if call.is_outbound:
            call = replace(call, to_number=_hidden(call.to_number))
        else:
            call = replace(call, from_number=_hidden(call.from_number))
    if not key.has_transcripts and call.turns is not None:
        call = replace(call, turns=())
    if not key.has_metrics and call.metrics is not None:
        call = replace(call, metrics=())
    return call


def _hidden(number: str | None) -> str | None:
    return REDACTED if number else number
