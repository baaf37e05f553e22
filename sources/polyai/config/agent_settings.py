"""Agents of a run, from the shared settings and from the tables of agents."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..errors import ConfigurationError
from . import regions
from .agent import Agent, check_keys, check_places
from .agent_tables import locate, names, tables
from .lookup import Found, Layer, how_to_set, is_empty, validate
from .validators import key_text, text, unquoted


def agents_of(given: Mapping[str, Found], options: Mapping[str, object]) -> tuple[Agent, ...]:
    """Returns the agents of `agent_id` and of the tables; see `settings`."""
    named, listed = given.get("agent_id"), given.get("agents")
    if not (named or listed):
        where = how_to_set("agent_id", is_option="agent_id" in options)
        raise ConfigurationError(f"agent_id is missing. {where}")
    if named and listed and named.layer == listed.layer:
        raise ConfigurationError(
            "agent_id and agents are both set in the same place. Keep one of them: move the agent "
            "of agent_id into a table [[sources.polyai.agents]], or remove the tables"
        )
    entries = validate("agents", listed.value, tables, options) if listed else []
    if named and (not listed or named.layer < listed.layer):
        by_id = {locate(entry["agent_id"])[0]: entry for entry in entries}
        ids = validate("agent_id", named.value, names, options)
        entries = [by_id.get(locate(name)[0], {"agent_id": name}) for name in ids]
    agents = {agent.agent_id: agent for agent in (_agent(e, given, options) for e in entries)}
    if all(agent.problem for agent in agents.values()):
        next(iter(agents.values())).check_usable()
    return tuple(agents.values())


def _agent(
    entry: Mapping[str, Any], given: Mapping[str, Found], options: Mapping[str, object]
) -> Agent:
    """Builds an agent. Precedence: options, the agent's own settings, shared settings."""

    def setting(name: str, validator: Callable[[object], str]) -> str | None:
        shared, own = given.get(name), entry.get(name)
        is_own = not is_empty(own) and not (shared and shared.layer == Layer.OPTION)
        value = own if is_own else shared.value if shared else None
        return None if is_empty(value) else validate(name, value, validator, options)

    agent_id, location = validate("agent_id", entry["agent_id"], locate, options)
    region = setting("region", lambda value: regions.parse_region(text(value)))
    account_id = setting("account_id", lambda value: unquoted(text(value)))
    if location:
        for name, configured, in_url in (
            ("region", region, location.region),
            ("account_id", account_id, location.account_id),
        ):
            if configured and in_url and configured != in_url:
                raise ConfigurationError(
                    f"{name} is {configured}, but {in_url} in the Studio URL {entry['agent_id']}: "
                    f"remove one of them. {how_to_set(name, is_option=name in options)}"
                )
        region, account_id = location.region or region, location.account_id
    region = region or "us"
    base_url = setting("base_url", _base_url)
    # with a sandbox or proxy as base_url, v3 requests must not reach the real service
    v3_base_url = setting("v3_base_url", _base_url) or base_url
    api_key, v3_api_key = setting("api_key", key_text), setting("v3_api_key", key_text)
    others = {
        "agent_id": agent_id,
        "account_id": account_id,
        "base_url": base_url,
        "v3_base_url": v3_base_url,
    }
    check_places(others, (api_key, v3_api_key), options)
    problem = ""
    try:
        check_keys({"api_key": api_key, "v3_api_key": v3_api_key}, agent_id, options)
    except ConfigurationError as error:
        problem = str(error)
    return Agent(
        agent_id=agent_id,
        api_key=api_key or "",
        region=region,
        account_id=account_id,
        base_url=base_url or regions.data_api_url(region),
        v3_base_url=v3_base_url or regions.conversations_v3_url(region),
        v3_api_key=v3_api_key or "",
        problem=problem,
    )


def _base_url(value: object) -> str:
    return regions.parse_base_url(text(value))
