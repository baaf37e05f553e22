"""Page of one conversation: summary, facts, transcript and recording."""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime

from ..views.query_reader import Reader, Row
from . import components, formats, queries
from .conversations import outcome, score
from .markup import Child, Markup, tag
from .queries import Conversation
from .totals import RED_SECONDS

_UNKNOWN_CHANNEL = "unknown"
"""The views' value for a missing channel."""


def page(
    reader: Reader, agent_id: str, conversation_id: str, back: Markup, player: Markup
) -> Markup:
    """Returns the page.

    Args:
        reader: Reader of the warehouse.
        agent_id: Agent of the conversation.
        conversation_id: The conversation.
        back: Button that leads back to the list.
        player: Player of the recording.
    """
    one = queries.conversation(reader, agent_id, conversation_id)
    back_row = tag("div", back)
    if one is None:
        return components.page(
            back_row,
            components.message(
                "This conversation is not in the warehouse",
                "It may not be loaded yet, or it was erased.",
            ),
            name="conversation",
        )
    facts = one.facts
    return components.page(
        back_row,
        tag(
            "div",
            tag(
                "div",
                _heading(facts, one.tags),
                components.card("Recording", player) if _may_be_recorded(facts) else None,
                _facts(facts),
                class_="pw-aside",
            ),
            components.card("Transcript", _transcript(one)),
            class_="pw-conversation",
        ),
        name="conversation",
    )


def _may_be_recorded(facts: Row) -> bool:
    return bool(facts["is_voice"]) or facts["channel"] == _UNKNOWN_CHANNEL


def _heading(facts: Row, tags: list[str]) -> Markup:
    return components.card(
        facts["summary_heading"] or facts["conversation_id"],
        tag("p", facts["summary"], dir="auto") if facts["summary"] else None,
        tag("blockquote", facts["note"], dir="auto") if facts["note"] else None,
        tag(
            "p",
            outcome(facts),
            components.chip("Abandoned", "pw-bad") if facts["is_abandoned"] else None,
            *(components.chip(one) for one in tags),
            class_="pw-chips",
        ),
        note=f"{formats.moment(facts['local_started_at'])} · {facts['channel']} · "
        f"{formats.named(facts.get('agent_name'), facts['agent_id'])}",
    )


def _facts(facts: Row) -> Markup:
    variant = formats.named(facts["variant_name"], facts["variant_id"])
    return components.card(
        "Facts",
        components.facts(
            [
                ("Handle time", formats.duration(facts["handle_time_seconds"])),
                ("Agent time", formats.duration(facts["polyai_duration_seconds"])),
                ("PolyScore", score(facts).removeprefix("PolyScore ")),
                ("CSAT", _of_five(facts["csat_score"])),
                ("Latency, median", formats.seconds(facts["latency_seconds_p50"])),
                ("Latency, p95", formats.seconds(facts["latency_seconds_p95"])),
                ("Turns", formats.count(facts["num_turns"])),
                ("Handoff destination", facts["handoff_destination"]),
                ("Handoff reason", facts["handoff_reason"]),
                ("From", facts["from_number"]),
                ("To", facts["to_number"]),
                ("Direction", formats.phrase(facts["direction"])),
                ("Environment", facts["environment"]),
                ("Variant", variant if variant != "none" else None),
                *_deployment(facts),
                ("Language", facts["language"]),
                ("Id", facts["conversation_id"]),
            ]
        ),
    )


def _deployment(facts: Row) -> list[tuple[str, str | None]]:
    """Returns the facts of its deployment; none if neither version nor message is known."""
    version, message = facts.get("deployment_version"), facts.get("deployment_message")
    if not version and not message:
        return []
    deployed_at, deployed_by = facts["deployed_at"], facts["deployed_by"]
    return [
        (
            "Deployment",
            components.lines_of(version, tag("span", facts["deployment_id"], class_="pw-quiet")),
        ),
        ("Deployed", f"{formats.moment(deployed_at)} UTC" if deployed_at else None),
        ("Deployed by", deployed_by),
        ("Deployment message", message),
    ]


def _of_five(value: float | None) -> str:
    return "" if value is None else f"{value:g} of 5"


def _transcript(one: Conversation) -> Markup:
    if not one.turns:
        text = (
            "PolyAI no longer has the turns, or withholds them."
            if one.facts["num_turns"]
            else "The conversation has no turns."
        )
        return components.empty(text)
    events: dict[int, list[Row]] = defaultdict(list)
    for event in one.events:
        events[event["turn_index"]].append(event)
    annotations: dict[tuple[int, str], list[Row]] = defaultdict(list)
    for row in one.annotations:
        annotations[row["turn_index"], row["role"] or "agent"].append(row)
    started_at = one.facts["began_at"]
    return tag(
        "ol",
        *(
            item
            for turn in one.turns
            for item in (
                _caller(turn, started_at, annotations[turn["turn_index"], "user"]),
                *(_event(event) for event in events[turn["turn_index"]]),
                _agent(turn, started_at, annotations[turn["turn_index"], "agent"]),
            )
        ),
        class_="pw-transcript",
    )


def _caller(turn: Row, started_at: datetime, annotations: list[Row]) -> Markup | None:
    keys = turn["user_input_dtmf"]
    chips = [
        components.chip(f"pressed {keys}") if keys else None,
        components.chip("barge-in") if turn["barge_in"] else None,
        components.chip("out of domain", "pw-bad") if turn["is_ood"] else None,
        components.chip("silence") if turn["is_silence"] else None,
    ]
    if not turn["user_input"] and not any(chips):
        return None
    return _bubble(
        "Caller",
        turn["user_input"],
        turn["translated_user_input"],
        _offset(turn["user_input_at"], started_at),
        chips,
        annotations,
    )


def _agent(turn: Row, started_at: datetime, annotations: list[Row]) -> Markup | None:
    if not turn["agent_response"]:
        return None
    latency = turn["latency_seconds"]
    chips = [
        components.chip(
            f"after {formats.seconds(latency)}", "pw-bad" if latency > RED_SECONDS else ""
        )
        if latency is not None
        else None
    ]
    return _bubble(
        "Agent",
        turn["agent_response"],
        turn["english_agent_response"],
        _offset(turn["agent_response_at"], started_at),
        chips,
        annotations,
    )


def _bubble(
    speaker: str,
    text: str | None,
    translated: str | None,
    at: str,
    chips: list[Markup | None],
    annotations: list[Row],
) -> Markup:
    return tag(
        "li",
        tag("p", tag("strong", speaker), f" {at}", *chips, class_="pw-who"),
        tag("p", text, dir="auto", class_="pw-said") if text else None,
        tag("p", translated, class_="pw-translated") if translated and translated != text else None,
        *(_annotation(row) for row in annotations),
        class_=f"pw-bubble pw-{speaker.lower()}",
    )


def _annotation(row: Row) -> Markup:
    parts: list[Child] = [formats.phrase(row["annotation_type"])]
    parts += [f": {row['comment']}"] if row["comment"] else []
    parts += [f" — {row['annotated_by']}"] if row["annotated_by"] else []
    return tag("p", tag("span", "⚑ ", aria_hidden="true"), *parts, class_="pw-annotation")


def _event(event: Row) -> Markup:
    failed = event["error"]
    return tag(
        "li",
        tag("code", event["name"]),
        f" {formats.milliseconds(event['duration_ms'])}",
        tag("span", f" failed: {failed}", class_="pw-bad") if failed else None,
        class_="pw-event",
    )


def _offset(at: datetime | None, started_at: datetime | None) -> str:
    """Time since the start of the conversation: 1:05."""
    if at is None or started_at is None:
        return ""
    seconds = max(0, round((at - started_at).total_seconds()))
    return f"{seconds // 60}:{seconds % 60:02}"
