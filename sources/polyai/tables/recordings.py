"""Tables of recordings and their archives."""

from __future__ import annotations

from .common_columns import (
    AGENT_ID,
    ATTEMPTS,
    CONVERSATION_ID,
    PACKAGE_ID,
)
from .declaration import Column, Reference, Table

_ARCHIVE_ID = "Id of the archive of recordings, as in its file `archive.json`."

RECORDINGS = Table(
    "recordings",
    "One row per requested recording: its file, or the reason why there is none.",
    (
        AGENT_ID,
        CONVERSATION_ID,
        Column("direction", "text", "Voices on it: combined, user or agent.", required=True),
        Column(
            "redacted",
            "bool",
            "PolyAI blanked out personal data that the caller spoke.",
            required=True,
        ),
        Column("status", "text", "Status: stored, not_found (retried for a while) or failed."),
        Column(
            "path",
            "text",
            "Path of the file in its archive; NULL if there is no file.",
            pii="identifier",
        ),
        Column("archive_id", "text", _ARCHIVE_ID),
        Column(
            "uri",
            "text",
            "Path or URL of the file where the archive is now, for fsspec; NULL if there is no "
            "file.",
            pii="identifier",
        ),
        Column("bytes", "bigint", "Size of the file.", unit="bytes"),
        Column("sha256", "text", "SHA-256 of the file, in hexadecimal digits."),
        Column("duration_seconds", "double", "Length of the recording.", unit="s"),
        Column("sample_rate_hz", "bigint", "Sample rate.", unit="Hz"),
        Column("channels", "bigint", "Audio channels."),
        Column(
            "sample_width_bytes",
            "bigint",
            "Size of a sample; NULL if samples are packed.",
            unit="bytes",
        ),
        Column("audio_format", "text", "Encoding as named by libsndfile: PCM_16, ULAW, ALAW, …"),
        Column(
            "started_at",
            "timestamp",
            "Start of the conversation; its date is part of the file's path.",
            unit="UTC",
        ),
        Column("fetched_at", "timestamp", "Latest request for the recording.", unit="UTC"),
        ATTEMPTS,
        Column(
            "error_code",
            "text",
            "Of a stored file: LENGTH_MISMATCH (complete, but the lengths that it states are a "
            "little wrong), LENGTH_UNKNOWN (nothing shows that it is complete), or NULL. Else: "
            "PolyAI's error code, or NOT_WAV, NO_AUDIO, LENGTH_MISMATCH or TOO_LARGE of a file "
            "that cannot be used.",
            pii="label",
        ),
        PACKAGE_ID,
    ),
    key=("direction", "redacted"),
    merge_key=("agent_id", "conversation_id", "direction", "redacted"),
    is_erased=True,
    is_parent_optional=True,
    references=(Reference("archives", ("agent_id", "archive_id")),),
    outline=("status", "path", "sha256"),
    conversation_began_at="started_at",
)

ARCHIVES = Table(
    "archives",
    "One row per agent and archive of recordings: the folder or bucket that has its files.",
    (
        AGENT_ID,
        Column(
            "archive_id",
            "text",
            _ARCHIVE_ID,
            required=True,
        ),
        Column("url", "text", "Folder or URL of the archive, where it is now."),
        Column(
            "warehouse_id",
            "text",
            "Random id from which the names of this warehouse's manifest and custody log derive.",
        ),
        Column("added_at", "timestamp", "Time at which the archive was added.", unit="UTC"),
        PACKAGE_ID,
    ),
    key=("archive_id",),
    merge_key=("agent_id", "archive_id"),
    outline=("url", "added_at"),
)
