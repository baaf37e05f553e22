"""Removal of transcripts from rows that are loaded already, as `transcripts` does from answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import Any

from ..api.decoding import decode, encode
from ..tables.children import ANNOTATIONS, CONVERSATION_TAGS, FUNCTION_EVENTS, METRICS, NOTES
from ..tables.conversations import CONVERSATIONS
from ..tables.declaration import Table
from ..tables.rules import DROPPED
from ..tables.turns import LLM_REQUESTS, TURN_ENTITIES, TURN_INTENTS, TURN_TOPICS, TURNS
from .held_redaction import as_sent
from .transcripts import (
    CONVERSATION_CHECKS,
    EVENT_CHECKS,
    REVIEW_CHECKS,
    TURN_CHECKS,
    Check,
    conversation_fields,
    intent_names,
    kept_fields,
    measured,
    numbers,
)

Row = dict[str, Any]

EMPTIED_TABLES = (NOTES, TURN_ENTITIES, TURN_TOPICS, LLM_REQUESTS)
"""Tables that have no rows where transcripts are dropped."""

_OWNED = ("agent_id", "conversation_id")


def rows_without_transcript(table: Table, rows: Sequence[Row]) -> list[Row]:
    """Returns the rows of whole conversations as if they had been loaded without transcripts.

    Args:
        table: Table of a conversation's answer.
        rows: Its rows, JSON columns as text. They are changed in place.
    """
    if table in EMPTIED_TABLES:
        return []
    if table in (CONVERSATION_TAGS, TURN_INTENTS):
        return _labels(table, rows)
    if change := _CHANGES.get(table):
        for row in rows:
            change(row)
    return list(rows)


def _labels(table: Table, rows: Sequence[Row]) -> list[Row]:
    """Leaves out labels that were sent as objects, and numbers the positions of the others."""
    value = "tag" if table is CONVERSATION_TAGS else "intent"
    owner = [*_OWNED, *table.key[:-1]]

    def owner_of(row: Row) -> tuple[Any, ...]:
        return tuple(row[name] for name in owner)

    found: list[Row] = []
    for _, group in groupby(
        sorted(rows, key=lambda row: (owner_of(row), row["position"])), owner_of
    ):
        left_out = 0
        for row in group:
            if row[value] is not None and as_sent(row[value]) is not row[value]:
                left_out += 1
                continue
            row["position"] -= left_out
            found.append(row)
    return found


def _conversation(row: Row) -> None:
    _keep_fields(row, CONVERSATIONS, "", CONVERSATION_CHECKS)
    for name in ("summary", "summary_heading", "note", "state"):
        row[name] = None
    if row["extra"] is not None:
        _set_extra(row, conversation_fields(decode(row["extra"].encode())))


def _turn(row: Row) -> None:
    latency, intents = row["latency"], row["intents"]
    extra = {} if row["extra"] is None else decode(row["extra"].encode())
    _keep_fields(row, TURNS, "turns[].", TURN_CHECKS)
    for name in ("current_node", "asr_corrected_user_input"):
        row[name] = None
    if latency is not None:
        found = decode(latency.encode())
        row["latency"] = _as_text(latency, found, numbers(found))
    if intents is not None:
        found = decode(intents.encode())
        row["intents"] = _as_text(intents, found, intent_names(found))
    left = numbers(extra.get("latency"))
    kept = kept_fields(extra, TURN_CHECKS) | ({} if left is None else {"latency": left})
    _set_extra(row, kept)


def _annotation(row: Row) -> None:
    _keep_fields(row, ANNOTATIONS, "turns[].reviews[].", REVIEW_CHECKS)
    if row["extra"] is not None:
        _set_extra(row, kept_fields(decode(row["extra"].encode()), REVIEW_CHECKS))


def _metric(row: Row) -> None:
    row["value"] = measured(row["value"])


def _function_event(row: Row) -> None:
    before = {name: row[name] for name in ("error", "hangup", "handoff_reason")}
    extra = {} if row["extra"] is None else decode(row["extra"].encode())
    _keep_fields(row, FUNCTION_EVENTS, "functionEvents{}[].", EVENT_CHECKS)
    for name in ("error", "hangup"):
        is_flag = before[name] in (None, "true", "false")
        row[name] = before[name] if is_flag else DROPPED
    row["handoff_reason"] = None if before["handoff_reason"] is None else DROPPED
    if row["handoff_type"] is not None and not _passes(row["handoff_type"], EVENT_CHECKS["name"]):
        row["handoff_type"] = None
    kept = kept_fields(extra, EVENT_CHECKS)
    if (turn := extra.get("functionEvents")) is not None:
        kept = {"functionEvents": turn if str(turn).isdecimal() else ""} | kept
    _set_extra(row, kept)


_CHANGES: Mapping[Table, Callable[[Row], None]] = {
    CONVERSATIONS: _conversation,
    TURNS: _turn,
    ANNOTATIONS: _annotation,
    METRICS: _metric,
    FUNCTION_EVENTS: _function_event,
}


def _keep_fields(row: Row, table: Table, prefix: str, checks: Mapping[str, Check]) -> None:
    """Empties the columns that take a field which is not kept."""
    types = {column.name: column.type for column in table.columns}
    for name, field in table.fields(prefix).items():
        value = row[name]
        if value is None or name in _OWNED:
            continue
        if types[name] not in ("text", "json"):
            # the value fits the type of its column
            if field not in checks:
                row[name] = None
        elif field not in checks or not _passes(value, checks[field]):
            row[name] = None


def _passes(text: str, check: Check) -> bool:
    try:
        check(as_sent(text))
    except ValueError:
        return False
    return True


def _set_extra(row: Row, kept: Mapping[str, Any]) -> None:
    if row["extra"] is None:
        return
    found = decode(row["extra"].encode())
    row["extra"] = _as_text(row["extra"], found, dict(kept)) if kept else None


def _as_text(before: str, found: Any, kept: Any) -> str | None:
    if kept is None:
        return None
    # not encoded again for its notation alone
    return before if kept == found else encode(kept).decode()
