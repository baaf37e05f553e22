"""Conversion of Conversations API v3 rows to the field names of the Data API.

Only names of top-level fields differ; those of turns and metrics are the same in both APIs.
"""

from __future__ import annotations

from typing import Any

from ..tables.conversations import CONVERSATIONS
from .answer import Json

_NAMES = {"id": "conversationId", "project_id": "projectId"} | {
    column.source_v3: column.source
    for column in CONVERSATIONS.columns
    if column.source.isidentifier() and column.source_v3.isidentifier()
}
"""Name in the Data API of each v3 field."""

_EMPTY: tuple[Any, ...] = (None, "", [], {})


def to_data_api_names(row: Json) -> Json:
    """Renames the fields of a v3 row to those of the Data API; unknown fields are unchanged."""
    return {_NAMES.get(name, name): value for name, value in row.items()}


def merge_detail(row: Json, detail: Json) -> Json:
    """Merges a v3 row into the detail, whose values take precedence unless they are empty."""
    filled = {name: value for name, value in detail.items() if value not in _EMPTY}
    return detail | to_data_api_names(row) | filled
