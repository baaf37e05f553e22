"""Settings to use for an agent, from what its keys can read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..config import regions
from ..config.agent import AUTO, V3, Agent
from ..config.lookup import SECTION
from .access import Access, account_of

_SHARED = ("api", "details")
"""Settings that all agents share."""


@dataclass(frozen=True)
class Recommendation:
    """Settings with which a load of one agent works.

    Attributes:
        agent_id: The agent.
        config: Settings by name, for `.dlt/config.toml`.
        keys: Key settings to be set to a key that is now in another one.
    """

    agent_id: str
    config: Mapping[str, Any]
    keys: Mapping[str, str] = field(default_factory=dict)


def recommend(agent: Agent, access: Access) -> Recommendation | None:
    """Returns the settings to use; None if neither listing can be used."""
    data, v3 = access.data, access.v3
    if not (data.is_usable or v3.is_usable):
        return None
    place = data.agent if data.is_usable else v3.agent
    config: dict[str, Any] = {"agent_id": agent.agent_id, "region": place.region}
    account_id = v3.agent.account_id if v3.is_usable else account_of(data.rows) or agent.account_id
    if account_id:
        config["account_id"] = account_id
    base_url = agent.base_url if agent.base_url != regions.data_api_url(agent.region) else None
    if base_url:
        config["base_url"] = base_url
    usual = base_url or regions.conversations_v3_url(place.region)
    if v3.is_usable and v3.agent.v3_base_url != usual:
        config["v3_base_url"] = v3.agent.v3_base_url
    config["api"] = AUTO if data.is_usable else V3
    if not data.is_usable and access.details is not None and access.details.found:
        config["details"] = True
    keys = {}
    if data.is_usable and data.key != "api_key":
        keys["api_key"] = data.key
    if v3.is_usable and v3.key == "api_key" and agent.v3_api_key:
        keys["v3_api_key"] = "api_key"
    return Recommendation(agent.agent_id, config, keys)


def as_toml(recommendations: Sequence[Recommendation]) -> list[str]:
    """Returns the lines for `.dlt/config.toml`."""
    if len(recommendations) == 1:
        (one,) = recommendations
        return [f"[{SECTION}]", *_lines(one.config), *_moves(one)]
    lines = [f"[{SECTION}]"]
    for name in _SHARED:
        values = {one.config.get(name) for one in recommendations}
        # of several agents, each finds its own listing
        if values != {None}:
            shared = values.pop() if len(values) == 1 else {"api": AUTO, "details": False}[name]
            lines += _lines({name: shared})
    for one in recommendations:
        own = {name: value for name, value in one.config.items() if name not in _SHARED}
        lines += ["", f"[[{SECTION}.agents]]", *_lines(own), *_moves(one)]
    return lines


def _lines(config: Mapping[str, Any]) -> list[str]:
    return [f"{name} = {json.dumps(value)}" for name, value in config.items()]


def _moves(one: Recommendation) -> list[str]:
    """Returns comments about keys, which are never shown."""
    return [
        f"# {name} (POLYAI_{name.upper()}): the key that is now {now}"
        for name, now in one.keys.items()
    ]
