"""Tables of debug chats."""

from __future__ import annotations

from .common_columns import (
    AGENT_ID,
    EXTRA,
    PACKAGE_ID,
)
from .declaration import Column, Reference, Table

_CHAT_CONVERSATION_ID = Column(
    "conversation_id",
    "text",
    "Conversation id, as in `conversations`; NULL if no conversation began.",
    "conversationId",
    pii="identifier",
)

DEBUG_CHATS = Table(
    "debug_chats",
    "One row per debug chat of a scenario with an agent.",
    (
        AGENT_ID,
        Column(
            "chat_id",
            "text",
            "PolyAI's conversation id, or a generated id if no conversation began.",
            required=True,
            pii="identifier",
        ),
        _CHAT_CONVERSATION_ID,
        Column("run_id", "text", "Run id, shared by all scenarios of one command."),
        Column(
            "label",
            "text",
            "Label given to the command, such as a version or a commit.",
            pii="label",
        ),
        Column("suite", "text", "Name of the suite, by default that of its file.", pii="label"),
        Column("scenario", "text", "Name of the scenario, unique within its suite.", pii="label"),
        Column(
            "environment",
            "text",
            "Environment: live, sandbox or pre-release.",
            "clientEnv",
            pii="label",
        ),
        Column("variant_id", "text", "Requested variant.", "variantId", pii="label"),
        Column(
            "asr_lang_code",
            "text",
            "Language of speech recognition (ASR).",
            "asrLangCode",
            pii="label",
        ),
        Column(
            "tts_lang_code",
            "text",
            "Language of speech synthesis (TTS).",
            "ttsLangCode",
            pii="label",
        ),
        Column("started_at", "timestamp", "Start of the chat.", unit="UTC"),
        Column("finished_at", "timestamp", "Time of the last reply.", unit="UTC"),
        Column("ended", "bool", "The agent ended the chat.", "conversationEnded"),
        Column("passed", "bool", "All expectations were met."),
        Column(
            "error",
            "text",
            "Error that stopped the chat; NULL if it reached its end.",
            pii="free_text",
        ),
        PACKAGE_ID,
    ),
    key=("chat_id",),
    merge_key=("agent_id", "chat_id"),
    is_erased=True,
    references=(Reference("conversations", ("agent_id", "conversation_id")),),
    outline=("scenario", "label", "passed"),
)

DEBUG_CHAT_TURNS = Table(
    "debug_chat_turns",
    "One row per turn of a debug chat; turn 0 is the greeting.",
    (
        AGENT_ID,
        Column(
            "chat_id", "text", "Debug chat: `debug_chats.chat_id`.", required=True, pii="identifier"
        ),
        _CHAT_CONVERSATION_ID,
        Column("turn_index", "bigint", "Position of the turn, from 0.", required=True),
        Column(
            "user_input",
            "text",
            "Input of the scenario; NULL for the greeting.",
            "message",
            pii="free_text",
        ),
        Column("response", "text", "Response of the agent.", "response", pii="free_text"),
        Column("latency_ms", "bigint", "Time from the request to the whole response.", unit="ms"),
        Column(
            "delayed_response",
            "bool",
            "The agent announced that its response would follow later.",
            "delayedResponse",
        ),
        Column(
            "metadata",
            "json",
            "State, nodes, metrics, functions, topics.",
            "metadata",
            pii="free_text",
        ),
        Column("check", "text", "Expectation in words; NULL without one.", pii="free_text"),
        Column("passed", "bool", "The expectation was met; NULL without one."),
        Column(
            "failure",
            "text",
            "Expectation that was not met, and the actual value.",
            pii="free_text",
        ),
        EXTRA,
        PACKAGE_ID,
    ),
    key=("chat_id", "turn_index"),
    merge_key=("agent_id", "chat_id", "turn_index"),
    is_erased=True,
    outline=("user_input", "response", "passed"),
)
