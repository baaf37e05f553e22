"""Removal of transcripts: only what is known to contain no words of a conversation is kept.

A field that the API adds is left out, unless it is a number or a boolean of the conversation.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from ..clock import parse_timestamp
from ..tables.rules import DROPPED
from .turns import listed
from .values import NUMBER, boolean, integer, number

Json = dict[str, Any]
Check = Callable[[Any], object]
"""Raises ValueError for a value that is not to be kept."""

_CODE = re.compile(r"\S{1,200}")


def _code(value: Any) -> None:
    """Accepts ids, names of functions and labels: one word, or a number."""
    if isinstance(value, dict | list) or not _CODE.fullmatch(str(value)):
        raise ValueError("not a code")


def _scalar(value: Any) -> None:
    if isinstance(value, dict | list):
        raise ValueError("not a scalar")


CONVERSATION_CHECKS: Mapping[str, Check] = {
    **dict.fromkeys(
        (
            "conversationId", "accountId", "projectId", "channel", "direction", "clientEnv",
            "language", "variantId", "variant_name", "deploymentId", "fromNumber", "toNumber",
            "handoffDestination", "handoffReason", "audioUrl",
        ),
        _scalar,
    ),
    **dict.fromkeys(("createdAt", "startedAt", "finishedAt"), parse_timestamp),
    **dict.fromkeys(("duration", "totalDuration", "polyaiDuration", "polyScore"), number),
    **dict.fromkeys(("inProgress", "handoff"), boolean),
    **dict.fromkeys(("num_turns", "num_silences", "num_ood"), integer),
}  # fmt: skip
_WORDS_OF_A_CONVERSATION = ("note", "shortSummary", "state")

TURN_CHECKS: Mapping[str, Check] = {
    "turn_id": integer,
    **dict.fromkeys(("user_input_datetime", "agent_response_datetime"), parse_timestamp),
    **dict.fromkeys(("barge_in", "is_ood", "is_silence"), boolean),
    **dict.fromkeys(("asr_lang_code", "tts_lang_code", "user_input_audio_url"), _code),
}
REVIEW_CHECKS: Mapping[str, Check] = {
    **dict.fromkeys(("role", "annotationType", "annotation_type", "type", "label"), _code),
    **dict.fromkeys(("createdBy", "created_by", "author", "annotatedBy", "user"), _scalar),
    **dict.fromkeys(
        ("createdAt", "created_at", "timestamp", "annotatedAt", "updatedAt"), parse_timestamp
    ),
}
EVENT_CHECKS: Mapping[str, Check] = {
    **dict.fromkeys(
        (
            "id", "function_id", "function_version", "name", "llm_request_id",
            "variant_id_change", "conversation_id",
        ),
        _code,
    ),
    "turn_id": integer,
    "start_time": parse_timestamp,
    "duration": number,
}  # fmt: skip


def without_transcript(detail: Json) -> Json:
    """Returns a conversation without words, and without values that were extracted from them.

    Left out are texts, summary, note and state; comments and reasons of reviews; arguments, errors,
    logs and results of functions; and fields that are not known. Of metrics, numbers, booleans and
    times are kept. Where a count depends on a text being there, it becomes `DROPPED`.
    """
    kept = conversation_fields(detail)
    if "tags" in detail:
        kept["tags"] = [tag for tag in listed(detail["tags"]) if not isinstance(tag, dict | list)]
    if "turns" in detail:
        turns = detail["turns"]
        kept["turns"] = [_turn(turn) for turn in turns] if isinstance(turns, list) else None
    if "metrics" in detail:
        kept["metrics"] = _metrics(detail["metrics"])
    if "functionEvents" in detail:
        kept["functionEvents"] = _events_by_turn(detail["functionEvents"])
    return kept


def conversation_fields(fields: Json) -> Json:
    """Returns the known fields of a conversation, and numbers and booleans that are not known."""
    return kept_fields(fields, CONVERSATION_CHECKS) | {
        name: value
        for name, value in fields.items()
        if name not in CONVERSATION_CHECKS
        and name not in _WORDS_OF_A_CONVERSATION
        and isinstance(value, int | float)
    }


def intent_names(intents: Any) -> list[str]:
    """Returns the names of a turn's intents, which are sent as texts or objects."""
    names = [
        intent["name"] if isinstance(intent, dict) and "name" in intent else intent
        for intent in listed(intents)
    ]
    return [name for name in names if isinstance(name, str)]


def kept_fields(value: Any, checks: Mapping[str, Check]) -> Json:
    """Returns the known fields of an object whose values have the type of their column."""
    if not isinstance(value, dict):
        return {}
    result: Json = {}
    for name, item in value.items():
        if name in checks:
            if item is not None and item != "":
                try:
                    checks[name](item)
                except ValueError:
                    continue
            result[name] = item
    return result


def _turn(turn: Any) -> Json:
    kept = kept_fields(turn, TURN_CHECKS)
    if isinstance(turn, dict):
        if "latency" in turn:
            kept["latency"] = numbers(turn["latency"])
        if turn.get("intents") is not None:
            kept["intents"] = intent_names(turn["intents"])
        if turn.get("reviews"):
            reviews = listed(turn["reviews"])
            kept["reviews"] = [kept_fields(review, REVIEW_CHECKS) for review in reviews]
    return kept


def numbers(value: Any) -> Any:
    """Returns a latency with its numbers only."""
    if isinstance(value, dict):
        return {name: numbers(item) for name, item in value.items()}
    return value if value is None or _is_measured(value) else None


def _is_measured(value: Any) -> bool:
    if isinstance(value, str):
        text = value.strip()
        if text == "" or NUMBER.fullmatch(text) or text.lower() in ("true", "false"):
            return True
        try:
            parse_timestamp(text)
        except ValueError:
            return False
        return True
    return isinstance(value, int | float)


def _events_by_turn(by_turn: Any) -> Any:
    if isinstance(by_turn, list):
        return [_event(event) for event in by_turn if event is not None]
    if not isinstance(by_turn, dict):
        return None
    result: dict[str, list[Json]] = {}
    for key, events in by_turn.items():
        calls = events if isinstance(events, list) else [events]
        # a key that is no number of a turn may be words
        name = key if key.isdecimal() else ""
        result.setdefault(name, []).extend(_event(call) for call in calls if call is not None)
    return result


def _event(event: Any) -> Json:
    kept = kept_fields(event, EVENT_CHECKS)
    if isinstance(event, dict):
        for name in ("error", "hangup"):
            if (value := event.get(name)) not in (None, "", {}, []):
                kept[name] = value if isinstance(value, bool) else DROPPED
        handoff = event.get("handoff")
        if isinstance(handoff, dict) and handoff:
            reason = {"reason": DROPPED} if handoff.get("reason") else {}
            kept["handoff"] = kept_fields(handoff, {"type": _code}) | reason
    return kept


def _metrics(by_name: Any) -> Json | None:
    if not isinstance(by_name, dict):
        return None
    return {
        name: [_sample(item) for item in written] if isinstance(written, list) else _sample(written)
        for name, written in by_name.items()
    }


def _sample(item: Any) -> Any:
    if isinstance(item, dict) and "value" in item:
        time = kept_fields(item, {"timestamp": parse_timestamp})
        return time | {"value": measured(item["value"])}
    return measured(item)


def measured(value: Any) -> Any:
    """Returns the value of a metric if it is a number, a boolean or a time; else `DROPPED`."""
    return value if value is None or _is_measured(value) else DROPPED
