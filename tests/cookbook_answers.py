"""Independent calculation of the answers of the cookbook, in plain Python.

Like `kpis`, it uses no tables or SQL: conversations of the sandbox in, rows by key out.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Container, Hashable, Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import kpis
from kpis import Key, Row
from polyai.sandbox.deployments import Deployment
from polyai.sandbox.model import Conversation, FunctionEvent, Turn

ZONE = "Europe/London"
"""Reporting time zone; the days of the sandbox include a change of the clocks."""

Rows = dict[Key, Row]


class Book:
    """Content of a warehouse.

    Attributes:
        calls: Each conversation as it was when it was last fetched.
        read_again: Ids of the conversations that the last load fetched.
        read_at: Time of the last load, more than a day after the one before.
        deployments: Deployments by agent and id.
        newest: Newest local date.
    """

    def __init__(
        self,
        calls: Sequence[Conversation],
        read_again: Container[str],
        read_at: datetime,
        deployments: Mapping[Key, Deployment],
    ) -> None:
        self.calls = calls
        self.deployments = deployments
        self.read_again = read_again
        self.read_at = read_at
        self.newest = max(self.day(call) for call in calls)

    @staticmethod
    def day(call: Conversation) -> date:
        return kpis.local_date(call, ZONE)

    def live(self, days: int | None = None) -> list[Conversation]:
        """Returns the `live` conversations of the given number of days up to the newest one."""
        return [
            call
            for call in self.calls
            if call.environment == "live"
            and (days is None or self.day(call) > self.newest - timedelta(days))
        ]

    def grouped(
        self, calls: Iterable[Conversation], by: Callable[[Conversation], Hashable]
    ) -> dict[Key, list[Conversation]]:
        """Groups conversations by agent and by another value."""
        found: dict[Key, list[Conversation]] = defaultdict(list)
        for call in calls:
            found[call.agent_id, by(call)].append(call)
        return found


def _is_contained(call: Conversation) -> bool:
    return kpis.is_finished(call) and call.handoff is not True


def _variant(call: Conversation) -> str:
    return kpis.words(call.variant_id) or "none"


def _month(day: date) -> date:
    return day.replace(day=1)


def _topics(call: Conversation) -> set[str]:
    names = {name.strip() for turn in call.turns or () for name in ",".join(turn.topics).split(",")}
    return names - {""}


def _said(turn: Turn) -> str | None:
    return turn.translated_user_input or turn.user_input


def containment_by_variant(book: Book) -> Rows:
    this = _month(book.newest)
    last = _month(this - timedelta(days=1))
    before = _month(last - timedelta(days=1))
    rows: Rows = {}
    for key, calls in book.grouped(book.live(), _variant).items():
        finished = [call for call in calls if kpis.is_finished(call)]
        now = [call for call in finished if last <= book.day(call) < this]
        then = [call for call in finished if before <= book.day(call) < last]
        if not any(before <= book.day(call) < this for call in calls):
            continue
        rate, old = (kpis.ratio(sum(map(_is_contained, c)), len(c)) for c in (now, then))
        rows[key] = {
            "finished_conversations": len(now) or None,
            "finished_before": len(then) or None,
            "containment_rate": rate,
            "containment_rate_before": old,
            "containment_rate_change": None if rate is None or old is None else rate - old,
        }
    return rows


def unanswered_questions(book: Book) -> Rows:
    rows: Rows = defaultdict(lambda: {"ids": set(), "out_of_domain_turns": 0, "missing": 0})
    for call in book.live(90):
        for turn in call.turns or ():
            types = {note.annotation_type for note in turn.annotations}
            said = _said(turn)
            if said and (turn.is_ood or "missing_topic" in types):
                row = rows[call.agent_id, said.lower()[:200]]
                row["ids"].add(call.conversation_id)
                row["out_of_domain_turns"] += turn.is_ood is True
                row["missing"] += "missing_topic" in types
    return {
        key: {
            "conversations": len(row["ids"]),
            "out_of_domain_turns": row["out_of_domain_turns"],
            "missing_topic_turns": row["missing"],
            "example_conversation_id": max(row["ids"]),
        }
        for key, row in rows.items()
    }


def failing_functions(book: Book) -> Rows:
    called: dict[Key, dict[str, tuple[Conversation, list[FunctionEvent]]]] = defaultdict(dict)
    for call in filter(kpis.is_finished, book.live(90)):
        for event in call.function_events or ():
            of_name = called[call.agent_id, event.name]
            of_name.setdefault(call.conversation_id, (call, []))[1].append(event)
    rows: Rows = {}
    for key, by_call in called.items():
        events = [event for _, found in by_call.values() for event in found]
        failed = [call for call, found in by_call.values() if any(e.error for e in found)]
        fine = [call for call, found in by_call.values() if not any(e.error for e in found)]
        rows[key] = {
            "function_calls": len(events),
            "function_errors": sum(bool(event.error) for event in events),
            "function_error_rate": sum(bool(event.error) for event in events) / len(events),
            "conversations": len(by_call),
            "failed_conversations": len(failed),
            "handoff_rate_where_failed": _handoff_rate(failed),
            "handoff_rate_where_not": _handoff_rate(fine),
        }
    return rows


def _handoff_rate(calls: Sequence[Conversation]) -> float | None:
    return kpis.ratio(sum(map(kpis.is_handed_off, calls)), len(calls))


def busiest_hours(book: Book) -> Rows:
    rows: Rows = {}
    for call in book.live(28):
        began = (call.started_at or call.created_at).astimezone(ZoneInfo(ZONE))
        key = (began.isoweekday(), began.hour)
        row = rows.setdefault(key, {"conversations": 0, "handed_off_conversations": 0})
        row["conversations"] += 1
        row["handed_off_conversations"] += kpis.is_handed_off(call)
        row["conversations_per_day"] = row["conversations"] / 4
    return rows


def csat_by_topic(book: Book) -> Rows:
    rows: Rows = {}
    for key, calls in _by_topic(filter(kpis.is_offered, book.live(90))).items():
        scores = [score for call in calls if (score := kpis.csat_score(call)) is not None]
        satisfied, not_so = sum(s >= 4 for s in scores), sum(s <= 2 for s in scores)
        rows[key] = {
            "csat_offers": len(calls),
            "csat_answers": len(scores),
            "csat_response_rate": len(scores) / len(calls),
            "csat_mean": kpis.mean(scores),
            "csat_net_share": kpis.ratio(satisfied - not_so, len(scores)),
        }
    return rows


def _by_topic(calls: Iterable[Conversation]) -> dict[Key, list[Conversation]]:
    found: dict[Key, list[Conversation]] = defaultdict(list)
    for call in calls:
        for topic in _topics(call):
            found[call.agent_id, topic].append(call)
    return found


def _called_again(book: Book) -> set[Key]:
    """Returns the conversations that the same caller followed with another one within a week."""
    return {
        (agent, row["previous_conversation_id"])
        for (agent, _), row in kpis.repeat_callers(book.calls, ZONE).items()
        if row["previous_conversation_id"] and row["hours_since_previous"] <= 7 * 24
    }


def _is_known(call: Conversation) -> bool:
    """Returns whether a conversation is inbound with an identifiable caller."""
    return not kpis.is_outbound(call) and call.from_number not in (None, "REDACTED", "polyai")


def called_again(book: Book) -> Rows:
    again = _called_again(book)
    week = timedelta(days=7)
    known = [c for c in book.live(97) if _is_known(c) and book.day(c) <= book.newest - week]
    rows: Rows = {}
    for key, calls in _by_topic(known).items():
        followed = [c for c in calls if (c.agent_id, c.conversation_id) in again]
        rows[key] = {
            "conversations": len(calls),
            "called_again": len(followed),
            "called_again_rate": len(followed) / len(calls),
            "callers": len({call.from_number for call in followed}),
        }
    return rows


def one_old_call(book: Book) -> Rows:
    old = [
        call
        for call in book.calls
        if (call.channel or "").startswith("VOICE")
        and call.turns
        and book.day(call) <= book.newest - timedelta(days=730)
    ]
    call = max(old, key=lambda call: call.started_at or call.created_at)
    return {
        (call.agent_id, number): {
            "conversation_id": call.conversation_id,
            "from_number": call.from_number,
            "user_input": turn.user_input,
            "agent_response": turn.agent_response,
        }
        for number, turn in enumerate(call.turns or ())
    }


def latency_by_deployment(book: Book) -> Rows:
    rows: Rows = {}
    grouped = book.grouped(book.live(30), lambda call: call.deployment_id or "unknown")
    for key, calls in grouped.items():
        timed = [call for call in calls if kpis.latencies([call])]
        waits = kpis.latencies(timed)
        if waits:
            rows[key] = {
                **_deployment(book, *key),
                "first_local_date": min(map(book.day, timed)),
                "conversations": len(timed),
                "latency_turns": len(waits),
                "latency_seconds_p50": kpis.percentile(waits, 0.5),
                "latency_seconds_p95": kpis.percentile(waits, 0.95),
                "share_over_3s": sum(wait > 3 for wait in waits) / len(waits),
            }
    return rows


def _deployment(book: Book, agent_id: Hashable, deployment_id: Hashable) -> Row:
    """Returns the names of a deployment; conversations of channels without one have none."""
    found = book.deployments.get((agent_id, deployment_id))
    return {
        "deployment_version": found and found.version,
        "deployed_at": found and found.created_at,
        "deployed_by": found and found.created_by,
        "deployment_message": (found and found.message) or None,
    }


def minutes_by_channel(book: Book) -> Rows:
    finished = filter(kpis.is_finished, book.calls)

    def place(call: Conversation) -> Key:
        return _month(book.day(call)), call.channel or "unknown", call.environment

    return {
        (agent, *where): {
            "finished_conversations": len(calls),
            "polyai_minutes": _minutes(call.polyai_duration_seconds for call in calls),
            "handle_minutes": _minutes(call.total_duration_seconds for call in calls),
            "contained_polyai_minutes": _minutes(
                call.polyai_duration_seconds for call in calls if _is_contained(call)
            ),
        }
        for (agent, where), calls in book.grouped(finished, place).items()
    }


def _minutes(seconds: Iterable[float | None]) -> float | None:
    known = [value for value in seconds if value is not None]
    return math.fsum(known) / 60 if known else None


def handoff_destinations(book: Book) -> Rows:
    handed = [call for call in book.live(30) if kpis.is_handed_off(call)]

    def place(call: Conversation) -> Key:
        return call.handoff_destination or "unknown", kpis.words(call.handoff_reason) or "unknown"

    return {
        (agent, *where): {
            "handed_off_conversations": len(calls),
            "share_of_handoffs": len(calls) / sum(call.agent_id == agent for call in handed),
            "polyai_duration_seconds_mean": kpis.mean(
                [c.polyai_duration_seconds for c in calls if c.polyai_duration_seconds is not None]
            ),
        }
        for (agent, where), calls in book.grouped(handed, place).items()
    }


def where_callers_give_up(book: Book) -> Rows:
    def node(call: Conversation) -> str:
        return (call.turns[-1].current_node if call.turns else None) or "none"

    rows: Rows = {}
    for key, calls in book.grouped(filter(kpis.is_finished, book.live(90)), node).items():
        given_up = [call for call in calls if kpis.is_abandoned(call)]
        answers = [call.turns[-1].agent_response or "" for call in given_up if call.turns]
        rows[key] = {
            "finished_conversations": len(calls),
            "abandoned_conversations": len(given_up),
            "abandoned_rate": len(given_up) / len(calls),
            # any of these is correct
            "example_agent_response": answers or None,
        }
    return rows


def longest_silences(book: Book) -> Rows:
    found: list[tuple[float, Key, Row]] = []
    for call in book.live(90):
        turns = call.turns or ()
        if not (call.channel or "").startswith("VOICE"):
            continue
        for number, turn in enumerate(turns):
            if turn.is_silence or number + 1 == len(turns) or not turns[number + 1].is_silence:
                continue
            after = number + 1
            while after < len(turns) and turns[after].is_silence:
                after += 1
            until = turns[after].user_input_at if after < len(turns) else None
            since = turn.agent_response_at
            quiet = (until - since).total_seconds() if until and since else None
            row = {"silent_turns": after - number - 1, "quiet_seconds": quiet}
            key = (call.agent_id, call.conversation_id, number)
            found.append((math.inf if quiet is None else -quiet, key, row))
    found.sort(key=lambda item: (item[0], item[1][1:]))
    return {key: row for _, key, row in found[:20]}


def annotations_by_reviewer(book: Book) -> Rows:
    found: dict[Key, list[Any]] = defaultdict(list)
    for call in book.calls:
        for turn in call.turns or ():
            for it in turn.annotations:
                key = (call.agent_id, it.annotated_by or "unknown", it.role, it.annotation_type)
                found[key].append((it.annotated_at, call.conversation_id))
    return {
        key: {
            "annotations": len(items),
            "conversations": len({conversation_id for _, conversation_id in items}),
            "last_annotated_at": max(moment for moment, _ in items),
        }
        for key, items in found.items()
    }


def variants_compared(book: Book) -> Rows:
    rows: Rows = {}
    for key, calls in book.grouped(book.live(30), _variant).items():
        finished = [call for call in calls if kpis.is_finished(call)]
        contained = [call for call in finished if _is_contained(call)]
        strictly = [call for call in contained if not kpis.is_abandoned(call)]
        answers = [score for call in calls if (score := kpis.csat_score(call)) is not None]
        scores = [c.poly_score for c in calls if c.poly_score and c.created_at >= kpis.NEW_SCALE]
        count, rate = len(finished), kpis.ratio(len(contained), len(finished))
        assert rate is not None
        spread = 1.96 * math.sqrt(rate * (1 - rate) / count)
        rows[key] = {
            "finished_conversations": count,
            "containment_rate": rate,
            "containment_rate_low": rate - spread,
            "containment_rate_high": rate + spread,
            "containment_rate_excl_abandoned": len(strictly) / count,
            "csat_answers": len(answers),
            "csat_mean": kpis.mean(answers),
            "scored_conversations_1_5": len(scores),
            "poly_score_1_5_mean": kpis.mean(scores),
        }
    return rows


def changed_since_yesterday(book: Book) -> Rows:
    limit = book.read_at - timedelta(hours=24)
    calls = [
        call
        for call in book.calls
        if call.conversation_id in book.read_again and (call.started_at or call.created_at) < limit
    ]
    grouped = book.grouped(calls, book.day)
    return {key: {"conversations": len(found)} for key, found in grouped.items()}


def complete_and_fresh(book: Book) -> Rows:
    return {
        (agent,): {
            "is_complete": True,
            "conversations": len(calls),
            "api_conversations": len(calls),
            "missing_conversations": 0,
            "open_failures": 0,
            "newest_conversation_at": max(call.started_at or call.created_at for call in calls),
        }
        for (agent, _), calls in book.grouped(book.calls, lambda _: None).items()
    }


def outbound_reach(book: Book) -> Rows:
    calls = filter(kpis.is_outbound, book.live(30))
    rows: Rows = {}
    for key, found in book.grouped(calls, lambda call: call.channel or "unknown").items():
        finished = [call for call in found if kpis.is_finished(call)]
        answered = [call for call in finished if kpis.has_spoken(call)]
        well = [c for c in finished if _is_contained(c) and not kpis.is_abandoned(c)]
        rows[key] = {
            "conversations": len(found),
            "finished_conversations": len(finished),
            "answered_conversations": len(answered),
            "answer_rate": kpis.ratio(len(answered), len(finished)),
            "handed_off_conversations": sum(map(kpis.is_handed_off, found)),
            "reached_and_contained_rate": kpis.ratio(len(well), len(answered)),
        }
    return rows


def outbound_results(book: Book) -> Rows:
    def result(call: Conversation) -> Key:
        code = kpis.last(call, "OUTBOUND_CALL_SIP_CODE")
        status = kpis.last(call, "OUTBOUND_CALL_STATUS")
        return status, code and int(code), kpis.call_answered_by(call)

    calls = filter(kpis.is_outbound, book.live(30))
    return {
        (agent, *where): {
            "conversations": len(found),
            "completed_conversations": sum(map(kpis.is_completed, found)),
            "caller_hangups": sum(
                (kpis.hangup_category(call) or "").startswith("caller") for call in found
            ),
            "handle_time_seconds_mean": _handle_time(found),
        }
        for (agent, where), found in book.grouped(calls, result).items()
    }


def who_hangs_up(book: Book) -> Rows:
    finished = [call for call in book.live(30) if kpis.is_finished(call)]
    totals = Counter((call.agent_id, call.channel or "unknown") for call in finished)

    def place(call: Conversation) -> Key:
        return call.channel or "unknown", kpis.hangup_category(call)

    return {
        (agent, *where): {
            "finished_conversations": len(found),
            "share": len(found) / totals[agent, where[0]],
            "handle_time_seconds_mean": _handle_time(found),
        }
        for (agent, where), found in book.grouped(finished, place).items()
    }


def since_last_deployment(book: Book) -> Rows:
    answered = [call for call in book.live() if call.deployment_id]
    groups = book.grouped(answered, lambda call: call.deployment_id)
    rows: Rows = {}

    def began(key: Key) -> datetime:
        if deployment := book.deployments.get(key):
            return deployment.created_at
        return min(call.started_at or call.created_at for call in groups[key])

    newest = sorted(groups.keys() | book.deployments.keys(), key=began, reverse=True)
    for agent in {agent for agent, _ in newest}:
        of_agent = [name for owner, name in newest if owner == agent]
        for ago, name in enumerate(of_agent[:2]):
            calls = list(filter(kpis.is_finished, groups.get((agent, name), ())))
            scores = [
                c.poly_score for c in calls if c.poly_score and c.created_at >= kpis.NEW_SCALE
            ]
            rows[agent, ago] = {
                "deployment_id": name,
                **_deployment(book, agent, name),
                "finished_conversations": len(calls),
                "containment_rate": kpis.ratio(sum(map(_is_contained, calls)), len(calls)),
                "handle_time_seconds_mean": _handle_time(calls),
                "poly_score_1_5_mean": kpis.mean(scores),
            }
    return rows


def _handle_time(calls: Iterable[Conversation]) -> float | None:
    """Returns the mean handle time of the finished ones."""
    finished = filter(kpis.is_finished, calls)
    seconds = [call.total_duration_seconds for call in finished]
    return kpis.mean([each for each in seconds if each is not None])


def phrase_in_transcripts(book: Book) -> Rows:
    found: list[tuple[float, Key, Row]] = []
    for call in book.live(30):
        began = (call.started_at or call.created_at).astimezone(ZoneInfo(ZONE))
        for number, turn in enumerate(call.turns or ()):
            words = (turn.user_input, turn.translated_user_input, turn.agent_response)
            user, translated, agent = ("cancel" in (text or "").lower() for text in words)
            if user or translated or agent:
                key = (call.agent_id, call.conversation_id, number)
                row = {
                    "is_said_by_caller": user or translated,
                    "user_input": turn.user_input,
                    "agent_response": turn.agent_response,
                    "local_started_at": began.replace(tzinfo=None),
                }
                found.append((-began.replace(tzinfo=None).timestamp(), key, row))
    found.sort(key=lambda item: (item[0], item[1][1:]))
    return {key: row for _, key, row in found[:100]}


def first_contact_resolution(book: Book) -> Rows:
    again = _called_again(book)
    limit = book.newest - timedelta(days=7)
    known = [
        call
        for call in book.live()
        if _is_known(call) and kpis.is_finished(call) and book.day(call) <= limit
    ]
    rows: Rows = {}
    for key, calls in book.grouped(known, lambda call: _month(book.day(call))).items():
        followed = {c.conversation_id for c in calls if (c.agent_id, c.conversation_id) in again}
        resolved = [
            call
            for call in calls
            if _is_contained(call)
            and not kpis.is_abandoned(call)
            and call.conversation_id not in followed
        ]
        rows[key] = {
            "finished_conversations": len(calls),
            "called_again": len(followed),
            "resolved_conversations": len(resolved),
            "first_contact_resolution_rate": len(resolved) / len(calls),
        }
    return rows


def growing_topics(book: Book) -> Rows:
    now = book.live(28)
    then = [call for call in book.live(56) if call not in now]
    of_now, of_then = _by_topic(now), _by_topic(then)
    rows: Rows = {}
    for key in of_now.keys() | of_then.keys():
        agent = key[0]
        counts = len(of_now.get(key, ())), len(of_then.get(key, ()))
        totals = [sum(call.agent_id == agent for call in calls) for calls in (now, then)]
        share, before = (kpis.ratio(count, total) for count, total in zip(counts, totals))
        rows[key] = {
            "conversations": counts[0],
            "conversations_before": counts[1],
            "share": share,
            "share_before": before,
            "share_change": (share or 0) - (before or 0),
        }
    return rows


_TURN = ("agent_id", "conversation_id", "turn_index")

ANSWERS: Mapping[str, tuple[tuple[str, ...], Callable[[Book], Rows]]] = {
    "01_containment_by_variant": (("agent_id", "variant_id"), containment_by_variant),
    "02_unanswered_questions": (("agent_id", "question"), unanswered_questions),
    "03_failing_functions": (("agent_id", "function_name"), failing_functions),
    "04_busiest_hours": (("iso_weekday", "local_hour"), busiest_hours),
    "05_csat_by_topic": (("agent_id", "topic"), csat_by_topic),
    "06_called_again": (("agent_id", "topic"), called_again),
    "07_one_old_call": (("agent_id", "turn_index"), one_old_call),
    "08_latency_by_deployment": (("agent_id", "deployment_id"), latency_by_deployment),
    "09_minutes_by_channel": (("agent_id", "month", "channel", "environment"), minutes_by_channel),
    "10_handoff_destinations": (
        ("agent_id", "handoff_destination", "handoff_reason"),
        handoff_destinations,
    ),
    "11_where_callers_give_up": (("agent_id", "last_node"), where_callers_give_up),
    "12_longest_silences": (
        ("agent_id", "conversation_id", "before_turn_index"),
        longest_silences,
    ),
    "13_annotations_by_reviewer": (
        ("agent_id", "annotated_by", "role", "annotation_type"),
        annotations_by_reviewer,
    ),
    "14_variants_compared": (("agent_id", "variant_id"), variants_compared),
    "15_changed_since_yesterday": (("agent_id", "local_date"), changed_since_yesterday),
    "16_complete_and_fresh": (("agent_id",), complete_and_fresh),
    "17_outbound_reach": (("agent_id", "channel"), outbound_reach),
    "18_phrase_in_transcripts": (_TURN, phrase_in_transcripts),
    "19_first_contact_resolution": (("agent_id", "month"), first_contact_resolution),
    "20_growing_topics": (("agent_id", "topic"), growing_topics),
    "21_outbound_results": (
        ("agent_id", "call_status", "sip_code", "answered_by"),
        outbound_results,
    ),
    "22_who_hangs_up": (("agent_id", "channel", "hangup_category"), who_hangs_up),
    "23_since_last_deployment": (("agent_id", "deployments_ago"), since_last_deployment),
}
"""Key and calculation of each recipe."""
