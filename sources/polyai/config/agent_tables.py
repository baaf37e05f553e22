"""Agents as a user names them: ids, Studio URLs, and tables in one or several files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..errors import ConfigurationError
from . import regions
from .lookup import Places, is_empty
from .unknown_names import suggestion
from .validators import text, unquoted

AGENT_NAMES = (
    "agent_id",
    "api_key",
    "region",
    "account_id",
    "base_url",
    "v3_base_url",
    "v3_api_key",
)
"""Settings that can differ between agents."""


def names(value: object) -> list[str]:
    """Splits agent ids or Studio URLs, given as a list or separated by commas."""
    parts = unquoted(value).split(",") if isinstance(value, str) else value
    if not isinstance(parts, Sequence):
        raise ConfigurationError(
            f"{value!r} is not a valid agent id (expected PROJECT-… or a slug)"
        )
    if found := list(dict.fromkeys(name for part in parts if (name := unquoted(text(part))))):
        return found
    raise ConfigurationError(f"{value!r} contains no agent id")


def locate(name: object) -> tuple[str, regions.StudioLocation | None]:
    """Returns the agent id in `name`, and the location where `name` is a Studio URL."""
    agent = unquoted(text(name))
    location = regions.parse_studio_url(agent) if regions.is_studio_url(agent) else None
    return (location.agent_id if location else agent), location


def tables(value: object) -> list[dict[str, Any]]:
    """Validates the tables of agents, and merges those of several places by `agent_id`.

    Keys of the place with the higher precedence win; the order is that of the lowest place, in
    which the tables of `config.toml` are, then that of the others.

    Args:
        value: A list of tables, the same as JSON text, or `Places` of both.
    """
    if not isinstance(value, Places):
        return list(_by_id(value).values())
    merged: dict[str, dict[str, Any]] = {}
    for place in reversed(value):
        for agent_id, table in _by_id(place).items():
            known = merged.setdefault(agent_id, {})
            named = known.get("agent_id", "")
            known |= {name: own for name, own in table.items() if not is_empty(own)}
            if regions.is_studio_url(named):
                known["agent_id"] = named  # it also has the region and the account
    return list(merged.values())


def _by_id(value: object) -> dict[str, dict[str, Any]]:
    """Returns the tables of one place by agent id."""
    by_id: dict[str, dict[str, Any]] = {}
    for table in _parsed(value):
        agent_id, _ = locate(table["agent_id"])
        if agent_id in by_id:
            raise ConfigurationError(f"two tables have the same agent_id {agent_id}")
        by_id[agent_id] = table
    return by_id


def _parsed(value: object) -> Iterator[dict[str, Any]]:
    try:
        given = json.loads(value) if isinstance(value, str) else value
    except ValueError:
        given = None
    if not isinstance(given, Sequence) or not all(isinstance(t, Mapping) for t in given):
        raise ConfigurationError("expected a list of tables [[sources.polyai.agents]]")
    for position, table in enumerate(given, 1):
        if unknown := [name for name in table if name not in AGENT_NAMES]:
            raise ConfigurationError(
                f"table {position} has unknown settings {', '.join(sorted(unknown))}. "
                f"{suggestion(unknown[0], AGENT_NAMES)}"
            )
        if is_empty(table.get("agent_id")):
            raise ConfigurationError(f"table {position} has no agent_id")
        yield {**table, "agent_id": unquoted(text(table["agent_id"]))}
