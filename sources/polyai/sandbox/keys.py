"""API keys: what each may read, and how the others are refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Right = Literal["data", "v3", "agents", "debug_chat"]
"""Part of the API: Data API, Conversations API v3, Agents API, debug chats."""
RIGHTS: tuple[Right, ...] = get_args(Right)
_CODES = {401: "UNAUTHORIZED", 403: "FORBIDDEN", 404: "AGENT_NOT_FOUND"}
_BELOW_AGENT: dict[str, Right] = {
    "conversations": "data",
    "debug-chat": "debug_chat",
    "deployments": "agents",
    "branches": "agents",
    "telephony": "agents",
}


@dataclass(frozen=True)
class Key:
    """Rights of an API key.

    Attributes:
        rights: Parts of the API that it may use; the others answer HTTP 403.
        agents: Agents whose conversations and names it may read; None for all. The others answer
            HTTP 403.
        has_pii_access: False: callers' numbers are `REDACTED`, audio is always redacted.
        has_transcripts: False: `turns` is empty, as where transcripts are switched off for the key.
        has_metrics: False: `metrics` is empty, as where no metric is switched on for the key.
        refused: HTTP status of every answer: 401, 403 or 404. None for a key that is accepted.
        message: Message of that answer.
    """

    rights: tuple[Right, ...] = RIGHTS
    agents: tuple[str, ...] | None = None
    has_pii_access: bool = True
    has_transcripts: bool = True
    has_metrics: bool = True
    refused: int | None = None
    message: str = "Missing or invalid API key."

    def refusal(self, right: Right, agent_id: str | None) -> tuple[int, str, str] | None:
        """Returns status, error code and message of a refused request; None if it is allowed.

        Args:
            right: Part of the API.
            agent_id: Agent of the request; None if it has none.
        """
        if self.refused is not None:
            is_v3_404 = self.refused == 404 and right == "v3"
            code = "PROJECT_NOT_FOUND" if is_v3_404 else _CODES[self.refused]
            return self.refused, code, self.message
        if right not in self.rights:
            return 403, _CODES[403], "This API key lacks the permission."
        if self.agents is not None and agent_id is not None and agent_id not in self.agents:
            return 403, _CODES[403], "This API key belongs to another project."
        return None


UNKNOWN = Key(refused=401)
"""Key that the sandbox does not know, or none at all."""


def right_of(parts: list[str]) -> tuple[Right | None, str | None]:
    """Returns the part of the API and the agent of a request; None for a route or agent it lacks.

    Args:
        parts: Segments of its path, decoded, without the leading empty one.
    """
    if len(parts) == 4 and parts[0] == "v3" and parts[3] == "conversations":
        return "v3", parts[2]
    if len(parts) == 4 and parts[:2] == ["v1", "accounts"] and parts[3] == "agents":
        return "agents", None
    if len(parts) >= 7 and parts[:3] == ["adk", "v1", "accounts"] and parts[6] == "chat":
        return "debug_chat", parts[5]
    if len(parts) >= 4 and parts[:2] == ["v1", "agents"] and parts[3] in _BELOW_AGENT:
        return _BELOW_AGENT[parts[3]], parts[2]
    return None, None
