"""Paths of recordings in the store: `agent_id=…/date=YYYY-MM-DD/…wav`."""

from __future__ import annotations

import hashlib
import re
from datetime import datetime
from urllib.parse import quote

from ..clock import in_utc

_UNKNOWN_DAY = "__HIVE_DEFAULT_PARTITION__"
"""Partition value that Hive, Spark, DuckDB and pyarrow read as NULL."""

QUARANTINE = "quarantine"
"""Folder of files that were set aside, under their paths and hashes."""

_VERSION = re.compile(r"(?:\.v\d+)?\.wav(?:\.[0-9a-f]{16})?$")

UNKNOWN_MONTH = "unknown"
"""Month of calls whose start is unknown; after all others."""

_LONGEST_NAME = 180
"""File systems allow 255 bytes; direction and suffixes need some of them."""

_HASH_DIGITS = 32

_CUT = "~~"
"""Separator before the hash of a shortened name; no other safe name contains it."""


def agent_folder(agent_id: str) -> str:
    """Folder of all days of an agent; Hive readers decode its name."""
    return f"agent_id={safe_name(agent_id)}"


def partition(agent_id: str, started_at: datetime | None) -> str:
    """Folder of the day (UTC) on which a conversation began."""
    day = in_utc(started_at).date().isoformat() if started_at else _UNKNOWN_DAY
    return f"{agent_folder(agent_id)}/date={day}"


def file_name(conversation_id: str, direction: str, *, redacted: bool) -> str:
    """Name of a recording's file in its partition."""
    ending = f"{direction}.redacted" if redacted else direction
    return f"{safe_name(conversation_id)}.{ending}.wav"


def version_name(name: str, version: int) -> str:
    """Name of another version of a file, beside it."""
    return f"{name.removesuffix('.wav')}.v{version}.wav"


def base_path(path: str) -> str:
    """Path of the recording that a file is a version of, or was set aside from."""
    return _VERSION.sub(".wav", path.removeprefix(f"{QUARANTINE}/"))


def month_of(day: str) -> str:
    """Month of a day as in `partition`: `2026-03`, or `unknown`."""
    return UNKNOWN_MONTH if day == _UNKNOWN_DAY else day[:7]


def safe_name(name: str) -> str:
    """Encodes a name as a unique file name that every store accepts.

    Everything but letters, digits, `-`, `_` and `.` is percent-encoded, so that `unquote` restores
    the name. A name that is too long for a file system is shortened and gets a hash; the manifest
    has it in full.
    """
    safe = quote(name, safe="").replace("~", "%7E")
    if safe.startswith("."):  # hidden, or the folder itself
        safe = f"%2E{safe[1:]}"
    if len(safe) <= _LONGEST_NAME:
        return safe
    digest = hashlib.sha256(name.encode()).hexdigest()[:_HASH_DIGITS]
    return f"{safe[: _LONGEST_NAME - len(_CUT) - _HASH_DIGITS]}{_CUT}{digest}"
