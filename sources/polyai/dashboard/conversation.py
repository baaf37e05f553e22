"""The page of one conversation: what it was about, what was said and done, and its recording."""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime

from ..views.query_reader import Reader, Row
from . import pieces, queries, wording
from .conversations import outcome, score
from .markup import Child, Markup, tag
from .queries import Conversation
from .totals import RED_SECONDS

_UNKNOWN_CHANNEL = "unknown"
"""What the views call one that is not told."""


def page(
    reader: Reader, agent_id: str, conversation_id: str, back: Markup, player: Markup
) -> Markup:
    """The page.

    Args:
        reader: Of the warehouse.
        agent_id: Of the conversation.
        conversation_id: The conversation.
        back: What leads back to the list.
        player: What plays the recording.
    """
    one = queries.conversation(reader, agent_id, conversation_id)
    leading_back = tag("div", back)
    if one is None:
        return pieces.page(
            leading_back,
            pieces.message(
                "This conversation is not in the warehouse",
                "It may not be loaded yet, or it was erased.",
            ),
            name="conversation",
        )
    facts = one.facts
    return pieces.page(
        leading_back,
        tag(
            "div",
            tag(
                "div",
                _heading(facts, one.tags),
                pieces.card("Recording", player) if _may_be_recorded(facts) else None,
                _facts(facts),
                class_="pw-aside",
            ),
            pieces.card("Transcript", _transcript(one)),
            class_="pw-conversation",
        ),
        name="conversation",
    )


def _may_be_recorded(facts: Row) -> bool:
    return bool(facts["is_voice"]) or facts["channel"] == _UNKNOWN_CHANNEL


def _heading(facts: Row, tags: list[str]) -> Markup:
    return pieces.card(
        facts["summary_heading"] or facts["conversation_id"],
        tag("p", facts["summary"], dir="auto") if facts["summary"] else None,
        tag("blockquote", facts["note"], dir="auto") if facts["note"] else None,
        tag(
            "p",
            outcome(facts),
            pieces.chip("Abandoned", "pw-bad") if facts["is_abandoned"] else None,
            *(pieces.chip(one) for one in tags),
            class_="pw-chips",
        ),
        note=f"{wording.moment(facts['local_started_at'])} · {facts['channel']} · "
        f"{facts['agent_id']}",
    )


def _facts(facts: Row) -> Markup:
    variant = facts["variant_name"] or facts["variant_id"]
    return pieces.card(
        "Facts",
        pieces.facts(
            [
                ("Handle time", wording.duration(facts["handle_time_seconds"])),
                ("Agent's part", wording.duration(facts["polyai_duration_seconds"])),
                ("PolyScore", score(facts).removeprefix("PolyScore ")),
                ("CSAT", _of_five(facts["csat_score"])),
                ("Latency, median", wording.seconds(facts["latency_seconds_p50"])),
                ("Latency, p95", wording.seconds(facts["latency_seconds_p95"])),
                ("Turns", wording.count(facts["num_turns"])),
                ("Handed to", facts["handoff_destination"]),
                ("Handoff reason", facts["handoff_reason"]),
                ("From", facts["from_number"]),
                ("To", facts["to_number"]),
                ("Direction", wording.phrase(facts["direction"])),
                ("Environment", facts["environment"]),
                ("Variant", variant if variant != "none" else None),
                ("Language", facts["language"]),
                ("Id", facts["conversation_id"]),
            ]
        ),
    )


def _of_five(value: float | None) -> str:
    return "" if value is None else f"{value:g} of 5"


def _transcript(one: Conversation) -> Markup:
    if not one.turns:
        said = (
            "PolyAI has its turns no more, or does not hand them out."
            if one.facts["num_turns"]
            else "It has no turns."
        )
        return pieces.nothing(said)
    events: dict[int, list[Row]] = defaultdict(list)
    for event in one.events:
        events[event["turn_index"]].append(event)
    annotations: dict[tuple[int, str], list[Row]] = defaultdict(list)
    for row in one.annotations:
        annotations[row["turn_index"], row["role"] or "agent"].append(row)
    began = one.facts["began_at"]
    return tag(
        "ol",
        *(
            piece
            for turn in one.turns
            for piece in (
                _caller(turn, began, annotations[turn["turn_index"], "user"]),
                *(_event(event) for event in events[turn["turn_index"]]),
                _agent(turn, began, annotations[turn["turn_index"], "agent"]),
            )
        ),
        class_="pw-transcript",
    )


def _caller(turn: Row, began: datetime, annotations: list[Row]) -> Markup | None:
    keys = turn["user_input_dtmf"]
    chips = [
        pieces.chip(f"pressed {keys}") if keys else None,
        pieces.chip("spoke over the agent") if turn["barge_in"] else None,
        pieces.chip("out of domain", "pw-bad") if turn["is_ood"] else None,
        pieces.chip("silence") if turn["is_silence"] else None,
    ]
    if not turn["user_input"] and not any(chips):
        return None
    return _bubble(
        "Caller",
        turn["user_input"],
        turn["translated_user_input"],
        _offset(turn["user_input_at"], began),
        chips,
        annotations,
    )


def _agent(turn: Row, began: datetime, annotations: list[Row]) -> Markup | None:
    if not turn["agent_response"]:
        return None
    wait = turn["latency_seconds"]
    chips = [
        pieces.chip(f"after {wording.seconds(wait)}", "pw-bad" if wait > RED_SECONDS else "")
        if wait is not None
        else None
    ]
    return _bubble(
        "Agent",
        turn["agent_response"],
        turn["english_agent_response"],
        _offset(turn["agent_response_at"], began),
        chips,
        annotations,
    )


def _bubble(
    who: str,
    said: str | None,
    translated: str | None,
    at: str,
    chips: list[Markup | None],
    annotations: list[Row],
) -> Markup:
    return tag(
        "li",
        tag("p", tag("strong", who), f" {at}", *chips, class_="pw-who"),
        tag("p", said, dir="auto", class_="pw-said") if said else None,
        tag("p", translated, class_="pw-translated") if translated and translated != said else None,
        *(_annotation(row) for row in annotations),
        class_=f"pw-bubble pw-{who.lower()}",
    )


def _annotation(row: Row) -> Markup:
    by: list[Child] = [wording.phrase(row["annotation_type"])]
    by += [f": {row['comment']}"] if row["comment"] else []
    by += [f" — {row['annotated_by']}"] if row["annotated_by"] else []
    return tag("p", tag("span", "⚑ ", aria_hidden="true"), *by, class_="pw-annotation")


def _event(event: Row) -> Markup:
    failed = event["error"]
    return tag(
        "li",
        tag("code", event["name"]),
        f" {wording.milliseconds(event['duration_ms'])}",
        tag("span", f" failed: {failed}", class_="pw-bad") if failed else None,
        class_="pw-event",
    )


def _offset(at: datetime | None, began: datetime | None) -> str:
    """How long after the begin: 1:05."""
    if at is None or began is None:
        return ""
    seconds = max(0, round((at - began).total_seconds()))
    return f"{seconds // 60}:{seconds % 60:02}"
