"""One PolyAI agent: its ids, keys and hosts, and what each API needs of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from ..errors import ConfigurationError
from .lookup import how_to_set

DATA = "data"
"""The Data API, in the setting `api` and in `source_api`."""

V3 = "conversations_v3"
"""The Conversations API v3."""

AUTO = "auto"
"""The setting `api` for what the warehouse was loaded with, else what answers."""

FIND_ACCOUNT = (
    "the Workspace ID in Agent Studio, ws-…, or agent_id to the agent's URL there, which has both"
)
"""Place of the setting `account_id`, after `set account_id to`."""

_NOT_IN_A_KEY = frozenset(" \"'`")
_SHORTEST_KEY = 8

_NOT_IN_AN_ID = frozenset(" /?#\"'`[]{}<>")


@dataclass(frozen=True)
class Agent:
    """One PolyAI agent and how to reach its APIs.

    Attributes:
        agent_id: `PROJECT-…` or the slug from a Studio URL.
        api_key: Key of the Data API for this agent, in its region; empty where only v3 is used.
            Never in a repr or a message.
        region: `us`, `eu`, `uk` or `studio`.
        account_id: `ws-…` or the slug; only the Conversations API v3 needs it.
        base_url: URL of the Data API without a trailing slash.
        v3_base_url: URL of the Conversations API v3; None where the region has none.
        v3_api_key: Key of the Conversations API v3 if it differs; never in a repr or a message.
        problem: Why no request can be sent for it, so that the other agents are still read.

    Raises:
        ConfigurationError: The id or a key contains characters that a request cannot carry.
    """

    agent_id: str
    api_key: str = field(repr=False)
    region: str
    account_id: str | None
    base_url: str
    v3_base_url: str | None
    v3_api_key: str = field(default="", repr=False)
    problem: str = ""

    def __post_init__(self) -> None:
        name = self.agent_id
        if not name or not name.isprintable() or set(name) & _NOT_IN_AN_ID:
            raise ConfigurationError(
                f"{name!r} is not a valid agent id (expected PROJECT-… or a slug). "
                f"{how_to_set('agent_id')}"
            )
        if not self.problem:
            check_keys({"api_key": self.api_key, "v3_api_key": self.v3_api_key}, name)

    def problem_with(self, api: str) -> str:
        """Returns why no request can be sent to an API; empty if one can.

        Args:
            api: `data` or `conversations_v3`.
        """
        if self.problem:
            return self.problem
        if api == DATA:
            return "" if self.api_key else _missing_key("api_key", self.agent_id)
        if not self.v3_base_url:
            return (
                f"the Conversations API v3 does not exist in region {self.region}: use api = 'data'"
            )
        if not self.account_id:
            return (
                f"account_id of agent {self.agent_id} is missing; the Conversations API v3 "
                f"requires it. It is the Workspace ID in Agent Studio, ws-…. "
                f"{how_to_set('account_id')}"
            )
        return ""

    def check_usable(self) -> None:
        """Checks that requests can be sent for the agent.

        Raises:
            ConfigurationError: Its key is missing or invalid.
        """
        if self.problem:
            raise ConfigurationError(self.problem)


def check_keys(
    keys: Mapping[str, str | None], agent_id: str, options: Collection[str] = ()
) -> None:
    """Checks that there is a key, and that a header can carry each."""
    if not any(keys.values()):
        raise ConfigurationError(
            f"{_missing_key('api_key', agent_id, is_option='api_key' in options)}. A key of the "
            "Conversations API v3 alone is v3_api_key (POLYAI_V3_API_KEY)"
        )
    for name, key in keys.items():
        # HTTP headers are latin-1: a typographic quote or a line break is a copying mistake
        if key and (not key.isprintable() or max(key) > "\xff" or set(key) & _NOT_IN_A_KEY):
            raise ConfigurationError(
                f"the {name} of agent {agent_id} contains invalid characters; copy the key alone "
                "again, without quotes, spaces and line breaks. "
                f"{how_to_set(name, is_option=name in options)}"
            )


def check_places(
    others: Mapping[str, str | None], keys: Collection[str | None], options: Collection[str] = ()
) -> None:
    """Checks that no key was pasted into another setting too, which is shown and sent in URLs."""
    for name, value in others.items():
        if value and any(key and len(key) >= _SHORTEST_KEY and key in value for key in keys):
            raise ConfigurationError(
                f"{name} contains the API key. {how_to_set(name, is_option=name in options)}"
            )


def _missing_key(name: str, agent_id: str, *, is_option: bool = False) -> str:
    return f"{name} of agent {agent_id} is missing. {how_to_set(name, is_option=is_option)}"
