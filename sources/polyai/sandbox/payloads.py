"""Payloads of a conversation: Data API list row and detail, Conversations API v3 row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from email.utils import format_datetime
from typing import Any

from .model import Annotation, Conversation, FunctionEvent, Metric, Sample, Turn
from .oddities import Odd, Oddities

_TEXTS = (
    "language",
    "variantId",
    "deploymentId",
    "fromNumber",
    "toNumber",
    "handoffDestination",
    "handoffReason",
    "note",
    "audioUrl",
)
_OPTIONAL = (
    *_TEXTS,
    "channel",
    "direction",
    "startedAt",
    "finishedAt",
    "duration",
    "inProgress",
    "handoff",
    "polyScore",
    "shortSummary",
)


class DataPayloads:
    """Renderer of the Data API's payloads.

    Args:
        oddities: Deviations from the documentation.
    """

    def __init__(self, oddities: Oddities) -> None:
        self._oddities = oddities

    def row(self, call: Conversation) -> dict[str, Any]:
        """Renders a row of `GET /v1/agents/{agentId}/conversations`."""
        odd = self._oddities.of(call.index)
        stamp = _stamp(odd)
        as_text = "durations as text" in odd
        document: dict[str, Any] = {
            "accountId": call.account_id,
            "audioUrl": call.audio_url,
            "channel": call.channel,
            "clientEnv": call.environment,
            "conversationId": call.conversation_id,
            "createdAt": stamp(call.created_at),
            "deploymentId": call.deployment_id,
            "direction": call.direction,
            "duration": _seconds(call.duration_seconds, as_text),
            "finishedAt": stamp(call.finished_at),
            "fromNumber": call.from_number,
            "handoff": call.handoff,
            "handoffDestination": call.handoff_destination,
            "handoffReason": call.handoff_reason,
            "inProgress": call.in_progress,
            "language": call.language,
            "note": call.note,
            "polyScore": call.poly_score,
            "polyaiDuration": _seconds(call.polyai_duration_seconds, as_text),
            "projectId": call.project_id,
            "shortSummary": _summary(call),
            "startedAt": stamp(call.started_at),
            "tags": None if call.tags is None else list(call.tags),
            "toNumber": call.to_number,
            "totalDuration": _seconds(call.total_duration_seconds, as_text),
            "variantId": call.variant_id,
            **call.extra,
        }
        if "summary as text" in odd and call.summary is not None:
            document["shortSummary"] = call.summary.content
        if "tag as number" in odd and call.tags:
            document["tags"] = [int(tag) if tag.isdigit() else tag for tag in call.tags]
        if call.tags is None and "tags missing" in odd:
            del document["tags"]
        if "empty text for null" in odd or "NUL alone" in odd:
            blank = "\0" if "NUL alone" in odd else ""
            document |= {key: blank for key in _TEXTS if document[key] is None}
        elif "missing for null" in odd:
            for key in _OPTIONAL:
                if document[key] is None:
                    del document[key]
        if "NUL in text" in odd:
            for key in ("note", "handoffReason", "shortSummary", "tags"):
                document[key] = _with_nul(document.get(key))
        return document

    def detail(self, call: Conversation) -> dict[str, Any]:
        """Renders `GET /v1/agents/{agentId}/conversations/{conversationId}`."""
        odd = self._oddities.of(call.index)
        document = self.row(call)
        stamp = _stamp(odd)
        if call.turns is not None:
            document["turns"] = [_turn(turn, odd, stamp) for turn in call.turns]
        elif "turns missing" not in odd:
            document["turns"] = None
        if call.metrics is not None:
            zone = "Z" if "times with Z" in odd else ""
            values = {metric.name: _metric(metric, zone) for metric in call.metrics}
            if "NUL in text" in odd:
                values = {name: _with_nul(value) for name, value in values.items()}
            if "NUL in keys" in odd:
                values = _with_nul_keys(values)
            document["metrics"] = values
        elif "metrics missing" not in odd:
            document["metrics"] = None
        if call.function_events is not None:
            events: dict[str, list[dict[str, Any]]] = {}
            for event in call.function_events:
                events.setdefault(str(event.turn_number), []).append(_event(event, call, odd))
            document["functionEvents"] = events
        elif "events missing" not in odd:
            document["functionEvents"] = None
        return document


def _turn(turn: Turn, odd: Odd, stamp: _Stamp) -> dict[str, Any]:
    blank = None if "texts null" in odd else ""
    if "NUL alone" in odd:
        blank = "\0"
    document: dict[str, Any] = {
        "agent_response": turn.agent_response,
        "agent_response_datetime": stamp(turn.agent_response_at),
        "asr_lang_code": turn.asr_lang_code or blank,
        "barge_in": turn.barge_in,
        "english_agent_response": turn.english_agent_response or blank,
        "entities": _entities(turn),
        "intents": None if turn.intents is None else list(turn.intents),
        "is_ood": turn.is_ood,
        "is_silence": turn.is_silence,
        "latency": turn.latency_seconds if turn.latency is None else turn.latency,
        "llm_requests": turn.llm_requests,
        "metadata": turn.metadata,
        "reviews": [_review(review, stamp) for review in turn.annotations],
        "translated_user_input": turn.translated_user_input or blank,
        "tts_lang_code": turn.tts_lang_code or blank,
        "turn_id": turn.turn_id,
        "user_input": turn.user_input or blank,
        "user_input_audio_url": turn.user_input_audio_url or blank,
        "user_input_datetime": stamp(turn.user_input_at),
        "user_input_dtmf": turn.user_input_dtmf or blank,
        **turn.extra,
    }
    missing = [
        key
        for key, name in _MISSING_IN_TURN
        if name in odd and (document[key] is None or document[key] == [])
    ]
    for key in missing:
        del document[key]
    if not turn.annotations and "reviews null" in odd and "reviews" in document:
        document["reviews"] = None
    if "NUL in text" in odd:
        for key in ("agent_response", "user_input", "metadata", "reviews", "entities"):
            document[key] = _with_nul(document.get(key))
    if "NUL in keys" in odd:
        document["metadata"] = _with_nul_keys(document.get("metadata"))
    return document


def _review(review: Annotation, stamp: _Stamp) -> dict[str, Any]:
    return {
        "role": review.role,
        "annotationType": review.annotation_type,
        "comment": review.comment,
        "reason": review.reason,
        "createdBy": review.annotated_by,
        "createdAt": stamp(review.annotated_at),
        **review.extra,
    }


def _event(event: FunctionEvent, call: Conversation, odd: Odd) -> dict[str, Any]:
    handoff: dict[str, Any] | None = None
    if event.handoff_type or event.handoff_reason:
        handoff = {
            "type": event.handoff_type,
            "reason": event.handoff_reason,
            **event.handoff_extra,
        }
    document: dict[str, Any] = {
        "arguments": event.arguments,
        "content": event.content,
        "conversation_id": call.conversation_id,
        "duration": _seconds(event.duration_ms, "durations as text" in odd),
        "error": event.error,
        "function_id": event.function_id,
        "function_version": event.function_version,
        "handoff": handoff,
        "id": event.event_id,
        "llm_request_id": event.llm_request_id,
        "logs": event.logs,
        "name": event.name,
        "start_time": _event_time(event.started_at, odd),
        "state_changes": event.state_changes,
        "transition": event.transition,
        "turn_id": event.turn_number,
        "utterance": event.utterance,
        **event.extra,
    }
    if "event extras missing" in odd:
        for key in ("content", "error", "handoff", "llm_request_id", "logs", "utterance"):
            if document[key] is None:
                del document[key]
    if "NUL in text" in odd:
        for key in ("arguments", "utterance", "logs"):
            document[key] = _with_nul(document.get(key))
    if "NUL in keys" in odd:
        document["arguments"] = _with_nul_keys(document["arguments"])
    return document


def _event_time(moment: datetime | None, odd: Odd) -> str | None:
    if moment is None:
        return None
    if "ISO event times" in odd:
        return _offset(moment)
    return format_datetime(moment, usegmt=True)


def v3_row(call: Conversation, *, include_latency: bool) -> dict[str, Any]:
    """Renders a row of `GET /v3/{account_id}/{project_id}/conversations`: "" in place of null."""
    turns = [_v3_turn(turn, include_latency=include_latency) for turn in call.turns or ()]
    return {
        "id": call.conversation_id,
        "account_id": call.account_id,
        "project_id": call.agent_id,
        "variant_id": "" if call.variant_id is None else str(call.variant_id),
        "variant_name": call.variant_name or "",
        "environment": call.environment,
        "started_at": _zulu(call.created_at),
        "channel": call.channel or "",
        "from_number": call.from_number or "",
        "to_number": call.to_number or "",
        "in_progress": call.finished_at is None,
        "num_turns": call.turn_count,
        "total_duration": int(call.total_duration_seconds or 0),
        "polyai_duration": int(call.polyai_duration_seconds or 0),
        "handoff": bool(call.handoff),
        "handoff_reason": "" if call.handoff_reason is None else call.handoff_reason,
        "handoff_destination": call.handoff_destination or "",
        "num_silences": call.silence_count,
        "num_ood": call.ood_count,
        "metrics": {metric.name: _v3_metric(metric) for metric in call.metrics or ()},
        "state": call.state,
        "turns": turns,
    }


def _v3_turn(turn: Turn, *, include_latency: bool) -> dict[str, Any]:
    document: dict[str, Any] = {
        "user_input": turn.user_input or "",
        "user_input_dtmf": turn.user_input_dtmf or "",
        "user_input_datetime": _zulu(turn.user_input_at),
        "agent_response": turn.agent_response or "",
        "agent_response_datetime": _zulu(turn.agent_response_at),
        "translated_user_input": turn.translated_user_input or "",
        "english_agent_response": turn.english_agent_response or "",
        "intents": list(turn.intents or ()),
        "entities": [{name: value} for name, value in turn.entities or ()],
        "is_ood": bool(turn.is_ood),
        "is_silence": bool(turn.is_silence),
    }
    if include_latency:
        document["latency"] = turn.latency_seconds
    return document


def _v3_metric(metric: Metric) -> str | list[str]:
    values = ["" if s.value is None else str(s.value) for s in metric.samples]
    return values[0] if len(values) == 1 else values


_MISSING_IN_TURN = (
    ("latency", "latency missing"),
    ("is_ood", "flags missing"),
    ("is_silence", "flags missing"),
    ("entities", "entities missing"),
    ("intents", "intents missing"),
    ("metadata", "metadata missing"),
    ("reviews", "reviews missing"),
)


_Stamp = Callable[[datetime | None], str | None]
"""Formatter of times; None stays None."""
_UTC = len("+00:00")


def _offset(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat(timespec="microseconds")


def _zulu(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()[:-_UTC] + "Z"


def _zoneless(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat(timespec="microseconds")[:-_UTC]


def _stamp(odd: Odd) -> _Stamp:
    if "times with Z" in odd:
        return _zulu
    if "times without zone" in odd:
        return _zoneless
    return _offset


def _seconds(value: float | None, as_text: bool) -> float | str | None:
    """Renders a duration: whole numbers without a fraction. The unit stays."""
    if value is None:
        return None
    number = int(value) if value == int(value) else value
    return str(number) if as_text else number


def _summary(call: Conversation) -> dict[str, Any] | None:
    if call.summary is None:
        return None
    summary = call.summary
    return {"heading": summary.heading, "content": summary.content, **summary.extra}


def _entities(turn: Turn) -> Any:
    if turn.entities is None:
        return None
    if turn.entities_as_object:
        return dict(turn.entities)
    return [{name: value} for name, value in turn.entities]


def _metric(metric: Metric, zone: str) -> Any:
    if metric.is_list:
        return [_sample(sample, zone) for sample in metric.samples]
    return metric.samples[0].value


def _sample(sample: Sample, zone: str) -> Any:
    if sample.recorded_at is None:
        return sample.value
    return {"timestamp": sample.recorded_at.isoformat()[:-_UTC] + zone, "value": sample.value}


def _with_nul(value: Any) -> Any:
    """Inserts U+0000 into every text, as some telephony gateways do."""
    if isinstance(value, str):
        return value[:2] + "\0" + value[2:] if value else value
    if isinstance(value, Mapping):
        return {
            key: item if key in _KEYS_WITHOUT_NUL else _with_nul(item)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_with_nul(item) for item in value]
    return value


_KEYS_WITHOUT_NUL = frozenset({"timestamp", "createdAt"})


def _with_nul_keys(value: Any) -> Any:
    """Appends U+0000 to every key."""
    if isinstance(value, Mapping):
        return {f"{key}\0": _with_nul_keys(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_nul_keys(item) for item in value]
    return value
