"""Tables of what was done: runs, failures, recordings, what was written back, debug chats.

`tables` has those of conversations.
"""

from __future__ import annotations

from .common_columns import AGENT_ID, CONVERSATION_ID, EXTRA, PACKAGE_ID
from .declaration import Column, Table

SYNC_RUNS = Table(
    "sync_runs",
    "One row a run and agent, the failed and interrupted ones too.",
    (
        Column("agent_id", "text", "The agent that was loaded.", required=True),
        Column("run_id", "text", "The run.", required=True),
        Column(
            "command",
            "text",
            "load, backfill, recordings, verify, prune, annotate, note or forget.",
        ),
        Column("source_api", "text", "Listing that was read: data or conversations_v3."),
        Column(
            "range_from",
            "timestamp",
            "Begin of the range that a backfill read; NULL: no range.",
            unit="UTC",
        ),
        Column("range_to", "timestamp", "Its end, which does not belong to the range.", unit="UTC"),
        Column("started_at", "timestamp", "When it began.", unit="UTC"),
        Column("finished_at", "timestamp", "When it ended; NULL: it never said so.", unit="UTC"),
        Column("status", "text", "running, complete, partial, failed or interrupted."),
        Column(
            "listed",
            "bigint",
            "Conversations in the pages read; an overlap counts once.",
        ),
        Column("api_count", "bigint", "Conversations that the API says the agent has."),
        Column("new", "bigint", "Conversations loaded for the first time."),
        Column(
            "changed",
            "bigint",
            "Loaded again because their list row differed, or they were written back to.",
        ),
        Column("settled", "bigint", "Loaded again because they crossed a settling age."),
        Column("unchanged", "bigint", "Listed and not read again."),
        Column("fetched", "bigint", "Details read."),
        Column("failed", "bigint", "Conversations that could not be read."),
        Column("given_up", "bigint", "Open failures that are too old to be tried again."),
        Column(
            "absent",
            "bigint",
            "Held conversations that the whole listing did not have; NULL: not all was listed.",
        ),
        Column("withheld", "bigint", "Answers that came without the turns they have."),
        Column("gaps_repaired", "bigint", "Steps back because list pages did not join."),
        Column("requests", "bigint", "HTTP requests sent."),
        Column("retries", "bigint", "Of these, repeated ones."),
        Column("bytes_received", "bigint", "Bytes of answers.", unit="bytes"),
        Column("rows", "json", "Rows written, by table."),
        Column("unmapped_fields", "json", "Names of fields that no column takes, with counts."),
        Column("error", "text", "What stopped it."),
        PACKAGE_ID,
    ),
    key=("run_id",),
    merge_key=("agent_id", "run_id"),
)

FETCH_FAILURES = Table(
    "fetch_failures",
    "Conversations that could not be read; tried again by the next runs.",
    (
        AGENT_ID,
        CONVERSATION_ID,
        Column("stage", "text", "What failed: detail or recording.", required=True),
        Column("attempts", "bigint", "Runs that tried."),
        Column("http_status", "bigint", "Status of the last answer; NULL without one."),
        Column("error_code", "text", "PolyAI's error code."),
        Column("error_id", "text", "PolyAI's correlation id; support asks for it."),
        Column("message", "text", "What happened."),
        Column("first_failed_at", "timestamp", "First failure.", unit="UTC"),
        Column("last_failed_at", "timestamp", "Latest failure.", unit="UTC"),
        Column("resolved_at", "timestamp", "When it was read after all; NULL: open.", unit="UTC"),
        PACKAGE_ID,
    ),
    key=("stage",),
    merge_key=("agent_id", "conversation_id", "stage"),
)

RECORDINGS = Table(
    "recordings",
    "One row a recording that was asked for: where its file is, or why there is none.",
    (
        AGENT_ID,
        CONVERSATION_ID,
        Column("direction", "text", "Whose voices: combined, user or agent.", required=True),
        Column(
            "redacted",
            "bool",
            "Whether what the caller said about themselves is blanked out, which PolyAI decides.",
            required=True,
        ),
        Column("status", "text", "stored, not_found (asked again for a while) or failed."),
        Column("uri", "text", "Path or URL of the file, as fsspec opens it; NULL: no file."),
        Column("bytes", "bigint", "Size of the file.", unit="bytes"),
        Column("sha256", "text", "SHA-256 of the file, in hexadecimal digits."),
        Column("duration_seconds", "double", "Length of the sound.", unit="seconds"),
        Column("sample_rate_hz", "bigint", "Samples a second.", unit="Hz"),
        Column("channels", "bigint", "Channels."),
        Column(
            "sample_width_bytes",
            "bigint",
            "Bytes of a sample; NULL where samples are packed.",
            unit="bytes",
        ),
        Column("audio_format", "text", "Encoding by libsndfile's name: PCM_16, ULAW, ALAW, …"),
        Column(
            "started_at",
            "timestamp",
            "When the conversation began; its day is in the file's path.",
            unit="UTC",
        ),
        Column("fetched_at", "timestamp", "When it was last asked for.", unit="UTC"),
        Column("attempts", "bigint", "Runs that asked for it."),
        Column("error_code", "text", "PolyAI's code for why there is none."),
        PACKAGE_ID,
    ),
    key=("direction", "redacted"),
    merge_key=("agent_id", "conversation_id", "direction", "redacted"),
)

WRITE_BACKS = Table(
    "write_backs",
    "One row an annotation or note that was sent to PolyAI, written before it was sent.",
    (
        AGENT_ID,
        CONVERSATION_ID,
        Column(
            "write_back_id",
            "text",
            "The same for the same annotation or note, whoever sends it and however often.",
            required=True,
        ),
        Column("kind", "text", "annotation or note."),
        Column("turn_index", "bigint", "The annotated turn, counted from 0; NULL for a note."),
        Column("role", "text", "Whose part of the turn: user or agent; NULL for a note."),
        Column(
            "annotation_type",
            "text",
            "missing_topic, wrong_transcript or wrong_info; NULL for a note.",
        ),
        Column("note", "text", "The note; NULL for an annotation."),
        Column(
            "status",
            "text",
            "sending (a run was killed: the next one looks), sent, rejected (not carried out) or "
            "unknown (PolyAI does not show whether it was).",
        ),
        Column("error_code", "text", "PolyAI's code for why it was rejected."),
        Column("error_id", "text", "PolyAI's correlation id; support asks for it."),
        Column("message", "text", "Why it was rejected, or is unknown."),
        Column("run_id", "text", "The run that sent it last; joins `sync_runs.run_id`."),
        Column("requested_at", "timestamp", "When it was about to be sent.", unit="UTC"),
        Column("sent_at", "timestamp", "When PolyAI was known to have it.", unit="UTC"),
        PACKAGE_ID,
    ),
    key=("write_back_id",),
    merge_key=("agent_id", "conversation_id", "write_back_id"),
)

DEBUG_CHATS = Table(
    "debug_chats",
    "One row a debug chat that a scenario had with an agent.",
    (
        AGENT_ID,
        Column(
            "chat_id",
            "text",
            "PolyAI's id of the conversation; an id of our own where none began.",
            required=True,
        ),
        Column(
            "conversation_id",
            "text",
            "PolyAI's id of the conversation, as in `conversations`; NULL where none began.",
            "conversationId",
        ),
        Column("run_id", "text", "The run: all scenarios of one command."),
        Column("label", "text", "What was tested, as the command was told: a version, a commit."),
        Column("suite", "text", "The file's name, or the name that it gives itself."),
        Column("scenario", "text", "The scenario's name, unique within its file."),
        Column("environment", "text", "live, sandbox or pre-release.", "clientEnv"),
        Column("variant_id", "text", "The variant that was asked for.", "variantId"),
        Column("asr_lang_code", "text", "Language that is listened for.", "asrLangCode"),
        Column("tts_lang_code", "text", "Language that is spoken.", "ttsLangCode"),
        Column("started_at", "timestamp", "When it began.", unit="UTC"),
        Column("finished_at", "timestamp", "When the last reply was there.", unit="UTC"),
        Column("ended", "bool", "Whether the agent ended it.", "conversationEnded"),
        Column("passed", "bool", "Whether every expectation was met."),
        Column("error", "text", "What kept it from going on; NULL: it went to its end."),
        PACKAGE_ID,
    ),
    key=("chat_id",),
    merge_key=("agent_id", "chat_id"),
)

DEBUG_CHAT_TURNS = Table(
    "debug_chat_turns",
    "One row a turn of a debug chat; turn 0 is the greeting.",
    (
        AGENT_ID,
        Column("chat_id", "text", "The chat: `debug_chats.chat_id`.", required=True),
        Column("conversation_id", "text", "As in `debug_chats`.", "conversationId"),
        Column("turn_index", "bigint", "The turn, counted from 0.", required=True),
        Column("user_input", "text", "What the scenario said; NULL for the greeting.", "message"),
        Column("response", "text", "What the agent said.", "response"),
        Column("latency_ms", "bigint", "From request to whole answer.", unit="milliseconds"),
        Column(
            "delayed_response",
            "bool",
            "Whether the agent said that its answer is still to come.",
            "delayedResponse",
        ),
        Column("metadata", "json", "State, nodes, metrics, functions, topics.", "metadata"),
        Column("check", "text", "What was expected, in words; NULL: nothing."),
        Column("passed", "bool", "Whether it was met; NULL: nothing was expected."),
        Column("failure", "text", "What was not met, and what was there instead."),
        EXTRA,
        PACKAGE_ID,
    ),
    key=("chat_id", "turn_index"),
    merge_key=("agent_id", "chat_id", "turn_index"),
)

FORGOTTEN = Table(
    "forgotten",
    "One row a conversation that was erased, and that no load brings back.",
    (
        AGENT_ID,
        CONVERSATION_ID,
        Column("requested_at", "timestamp", "When its erasure was begun.", unit="UTC"),
        Column(
            "erased_at",
            "timestamp",
            "When nothing of it was left; NULL: a run was killed, and `forget` goes on.",
            unit="UTC",
        ),
        Column("reason", "text", "Why, as the command was told: the number of a request."),
        Column("is_by_caller", "bool", "Whether it was erased with all others of its caller."),
        Column("recordings", "bigint", "Audio files that were deleted."),
        Column("run_id", "text", "The run that erased it; joins `sync_runs.run_id`."),
        PACKAGE_ID,
    ),
    key=(),
)

FORGOTTEN_CALLERS = Table(
    "forgotten_callers",
    "One row a caller whose conversations from before were erased, and do not come back.",
    (
        AGENT_ID,
        Column(
            "caller_hash",
            "text",
            "HMAC-SHA256 of the number's digits, in hexadecimal digits; the number is not kept.",
            required=True,
        ),
        Column("salt", "text", "Key of the HMAC, made up at random; the same for an agent."),
        Column("requested_at", "timestamp", "What began before does not come back.", unit="UTC"),
        Column("reason", "text", "Why, as in `forgotten`."),
        Column("run_id", "text", "The run; joins `sync_runs.run_id`."),
        PACKAGE_ID,
    ),
    key=("caller_hash",),
    merge_key=("agent_id", "caller_hash"),
)

AUDIT_TABLES = (SYNC_RUNS, FETCH_FAILURES)
"""What a run says of itself."""
