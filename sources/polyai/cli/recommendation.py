"""Settings to use for an agent, from what its keys can read."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..config import regions
from ..config.agent import AUTO, DATA, V3, Agent
from ..config.agent_tables import AGENT_NAMES
from ..config.lookup import SECRET_NAMES, SECTION, is_empty, look_up
from .access import Access, account_of

_SHARED = ("api", "details")
"""Settings that all agents share."""

_CONFIG_NAMES = (*(name for name in AGENT_NAMES if name not in SECRET_NAMES), *_SHARED)
"""Settings that can be recommended."""

LoadedThrough = tuple[str, bool]
"""API through which `load` read an agent last, and whether it read details."""


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


def recommended_api(api: str, access: Access, loaded: LoadedThrough | None) -> str:
    """Returns the value of the setting `api` to use, where a listing can be used.

    Args:
        api: The setting as it is, which stays if its listing can be used.
        access: What the keys can read.
        loaded: API through which the agent was loaded last; None if it was not.
    """
    data, v3 = access.data, access.v3
    if {DATA: data.is_usable, V3: v3.is_usable}.get(api):
        return api
    if not data.is_usable:
        return V3
    # `auto` would go on through v3, whose key may be wrong for a while only
    goes_on_with_v3 = loaded is not None and loaded[0] == V3
    return DATA if goes_on_with_v3 and not (v3.is_usable or v3.is_gone) else AUTO


def recommend(
    agent: Agent, access: Access, api: str, loaded: LoadedThrough | None
) -> Recommendation | None:
    """Returns the settings to use; None if neither listing can be used.

    Args:
        agent: The agent as it is set.
        access: What its keys can read.
        api: The setting as it is.
        loaded: API through which the agent was loaded last; None if it was not.
    """
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
    config["api"] = recommended_api(api, access, loaded)
    if not data.is_usable and access.details is not None and access.details.found:
        config["details"] = True
    keys = {}
    if data.is_usable and data.key != "api_key":
        keys["api_key"] = data.key
    if v3.is_usable and v3.key == "api_key" and agent.v3_api_key:
        keys["v3_api_key"] = "api_key"
    return Recommendation(agent.agent_id, config, keys)


def lines_of(recommendations: Sequence[Recommendation], *, is_alone: bool) -> list[str]:
    """Returns the settings as lines to print, in the form in which they are set now.

    Variables override the files, so that where some are set, the files alone change nothing.

    Args:
        recommendations: Those of the agents that can be read.
        is_alone: Whether there is one agent only.
    """
    is_alone = is_alone and look_up("agents", {}) is None  # else it stays in its table
    variables = [name for name in _CONFIG_NAMES if not is_empty(os.environ.get(_variable(name)))]
    unset = f", after `unset {' '.join(map(_variable, variables))}`" if variables else ""
    place, toml = f"in .dlt/config.toml{unset}:", as_toml(recommendations, is_alone=is_alone)
    if not (variables and is_alone):
        return [f"settings to use, {place}", *toml]
    return [
        "settings to use, in the environment:",
        *as_variables(recommendations[0]),
        f"or {place}",
        *toml,
    ]


def as_variables(one: Recommendation) -> list[str]:
    """Returns the lines for a shell, which move keys without showing them."""
    lines = [f"export {_variable(name)}={_quoted(value)}" for name, value in one.config.items()]
    if any(is_empty(os.environ.get(_variable(now))) for now in one.keys.values()):
        return [*lines, *_moves(one)]
    if one.keys:
        # all at once, because two keys may be exchanged
        moves = (f'{_variable(name)}="${_variable(now)}"' for name, now in one.keys.items())
        lines.append(f"export {' '.join(moves)}")
    return lines


def _variable(name: str) -> str:
    return f"POLYAI_{name.upper()}"


def _quoted(value: object) -> str:
    return shlex.quote(value if isinstance(value, str) else json.dumps(value))


def as_toml(recommendations: Sequence[Recommendation], *, is_alone: bool) -> list[str]:
    """Returns the lines for `.dlt/config.toml`."""
    if is_alone:
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
        f"# {name}, in .dlt/secrets.toml or as {_variable(name)}: the key that is now {now}"
        for name, now in one.keys.items()
    ]
