"""Rows of the Conversations API v3 in the words of the Data API, so that both are shaped alike.

What differs is the names at the top; turns and metrics have the same names in both.
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
"""The Data API's name of each field that both have."""

_NOTHING: tuple[Any, ...] = (None, "", [], {})


def in_data_words(row: Json) -> Json:
    """A row of the listing as the Data API's detail would have it; unknown fields stay."""
    return {_NAMES.get(name, name): value for name, value in row.items()}


def with_detail(row: Json, detail: Json) -> Json:
    """The detail, and from the listing's row what the detail does not say."""
    said = {name: value for name, value in detail.items() if value not in _NOTHING}
    return detail | in_data_words(row) | said
