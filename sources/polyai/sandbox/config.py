"""How a sandbox is set up."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal


@dataclass(frozen=True)
class SandboxConfig:
    """What a sandbox holds and how it behaves.

    The same configuration gives the same bytes in every process.
    """

    conversations: int = 500
    """Conversations of each agent that are visible at the start."""
    seed: int = 1
    agents: tuple[str, ...] = ("PROJECT-BOOKINGS",)
    """Agent ids; each has a world of its own."""
    account_id: str = "ws-sandbox"
    region: str = "us"
    api_key: str = "sandbox-key"
    foreign_api_key: str = "sandbox-key-eu"
    """A key that is valid in another region: answers 401 here."""
    limited_api_key: str = "sandbox-key-no-pii"
    """A key without PII access: numbers are `REDACTED`, audio is always redacted."""
    forbidden_api_key: str = "sandbox-key-forbidden"
    """A key without permissions: answers 403."""
    max_limit: int = 100
    """Most rows of a Data API page; a larger `limit` is answered with this one."""
    now: datetime = datetime(2026, 11, 1, tzinfo=UTC)
    """The sandbox's clock at the start."""
    span: timedelta = timedelta(days=120)
    """The first conversations lie in (now - span, now]."""
    oddities: bool = True
    """Whether payloads deviate from their documentation as the real ones do."""
    detail: Literal["full", "small"] = "full"
    """`full`: about 16 KB of JSON a detail; `small`: one turn, no LLM requests."""
    delay_seconds: float = 0.0
    """Time that each answer takes at least."""
    arrivals_per_request: float = 0.0
    """New conversations that appear with each listing request."""
    withhold_transcripts: bool = False
    """Whether every answer comes without turns."""
    rate_limit: float | None = None
    """Requests a second; those above are answered with 429 and `Retry-After`."""
    kept_answers: int = 0
    """Details kept as rendered, for benchmarks that read the same ones again and again."""
    recording_cap_seconds: float = 10.0
    """Longest recording served, so that a test need not move hours of audio."""
