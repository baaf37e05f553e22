"""Where a recording lies in its store: `agent_id=…/date=YYYY-MM-DD/…wav`."""

from __future__ import annotations

import hashlib
from datetime import datetime
from urllib.parse import quote

from ..clock import in_utc

_UNKNOWN_DAY = "__HIVE_DEFAULT_PARTITION__"
"""What Hive, Spark, DuckDB and pyarrow read as NULL."""

_LONGEST_NAME = 180
"""File systems take 255 bytes; direction and endings need some."""

_HASH_DIGITS = 32

_CUT = "~~"
"""Stands before the hash of a name that was cut; no other safe name has it."""


def agent_folder(agent_id: str) -> str:
    """The folder of all of an agent's days; Hive's readers decode its name."""
    return f"agent_id={safe_name(agent_id)}"


def partition(agent_id: str, started_at: datetime | None) -> str:
    """The folder of the day, in UTC, on which a conversation of the agent began."""
    day = in_utc(started_at).date().isoformat() if started_at else _UNKNOWN_DAY
    return f"{agent_folder(agent_id)}/date={day}"


def file_name(conversation_id: str, direction: str, *, redacted: bool) -> str:
    """The name of a recording's file in its partition."""
    ending = f"{direction}.redacted" if redacted else direction
    return f"{safe_name(conversation_id)}.{ending}.wav"


def safe_name(name: str) -> str:
    """A name that every store takes, and that no other name gets.

    Whatever is neither letter, digit, `-`, `_` nor `.` is percent-encoded, so `unquote` brings the
    name back. Only one that is too long for a file system is cut, and told apart by a hash; the
    manifest has it whole.
    """
    safe = quote(name, safe="").replace("~", "%7E")
    if safe.startswith("."):  # hidden, or the folder itself
        safe = f"%2E{safe[1:]}"
    if len(safe) <= _LONGEST_NAME:
        return safe
    digest = hashlib.sha256(name.encode()).hexdigest()[:_HASH_DIGITS]
    return f"{safe[: _LONGEST_NAME - len(_CUT) - _HASH_DIGITS]}{_CUT}{digest}"
