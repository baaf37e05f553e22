"""Shaping of a batch of answers into one Arrow table per conversation table.

Fields without a column, and values that do not fit the type of their column, are kept unchanged in
the row's `extra`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from ..clock import timestamp_or_none
from ..config.agent import DATA, V3
from ..tables import children
from ..tables.conversations import CONVERSATIONS
from ..tables.declaration import LOAD_ID, TOMBSTONE, Table
from ..tables.registry import conversation_tables
from ..tables.rules import direction_of
from ..tables.turns import TURN_ENTITIES, TURN_INTENTS, TURN_TOPICS, TURNS
from .answer import Answer, Json
from .batch import Batch, TurnKeys
from .function_events import FunctionEvent, function_events
from .llm_requests import llm_requests
from .merge_held import merge_loaded
from .metrics import metrics
from .turns import entities, intents, latency_seconds, metadata_of, reviews, topics
from .values import integer, number, text

SCALE_CHANGED_AT = datetime(2026, 7, 28, tzinfo=UTC)
"""Start of the PolyScore scale 1-5; conversations created before were scored 0-10."""


@dataclass(frozen=True)
class Shaped:
    """Tables of a batch, with counts for the run's report."""

    tables: dict[str, pa.Table]
    unmapped: Counter[str]
    """Occurrences of fields without a column, by `table.field`."""
    withheld: int
    """Answers without the turns that the conversation has."""

    def __add__(self, other: Shaped) -> Shaped:
        """Returns the tables of both batches, which have no conversation in common."""
        tables = {
            name: pa.concat_tables([rows, other.tables[name]]) for name, rows in self.tables.items()
        }
        return Shaped(tables, self.unmapped + other.unmapped, self.withheld + other.withheld)


def shape(answers: Sequence[Answer], *, agent_id: str, region: str, load_id: str) -> Shaped:
    """Shapes a batch of details into every conversation table.

    Args:
        answers: Details of distinct conversations of one agent, some hundreds at a time.
        agent_id: The agent as configured.
        region: PolyAI region of the agent.
        load_id: dlt load package of the rows.

    Returns:
        One table per table of `registry.conversation_tables()`, in its exact Arrow schema.
    """
    batch = Batch(agent_id, region, load_id, answers)
    turn_lists = batch.lists("turns")
    withheld = [_is_withheld(answer, bool(turns)) for answer, turns in zip(answers, turn_lists)]
    turns = [_as_object(turn) for turns in turn_lists for turn in turns]
    turn_keys = [
        (answer.conversation_id, index)
        for answer, turns_ in zip(answers, turn_lists)
        for index in range(len(turns_))
    ]
    shaped = {
        "turns": _turns(batch, turns, turn_keys),
        "turn_intents": _turn_items(batch, TURN_INTENTS, turns, turn_keys, intents),
        "turn_entities": _turn_items(batch, TURN_ENTITIES, turns, turn_keys, entities),
        "turn_topics": _turn_items(batch, TURN_TOPICS, turns, turn_keys, topics),
        "llm_requests": llm_requests(batch, turns, turn_keys),
        "annotations": _annotations(batch, turns, turn_keys),
        "metrics": metrics(batch),
        "function_events": _function_events(batch),
        "conversation_tags": _tags(batch),
        "notes": _notes(batch),
    }
    shaped["conversations"] = _conversations(batch, turn_lists, withheld)
    for table in conversation_tables():
        shaped[table.name] = merge_loaded(table, shaped[table.name], answers)
        if table.is_child:
            kept = withheld if table.is_kept_when_withheld else None
            shaped[table.name] = batch.with_tombstones(table, shaped[table.name], kept)
    shaped["conversations"] = _with_directions(shaped["conversations"])
    return Shaped(shaped, batch.unmapped, sum(withheld))


def _as_object(value: Any) -> Json:
    return value if isinstance(value, dict) else {} if value is None else {"value": value}


_SENT_COUNTS = ("num_turns", "num_silences", "num_ood")


def _sent_count(detail: Json, name: str) -> int | None:
    """Returns a count of turns that the API sends; None where it does not."""
    try:
        return integer(detail.get(name))
    except ValueError:
        return None


def _is_withheld(answer: Answer, has_turns: bool) -> bool:
    loaded_turns = answer.loaded.num_turns if answer.loaded else 0
    return not has_turns and bool(_sent_count(answer.detail, "num_turns") or loaded_turns)


_COMPUTED = (
    "poly_score",
    "poly_score_scale",
    "summary_heading",
    "summary",
    "num_turns",
    "num_silences",
    "num_ood",
)


def _conversations(
    batch: Batch, turn_lists: Sequence[Sequence[Any]], withheld: Sequence[bool]
) -> pa.Table:
    details = [answer.detail for answer in batch.answers]
    extras = batch.leftovers
    given: dict[str, list[Any]] = {name: [] for name in _COMPUTED}
    for row, (answer, turns) in enumerate(zip(batch.answers, turn_lists)):
        values = (
            *_score(answer.detail, extras.setdefault(row, {})),
            *_summary(answer.detail.get("shortSummary"), extras[row]),
            *_counts(answer, turns, withheld[row], extras[row]),
        )
        if answer.detail.get("projectId") not in (None, "", batch.agent_id):
            extras[row]["projectId"] = answer.detail["projectId"]
        if not extras[row]:
            del extras[row]
        for name, value in zip(given, values):
            given[name].append(value)
    given |= {
        "region": [batch.region] * len(details),
        "source_api": [answer.source_api for answer in batch.answers],
        "variant_name": [detail.get("variant_name") for detail in details],
        "state": [detail.get("state") for detail in details],
        "created_at": [
            answer.detail.get("createdAt" if DATA in answer.apis else "startedAt")
            for answer in batch.answers
        ],
        "is_transcript_withheld": list(withheld),
        "summary_hash": [answer.summary_hash for answer in batch.answers],
        "fetched_at": pa.array(
            [answer.fetched_at for answer in batch.answers], pa.timestamp("us", tz="UTC")
        ),
    }
    taken = {"projectId", "shortSummary", "polyScore", "turns", "metrics", "functionEvents", "tags"}
    taken |= {"variant_name", "state", *_SENT_COUNTS}
    owners = [answer.conversation_id for answer in batch.answers]
    return batch.table(CONVERSATIONS, owners, given, details, "", taken, extras)


def _with_directions(rows: pa.Table) -> pa.Table:
    """Sets the direction of outbound calls for which it was never sent."""
    if not rows["direction"].null_count:
        return rows
    values = map(direction_of, rows["direction"].to_pylist(), rows["conversation_id"].to_pylist())
    position = rows.schema.get_field_index("direction")
    field = rows.schema.field(position)
    return rows.set_column(position, field, pa.array(values, field.type))


def _score(detail: Json, extra: Json) -> tuple[float | None, str | None]:
    """Returns score and scale."""
    try:
        score = number(detail.get("polyScore"))
    except ValueError:
        score, extra["polyScore"] = None, detail["polyScore"]
    if score is None:
        return None, None
    created_at = timestamp_or_none(detail.get("createdAt") or detail.get("startedAt"))
    before = created_at is not None and created_at < SCALE_CHANGED_AT
    return score, "0-10" if before else "1-5"


def _summary(summary: Any, extra: Json) -> tuple[str | None, str | None]:
    """Returns heading and content of an object; any other value is the content."""
    if not isinstance(summary, dict):
        return None, text(summary)
    if unknown := {k: v for k, v in summary.items() if k not in ("heading", "content")}:
        extra["shortSummary"] = unknown
    return text(summary.get("heading")), text(summary.get("content"))


def _counts(
    answer: Answer, turns: Sequence[Any], is_withheld: bool, extra: Json
) -> tuple[int | None, int | None, int | None]:
    """Returns the numbers of turns, silences and out-of-domain turns; None where unknown."""
    loaded = answer.loaded if is_withheld else None
    sent_counts = {name: _sent_count(answer.detail, name) for name in _SENT_COUNTS}
    silences, ood = sent_counts["num_silences"], sent_counts["num_ood"]
    if is_withheld:
        known = loaded.num_turns if loaded else None
        # a loaded count without loaded turns was sent as well, and earlier
        is_earlier = V3 in answer.apis and not (loaded and TURNS.name in loaded.children)
        sent = sent_counts["num_turns"]
        num_turns = (sent or known) if is_earlier else (known or sent)
        silences = loaded.num_silences if loaded and silences is None else silences
        ood = loaded.num_ood if loaded and ood is None else ood
    else:
        num_turns = len(turns)
        silences = _flagged(turns, "is_silence") if silences is None else silences
        ood = _flagged(turns, "is_ood") if ood is None else ood
    for (name, count), stored in zip(sent_counts.items(), (num_turns, silences, ood)):
        sent = answer.detail.get(name)
        if sent not in (None, "") and (count is None or count != stored):
            extra[name] = sent
    return num_turns, silences, ood


def _flagged(turns: Sequence[Any], flag: str) -> int | None:
    """Counts the turns with a flag; None where no turn has the field."""
    flags = [turn.get(flag) for turn in turns if isinstance(turn, dict)]
    known = [value for value in flags if value is not None]
    return sum(value is True for value in known) if known else None


def _turns(batch: Batch, turns: Sequence[Json], keys: TurnKeys) -> pa.Table:
    latencies = [turn.get("latency") for turn in turns]
    metadatas = [metadata_of(turn) for turn in turns]
    given = {
        "turn_index": [index for _, index in keys],
        "latency_seconds": [latency_seconds(latency) for latency in latencies],
        "latency": [latency if isinstance(latency, dict) else None for latency in latencies],
        "current_node": [metadata.get("current_node") for metadata in metadatas],
        "asr_corrected_user_input": [
            metadata.get("asr_corrected_user_input") for metadata in metadatas
        ],
    }
    extras = {
        row: {"latency": latency}
        for row, latency in enumerate(latencies)
        if not isinstance(latency, dict) and latency not in (None, "") and not _is_number(latency)
    }
    owners = [owner for owner, _ in keys]
    return batch.table(TURNS, owners, given, turns, "turns[].", {"reviews"}, extras)


def _is_number(value: Any) -> bool:
    try:
        return number(value) is not None
    except ValueError:
        return False


def _turn_items(
    batch: Batch,
    table: Table,
    turns: Sequence[Json],
    keys: TurnKeys,
    items: Callable[[Json], Iterator[tuple[str | None, ...]]],
) -> pa.Table:
    """Builds one row per item of a turn; its values fill the columns after the position."""
    found = [
        (owner, index, position, *values)
        for turn, (owner, index) in zip(turns, keys)
        for position, values in enumerate(items(turn))
    ]
    names = [name for name in table.arrow_schema.names if name not in (LOAD_ID, TOMBSTONE)]
    columns = list(zip(*found)) if found else [()] * (len(names) - 1)
    given = {name: list(values) for name, values in zip(names[2:], columns[1:])}
    return batch.table(table, list(columns[0]), given)


def _annotations(batch: Batch, turns: Sequence[Json], keys: TurnKeys) -> pa.Table:
    found = [
        (owner, index, position, review)
        for turn, (owner, index) in zip(turns, keys)
        if turn.get("reviews") not in (None, [])
        for position, review in enumerate(reviews(turn["reviews"]))
    ]
    given = {
        "turn_index": [index for _, index, _, _ in found],
        "position": [position for _, _, position, _ in found],
    }
    owners = [owner for owner, *_ in found]
    objects = [review for *_, review in found]
    return batch.table(children.ANNOTATIONS, owners, given, objects, "turns[].reviews[].")


def _function_events(batch: Batch) -> pa.Table:
    found: list[tuple[str, FunctionEvent]] = []
    for row, answer in enumerate(batch.answers):
        by_turn = answer.detail.get("functionEvents")
        if isinstance(by_turn, dict | list):
            events = function_events(answer.conversation_id, by_turn)
            found.extend((answer.conversation_id, event) for event in events)
        elif by_turn not in (None, ""):
            batch.keep_leftover(row, "functionEvents", by_turn)
    given = {
        "turn_index": [event.turn_index for _, event in found],
        "event_index": [event.event_index for _, event in found],
        "handoff_type": [event.handoff_type for _, event in found],
        "handoff_reason": [event.handoff_reason for _, event in found],
    }
    return batch.table(
        children.FUNCTION_EVENTS,
        [owner for owner, _ in found],
        given,
        [event.fields for _, event in found],
        "functionEvents{}[].",
        (),
        {row: event.extra for row, (_, event) in enumerate(found) if event.extra},
    )


def _tags(batch: Batch) -> pa.Table:
    found = [
        (answer.conversation_id, position, tag)
        for answer, tags in zip(batch.answers, batch.lists("tags"))
        for position, tag in enumerate(tags)
        if tag not in (None, "")
    ]
    given = {"position": [row[1] for row in found], "tag": [row[2] for row in found]}
    return batch.table(children.CONVERSATION_TAGS, [row[0] for row in found], given)


def _notes(batch: Batch) -> pa.Table:
    found = [
        (answer.conversation_id, version)
        for answer in batch.answers
        for version in answer.note_versions()
    ]
    given = {
        "note": [version.note for _, version in found],
        "valid_from": [version.valid_from for _, version in found],
        "valid_to": [version.valid_to for _, version in found],
    }
    moments = pa.timestamp("us", tz="UTC")
    arrays = {name: pa.array(given[name], moments) for name in ("valid_from", "valid_to")}
    return batch.table(children.NOTES, [owner for owner, _ in found], given | arrays)
