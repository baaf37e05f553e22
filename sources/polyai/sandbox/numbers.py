"""Phone numbers of the agents, one per environment."""

from __future__ import annotations

from .config import SandboxConfig

_OFFSETS = {"live": 0, "sandbox": 1, "pre-release": 2}
_FIRST = 123


def own_number(config: SandboxConfig, agent_id: str, environment: str) -> str:
    """Returns the number on which an agent takes calls; those without one of their own use live's.

    It is one of the numbers that are reserved for fiction.
    """
    place = 10 * config.agents.index(agent_id) + _OFFSETS.get(environment, 0)
    return f"+44207946{(_FIRST + place) % 1000:04}"


def connector_id(environment: str) -> str:
    """Returns the connector of a number."""
    return f"CONNECTOR-{environment}"
