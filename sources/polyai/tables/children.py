"""Child tables: one for each list in a conversation's detail.

Their keys begin with `agent_id, conversation_id`.
"""

from __future__ import annotations

from .common_columns import AGENT_ID, CONVERSATION_ID, DELETED, EXTRA, PACKAGE_ID
from .declaration import Column, Table

_TURN_INDEX = Column(
    "turn_index", "bigint", "Position of the turn in the conversation, from 0.", required=True
)
_POSITION = Column("position", "bigint", "Position of the item in its list, from 0.", required=True)


def _child(
    name: str,
    key: tuple[str, ...],
    description: str,
    *columns: Column,
    outline: tuple[str, ...],
    is_kept_when_withheld: bool = False,
    is_parent_optional: bool = False,
    in_extra: frozenset[str] = frozenset(),
) -> Table:
    """Declares a table that is replaced together with its conversation."""
    return Table(
        name,
        description,
        (AGENT_ID, CONVERSATION_ID, *columns, PACKAGE_ID, DELETED),
        key=key,
        is_child=True,
        written_by="answer",
        is_erased=True,
        is_kept_when_withheld=is_kept_when_withheld,
        is_parent_optional=is_parent_optional,
        outline=outline,
        in_extra=in_extra,
    )


TURNS = _child(
    "turns",
    ("turn_index",),
    "One row per turn: input of the caller and response of the agent.",
    _TURN_INDEX,
    Column("turn_id", "bigint", "PolyAI's id of the turn.", "turns[].turn_id"),
    Column(
        "user_input",
        "text",
        "Input of the caller.",
        "turns[].user_input",
        "turns[].user_input",
        pii="free_text",
    ),
    Column(
        "user_input_at",
        "timestamp",
        "Time at which the input was recognised.",
        "turns[].user_input_datetime",
        "turns[].user_input_datetime",
        unit="UTC",
    ),
    Column(
        "agent_response",
        "text",
        "Response of the agent.",
        "turns[].agent_response",
        "turns[].agent_response",
        pii="free_text",
    ),
    Column(
        "agent_response_at",
        "timestamp",
        "Start of the response.",
        "turns[].agent_response_datetime",
        "turns[].agent_response_datetime",
        unit="UTC",
    ),
    Column(
        "latency_seconds",
        "double",
        "Response latency as perceived by the caller.",
        "turns[].latency.perceived_latency",
        "turns[].latency",
        unit="s",
    ),
    Column(
        "latency",
        "json",
        "Latency object, if the API sent one.",
        "turns[].latency",
        pii="free_text",
    ),
    Column("barge_in", "bool", "The caller spoke over the agent (barge-in).", "turns[].barge_in"),
    Column("is_ood", "bool", "The input is out of domain.", "turns[].is_ood", "turns[].is_ood"),
    Column(
        "is_silence",
        "bool",
        "The caller gave no input.",
        "turns[].is_silence",
        "turns[].is_silence",
    ),
    Column(
        "user_input_dtmf",
        "text",
        "Keys pressed (DTMF).",
        "turns[].user_input_dtmf",
        "turns[].user_input_dtmf",
        pii="free_text",
    ),
    Column(
        "user_input_dtmf_finish_key",
        "text",
        "Key that ended the input by keys (DTMF).",
        "turns[].user_input_dtmf_finish_key",
        pii="free_text",
    ),
    Column(
        "asr_lang_code",
        "text",
        "Language of speech recognition (ASR).",
        "turns[].asr_lang_code",
        pii="label",
    ),
    Column(
        "tts_lang_code",
        "text",
        "Language of speech synthesis (TTS).",
        "turns[].tts_lang_code",
        pii="label",
    ),
    Column(
        "translated_user_input",
        "text",
        "Input in the agent's working language.",
        "turns[].translated_user_input",
        "turns[].translated_user_input",
        pii="free_text",
    ),
    Column(
        "english_agent_response",
        "text",
        "Response in English.",
        "turns[].english_agent_response",
        "turns[].english_agent_response",
        pii="free_text",
    ),
    Column(
        "asr_corrected_user_input",
        "text",
        "Input as corrected after speech recognition (ASR).",
        "turns[].metadata.asr_corrected_user_input",
        pii="free_text",
    ),
    Column(
        "user_input_audio_url",
        "text",
        "Path of the audio of the input.",
        "turns[].user_input_audio_url",
        pii="identifier",
    ),
    Column("current_node", "text", "Flow node.", "turns[].metadata.current_node", pii="label"),
    Column(
        "intents",
        "json",
        "Intents as sent by the API.",
        "turns[].intents",
        "turns[].intents",
        pii="free_text",
    ),
    Column(
        "entities",
        "json",
        "Entities as sent by the API.",
        "turns[].entities",
        "turns[].entities",
        pii="free_text",
    ),
    Column(
        "llm_requests",
        "json",
        "LLM requests as sent by the API.",
        "turns[].llm_requests",
        pii="free_text",
    ),
    Column("metadata", "json", "Metadata as sent by the API.", "turns[].metadata", pii="free_text"),
    EXTRA,
    outline=("user_input", "agent_response", "latency_seconds", "is_ood"),
    is_kept_when_withheld=True,
)

TURN_INTENTS = _child(
    "turn_intents",
    ("turn_index", "position"),
    "One row per intent of a turn.",
    _TURN_INDEX,
    _POSITION,
    Column(
        "intent",
        "text",
        "Name of the intent.",
        "turns[].intents[]",
        "turns[].intents[]",
        pii="label",
    ),
    outline=("intent",),
    is_kept_when_withheld=True,
)

TURN_ENTITIES = _child(
    "turn_entities",
    ("turn_index", "position"),
    "One row per entity value of a turn.",
    _TURN_INDEX,
    _POSITION,
    Column(
        "name",
        "text",
        "Name of the entity.",
        "turns[].entities[]: key",
        "turns[].entities[]: key",
        pii="label",
    ),
    Column(
        "value",
        "text",
        "Value of the entity.",
        "turns[].entities[]: value",
        "turns[].entities[]: value",
        pii="free_text",
    ),
    outline=("name", "value"),
    is_kept_when_withheld=True,
)

TURN_TOPICS = _child(
    "turn_topics",
    ("turn_index", "position"),
    "One row per knowledge topic retrieved in a turn; joined topics are split at commas.",
    _TURN_INDEX,
    _POSITION,
    Column("topic", "text", "Knowledge topic.", "turns[].metadata.retrieved_topics[]", pii="label"),
    outline=("topic",),
    is_kept_when_withheld=True,
)

LLM_REQUESTS = _child(
    "llm_requests",
    ("turn_index", "position"),
    "One row per LLM request of a turn; none where transcripts are dropped.",
    _TURN_INDEX,
    _POSITION,
    Column(
        "model_id", "text", "Model that answered.", "turns[].llm_requests[].model_id", pii="label"
    ),
    Column(
        "prompt_tokens",
        "bigint",
        "Tokens of the prompt.",
        "turns[].llm_requests[].prompt_tokens",
        unit="tokens",
    ),
    Column(
        "completion_tokens",
        "bigint",
        "Tokens of the answer.",
        "turns[].llm_requests[].completion_tokens",
        unit="tokens",
    ),
    Column(
        "cached_tokens",
        "bigint",
        "Tokens of the prompt that were cached.",
        "turns[].llm_requests[].cached_tokens",
        unit="tokens",
    ),
    Column(
        "total_tokens",
        "bigint",
        "Tokens of prompt and answer.",
        "turns[].llm_requests[].total_tokens",
        unit="tokens",
    ),
    Column(
        "finish_reason",
        "text",
        "Reason for the end of the answer.",
        "turns[].llm_requests[].finish_reason",
        pii="label",
    ),
    Column(
        "requested_at",
        "timestamp",
        "Time of the request.",
        "turns[].llm_requests[].request_timestamp",
        unit="UTC",
    ),
    Column(
        "first_chunk_at",
        "timestamp",
        "Time of the first part of the answer.",
        "turns[].llm_requests[].first_chunk_timestamp",
        unit="UTC",
    ),
    Column(
        "responded_at",
        "timestamp",
        "Time of the complete answer.",
        "turns[].llm_requests[].response_timestamp",
        unit="UTC",
    ),
    EXTRA,
    outline=("model_id", "prompt_tokens", "completion_tokens"),
    is_kept_when_withheld=True,
    in_extra=frozenset({"cited_topics", "flow_metadata"}),
)

METRICS = _child(
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

FUNCTION_EVENTS = _child(
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

ANNOTATIONS = _child(
    "annotations",
    ("turn_index", "position"),
    "One row per annotation of a turn.",
    _TURN_INDEX,
    _POSITION,
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

CONVERSATION_TAGS = _child(
    "conversation_tags",
    ("position",),
    "One row per tag of a conversation.",
    _POSITION,
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
