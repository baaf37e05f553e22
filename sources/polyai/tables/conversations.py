"""Table `conversations`: one row per conversation, from its list row and detail."""

from __future__ import annotations

from functools import partial

from .common_columns import AGENT_ID, CONVERSATION_ID, EXTRA, PACKAGE_ID
from .declaration import Column, Reference, Table
from .rules import BEGAN_AT

_kept = partial(Column, is_kept_when_absent=True)


CONVERSATIONS = Table(
    "conversations",
    "One row per conversation: parties, times, outcome, score, summary and note.",
    (
        AGENT_ID,
        CONVERSATION_ID,
        _kept(
            "account_id",
            "text",
            "PolyAI account (workspace).",
            "accountId",
            "account_id",
            pii="label",
        ),
        Column("region", "text", "PolyAI region: us, eu, uk or studio."),
        _kept(
            "channel",
            "text",
            "Channel, such as VOICE-SIP or WEBCHAT.",
            "channel",
            "channel",
            pii="label",
        ),
        _kept(
            "direction",
            "text",
            "Direction: inbound or outbound; outbound if none is sent and the id begins with OUT-.",
            "direction",
            pii="label",
        ),
        _kept(
            "environment",
            "text",
            "Environment: live, sandbox or pre-release.",
            "clientEnv",
            "environment",
            pii="label",
        ),
        _kept("language", "text", "Language code, such as en-US.", "language", pii="label"),
        _kept(
            "variant_id",
            "text",
            "Variant of the agent that answered.",
            "variantId",
            "variant_id",
            pii="label",
        ),
        _kept("variant_name", "text", "Name of the variant.", "", "variant_name", pii="label"),
        _kept(
            "deployment_id",
            "text",
            "Deployment of the agent that answered.",
            "deploymentId",
            pii="label",
        ),
        _kept(
            "from_number",
            "text",
            "Calling party: phone number, e-mail address, SIP name, or REDACTED if the key has no "
            "PII access.",
            "fromNumber",
            "from_number",
            pii="contact",
        ),
        _kept(
            "to_number",
            "text",
            "Called party, in the forms of `from_number`.",
            "toNumber",
            "to_number",
            pii="contact",
        ),
        _kept(
            "created_at",
            "timestamp",
            "Creation at PolyAI; start of the conversation if only v3 was read.",
            "createdAt",
            unit="UTC",
        ),
        _kept(
            "started_at",
            "timestamp",
            "Start of the conversation.",
            "startedAt",
            "started_at",
            unit="UTC",
        ),
        _kept("finished_at", "timestamp", "End of the conversation.", "finishedAt", unit="UTC"),
        _kept(
            "duration_seconds", "double", "Duration as reported by PolyAI.", "duration", unit="s"
        ),
        _kept(
            "total_duration_seconds",
            "double",
            "Duration of the whole contact, including the part after a handoff.",
            "totalDuration",
            "total_duration",
            unit="s",
        ),
        _kept(
            "polyai_duration_seconds",
            "double",
            "Duration of the agent's part of the contact.",
            "polyaiDuration",
            "polyai_duration",
            unit="s",
        ),
        Column(
            "in_progress",
            "bool",
            "Still in progress when it was fetched.",
            "inProgress",
            "in_progress",
        ),
        _kept("handoff", "bool", "Handed off to a human.", "handoff", "handoff"),
        _kept(
            "handoff_destination",
            "text",
            "Destination of the handoff.",
            "handoffDestination",
            "handoff_destination",
            pii="contact",
        ),
        _kept(
            "handoff_reason",
            "text",
            "Reason for the handoff.",
            "handoffReason",
            "handoff_reason",
            pii="free_text",
        ),
        _kept(
            "poly_score",
            "double",
            "PolyAI's quality score (PolyScore); never average the two scales.",
            "polyScore",
            unit="see poly_score_scale",
        ),
        _kept(
            "poly_score_scale",
            "text",
            "Scale of the score: `1-5`, or `0-10` for conversations created before 2026-07-28; "
            "NULL without a score.",
            "polyScore, by createdAt",
        ),
        _kept(
            "summary_heading",
            "text",
            "Heading of the summary.",
            "shortSummary.heading",
            kept_with="summary",
            pii="free_text",
        ),
        _kept("summary", "text", "Short summary.", "shortSummary.content", pii="free_text"),
        Column("note", "text", "The current note.", "note", pii="free_text"),
        _kept(
            "audio_url",
            "text",
            "Path of the recording, as sent by the API.",
            "audioUrl",
            pii="identifier",
        ),
        Column(
            "num_turns",
            "bigint",
            "Rows in `turns`, or the API's count if it withholds the turns.",
            "length of turns",
            "num_turns",
        ),
        _kept(
            "num_silences",
            "bigint",
            "Turns without input from the caller.",
            "turns[].is_silence",
            "num_silences",
        ),
        _kept("num_ood", "bigint", "Out-of-domain turns.", "turns[].is_ood", "num_ood"),
        Column(
            "is_transcript_withheld",
            "bool",
            "The latest detail came without the conversation's turns.",
        ),
        _kept(
            "state", "json", "Dialogue state written by the agent.", "", "state", pii="free_text"
        ),
        Column("source_api", "text", "API that listed it last: data or conversations_v3."),
        Column("summary_hash", "text", "Hash of the loaded list row, for change detection."),
        Column("fetched_at", "timestamp", "Time at which the detail was fetched.", unit="UTC"),
        EXTRA,
        PACKAGE_ID,
    ),
    key=(),
    written_by="answer",
    is_erased=True,
    references=(
        Reference("agents", ("agent_id",)),
        Reference("deployments", ("agent_id", "deployment_id")),
        Reference("variants", ("agent_id", "variant_id")),
    ),
    outline=("channel", "variant_id", "started_at", "handoff", "poly_score", "summary"),
    read_by=(("agent_id", "created_at"), ("agent_id", "started_at")),
    conversation_began_at=BEGAN_AT.sql(),
)
