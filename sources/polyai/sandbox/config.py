"""Configuration of a sandbox."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal


@dataclass(frozen=True)
class SandboxConfig:
    """Data and behaviour of a sandbox.

    Equal configurations produce equal bytes in every process.
    """

    conversations: int = 500
    """Conversations per agent at the start."""
    seed: int = 1
    agents: tuple[str, ...] = ("PROJECT-BOOKINGS",)
    """Agent ids; each has its own conversations."""
    account_id: str = "ws-sandbox"
    region: str = "us"
    api_key: str = "sandbox-key"
    foreign_api_key: str = "sandbox-key-eu"
    """Key of another region: HTTP 401."""
    limited_api_key: str = "sandbox-key-no-pii"
    """Key without access to PII: numbers are `REDACTED`, audio is always redacted."""
    forbidden_api_key: str = "sandbox-key-forbidden"
    """Key without permissions: HTTP 403."""
    max_limit: int = 100
    """Maximum rows of a Data API page; a larger `limit` is reduced to it."""
    now: datetime = datetime(2026, 11, 1, tzinfo=UTC)
    """Time of the sandbox's clock at the start."""
    span: timedelta = timedelta(days=120)
    """The conversations at the start were created in (now - span, now]."""
    oddities: bool = True
    """Let payloads deviate from their documentation as the real ones do."""
    detail: Literal["full", "small"] = "full"
    """`full`: about 16 KB of JSON per detail; `small`: one turn, no LLM requests."""
    delay_seconds: float = 0.0
    """Minimum time per response."""
    arrivals_per_request: float = 0.0
    """New conversations per listing request."""
    disorder_seconds: float = 0.0
    """Creation times precede the place in the Data API's listing by up to as much."""
    ties: int = 0
    """Conversations in the middle of the list with the same creation time, whose order differs in
    each answer."""
    listed_twice: int = 0
    """Conversations that are listed a second time, on another page."""
    rows_without_id: int = 0
    """List rows without `conversationId`."""
    absurd_created_at: datetime | None = None
    """Creation time of the conversation in the middle of the list."""
    max_count: int | None = None
    """Limit of `count` in the Data API's listing; rows beyond it are listed all the same."""
    count_error: int = 0
    """Added to `count` in the Data API's listing."""
    withhold_transcripts: bool = False
    """Omit the turns of every conversation."""
    rate_limit: float | None = None
    """Requests per second; above it, HTTP 429 with `Retry-After`. None for no limit."""
    kept_answers: int = 0
    """Size of the cache of rendered details, for benchmarks that read them repeatedly."""
    recording_cap_seconds: float = 600.0
    """Maximum length of recordings; those of longer calls are much shorter than their calls."""
    recording_rate_hz: int = 8000
    """Sample rate of recordings: tests use a low one to transfer whole calls in few bytes."""
