"""Function events, converted from turn numbers of the answer to turn indexes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from .values import text

Json = dict[str, Any]

MOST_DIGITS = 9
"""Longest text that is read as a turn number."""


class FunctionEvent(NamedTuple):
    """One function call with its turn.

    `fields` contains the fields that columns take unchanged, and those without a column.
    """

    turn_index: int
    event_index: int
    handoff_type: Any
    handoff_reason: Any
    fields: Json
    extra: Json


def function_events(conversation_id: str, by_turn: Any) -> Iterator[FunctionEvent]:
    """Yields the function calls of a conversation in the order of the answer.

    The API counts turns from 1 here: a recorded call under "6" belongs to the turn whose audio is
    `turns/5/audio`. In a conversation with a turn 0, it counts from 0.

    Args:
        conversation_id: Id of the conversation, which each call repeats.
        by_turn: `functionEvents`: turn number as text to a list of calls; may be null or empty.
    """
    numbered = list(_numbered(by_turn))
    first = 0 if any(number == 0 for number, _, _ in numbered) else 1
    seen: dict[int, int] = {}
    for number, name, event in numbered:
        turn_index = number - first if number is not None else -1
        event_index = seen.get(turn_index, 0)
        seen[turn_index] = event_index + 1
        yield _function_event(conversation_id, turn_index, event_index, number, name, event)


def _numbered(by_turn: Any) -> Iterator[tuple[int | None, str | None, Any]]:
    """Yields each call with its turn number, or with its key where that is not a number."""
    if isinstance(by_turn, dict):
        groups = by_turn.items()
    elif isinstance(by_turn, list):
        groups = {None: by_turn}.items()
    else:
        return
    for key, events in groups:
        for event in events if isinstance(events, list) else [events]:
            if event is None:
                continue
            own = event.get("turn_id") if isinstance(event, dict) else None
            name = str(key) if key is not None else ""
            if name.isdecimal() and len(name) <= MOST_DIGITS:
                yield int(name), None, event
            elif isinstance(own, int) and len(str(own)) <= MOST_DIGITS:
                yield own, key, event
            else:
                yield None, key, event


def _function_event(
    conversation_id: str,
    turn_index: int,
    event_index: int,
    number: int | None,
    name: str | None,
    event: Any,
) -> FunctionEvent:
    fields = dict(event) if isinstance(event, dict) else {"value": event}
    extra: Json = {} if name is None else {"functionEvents": name}
    if fields.get("conversation_id") in (None, conversation_id):
        fields.pop("conversation_id", None)
    if text(fields.get("turn_id")) in (None, str(number)):
        fields.pop("turn_id", None)
    handoff = fields.pop("handoff", None)
    if isinstance(handoff, dict):
        kind, reason = handoff.get("type"), handoff.get("reason")
        unknown = {k: v for k, v in handoff.items() if k not in ("type", "reason")}
    else:
        kind, reason, unknown = None, None, handoff
    if unknown not in (None, "", {}):
        extra["handoff"] = unknown
    return FunctionEvent(turn_index, event_index, kind, reason, fields, extra)
