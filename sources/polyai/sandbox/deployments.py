"""Deployments of an agent: each version reaches sandbox, pre-release and live, at a steady pace."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import blake2b

from . import texts
from .config import SandboxConfig

ENVIRONMENTS = ("sandbox", "pre-release", "live")
_LEAST_PACE = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Deployment:
    """Version of an agent in an environment; `version` is the same in all environments."""

    deployment_id: str
    environment: str
    number: int
    version: str
    created_at: datetime
    created_by: str
    message: str


class Deployments:
    """Deployments of one agent, computed from the time; four per environment within the span.

    Args:
        config: Configuration of the sandbox.
        agent_id: The agent.
    """

    def __init__(self, config: SandboxConfig, agent_id: str) -> None:
        self._key = f"{config.seed}/{agent_id}"
        self._agent = config.agents.index(agent_id)
        pace = self._pace = max(config.span / 4, _LEAST_PACE)
        start = config.now - config.span
        self._starts = {
            "sandbox": start - pace / 4,
            "pre-release": start - pace / 8,
            "live": start,
        }

    def id_at(self, environment: str, moment: datetime) -> str | None:
        """Returns the id of the deployment that was active; None without deployments."""
        if environment not in self._starts:
            return None
        return self._id(environment, self._number(environment, moment))

    def listed(self, environment: str, now: datetime) -> list[Deployment]:
        """Returns the deployments of an environment up to now, newest first."""
        newest = self._number(environment, now)
        return [self._deployment(environment, number) for number in range(newest, -1, -1)]

    def _number(self, environment: str, moment: datetime) -> int:
        return max(0, (moment - self._starts[environment]) // self._pace)

    def _id(self, environment: str, number: int) -> str:
        place = self._agent << 8 | ENVIRONMENTS.index(environment)
        return f"019e8d9e-8e30-7899-9e61-{place:04x}{number:08x}"

    def _deployment(self, environment: str, number: int) -> Deployment:
        version = blake2b(f"{self._key}/{number}".encode(), digest_size=10).hexdigest()
        return Deployment(
            deployment_id=self._id(environment, number),
            environment=environment,
            number=number,
            version=version,
            created_at=self._starts[environment] + number * self._pace,
            created_by=texts.DEPLOYERS[number % len(texts.DEPLOYERS)],
            message=texts.DEPLOYMENT_MESSAGES[number % len(texts.DEPLOYMENT_MESSAGES)],
        )
