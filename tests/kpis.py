"""Independent calculation of the numbers of the views, in plain Python from the sandbox's model.

Uses no tables, SQL or shaping code of the package: conversations in, rows out.
"""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from polyai.sandbox import Sandbox, texts
from polyai.sandbox.deployments import ENVIRONMENTS, Deployments
from polyai.sandbox.model import Conversation
from polyai.sandbox.traits import variant_id

Key = tuple[Any, ...]
Row = dict[str, Any]

NEW_SCALE = datetime(2026, 7, 28, tzinfo=UTC)
KPIS = (
    "containment_rate",
    "containment_rate_excl_abandoned",
    "handoff_rate",
    "handle_time_seconds_mean",
    "handle_time_seconds_p50",
    "handle_time_seconds_p95",
    "poly_score_1_5_mean",
    "poly_score_0_10_mean",
    "csat_mean",
    "csat_response_rate",
    "csat_net_share",
    "latency_seconds_p50",
    "latency_seconds_p95",
)


def all_calls(sandbox: Sandbox) -> list[Conversation]:
    """Returns the current state of every conversation."""
    return [
        sandbox.conversation(agent, index)
        for agent in sandbox.config.agents
        for index in sandbox.listed(agent)
    ]


def agent_names(sandbox: Sandbox) -> dict[str, str]:
    return dict(zip(sandbox.config.agents, texts.AGENT_NAMES))


def variant_names() -> dict[str, str]:
    return {variant_id(number): name for number, name in enumerate(texts.VARIANTS)}


def deployments(sandbox: Sandbox) -> dict[str | None, tuple[Any, ...]]:
    """Returns version, time, user and message by id; those of no deployment are unknown."""
    return {None: (None,) * 4} | {
        one.deployment_id: (one.version, one.created_at, one.created_by, words(one.message))
        for agent in sandbox.config.agents
        for environment in ENVIRONMENTS
        for one in Deployments(sandbox.config, agent).listed(environment, sandbox.now)
    }


def percentile(values: Iterable[float], share: float) -> float | None:
    """Returns the continuous percentile, with linear interpolation between neighbours."""
    ordered = sorted(values)
    if not ordered:
        return None
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def words(value: Any) -> str | None:
    """Returns a value as it is stored in a text column."""
    if value is None or value == "":
        return None
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def local_date(call: Conversation, zone: str) -> date:
    return (call.started_at or call.created_at).astimezone(ZoneInfo(zone)).date()


def day_of(call: Conversation, zone: str) -> Key:
    """Returns agent, channel, environment, variant and local date."""
    return (
        call.agent_id,
        call.channel or "unknown",
        call.environment,
        words(call.variant_id) or "none",
        local_date(call, zone),
    )


def by_day(calls: Iterable[Conversation], zone: str) -> dict[Key, list[Conversation]]:
    found: dict[Key, list[Conversation]] = defaultdict(list)
    for call in calls:
        found[day_of(call, zone)].append(call)
    return found


def samples(call: Conversation, name: str) -> list[Any]:
    return [
        sample.value
        for metric in call.metrics or ()
        if metric.name == name
        for sample in metric.samples
    ]


def is_true(values: Sequence[Any]) -> bool:
    """Returns whether any value of a metric is not false, 0 or empty."""
    texts = [str(value).strip() for value in values if value is not None]
    return any(text and text.lower() != "false" and text not in ("0", "0.0") for text in texts)


def last(call: Conversation, name: str) -> Any:
    """Returns the last value of a metric that has one, as of a call that was tried again."""
    known = [value for value in samples(call, name) if value not in (None, "")]
    return known[-1] if known else None


def is_confirmed(value: Any) -> bool:
    return str(value).lower() in ("true", "yes", "1", "1.0")


def csat_score(call: Conversation) -> float | None:
    scores = [float(value) for value in samples(call, "CSAT_SCORE")]
    valid = [score for score in scores if 1 <= score <= 5]
    return valid[-1] if valid else None


def is_offered(call: Conversation) -> bool:
    return is_true(samples(call, "CSAT_OFFERED")) or csat_score(call) is not None


def is_finished(call: Conversation) -> bool:
    return call.in_progress is not True


def is_handed_off(call: Conversation) -> bool:
    return is_finished(call) and call.handoff is True


def is_abandoned(call: Conversation) -> bool:
    if not is_finished(call) or call.handoff is True:
        return False
    if is_true(samples(call, "CHAT_ABANDONED")):
        return True
    if not (call.channel or "").startswith("VOICE"):
        return False
    if call.total_duration_seconds is not None and call.total_duration_seconds < 10:
        return True
    turns = call.turns or ()
    return bool(turns) and not any(turn.user_input or turn.user_input_dtmf for turn in turns)


def latencies(calls: Iterable[Conversation]) -> list[float]:
    return [
        turn.latency_seconds
        for call in calls
        for turn in call.turns or ()
        if turn.latency_seconds is not None
    ]


def kpi_daily(calls: Sequence[Conversation], zone: str) -> dict[Key, Row]:
    """Returns the rows of `kpi_daily` by their key."""
    days = {key: _day(found) for key, found in by_day(calls, zone).items()}
    for key, row in days.items():
        before = days.get((*key[:-1], key[-1] - timedelta(days=1)), {})
        row["conversations_change"] = row["conversations"] - before.get("conversations", 0)
        for name in KPIS:
            now, then = row[name], before.get(name)
            row[f"{name}_change"] = None if now is None or then is None else now - then
    return days


def _day(calls: Sequence[Conversation]) -> Row:
    finished = [call for call in calls if is_finished(call)]
    handed_off = [call for call in finished if call.handoff is True]
    contained = [call for call in finished if call.handoff is not True]
    abandoned = [call for call in finished if is_abandoned(call)]
    strictly = [call for call in contained if not is_abandoned(call)]
    times = [c.total_duration_seconds for c in finished if c.total_duration_seconds is not None]
    scored = [call for call in calls if call.poly_score is not None]
    new = [float(c.poly_score or 0) for c in scored if c.created_at >= NEW_SCALE]
    old = [float(c.poly_score or 0) for c in scored if c.created_at < NEW_SCALE]
    answers = [score for call in calls if (score := csat_score(call)) is not None]
    offers = sum(is_offered(call) for call in calls)
    satisfied, dissatisfied = sum(a >= 4 for a in answers), sum(a <= 2 for a in answers)
    waits = latencies(calls)
    return {
        "conversations": len(calls),
        "finished_conversations": len(finished),
        "handed_off_conversations": len(handed_off),
        "contained_conversations": len(contained),
        "abandoned_conversations": len(abandoned),
        "contained_excl_abandoned_conversations": len(strictly),
        "timed_conversations": len(times),
        "handle_time_seconds_sum": math.fsum(times) if times else None,
        "scored_conversations_1_5": len(new),
        "poly_score_1_5_sum": math.fsum(new) if new else None,
        "scored_conversations_0_10": len(old),
        "poly_score_0_10_sum": math.fsum(old) if old else None,
        "high_score_conversations": sum(score >= 5 for score in new),
        "medium_score_conversations": sum(3 <= score < 5 for score in new),
        "low_score_conversations": sum(score < 3 for score in new),
        "csat_offers": offers,
        "csat_answers": len(answers),
        "csat_score_sum": math.fsum(answers) if answers else None,
        "csat_satisfied": satisfied,
        "csat_dissatisfied": dissatisfied,
        "latency_turns": len(waits),
        "latency_seconds_sum": math.fsum(waits) if waits else None,
        "containment_rate": ratio(len(contained), len(finished)),
        "containment_rate_excl_abandoned": ratio(len(strictly), len(finished)),
        "handoff_rate": ratio(len(handed_off), len(finished)),
        "handle_time_seconds_mean": mean(times),
        "handle_time_seconds_p50": percentile(times, 0.5),
        "handle_time_seconds_p95": percentile(times, 0.95),
        "poly_score_1_5_mean": mean(new),
        "poly_score_0_10_mean": mean(old),
        "csat_mean": mean(answers),
        "csat_response_rate": ratio(len(answers), offers),
        "csat_net_share": ratio(satisfied - dissatisfied, len(answers)),
        "latency_seconds_p50": percentile(waits, 0.5),
        "latency_seconds_p95": percentile(waits, 0.95),
    }


def handoff_reasons_daily(calls: Sequence[Conversation], zone: str) -> dict[Key, Row]:
    found: dict[Key, Row] = defaultdict(lambda: {"handed_off_conversations": 0})
    for call in calls:
        if is_handed_off(call):
            key = (*day_of(call, zone), words(call.handoff_reason) or "unknown")
            found[key]["handed_off_conversations"] += 1
    return found


def topics_daily(calls: Sequence[Conversation], zone: str) -> dict[Key, Row]:
    asked: dict[Key, list[str]] = defaultdict(list)
    for call in calls:
        for turn in call.turns or ():
            for topic in ",".join(turn.topics).split(","):
                if topic.strip():
                    asked[(*day_of(call, zone), topic.strip())].append(call.conversation_id)
    return {
        key: {"conversations": len(set(ids)), "retrievals": len(ids)} for key, ids in asked.items()
    }


def function_health_daily(calls: Sequence[Conversation], zone: str) -> dict[Key, Row]:
    events: dict[Key, list[Any]] = defaultdict(list)
    for call in calls:
        for event in call.function_events or ():
            events[(*day_of(call, zone), event.name)].append(event)
    rows = {}
    for key, found in events.items():
        times = [event.duration_ms for event in found if event.duration_ms is not None]
        errors = sum(bool(event.error) for event in found)
        rows[key] = {
            "function_calls": len(found),
            "function_errors": errors,
            "function_error_rate": errors / len(found),
            "function_duration_ms_mean": mean(times),
            "function_duration_ms_p50": percentile(times, 0.5),
            "function_duration_ms_p95": percentile(times, 0.95),
        }
    return rows


def turn_latency_daily(calls: Sequence[Conversation], zone: str) -> dict[Key, Row]:
    rows = {}
    for key, found in by_day(calls, zone).items():
        waits = latencies(found)
        if turns := sum(len(call.turns or ()) for call in found):
            rows[key] = {
                "turns": turns,
                "latency_turns": len(waits),
                "latency_seconds_sum": math.fsum(waits) if waits else None,
                "latency_seconds_mean": mean(waits),
                "latency_seconds_p50": percentile(waits, 0.5),
                "latency_seconds_p95": percentile(waits, 0.95),
                "latency_seconds_p99": percentile(waits, 0.99),
                "latency_seconds_max": max(waits, default=None),
                "num_turns_over_2s": sum(wait > 2 for wait in waits),
                "num_turns_over_3s": sum(wait > 3 for wait in waits),
            }
    return rows


def outbound_daily(calls: Sequence[Conversation], zone: str) -> dict[Key, Row]:
    rows = {}
    for key, found in by_day(filter(is_outbound, calls), zone).items():
        day = _day(found)
        attempted = [c for c in found if is_finished(c) or samples(c, "OUTBOUND_CALL_STATUS")]
        connected = [c for c in found if is_connected(c)]
        answered_by = Counter(who for c in found for who in all_who_answered(c))
        statuses = Counter(last(c, "OUTBOUND_CALL_STATUS") for c in found)
        codes = Counter(str(last(c, "OUTBOUND_CALL_SIP_CODE"))[0] for c in found)
        completed = [c for c in found if is_completed(c)]
        answered = sum(is_finished(c) and has_spoken(c) for c in found)
        rows[key] = {
            "conversations": day["conversations"],
            "finished_conversations": day["finished_conversations"],
            "answered_conversations": answered,
            "handed_off_conversations": day["handed_off_conversations"],
            "contained_excl_abandoned_conversations": day["contained_excl_abandoned_conversations"],
            "answer_rate": ratio(answered, day["finished_conversations"]),
            "handle_time_seconds_mean": day["handle_time_seconds_mean"],
            "attempted_conversations": len(attempted),
            "connected_conversations": len(connected),
            "human_conversations": answered_by["human"],
            "voicemail_conversations": answered_by["voicemail"],
            "ivr_conversations": answered_by["ivr"],
            "completed_conversations": len(completed),
            "caller_hangups": sum((hangup_category(c) or "").startswith("caller") for c in found),
            "busy_conversations": statuses["Busy"],
            "unavailable_conversations": statuses["Unavailable"],
            **{f"sip_{n}xx_conversations": codes[str(n)] for n in (2, 4, 5, 6)},
            "connection_rate": ratio(len(connected), len(attempted)),
            "human_rate": ratio(answered_by["human"], len(connected)),
            "completion_rate": ratio(len(completed), len(connected)),
        }
    return rows


def is_outbound(call: Conversation) -> bool:
    return (call.direction or ("outbound" if call.is_outbound else None)) == "outbound"


def is_connected(call: Conversation) -> bool | None:
    if not is_outbound(call):
        return None
    if samples(call, "CALL_CONNECTED"):
        return is_confirmed(last(call, "CALL_CONNECTED"))
    status = last(call, "OUTBOUND_CALL_STATUS")
    return status == "Success" if status else None


def is_completed(call: Conversation) -> bool:
    return is_confirmed(last(call, "CALL_COMPLETED"))


def all_who_answered(call: Conversation) -> set[str]:
    return {value.lower() for value in samples(call, "CALL_ANSWERED_BY")}


def call_answered_by(call: Conversation) -> str | None:
    """Returns the best of those that answered."""
    answered = all_who_answered(call)
    return next((who for who in ("human", "voicemail", "ivr") if who in answered), None)


def hangup_category(call: Conversation) -> str | None:
    if not is_finished(call):
        return None
    if is_connected(call) is False:
        return "not_connected"
    if is_handed_off(call):
        return "handoff"
    is_person = call_answered_by(call) != "voicemail"
    hung_up = is_confirmed(last(call, "USER_HANGUP")) and is_person
    by_agent = any(event.extra.get("hangup") for event in call.function_events or ())
    who = "caller" if hung_up else "agent" if by_agent else None
    gave_up = is_abandoned(call) and not is_outbound(call)
    who = who or ("caller" if gave_up else "unknown")
    if call.turns and not has_spoken(call):
        return f"{who}_before_input"
    return f"{who}_after_completion" if is_completed(call) else f"{who}_in_dialogue"


def has_spoken(call: Conversation) -> bool:
    return any(turn.user_input or turn.user_input_dtmf for turn in call.turns or ())


def csat_responses(calls: Sequence[Conversation], zone: str) -> dict[Key, Row]:
    rows = {}
    for call in calls:
        if is_offered(call):
            score = csat_score(call)
            rows[call.agent_id, call.conversation_id] = {
                "local_date": local_date(call, zone),
                "is_accepted": is_true(samples(call, "CSAT_ACCEPTED")),
                "is_denied": is_true(samples(call, "CSAT_DENIED")),
                "is_completed": is_true(samples(call, "CSAT_COMPLETED")),
                "csat_score": score,
                "csat_feedback": next(iter(samples(call, "CSAT_FREE_FEEDBACK")), None),
            }
    return rows


def annotation_queue(calls: Sequence[Conversation], zone: str) -> dict[Key, Row]:
    rows = {}
    for call in calls:
        turns = call.turns or ()
        p95 = percentile(latencies([call]), 0.95)
        row: Row = {
            "has_low_score": call.created_at >= NEW_SCALE
            and call.poly_score is not None
            and call.poly_score < 3,
            "is_handed_off": call.handoff is True,
            "has_ood": any(turn.is_ood for turn in turns),
            "has_long_silence": sum(turn.is_silence is True for turn in turns) >= 2,
            "has_high_latency": p95 is not None and p95 > 3,
        }
        reasons = sum(row.values())
        if reasons and is_finished(call) and not any(turn.annotations for turn in turns):
            row |= {"num_reasons": reasons, "local_date": local_date(call, zone)}
            rows[call.agent_id, call.conversation_id] = row
    return rows


def repeat_callers(calls: Sequence[Conversation], zone: str) -> dict[Key, Row]:
    lines: dict[Key, list[Conversation]] = defaultdict(list)
    for call in calls:
        number = call.from_number
        if not is_outbound(call) and number not in (None, "REDACTED", "polyai"):
            lines[call.agent_id, call.environment, number].append(call)
    before: dict[Key, tuple[int, Conversation | None]] = {}
    for line in lines.values():
        line.sort(key=lambda call: (call.started_at or call.created_at, call.conversation_id))
        for place, call in enumerate(line, 1):
            earlier = line[place - 2] if place > 1 else None
            before[call.agent_id, call.conversation_id] = place, earlier
    rows = {}
    for call in calls:
        key = (call.agent_id, call.conversation_id)
        names = [m.name for m in call.metrics or () if m.name.startswith("REPEAT_CALLER_")]
        is_flagged = any(is_true(samples(call, name)) for name in names)
        contact, previous = before.get(key, (None, None))
        if is_flagged or (contact or 0) > 1:
            rows[key] = {
                "local_date": local_date(call, zone),
                "is_repeat_caller": is_flagged,
                "contact_number": contact,
                "previous_conversation_id": previous and previous.conversation_id,
                "hours_since_previous": previous
                and (_began(call) - _began(previous)) / timedelta(hours=1),
            }
    return rows


def _began(call: Conversation) -> datetime:
    return call.started_at or call.created_at


def red_flags(calls: Sequence[Conversation], zone: str, now: datetime) -> dict[Key, Row]:
    """Returns the crossed thresholds by agent, local date and flag."""
    live = [call for call in calls if call.environment == "live"]
    today = now.astimezone(ZoneInfo(zone)).date()
    newest = max(today, *(local_date(call, zone) for call in calls))
    rows: dict[Key, Row] = {}
    for agent in {call.agent_id for call in live}:
        days: Mapping[date, list[Conversation]] = defaultdict(list)
        for call in live:
            if call.agent_id == agent:
                days[local_date(call, zone)].append(call)
        first = min(days)
        for number in range((newest - first).days + 1):
            day = first + timedelta(days=number)
            for flag, value, threshold, baseline in _flags(days, first, day, is_over=day < today):
                rows[agent, day, flag] = {
                    "value": value,
                    "threshold": threshold,
                    "baseline": baseline,
                }
    return rows


def _flags(
    days: Mapping[date, list[Conversation]], first: date, day: date, *, is_over: bool
) -> Iterable[tuple[str, float, float, float | None]]:
    calls = days.get(day, [])
    for flag, share in (("latency_p50", 0.5), ("latency_p95", 0.95)):
        wait = percentile(latencies(calls), share)
        if wait is not None and wait > 3:
            yield flag, wait, 3, None
    events = [event for call in calls for event in call.function_events or ()]
    if events and (rate := sum(bool(event.error) for event in events) / len(events)) > 0.05:
        yield "function_errors", rate, 0.05, None
    rate_now = _handoffs(calls)
    if rate_now is not None and rate_now > 0.5:
        yield "handoff_rate", rate_now, 0.5, None
    usual = _handoffs([c for n in range(1, 8) for c in days.get(day - timedelta(days=n), [])])
    if rate_now is not None and usual and rate_now >= 1.2 * usual:
        yield "handoff_above_baseline", rate_now, 1.2 * usual, usual
    earlier = [
        len(days.get(past, []))
        for weeks in range(1, 5)
        if (past := day - timedelta(weeks=weeks)) >= first
    ]
    volume = mean(earlier)
    if is_over and volume and len(calls) <= 0.7 * volume:
        yield "volume_down", len(calls), 0.7 * volume, volume


def _handoffs(calls: Sequence[Conversation]) -> float | None:
    finished = [call for call in calls if is_finished(call)]
    return ratio(sum(call.handoff is True for call in finished), len(finished))


def hours_of(day: date, zone: str) -> float:
    """Returns the length of a local day in hours."""
    midnight = [
        datetime(d.year, d.month, d.day, tzinfo=ZoneInfo(zone)).astimezone(UTC)
        for d in (day, day + timedelta(days=1))
    ]
    return (midnight[1] - midnight[0]) / timedelta(hours=1)


DAILY: Mapping[str, tuple[tuple[str, ...], Callable[[Sequence[Conversation], str], Any]]] = {
    "kpi_daily": ((), kpi_daily),
    "handoff_reasons_daily": (("handoff_reason",), handoff_reasons_daily),
    "topics_daily": (("topic",), topics_daily),
    "function_health_daily": (("function_name",), function_health_daily),
    "turn_latency_daily": ((), turn_latency_daily),
    "outbound_daily": ((), outbound_daily),
}
"""Calculation of each daily view, with the columns of its key besides those of `day_of`."""

BY_CONVERSATION: Mapping[str, Callable[[Sequence[Conversation], str], dict[Key, Row]]] = {
    "csat_responses": csat_responses,
    "annotation_queue": annotation_queue,
    "repeat_callers": repeat_callers,
}
"""Calculation of each view with one row per conversation."""
