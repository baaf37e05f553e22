"""Meaning of a list row: the hash that detects changes, and the comparison with a detail."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from ..api.decoding import encode
from ..api.row_hash import EMPTY, digest, without_queries
from ..clock import parse_timestamp

Json = Mapping[str, Any]

COMPARED_FIELDS = (
    "note",
    "tags",
    "polyScore",
    "shortSummary",
    "inProgress",
    "finishedAt",
    "handoff",
    "handoffReason",
    "handoffDestination",
)
"""Fields that change after a conversation has begun, and that list row and detail have in common.
"""

_TIMES = frozenset({"createdAt", "startedAt", "finishedAt"})
_NUMBERS = frozenset({"duration", "totalDuration", "polyaiDuration", "polyScore"})

_PARSED = _TIMES | _NUMBERS | {"shortSummary"}

_VOLATILE = re.compile(
    r"(?i).*(url|uri|href|link|token|signature|signed|etag|expir|served|retrieved|request|"
    r"correlation|cursor|offset|position|rank|index)s?.*"
)
"""Names of fields without a column that can differ in each answer."""


def summary_hash(row: Json) -> str:
    """Hashes a list row of the Data API, to detect changes of the conversation.

    Covers the meaning of the fields: neither the query of a URL, nor the order of tags, nor the
    format of times and numbers. Fields without a value are left out, so that a new field does not
    change the hash.
    """
    found = {name: value(name, row[name]) for name in row if not _is_volatile(name)}
    if "audioUrl" in row:
        # a signed URL differs in each answer
        found["audioUrl"] = bool(row["audioUrl"])
    filled = {name: item for name, item in found.items() if item not in EMPTY}
    return digest(filled)


def value(name: str, given: Any) -> Any:
    """Returns the meaning of a field's value: equal values mean the same; None for none."""
    if given in EMPTY:
        return None
    kind = type(given)
    if kind is bool or (kind is str and "/" not in given and name not in _PARSED):
        return given
    if name in _TIMES:
        try:
            moment = parse_timestamp(given)
        except ValueError:
            return given
        return moment.isoformat() if moment else None
    if name in _NUMBERS:
        try:
            return float(given)
        except (TypeError, ValueError, OverflowError):
            return given
    try:
        if name == "tags" and isinstance(given, list):
            return sorted(tag if isinstance(tag, str) else encode(tag).decode() for tag in given)
        if name == "shortSummary" and not isinstance(given, dict):
            given = {"content": given}
        return without_queries(given)
    except RecursionError:
        # a change within such a value is not detected
        return "nested too deeply"


def older_fields(row: Json, detail: Json) -> list[str]:
    """Returns the fields in which a detail is older than its list row, or may be.

    A detail that lacks what the row has, or has another value, is older; one that has ended
    meanwhile, or has something that the row lacks, is newer. Fields that one of them does not have
    are not compared.
    """
    if row.get("inProgress") and not detail.get("inProgress"):
        return []
    found = []
    for name in COMPARED_FIELDS:
        if name not in row or name not in detail or row[name] == detail[name]:
            continue
        listed, own = value(name, row[name]), value(name, detail[name])
        if (name == "inProgress" and bool(own) > bool(listed)) or (
            listed is not None and listed is not False and listed != own
        ):
            found.append(name)
    return found


@lru_cache(maxsize=1_000)
def _is_volatile(name: str) -> bool:
    return _VOLATILE.fullmatch(name) is not None
