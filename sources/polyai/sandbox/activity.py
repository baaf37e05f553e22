"""Function events and metrics of a conversation."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from random import Random
from typing import Any

from . import texts
from .dialogue import llm_request_id
from .model import Conversation, FunctionEvent, Metric, Sample, Turn
from .oddities import Odd
from .traits import Outcome, Traits

_ERROR_OBJECT = {"code": 504, "message": "Gateway Time-out"}
_CONTENT_OBJECT = {"ok": True, "rows": [1, 2]}
_STATUSES = {"unavailable": ("Unavailable", "480"), "busy": ("Busy", "486")}
"""Status and SIP code of outbound calls that were not connected."""
_ANSWERED_BY = {
    "human": ("HUMAN",),
    "hangup": ("HUMAN",),
    "menu": ("IVR", "HUMAN"),
    "voicemail": ("VOICEMAIL",),
}
_NULL_KEYS: dict[str, Any] = {"hangup": None, "variant_id_change": None}


def function_events(
    head: Conversation,
    traits: Traits,
    turns: Sequence[Turn],
    rng: Random,
    odd: Odd,
    now: datetime,
) -> tuple[FunctionEvent, ...]:
    """Generates the function calls up to `now`, ordered by turn."""
    if not traits.is_reached:
        return ()
    topic, index = texts.TOPICS[traits.topic], head.index
    events = [_event(head, traits, 1, 0, "start_function", turns, rng, odd, {})]
    nodes = [number for number, turn in enumerate(turns, 1) if turn.intents]
    if nodes and not traits.is_abandoned:
        # the turn that books also asks for a phone number
        arguments = {
            "date": head.created_at.date().isoformat(),
            "guests": 2 + index % 6,
            "note": "",
        }
        events.append(
            _event(head, traits, nodes[-1], 0, topic.function, turns, rng, odd, arguments)
        )
        if not traits.is_handed_off:
            caller = head.to_number if head.is_outbound else head.from_number
            save = {"phone_number": caller, "retries": [1, 2][: index % 3]}
            number = nodes[-1]
            events.append(_event(head, traits, number, 1, "save_number", turns, rng, odd, save))
    return tuple(event for event in events if event.started_at and event.started_at <= now)


def _event(
    head: Conversation,
    traits: Traits,
    turn_number: int,
    position: int,
    name: str,
    turns: Sequence[Turn],
    rng: Random,
    odd: Odd,
    arguments: dict[str, Any],
) -> FunctionEvent:
    index = head.index
    user_input_at = turns[turn_number - 1].user_input_at if turns else None
    moment = (user_input_at or head.created_at) + timedelta(seconds=1 + position)
    share, milliseconds = rng.random(), 20 + rng.randrange(4000)
    failed = share < 0.04
    transfers = name == "transfer_call" and head.handoff is True
    reason = head.handoff_reason if isinstance(head.handoff_reason, str) else "CALLER_ASKED"
    extra = {} if "event extras missing" in odd else dict(_NULL_KEYS)
    if "unknown in event" in odd:
        extra |= {"retries": 1, "trace": {"span": "a1", "parent": None}, "cost": None}
    if "event identity differs" in odd:
        extra |= {"conversation_id": "CA-parent", "turn_id": turn_number + 100}
    return FunctionEvent(
        turn_number=turn_number,
        event_id=f"{index:08x}-0000-4000-9000-{turn_number:06x}{position:06x}",
        function_id=f"FUNCTION-{name}",
        function_version="3" if share > 0.5 else None,
        name=name,
        # RFC 1123 has no fractions of a second
        started_at=moment.replace(microsecond=0),
        duration_ms=milliseconds + (0.25 if "durations with fractions" in odd else 0),
        error=_error(odd, index) if failed else None,
        utterance=turns[turn_number - 1].agent_response if turns and position == 0 else None,
        content=_content(odd, int(share * 20)),
        handoff_type=head.handoff_destination if transfers else None,
        handoff_reason=reason if transfers else None,
        llm_request_id=llm_request_id(index, turn_number - 1) if turn_number > 1 else None,
        arguments=arguments,
        state_changes={"added": {"topic": traits.topic}, "removed": [], "updated": {}}
        if share > 0.3
        else None,
        logs=[{"level": "info", "message": name, "data": None}] if share > 0.7 else None,
        transition={"from": "start", "to": name} if share > 0.8 else None,
        handoff_extra={"sip": {"code": 202}, "priority": None}
        if transfers and "unknown in handoff" in odd
        else {},
        extra=extra,
    )


def _error(odd: Odd, index: int) -> Any:
    is_object = "event values as objects" in odd and index % 2
    return _ERROR_OBJECT if is_object else "TimeoutError: bookings API"


def _content(odd: Odd, draw: int) -> Any:
    if draw == 19 and "event values as objects" in odd:
        return _CONTENT_OBJECT
    return "done" if draw >= 17 else None


def metrics(
    head: Conversation,
    traits: Traits,
    turn_count: int,
    rng: Random,
    odd: Odd,
    now: datetime,
    *,
    small: bool,
) -> tuple[Metric, ...]:
    """Generates the metrics recorded up to `now`."""
    start = head.created_at + timedelta(seconds=2, microseconds=503245)
    end = head.created_at + timedelta(seconds=traits.total_seconds, microseconds=757917)
    topics = texts.TOPICS[traits.topic].retrieved
    found = [
        _metric("CALL_DURATION", end, str(traits.total_seconds)),
        _metric("TOTAL_AGENT_TURNS", end, str(turn_count)),
    ]
    if traits.variant_name is not None:
        found.append(_metric("VARIANT_ID", start, traits.variant_name))
    if not small and traits.is_reached:
        found.append(_metric("TOPIC", start, *topics))
        repeats = "true" if rng.random() < 0.2 else "False"
        found.append(_metric("REPEAT_CALLER_7D", start, repeats))
        found.append(_metric("Booking value: EUR", end, f"{rng.randrange(20000) / 100:.2f}"))
    if traits.is_handed_off:
        found.append(_metric("HANDOFF_REASON", end, head.handoff_reason or "CALLER_ASKED"))
    if traits.outcome is not None:
        found.extend(_outbound(traits.outcome, traits.total_seconds, start, end))
    if traits.is_abandoned and traits.is_chat:
        found.append(_metric("CHAT_ABANDONED", end, "true"))
    if not small and not traits.is_abandoned:
        found.extend(_satisfaction(rng, end))
    if "metric names" in odd:
        found.append(_metric("call_duration", start, "73", "74.5"))
        found.append(_metric("Call_Duration", start, "about a minute"))
    if "metric shapes" in odd:
        found.extend(_odd_metrics(head.index, start))
    if "metric list empty" in odd:
        found.append(Metric("UNUSED", ()))
    return tuple(metric for metric in (_until(metric, now) for metric in found) if metric)


def _metric(name: str, moment: datetime, *values: Any) -> Metric:
    if len(values) == 1:
        return Metric(name, (Sample(values[0], moment),))
    samples = (Sample(value, moment + timedelta(seconds=n)) for n, value in enumerate(values))
    return Metric(name, tuple(samples))


def _until(metric: Metric, now: datetime) -> Metric | None:
    """Limits a metric to the samples recorded up to `now`; None if there are none yet."""
    known = tuple(s for s in metric.samples if s.recorded_at is None or s.recorded_at <= now)
    return metric._replace(samples=known) if known or not metric.samples else None


def _outbound(outcome: Outcome, total_seconds: int, start: datetime, end: datetime) -> list[Metric]:
    """Generates the platform's metrics of an outbound call."""
    status, code = _STATUSES.get(outcome, ("Success", "200"))
    found = [
        _metric("OUTBOUND_CALL_STATUS", start, status),
        _metric("OUTBOUND_CALL_SIP_CODE", start, code),
    ]
    if outcome in _STATUSES:
        return found
    found.append(_metric("CALL_CONNECTED", start, "true"))
    found.append(_metric("CALL_ANSWERED_BY", start, *_ANSWERED_BY[outcome]))
    found.append(_metric("AI_ONLY_CALL_DURATION", end, str(total_seconds)))
    ending = {"hangup": "USER_HANGUP", "voicemail": None}.get(outcome, "CALL_COMPLETED")
    return [*found, _metric(ending, end, "true")] if ending else found


def _satisfaction(rng: Random, end: datetime) -> list[Metric]:
    """Generates survey metrics: offered to some callers, answered by fewer, within 15 minutes."""
    offered, accepted, completed = (rng.random() for _ in range(3))
    score, wait = rng.choice("1234455555"), timedelta(seconds=rng.randrange(60, 880))
    feedback = rng.choice(texts.FEEDBACK)
    if offered > 0.4:
        return []
    found = [_metric("CSAT_OFFERED", end, "true")]
    if accepted > 0.6:
        return [*found, _metric("CSAT_DENIED", end + wait / 2, "true")]
    found.append(_metric("CSAT_ACCEPTED", end + wait / 2, "true"))
    found.append(_metric("CSAT_SCORE", end + wait, score))
    if completed < 0.7:
        found.append(_metric("CSAT_COMPLETED", end + wait, "true"))
        found.append(_metric("CSAT_FREE_FEEDBACK", end + wait, feedback))
    return found


def _odd_metrics(index: int, moment: datetime) -> list[Metric]:
    """Metrics of undocumented shapes, two per conversation."""
    shapes = (
        Metric("Agent Version", (Sample("2.14", None),), is_list=False),
        Metric("steps", (Sample("greet", None), Sample("book", None), Sample("", None))),
        Metric("retry count", (Sample(5, None),), is_list=False),
        Metric("ratio", (Sample(0.25, None), Sample(True, None), Sample(None, None))),
        Metric("verified", (Sample(True, None),), is_list=False),
        Metric("nothing", (Sample(None, None),), is_list=False),
        Metric("geo", (Sample({"lat": 51.5, "lon": -0.12, "tz": None}, None),), is_list=False),
        _metric("basket", moment, {"items": [{"sku": "A-1", "price": 12.5}], "note": ""}),
        _metric("Steps", moment, "73", "74.5"),
        _metric("STEPS", moment, "about a minute"),
        _metric("OVERFLOW", moment, "1e999", "-.5E-2", " 5", "NaN", ""),
        _metric("typed", moment, 12, 3.5, False, None),
    )
    turn = index // 3
    return [shapes[turn % len(shapes)], shapes[(turn + 7) % len(shapes)]]
