"""Tables of what was done: runs, failures, recordings; `tables` has those of conversations."""

from __future__ import annotations

from .columns import AGENT_ID, CONVERSATION_ID, PACKAGE_ID
from .schema import Column, Table

SYNC_RUNS = Table(
    "sync_runs",
    "One row a run and agent, the failed and interrupted ones too.",
    (
        Column("agent_id", "text", "The agent that was loaded.", required=True),
        Column("run_id", "text", "The run.", required=True),
        Column("command", "text", "load, backfill, recordings or prune."),
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
        Column("changed", "bigint", "Loaded again because their list row differed."),
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

AUDIT_TABLES = (SYNC_RUNS, FETCH_FAILURES)
"""What a run says of itself."""
