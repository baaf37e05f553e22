"""Child tables: one for each list in a conversation's detail, other than the turns.

Their keys begin with `agent_id, conversation_id`.
"""

from __future__ import annotations

from .common_columns import (
    AGENT_ID,
    CONVERSATION_ID,
    EXTRA,
    PACKAGE_ID,
    POSITION,
    TURN_INDEX,
    child_table,
)
from .declaration import Column, Table

METRICS = child_table(
    "metrics",
    ("name", "occurrence"),
    "One row per value written to a metric.",
    Column(
        "name",
        "text",
        "Name of the metric, as sent by the API.",
        "metrics: key",
        "metrics: key",
        required=True,
        pii="label",
    ),
    Column(
        "occurrence",
        "bigint",
        "Position of the value among those of its name, from 0.",
        required=True,
    ),
    Column("value", "text", "Value as text.", "metrics{}[].value", "metrics{}", pii="free_text"),
    Column(
        "value_number", "double", "Value as number; NULL if it is not numeric.", pii="free_text"
    ),
    Column("value_boolean", "bool", "Value as boolean; NULL if it is neither true nor false."),
    Column("recorded_at", "timestamp", "Time of writing.", "metrics{}[].timestamp", unit="UTC"),
    is_kept_when_withheld=True,
    outline=("value", "value_number"),
)

FUNCTION_EVENTS = child_table(
    "function_events",
    ("turn_index", "event_index"),
    "One row per function call of the agent.",
    Column(
        "turn_index",
        "bigint",
        "Position of the turn in the conversation, from 0 (in this field the API counts from 1).",
        "functionEvents: key",
        required=True,
    ),
    Column("event_index", "bigint", "Position of the call in its turn, from 0.", required=True),
    Column("event_id", "text", "PolyAI's id of the call.", "functionEvents{}[].id", pii="label"),
    Column("function_id", "text", "Function id.", "functionEvents{}[].function_id", pii="label"),
    Column(
        "function_version",
        "text",
        "Version of the function.",
        "functionEvents{}[].function_version",
        pii="label",
    ),
    Column("name", "text", "Name of the function.", "functionEvents{}[].name", pii="label"),
    Column(
        "started_at", "timestamp", "Start of the call.", "functionEvents{}[].start_time", unit="UTC"
    ),
    Column(
        "duration_ms", "double", "Duration of the call.", "functionEvents{}[].duration", unit="ms"
    ),
    Column(
        "error",
        "text",
        "Error message; NULL if the call succeeded.",
        "functionEvents{}[].error",
        pii="free_text",
    ),
    Column(
        "utterance",
        "text",
        "Utterance that it made the agent say.",
        "functionEvents{}[].utterance",
        pii="free_text",
    ),
    Column("content", "text", "Returned content.", "functionEvents{}[].content", pii="free_text"),
    Column(
        "handoff_type",
        "text",
        "Type of the requested handoff.",
        "functionEvents{}[].handoff.type",
        pii="label",
    ),
    Column(
        "handoff_reason",
        "text",
        "Reason for the requested handoff.",
        "functionEvents{}[].handoff.reason",
        pii="free_text",
    ),
    Column(
        "hangup",
        "text",
        "Hang-up that the function requested, as sent; NULL for none.",
        "functionEvents{}[].hangup",
        pii="free_text",
    ),
    Column(
        "variant_id_change",
        "text",
        "Variant that the function changed to, as sent.",
        "functionEvents{}[].variant_id_change",
        pii="label",
    ),
    Column(
        "llm_request_id",
        "text",
        "LLM request that caused the call.",
        "functionEvents{}[].llm_request_id",
        pii="label",
    ),
    Column(
        "arguments",
        "json",
        "Arguments of the call.",
        "functionEvents{}[].arguments",
        pii="free_text",
    ),
    Column(
        "state_changes",
        "json",
        "Changes to the dialogue state.",
        "functionEvents{}[].state_changes",
        pii="free_text",
    ),
    Column("logs", "json", "Logs of the call.", "functionEvents{}[].logs", pii="free_text"),
    Column(
        "transition", "json", "Flow transition.", "functionEvents{}[].transition", pii="free_text"
    ),
    EXTRA,
    is_kept_when_withheld=True,
    outline=("name", "duration_ms", "error"),
    is_parent_optional=True,
)

ANNOTATIONS = child_table(
    "annotations",
    ("turn_index", "position"),
    "One row per annotation of a turn.",
    TURN_INDEX,
    POSITION,
    Column(
        "role",
        "text",
        "Annotated side of the turn: user or agent.",
        "turns[].reviews[].role",
        pii="label",
    ),
    Column(
        "annotation_type",
        "text",
        "Label, such as missing_topic, wrong_transcript, wrong_info, good_response or "
        "bad_response.",
        "turns[].reviews[].annotationType",
        pii="label",
    ),
    Column(
        "reason", "text", "Reason for a bad response.", "turns[].reviews[].reason", pii="free_text"
    ),
    Column(
        "comment", "text", "Comment of the author.", "turns[].reviews[].comment", pii="free_text"
    ),
    Column(
        "annotated_by",
        "text",
        "Author of the annotation.",
        "turns[].reviews[].createdBy",
        pii="staff",
    ),
    Column(
        "annotated_at",
        "timestamp",
        "Time of the annotation.",
        "turns[].reviews[].createdAt",
        unit="UTC",
    ),
    EXTRA,
    outline=("role", "annotation_type", "annotated_by"),
    is_kept_when_withheld=True,
)

CONVERSATION_TAGS = child_table(
    "conversation_tags",
    ("position",),
    "One row per tag of a conversation.",
    POSITION,
    Column("tag", "text", "Tag.", "tags[]", pii="label"),
    outline=("tag",),
)

NOTES = Table(
    "notes",
    "One row per version of a conversation's note (slowly changing dimension, type 2).",
    (
        AGENT_ID,
        CONVERSATION_ID,
        Column("note", "text", "Text of the note.", "note", pii="free_text"),
        Column(
            "valid_from",
            "timestamp",
            "Time at which this version was first fetched.",
            unit="UTC",
            required=True,
        ),
        Column(
            "valid_to",
            "timestamp",
            "Time at which it was found replaced or removed; NULL for the current version.",
            unit="UTC",
        ),
        PACKAGE_ID,
    ),
    key=("valid_from",),
    written_by="answer",
    is_erased=True,
    outline=("note", "valid_to"),
)
