"""Answers of the PolyAI APIs: pages of their listings, and details."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .page_stream import Document, Spool


@dataclass(frozen=True)
class Page:
    """One page of the listing, newest conversation first.

    Attributes:
        conversations: Rows as sent, without turns, metrics and function events. An item that is not
            an object is wrapped in one, which has no id.
        count: Total number of the agent's conversations; 0 where the answer has no usable one.
        limit: Page size that the server used, possibly smaller than requested.
        offset: Rows that the server skipped.
        has_count: The answer has a usable count.
    """

    conversations: list[dict[str, Any]]
    count: int
    limit: int
    offset: int
    has_count: bool = True


@dataclass(frozen=True, slots=True)
class Detail:
    """Detail of one conversation.

    Attributes:
        conversation: The conversation as sent, numbers with all their digits.
        size: Bytes of the JSON document; in memory the conversation takes about five times as many.
    """

    conversation: dict[str, Any]
    size: int


@dataclass(frozen=True)
class V3Page:
    """One page of the Conversations API v3, in the API's order.

    Attributes:
        rows: Conversations.
        spool: File that holds their documents.
        cursor: Cursor of the next page; None at the end, or where only `next_offset` continues.
        next_offset: Offset of the next page; None at the end.
        malformed: Reasons why rows of the page cannot be loaded, by the hash of the row.
    """

    rows: list[V3Row]
    spool: Spool
    cursor: str | None
    next_offset: int | None = None
    malformed: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class V3Row:
    """In-memory part of one conversation of a page.

    Attributes:
        conversation_id: `id`.
        started_at: `started_at` as sent.
        row_hash: Hash of the row, to detect changes.
        document: The row itself, on disk.
    """

    conversation_id: str
    started_at: Any
    row_hash: str
    document: Document
