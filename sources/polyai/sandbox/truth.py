"""Expected rows of a warehouse after a conversation was loaded from one API or from both.

Derived from the model only, so that they are an oracle for code that parses the payloads.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import orjson

from .model import Conversation, FunctionEvent, Turn
from .world import SCORE_SCALE_CHANGED_AT

Row = dict[str, Any]

DATA = "data"
CONVERSATIONS_V3 = "conversations_v3"
APIS = (DATA, CONVERSATIONS_V3)
"""APIs that a conversation can be fetched from, by their names in `source_api`."""

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_BOOLEANS = {"true": True, "false": False}


def expected_rows(call: Conversation, apis: Sequence[str] = (DATA,)) -> dict[str, list[Row]]:
    """Returns the rows by table, without `fetched_at`, `summary_hash` and the validity of notes.

    JSON columns are Python objects, times are aware datetimes in UTC, NULL is None.

    Args:
        call: The conversation, unchanged between the fetches.
        apis: APIs that it was fetched from, in order. Later values replace earlier ones; columns
            that an API does not have keep theirs.
    """
    key: Row = {"agent_id": call.agent_id, "conversation_id": call.conversation_id}
    turns = list(enumerate(call.turns or ()))
    rows: dict[str, list[Row]] = {
        "conversations": [key | _conversation(call, apis)],
        "turns": [
            key | {"turn_index": number} | _merged(apis, _turn(turn), _v3_turn(turn))
            for number, turn in turns
        ],
        "turn_intents": [
            key | {"turn_index": number, "position": position, "intent": text(intent)}
            for number, turn in turns
            for position, intent in enumerate(turn.intents or ())
        ],
        "turn_entities": [
            key | {"turn_index": number, "position": position, "name": name, "value": text(value)}
            for number, turn in turns
            for position, (name, value) in enumerate(_entities(turn))
        ],
        "metrics": [key | row for row in _metrics(call, apis)],
    }
    only_data: dict[str, list[Row]] = {
        "llm_requests": [
            key | {"turn_index": number, "position": position} | _llm_request(request)
            for number, turn in turns
            for position, request in enumerate(turn.llm_requests or ())
        ],
        "turn_topics": [
            key | {"turn_index": number, "position": position, "topic": topic}
            for number, turn in turns
            for position, topic in enumerate(_topics(turn))
        ],
        "function_events": [key | row for row in _function_events(call)],
        "annotations": [
            key
            | {
                "turn_index": number,
                "position": position,
                "role": review.role,
                "annotation_type": review.annotation_type,
                "comment": review.comment,
                "reason": review.reason,
                "annotated_by": review.annotated_by,
                "annotated_at": review.annotated_at,
                "extra": review.extra or None,
            }
            for number, turn in turns
            for position, review in enumerate(turn.annotations)
        ],
        "conversation_tags": [
            key | {"position": position, "tag": tag} for position, tag in enumerate(call.tags or ())
        ],
        "notes": [key | {"note": call.note}] if call.note else [],
    }
    return rows | (only_data if DATA in apis else {table: [] for table in only_data})


def text(value: Any) -> str | None:
    """Value of a text column: JSON for values that are not text, None for empty text."""
    if value is None or isinstance(value, str):
        return value or None
    return orjson.dumps(value).decode()


def _merged(apis: Sequence[str], data: Row, v3: Row) -> Row:
    """Merges a row over the fetches; NULL for columns that were never fetched."""
    by_api = dict(zip(APIS, (data, v3), strict=True))
    row: Row = dict.fromkeys(data | v3)
    for api in apis:
        row |= by_api[api]
    return row


def _conversation(call: Conversation, apis: Sequence[str]) -> Row:
    data, v3 = _data_conversation(call), _v3_conversation(call)
    row = _merged(apis, data, v3)
    if CONVERSATIONS_V3 in apis:
        # an answer of the Data API without these leaves what v3 sent in their place
        names = ("started_at", "handoff", "num_silences", "num_ood")
        row |= {name: v3[name] for name in names if row[name] is None}
    if row["direction"] is None and call.conversation_id.startswith("OUT-"):
        row["direction"] = "outbound"
    row |= {"region": call.region, "is_transcript_withheld": False, "source_api": apis[-1]}
    shown = len(call.turns or ())
    # only v3 sends counts of its own, and a later answer of the Data API does not remove them
    if CONVERSATIONS_V3 in apis and call.turn_count != shown:
        if shown:
            row["extra"] = (row["extra"] or {}) | {"num_turns": call.turn_count}
        else:
            row |= {"is_transcript_withheld": True, **_own_counts(call)}
    return row


def _own_counts(call: Conversation) -> Row:
    """Counts that v3 sends, which include withheld turns."""
    return {
        "num_turns": call.turn_count,
        "num_silences": call.silence_count,
        "num_ood": call.ood_count,
    }


def _data_conversation(call: Conversation) -> Row:
    turns = call.turns or ()
    extra = dict(call.extra)
    if call.summary is not None and call.summary.extra:
        extra["shortSummary"] = call.summary.extra
    if call.project_id != call.agent_id:
        extra["projectId"] = call.project_id
    scale = "0-10" if call.created_at < SCORE_SCALE_CHANGED_AT else "1-5"
    return {
        "account_id": call.account_id,
        "channel": call.channel,
        "direction": call.direction,
        "environment": call.environment,
        "language": text(call.language),
        "variant_id": text(call.variant_id),
        "deployment_id": call.deployment_id,
        "from_number": call.from_number,
        "to_number": call.to_number,
        "created_at": call.created_at,
        "started_at": call.started_at,
        "finished_at": call.finished_at,
        "duration_seconds": call.duration_seconds,
        "total_duration_seconds": call.total_duration_seconds,
        "polyai_duration_seconds": call.polyai_duration_seconds,
        "in_progress": call.in_progress,
        "handoff": call.handoff,
        "handoff_destination": call.handoff_destination,
        "handoff_reason": text(call.handoff_reason),
        "poly_score": call.poly_score,
        "poly_score_scale": None if call.poly_score is None else scale,
        "summary_heading": call.summary.heading if call.summary else None,
        "summary": call.summary.content if call.summary else None,
        "note": call.note,
        "audio_url": call.audio_url,
        "num_turns": len(turns),
        "num_silences": _count([turn.is_silence for turn in turns]),
        "num_ood": _count([turn.is_ood for turn in turns]),
        "extra": extra or None,
    }


def _v3_conversation(call: Conversation) -> Row:
    return {
        "account_id": call.account_id,
        "channel": call.channel,
        "environment": call.environment,
        "variant_id": text(call.variant_id),
        "variant_name": call.variant_name,
        "from_number": call.from_number,
        "to_number": call.to_number,
        # v3 has only one time for both
        "created_at": call.created_at,
        "started_at": call.created_at,
        "total_duration_seconds": _whole(call.total_duration_seconds),
        "polyai_duration_seconds": _whole(call.polyai_duration_seconds),
        "in_progress": call.finished_at is None,
        "handoff": call.handoff is True,
        "handoff_destination": call.handoff_destination,
        "handoff_reason": text(call.handoff_reason),
        **_own_counts(call),
        "num_turns": len(call.turns or ()),
        "state": call.state,
    }


def _whole(seconds: float | None) -> float:
    """Rounds down to whole seconds; 0 if unknown."""
    return float(math.floor(seconds or 0))


def _count(flags: list[bool | None]) -> int | None:
    """Counts flags that are set; None if all are unknown."""
    return sum(flag is True for flag in flags) if any(f is not None for f in flags) else None


def _turn(turn: Turn) -> Row:
    return {
        "turn_id": turn.turn_id,
        "user_input": turn.user_input,
        "user_input_at": turn.user_input_at,
        "agent_response": turn.agent_response,
        "agent_response_at": turn.agent_response_at,
        "latency_seconds": turn.latency_seconds,
        "latency": turn.latency,
        "barge_in": turn.barge_in,
        "is_ood": turn.is_ood,
        "is_silence": turn.is_silence,
        "user_input_dtmf": turn.user_input_dtmf,
        "user_input_dtmf_finish_key": text(turn.extra.get("user_input_dtmf_finish_key")),
        "asr_lang_code": turn.asr_lang_code,
        "tts_lang_code": turn.tts_lang_code,
        "translated_user_input": turn.translated_user_input,
        "english_agent_response": turn.english_agent_response,
        "asr_corrected_user_input": text((turn.metadata or {}).get("asr_corrected_user_input")),
        "user_input_audio_url": turn.user_input_audio_url,
        "current_node": turn.current_node,
        "intents": None if turn.intents is None else list(turn.intents),
        "entities": _entities_json(turn),
        "llm_requests": turn.llm_requests,
        "metadata": turn.metadata,
        "extra": _without(turn.extra, "user_input_dtmf_finish_key"),
    }


_TOKENS = ("prompt_tokens", "completion_tokens", "cached_tokens", "total_tokens")
_MOMENTS = {
    "requested_at": "request_timestamp",
    "first_chunk_at": "first_chunk_timestamp",
    "responded_at": "response_timestamp",
}


def _llm_request(request: Mapping[str, Any]) -> Row:
    plain = ("model_id", "finish_reason", *_TOKENS)
    moments = {
        name: datetime.fromisoformat(request[sent]) if request.get(sent) else None
        for name, sent in _MOMENTS.items()
    }
    extra = _without(request, *plain, *_MOMENTS.values(), "turn_number")
    return {name: request.get(name) for name in plain} | moments | {"extra": extra}


def _v3_turn(turn: Turn) -> Row:
    return {
        "user_input": turn.user_input,
        "user_input_at": turn.user_input_at,
        "agent_response": turn.agent_response,
        "agent_response_at": turn.agent_response_at,
        "latency_seconds": turn.latency_seconds,
        "is_ood": turn.is_ood is True,
        "is_silence": turn.is_silence is True,
        "user_input_dtmf": turn.user_input_dtmf,
        "translated_user_input": turn.translated_user_input,
        "english_agent_response": turn.english_agent_response,
        "intents": list(turn.intents or ()),
        "entities": [{name: value} for name, value in turn.entities or ()],
    }


def _entities_json(turn: Turn) -> Any:
    if turn.entities is None:
        return None
    if turn.entities_as_object:
        return dict(turn.entities)
    return [{name: value} for name, value in turn.entities]


def _entities(turn: Turn) -> list[tuple[str, Any]]:
    """Names and values, one pair per single value."""
    return [
        (name, single)
        for name, value in turn.entities or ()
        for single in (value if isinstance(value, list) else [value])
    ]


def _topics(turn: Turn) -> list[str]:
    return [part.strip() for item in turn.topics for part in item.split(",") if part.strip()]


def _metrics(call: Conversation, apis: Sequence[str]) -> list[Row]:
    return [
        {"name": metric.name, "occurrence": occurrence}
        | _merged(
            apis,
            _value(text(sample.value)) | {"recorded_at": sample.recorded_at},
            _value(_v3_text(sample.value)),
        )
        for metric in call.metrics or ()
        for occurrence, sample in enumerate(metric.samples)
    ]


def _value(value: str | None) -> Row:
    return {
        "value": value,
        "value_number": _number(value),
        "value_boolean": _BOOLEANS.get(value.lower()) if value else None,
    }


def _v3_text(value: Any) -> str | None:
    """Text that v3 sends for a metric's value: Python's representation, not JSON."""
    return None if value is None else str(value) or None


def _number(value: str | None) -> float | None:
    if value is None or not _NUMBER.fullmatch(value):
        return None
    number = float(value)
    return number if math.isfinite(number) else None


def _function_events(call: Conversation) -> list[Row]:
    positions: dict[int, int] = {}
    rows = []
    for event in call.function_events or ():
        position = positions.get(event.turn_number, 0)
        positions[event.turn_number] = position + 1
        rows.append(
            {
                "turn_index": event.turn_number - 1,
                "event_index": position,
                "event_id": event.event_id,
                "function_id": event.function_id,
                "function_version": event.function_version,
                "name": event.name,
                "started_at": event.started_at,
                "duration_ms": event.duration_ms,
                "error": text(event.error),
                "utterance": event.utterance,
                "content": text(event.content),
                "handoff_type": event.handoff_type,
                "handoff_reason": event.handoff_reason,
                "hangup": text(event.extra.get("hangup")),
                "variant_id_change": text(event.extra.get("variant_id_change")),
                "llm_request_id": event.llm_request_id,
                "arguments": event.arguments,
                "state_changes": event.state_changes,
                "logs": event.logs,
                "transition": event.transition,
                "extra": _event_extra(event),
            }
        )
    return rows


def _event_extra(event: FunctionEvent) -> Mapping[str, Any] | None:
    extra = dict(event.extra)
    if event.handoff_extra:
        extra["handoff"] = event.handoff_extra
    return _without(extra, "hangup", "variant_id_change")


def _without(extra: Mapping[str, Any], *names: str) -> Row | None:
    """Fields without a column, which these have; None if there are none."""
    return {name: value for name, value in extra.items() if name not in names} or None
