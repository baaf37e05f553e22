"""Every table of the warehouse, declared once.

Arrow schemas, dlt hints, `schemas/polyai.schema.yaml`, the data dictionary and the tests derive
from here. `DESIGN` of a row: a conversation is one row of `conversations`; each list inside its
detail is a child table whose key begins with `agent_id, conversation_id`.
"""

from __future__ import annotations

from .common_columns import AGENT_ID, CONVERSATION_ID, DELETED, EXTRA, PACKAGE_ID
from .declaration import Column, Table

_TURN_INDEX = Column(
    "turn_index", "bigint", "The turn's position in the conversation, from 0.", required=True
)
_POSITION = Column("position", "bigint", "The row's position in its list, from 0.", required=True)


def _child(name: str, key: tuple[str, ...], description: str, *columns: Column) -> Table:
    """A table that is replaced together with its conversation."""
    return Table(
        name,
        description,
        (AGENT_ID, CONVERSATION_ID, *columns, PACKAGE_ID, DELETED),
        key=key,
        is_child=True,
    )


CONVERSATIONS = Table(
    "conversations",
    "One row a conversation: who, when, how it ended, score, summary and note.",
    (
        AGENT_ID,
        CONVERSATION_ID,
        Column("account_id", "text", "PolyAI account (workspace).", "accountId", "account_id"),
        Column("region", "text", "PolyAI region that served it: us, eu, uk or studio."),
        Column("channel", "text", "Medium, such as VOICE-SIP or WEBCHAT.", "channel", "channel"),
        Column("direction", "text", "inbound or outbound.", "direction"),
        Column("environment", "text", "live, sandbox or pre-release.", "clientEnv", "environment"),
        Column("language", "text", "Language code, such as en-US.", "language"),
        Column("variant_id", "text", "Variant that answered.", "variantId", "variant_id"),
        Column("variant_name", "text", "Name of the variant.", "", "variant_name"),
        Column("deployment_id", "text", "Deployment of the agent that answered.", "deploymentId"),
        Column(
            "from_number",
            "text",
            "Caller: phone number, e-mail address, SIP name, or REDACTED without PII access.",
            "fromNumber",
            "from_number",
        ),
        Column("to_number", "text", "Callee, in the same forms.", "toNumber", "to_number"),
        Column(
            "created_at",
            "timestamp",
            "When PolyAI created it; when it began, where it was read through v3 alone.",
            "createdAt",
            unit="UTC",
        ),
        Column("started_at", "timestamp", "When it began.", "startedAt", "started_at", unit="UTC"),
        Column("finished_at", "timestamp", "When it ended.", "finishedAt", unit="UTC"),
        Column("duration_seconds", "double", "Duration as PolyAI gives it.", "duration", unit="s"),
        Column(
            "total_duration_seconds",
            "double",
            "Whole contact, handoff included.",
            "totalDuration",
            "total_duration",
            unit="s",
        ),
        Column(
            "polyai_duration_seconds",
            "double",
            "The agent's part of the contact.",
            "polyaiDuration",
            "polyai_duration",
            unit="s",
        ),
        Column(
            "in_progress", "bool", "Still going on when it was read.", "inProgress", "in_progress"
        ),
        Column("handoff", "bool", "Handed to a human.", "handoff", "handoff"),
        Column(
            "handoff_destination",
            "text",
            "Where it was handed to.",
            "handoffDestination",
            "handoff_destination",
        ),
        Column(
            "handoff_reason", "text", "Why it was handed off.", "handoffReason", "handoff_reason"
        ),
        Column(
            "poly_score",
            "double",
            "PolyAI's quality score; never average two scales.",
            "polyScore",
            unit="see poly_score_scale",
        ),
        Column(
            "poly_score_scale",
            "text",
            "`1-5`, or `0-10` where created before 2026-07-28; NULL without a score.",
            "polyScore, by createdAt",
        ),
        Column("summary_heading", "text", "Heading of the summary.", "shortSummary.heading"),
        Column("summary", "text", "Short summary.", "shortSummary.content"),
        Column("note", "text", "The current note.", "note"),
        Column("audio_url", "text", "Path of the recording, as sent.", "audioUrl"),
        Column(
            "num_turns",
            "bigint",
            "Rows in `turns`, or the API's own count where it withholds the turns.",
            "length of turns",
            "num_turns",
        ),
        Column(
            "num_silences", "bigint", "Turns without input.", "turns[].is_silence", "num_silences"
        ),
        Column("num_ood", "bigint", "Turns out of domain.", "turns[].is_ood", "num_ood"),
        Column(
            "is_transcript_withheld",
            "bool",
            "The newest answer had no turns although there are some.",
        ),
        Column("state", "json", "Dialogue state written by the agent.", "", "state"),
        Column("source_api", "text", "API that was read last: data or conversations_v3."),
        Column("summary_hash", "text", "Hash of the list row that was loaded; tells a change."),
        Column("fetched_at", "timestamp", "When the answer was read.", unit="UTC"),
        EXTRA,
        PACKAGE_ID,
    ),
    key=(),
)

TURNS = _child(
    "turns",
    ("turn_index",),
    "One row a turn: what the caller said and what the agent answered.",
    _TURN_INDEX,
    Column("turn_id", "bigint", "PolyAI's own id of the turn.", "turns[].turn_id"),
    Column(
        "user_input", "text", "What the caller said.", "turns[].user_input", "turns[].user_input"
    ),
    Column(
        "user_input_at",
        "timestamp",
        "When the input was understood.",
        "turns[].user_input_datetime",
        "turns[].user_input_datetime",
        unit="UTC",
    ),
    Column(
        "agent_response",
        "text",
        "What the agent answered.",
        "turns[].agent_response",
        "turns[].agent_response",
    ),
    Column(
        "agent_response_at",
        "timestamp",
        "When the agent began to answer.",
        "turns[].agent_response_datetime",
        "turns[].agent_response_datetime",
        unit="UTC",
    ),
    Column(
        "latency_seconds",
        "double",
        "Response latency as the caller felt it.",
        "turns[].latency.perceived_latency",
        "turns[].latency",
        unit="s",
    ),
    Column("latency", "json", "The whole latency object, where it was one.", "turns[].latency"),
    Column("barge_in", "bool", "The caller spoke over the agent.", "turns[].barge_in"),
    Column("is_ood", "bool", "Out of domain.", "turns[].is_ood", "turns[].is_ood"),
    Column("is_silence", "bool", "No input.", "turns[].is_silence", "turns[].is_silence"),
    Column(
        "user_input_dtmf",
        "text",
        "Keys pressed.",
        "turns[].user_input_dtmf",
        "turns[].user_input_dtmf",
    ),
    Column("asr_lang_code", "text", "Language of recognition.", "turns[].asr_lang_code"),
    Column("tts_lang_code", "text", "Language of the voice.", "turns[].tts_lang_code"),
    Column(
        "translated_user_input",
        "text",
        "Input in the agent's working language.",
        "turns[].translated_user_input",
        "turns[].translated_user_input",
    ),
    Column(
        "english_agent_response",
        "text",
        "Answer in English.",
        "turns[].english_agent_response",
        "turns[].english_agent_response",
    ),
    Column(
        "user_input_audio_url", "text", "Path of the turn's audio.", "turns[].user_input_audio_url"
    ),
    Column("current_node", "text", "Node of the flow.", "turns[].metadata.current_node"),
    Column("intents", "json", "Intents as sent.", "turns[].intents", "turns[].intents"),
    Column("entities", "json", "Entities as sent.", "turns[].entities", "turns[].entities"),
    Column("llm_requests", "json", "LLM requests as sent.", "turns[].llm_requests"),
    Column("metadata", "json", "Metadata as sent.", "turns[].metadata"),
    EXTRA,
)

TURN_INTENTS = _child(
    "turn_intents",
    ("turn_index", "position"),
    "One row an intent of a turn.",
    _TURN_INDEX,
    _POSITION,
    Column("intent", "text", "Name of the intent.", "turns[].intents[]", "turns[].intents[]"),
)

TURN_ENTITIES = _child(
    "turn_entities",
    ("turn_index", "position"),
    "One row a value of an entity of a turn.",
    _TURN_INDEX,
    _POSITION,
    Column("name", "text", "Entity.", "turns[].entities[]: key", "turns[].entities[]: key"),
    Column("value", "text", "Value.", "turns[].entities[]: value", "turns[].entities[]: value"),
)

TURN_TOPICS = _child(
    "turn_topics",
    ("turn_index", "position"),
    "One row a knowledge topic that a turn retrieved; joined topics are split at commas.",
    _TURN_INDEX,
    _POSITION,
    Column("topic", "text", "Topic.", "turns[].metadata.retrieved_topics[]"),
)

METRICS = _child(
    "metrics",
    ("name", "occurrence"),
    "One row a value written to a metric.",
    Column(
        "name",
        "text",
        "The customer's own name, as it came.",
        "metrics: key",
        "metrics: key",
        required=True,
    ),
    Column("occurrence", "bigint", "Which value of the name, from 0.", required=True),
    Column("value", "text", "Value as text.", "metrics{}[].value", "metrics{}"),
    Column("value_number", "double", "Value as number, where it is one."),
    Column("value_boolean", "bool", "Value as boolean, where it is true or false."),
    Column("recorded_at", "timestamp", "When it was written.", "metrics{}[].timestamp", unit="UTC"),
)

FUNCTION_EVENTS = _child(
    "function_events",
    ("turn_index", "event_index"),
    "One row a function call of the agent.",
    Column(
        "turn_index",
        "bigint",
        "The turn's position, from 0; the API counts turns from 1 here.",
        "functionEvents: key",
        required=True,
    ),
    Column("event_index", "bigint", "Which call of the turn, from 0.", required=True),
    Column("event_id", "text", "PolyAI's own id of the call.", "functionEvents{}[].id"),
    Column("function_id", "text", "Function.", "functionEvents{}[].function_id"),
    Column("function_version", "text", "Its version.", "functionEvents{}[].function_version"),
    Column("name", "text", "Its name.", "functionEvents{}[].name"),
    Column(
        "started_at", "timestamp", "When it began.", "functionEvents{}[].start_time", unit="UTC"
    ),
    Column("duration_ms", "double", "How long it took.", "functionEvents{}[].duration", unit="ms"),
    Column("error", "text", "Error, where it failed.", "functionEvents{}[].error"),
    Column("utterance", "text", "What it made the agent say.", "functionEvents{}[].utterance"),
    Column("content", "text", "What it returned.", "functionEvents{}[].content"),
    Column("handoff_type", "text", "Handoff it asked for.", "functionEvents{}[].handoff.type"),
    Column("handoff_reason", "text", "Its reason.", "functionEvents{}[].handoff.reason"),
    Column("llm_request_id", "text", "LLM request behind it.", "functionEvents{}[].llm_request_id"),
    Column("arguments", "json", "Arguments.", "functionEvents{}[].arguments"),
    Column("state_changes", "json", "State it changed.", "functionEvents{}[].state_changes"),
    Column("logs", "json", "Its logs.", "functionEvents{}[].logs"),
    Column("transition", "json", "Flow transition.", "functionEvents{}[].transition"),
    EXTRA,
)

ANNOTATIONS = _child(
    "annotations",
    ("turn_index", "position"),
    "One row a review of a turn.",
    _TURN_INDEX,
    _POSITION,
    Column("role", "text", "Side that it speaks of: user or agent.", "turns[].reviews[].role"),
    Column(
        "annotation_type",
        "text",
        "Label, such as wrong_transcript.",
        "turns[].reviews[].annotationType",
    ),
    Column("comment", "text", "Comment.", "turns[].reviews[].comment"),
    Column("annotated_by", "text", "Author.", "turns[].reviews[].createdBy"),
    Column("annotated_at", "timestamp", "When.", "turns[].reviews[].createdAt", unit="UTC"),
    EXTRA,
)

CONVERSATION_TAGS = _child(
    "conversation_tags",
    ("position",),
    "One row a tag of a conversation.",
    _POSITION,
    Column("tag", "text", "Tag.", "tags[]"),
)

NOTES = Table(
    "notes",
    "The history of each note: one row a version, slowly changing dimension of type 2.",
    (
        AGENT_ID,
        CONVERSATION_ID,
        Column("note", "text", "The note's text.", "note"),
        Column(
            "valid_from",
            "timestamp",
            "When this version was first read.",
            unit="UTC",
            required=True,
        ),
        Column(
            "valid_to",
            "timestamp",
            "When it was found replaced or gone; NULL: current.",
            unit="UTC",
        ),
        PACKAGE_ID,
    ),
    key=("valid_from",),
)

CONVERSATION_TABLES = (
    CONVERSATIONS,
    TURNS,
    TURN_INTENTS,
    TURN_ENTITIES,
    TURN_TOPICS,
    METRICS,
    FUNCTION_EVENTS,
    ANNOTATIONS,
    CONVERSATION_TAGS,
    NOTES,
)
"""What a conversation's answer is shaped into, parents first."""

TURN_TABLES = frozenset({"turns", "turn_intents", "turn_entities", "turn_topics", "annotations"})
"""Children that an answer without turns says nothing about: what is held of them stays."""
