"""Configuration of a sandbox."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal

from .keys import UNKNOWN, Key


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
    slugs: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Other names of agents and of the account, as in Studio URLs: slug → id."""
    api_key: str = "sandbox-key"
    """Key of all rights."""
    data_api_key: str = "sandbox-data-key"
    """Key of the Data API for the first agent."""
    v3_api_key: str = "sandbox-v3-key"
    """Key of the Conversations API v3 for the first agent."""
    workspace_api_key: str = "sandbox-workspace-key"
    """Key of the account: Agents API and debug chats."""
    foreign_api_key: str = "sandbox-key-eu"
    """Key of another region."""
    foreign_status: Literal[401, 403, 404] = 401
    """HTTP status of the answers to the key of another region."""
    expired_api_key: str = "sandbox-key-expired"
    """Key that has expired: HTTP 401."""
    limited_api_key: str = "sandbox-key-no-pii"
    """Key without access to PII: callers' numbers are `REDACTED`, audio is always redacted."""
    forbidden_api_key: str = "sandbox-key-forbidden"
    """Key without permissions: HTTP 403."""
    keys: Mapping[str, Key] = field(default_factory=dict, hash=False)
    """Further keys, or other rights of the keys above."""
    max_limit: int = 100
    """Maximum rows of a Data API page; a larger `limit` is reduced to it."""
    v3_max_limit: int = 1000
    """Maximum `limit` of a v3 page; PolyAI's guide has 5000."""
    v3_default_limit: int = 1000
    """`limit` of a v3 page by default; PolyAI's guide has 5."""
    v3_stable_limit: int | None = None
    """Rows above which a v3 page answers HTTP 504, as where streaming is not enabled."""
    v3_cursors: bool = True
    """Send `cursor` beside `next_offset` in v3's listing."""
    now: datetime = datetime(2026, 11, 1, tzinfo=UTC)
    """Time of the sandbox's clock at the start."""
    span: timedelta = timedelta(days=120)
    """The conversations at the start were created in (now - span, now]."""
    oddities: bool = True
    """Let payloads deviate from their documentation as recordings of the real ones do."""
    inventions: bool = False
    """With `oddities`: also let them deviate as no recording shows, to test robustness."""
    all_environments: bool = False
    """Also conversations of `draft`, `test` and `scenarios`, which v3 does not list."""
    stale_details: int = 0
    """Reads of a detail after each `edit` that a lagging replica answers, as before the edit."""
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

    def key(self, text: str) -> Key:
        """Returns the rights of an API key as sent; `UNKNOWN` if there is no such key."""
        first = self.agents[:1]
        lacking = "This API key lacks the permission."
        known = {
            self.foreign_api_key: Key(refused=self.foreign_status),
            self.expired_api_key: Key(refused=401, message="This API key has expired."),
            self.forbidden_api_key: Key(refused=403, message=lacking),
            self.workspace_api_key: Key(("agents", "debug_chat")),
            self.v3_api_key: Key(("v3",), first),
            self.data_api_key: Key(("data",), first),
            self.limited_api_key: Key(has_pii_access=False),
            self.api_key: Key(),
            **self.keys,
        }
        return known.get(text, UNKNOWN)

    def id_of(self, name: str) -> str:
        """Returns the id of an agent or account by its id or slug."""
        return self.slugs.get(name, name)
