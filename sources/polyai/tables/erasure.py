"""Tables about erasure: what was erased, what is on hold, and the copies that it has to reach."""

from __future__ import annotations

from dataclasses import replace

from .common_columns import AGENT_ID, CONVERSATION_ID, OF_RUN, PACKAGE_ID, RUN_ID
from .declaration import Column, Reference, Table

_REASON = Column(
    "reason", "text", "Reason given to the command, such as a request number.", pii="free_text"
)
_CALLER_HASH = Column(
    "caller_hash",
    "text",
    "Hash of the number's digits, in hexadecimal digits; the number is not stored.",
    pii="contact",
)
_HASHING = (
    Column(
        "method",
        "text",
        "Method of the hash: pii_secret (HMAC-SHA256 keyed by that setting) or scrypt.",
    ),
    Column("salt", "text", "Random salt of the hash."),
    Column("key_id", "text", "Fingerprint of the secret, to recognize it; NULL for scrypt."),
)
"""Columns that say how a caller was hashed."""

FORGOTTEN = Table(
    "forgotten",
    "One row per erased conversation; no load brings it back.",
    (
        AGENT_ID,
        CONVERSATION_ID,
        Column("requested_at", "timestamp", "Start of the erasure.", unit="UTC"),
        Column(
            "erased_at",
            "timestamp",
            "End of the erasure; NULL if it was interrupted, and `forget` resumes it.",
            unit="UTC",
        ),
        _REASON,
        Column("is_by_caller", "bool", "Erased with all other conversations of its caller."),
        Column("recordings", "bigint", "Recording files that were deleted."),
        RUN_ID,
        PACKAGE_ID,
    ),
    key=(),
    references=(OF_RUN,),
    outline=("requested_at", "erased_at", "reason"),
)

FORGOTTEN_CALLERS = Table(
    "forgotten_callers",
    "One row per erased caller; conversations from before the request are not loaded again.",
    (
        AGENT_ID,
        replace(_CALLER_HASH, required=True),
        *_HASHING,
        Column(
            "requested_at",
            "timestamp",
            "Start of the erasure; conversations that began before it are not loaded.",
            unit="UTC",
        ),
        _REASON,
        RUN_ID,
        PACKAGE_ID,
    ),
    key=("caller_hash",),
    merge_key=("agent_id", "caller_hash"),
    references=(OF_RUN,),
    outline=("requested_at", "reason"),
)

LEDGER_ENTRIES = Table(
    "ledger_entries",
    "One row per entry of the ledger of erasures (`forget_ledger`) that is in this warehouse.",
    (
        AGENT_ID,
        Column("entry_id", "text", "Entry: the run that erased first.", required=True),
        Column("requested_at", "timestamp", "Start of the erasure.", unit="UTC"),
        Column("run_id", "text", "Run that wrote or applied it; joins `sync_runs.run_id`."),
        PACKAGE_ID,
    ),
    key=("entry_id",),
    merge_key=("agent_id", "entry_id"),
    references=(OF_RUN,),
    outline=("requested_at",),
)

HOLDS = Table(
    "holds",
    "One row per legal hold on a conversation or a caller; what it names is not deleted.",
    (
        AGENT_ID,
        Column("hold_id", "text", "Random id of the hold.", required=True),
        Column(
            "conversation_id",
            "text",
            "Conversation on hold: `conversations.conversation_id`; NULL for a caller.",
            pii="identifier",
        ),
        _CALLER_HASH,
        Column(
            "caller_group",
            "text",
            "First two digits of a fast hash, so that few callers are hashed slowly.",
            pii="contact",
        ),
        *_HASHING,
        _REASON,
        Column("placed_at", "timestamp", "Time at which it was placed.", unit="UTC"),
        Column(
            "placed_by",
            "text",
            "Person who placed it, by default the user of the computer.",
            pii="staff",
        ),
        Column(
            "released_at", "timestamp", "Time at which it was released; NULL if active.", unit="UTC"
        ),
        Column("released_by", "text", "Person who released it.", pii="staff"),
        PACKAGE_ID,
    ),
    key=("hold_id",),
    merge_key=("agent_id", "hold_id"),
    references=(Reference("conversations", ("agent_id", "conversation_id")),),
    outline=("reason", "placed_at", "released_at"),
)

RETENTION = Table(
    "retention",
    "One row per agent with settings of retention: what is older was deleted, and is not loaded.",
    (
        AGENT_ID,
        Column(
            "conversations_before",
            "timestamp",
            "Conversations that ended before were deleted (`retention`); NULL for none.",
            unit="UTC",
        ),
        Column(
            "transcripts_before",
            "timestamp",
            "Of conversations that ended before, the words were deleted (`retention_transcripts`).",
            unit="UTC",
        ),
        Column(
            "too_old",
            "bigint",
            "Conversations that PolyAI lists and that are not loaded because they are too old.",
        ),
        Column(
            "applied_at",
            "timestamp",
            "Start of the run that deleted last; NULL if none has.",
            unit="UTC",
        ),
        RUN_ID,
        PACKAGE_ID,
    ),
    key=(),
    merge_key=("agent_id",),
    references=(OF_RUN,),
    outline=("conversations_before", "transcripts_before"),
)

PUBLISHED_COPIES = Table(
    "published_copies",
    "One row per agent and copy of a DuckDB warehouse for readers; `forget` makes each again.",
    (
        AGENT_ID,
        Column(
            "place",
            "text",
            "Path of the DuckDB file, or folder or URL of Parquet files; relative to the folder of "
            "the warehouse if it is in there.",
            required=True,
        ),
        Column("form", "text", "Form: duckdb or parquet."),
        Column("warehouse", "text", "Path of the warehouse that was copied."),
        Column("published_at", "timestamp", "Time of the first copy there.", unit="UTC"),
        PACKAGE_ID,
    ),
    key=("place",),
    merge_key=("agent_id", "place"),
    is_local=True,
    references=(Reference("agents", ("agent_id",)),),
    outline=("form", "published_at"),
)
