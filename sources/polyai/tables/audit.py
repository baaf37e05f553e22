"""Tables about runs and their results: write-backs and failures."""

from __future__ import annotations

from .common_columns import (
    AGENT_ID,
    ATTEMPTS,
    CONVERSATION_ID,
    ERROR_CODE,
    ERROR_ID,
    OF_RUN,
    PACKAGE_ID,
    RUN_ID,
)
from .declaration import Column, Table

SYNC_RUNS = Table(
    "sync_runs",
    "One row per run and agent, including failed and interrupted runs.",
    (
        AGENT_ID,
        Column("run_id", "text", "Run id.", required=True),
        Column(
            "command",
            "text",
            "Command: load, backfill, recordings, verify, prune (of recordings), annotate, note, "
            "forget, redact or retention.",
        ),
        Column("source_api", "text", "API that was listed: data or conversations_v3."),
        Column(
            "replaced_api",
            "text",
            "API whose listing was gone, so that `source_api` was listed in its place; NULL "
            "otherwise.",
        ),
        Column(
            "range_from",
            "timestamp",
            "Start of the range (inclusive) that a backfill loaded; NULL if there was no range.",
            unit="UTC",
        ),
        Column("range_to", "timestamp", "End of the range (exclusive).", unit="UTC"),
        Column("started_at", "timestamp", "Start of the run.", unit="UTC"),
        Column(
            "finished_at",
            "timestamp",
            "End of the run; NULL if it is still running or was killed.",
            unit="UTC",
        ),
        Column("status", "text", "Status: running, complete, partial, failed or interrupted."),
        Column(
            "listed",
            "bigint",
            "Conversations in the list pages; those on overlapping pages count once.",
        ),
        Column("api_count", "bigint", "Conversations of the agent, as counted by the API."),
        Column(
            "count_excess",
            "bigint",
            "Conversations that the API counted beyond those that it listed, as of the last walk "
            "over the whole list; negative if it counted too few, NULL before the first walk.",
        ),
        Column(
            "unaccounted",
            "bigint",
            "Conversations that the API counted and that were neither listed nor loaded; NULL if "
            "not known.",
        ),
        Column(
            "walks",
            "bigint",
            "Walks over the whole list: more than one where the first did not match the count, 0 "
            "where only a part was read.",
        ),
        Column("new", "bigint", "Conversations loaded for the first time."),
        Column(
            "changed",
            "bigint",
            "Conversations loaded again because their list row changed, or because of a "
            "write-back.",
        ),
        Column(
            "settled", "bigint", "Conversations loaded again because they reached a re-fetch age."
        ),
        Column("unchanged", "bigint", "Conversations listed and not fetched again."),
        Column("fetched", "bigint", "Conversation details fetched."),
        Column("failed", "bigint", "Conversations that could not be loaded."),
        Column("given_up", "bigint", "Open failures that are too old to be retried."),
        Column(
            "absent",
            "bigint",
            "Loaded conversations that the API no longer lists; NULL if not all was listed.",
        ),
        Column("withheld", "bigint", "Details that came without the conversation's turns."),
        Column("gaps_repaired", "bigint", "Steps back because list pages did not join."),
        Column("requests", "bigint", "HTTP requests, including retries."),
        Column("retries", "bigint", "HTTP requests that were retries."),
        Column("bytes_received", "bigint", "Size of all responses.", unit="bytes"),
        Column("rows", "json", "Rows written, by table."),
        Column(
            "findings",
            "bigint",
            "Discrepancies that `recordings verify` found and that are not repaired; NULL for "
            "other commands.",
        ),
        Column(
            "custody_writer",
            "text",
            "Id of this warehouse in the archive, which names its custody log.",
        ),
        Column(
            "custody_entries",
            "bigint",
            "Entries of this warehouse in the custody log of the agent's recordings, at the end of "
            "the run; NULL if it did not read the log.",
        ),
        Column(
            "custody_head",
            "text",
            "SHA-256 of the newest of these entries, in hexadecimal digits: whoever keeps it "
            "elsewhere can prove later that no entry was changed since.",
        ),
        Column(
            "unmapped_fields", "json", "Fields that have no column, with counts.", pii="free_text"
        ),
        Column(
            "names_read_at",
            "timestamp",
            "Time at which the names behind ids were requested, also if the key may not read them; "
            "NULL if the run did not request them.",
            unit="UTC",
        ),
        Column("error", "text", "Error that stopped the run.", pii="free_text"),
        Column(
            "pii",
            "text",
            "Setting `pii` under which the run wrote rows: keep, hash or drop; NULL if it wrote no "
            "personal data.",
        ),
        Column("transcripts", "text", "Setting `transcripts` of the run: keep or drop."),
        Column(
            "pii_key",
            "text",
            "Fingerprint of the setting `pii_secret`, from which the secret cannot be computed; "
            "NULL unless numbers are hashed.",
        ),
        PACKAGE_ID,
    ),
    key=("run_id",),
    merge_key=("agent_id", "run_id"),
    written_by="run",
    outline=("command", "status", "finished_at"),
)

FETCH_FAILURES = Table(
    "fetch_failures",
    "One row per conversation and stage that could not be fetched; later runs retry open ones.",
    (
        AGENT_ID,
        CONVERSATION_ID,
        Column(
            "stage",
            "text",
            "Request that failed: detail or recording; stale_detail if the detail was older than "
            "its list row; listing for a list row without an id.",
            required=True,
        ),
        ATTEMPTS,
        Column("http_status", "bigint", "HTTP status of the last response; NULL without one."),
        ERROR_CODE,
        ERROR_ID,
        Column("message", "text", "Error message.", pii="free_text"),
        Column("first_failed_at", "timestamp", "First failure.", unit="UTC"),
        Column("last_failed_at", "timestamp", "Latest failure.", unit="UTC"),
        Column(
            "resolved_at",
            "timestamp",
            "Time at which a retry succeeded, or at which there was nothing left to retry; NULL "
            "if the failure is open.",
            unit="UTC",
        ),
        PACKAGE_ID,
    ),
    key=("stage",),
    merge_key=("agent_id", "conversation_id", "stage"),
    written_by="chunk",
    is_erased=True,
    is_parent_optional=True,
    outline=("error_code", "resolved_at"),
)

WRITE_BACKS = Table(
    "write_backs",
    "One row per annotation or note sent to PolyAI, written before it is sent.",
    (
        AGENT_ID,
        CONVERSATION_ID,
        Column(
            "write_back_id",
            "text",
            "Idempotency key: the same annotation or note always has the same id.",
            required=True,
        ),
        Column("kind", "text", "Kind: annotation or note."),
        Column("turn_index", "bigint", "Annotated turn, from 0; NULL for a note."),
        Column("role", "text", "Annotated side of the turn: user or agent; NULL for a note."),
        Column(
            "annotation_type",
            "text",
            "Label: missing_topic, wrong_transcript or wrong_info; NULL for a note.",
        ),
        Column("note", "text", "Text of the note; NULL for an annotation.", pii="free_text"),
        Column(
            "status",
            "text",
            "Status: sending (or killed while sending, which the next run checks), sent, rejected, "
            "or unknown (PolyAI does not show whether it was stored).",
        ),
        ERROR_CODE,
        ERROR_ID,
        Column("message", "text", "Reason why it was rejected or is unknown.", pii="free_text"),
        RUN_ID,
        Column("requested_at", "timestamp", "Time right before it was sent.", unit="UTC"),
        Column("sent_at", "timestamp", "Time at which PolyAI was known to have it.", unit="UTC"),
        PACKAGE_ID,
    ),
    key=("write_back_id",),
    merge_key=("agent_id", "conversation_id", "write_back_id"),
    is_erased=True,
    is_parent_optional=True,
    references=(OF_RUN,),
    outline=("kind", "status", "sent_at"),
)
