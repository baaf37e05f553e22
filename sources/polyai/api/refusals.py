"""Likely causes of a refusal (401, 403, 404), in order, from what was actually sent."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

from ..config import regions
from ..config.agent import V3, Agent

_SCHEMES = ("bearer", "basic", "token", "apikey", "api-key", "api_key", "x-api-key")


def advice(status: int, agent: Agent, source_api: str, base_url: str, key: str) -> str:
    """Returns the likely causes, with the setting that removes each.

    Args:
        status: 401, 403 or 404.
        agent: Agent of the request.
        source_api: API that refused.
        base_url: Its URL.
        key: Key that was sent; never shown.
    """
    causes = [_region(agent, source_api, base_url)]
    if status == 401:
        causes += [*_key_text(key), *_kind_of_key(agent, source_api), "the key has expired"]
    elif status == 404:
        causes += _ids(agent, source_api)
    else:
        causes += _kind_of_key(agent, source_api)
        causes.append(
            "the key has no permission to read this agent: ask an administrator of the workspace "
            "for a key that can read conversations"
        )
    numbered = "; ".join(f"({number}) {cause}" for number, cause in enumerate(causes, 1))
    return f"Likely causes: {numbered}"


def _region(agent: Agent, source_api: str, base_url: str) -> str:
    is_v3 = source_api == V3
    url_of = regions.conversations_v3_url if is_v3 else regions.data_api_url
    others = ", ".join(name for name in regions.REGIONS if name != agent.region and url_of(name))
    cause = (
        f"the key, which is valid for one account, agent and region, or the agent belongs to "
        f"another region than {agent.region}: set POLYAI_REGION to one of {others}"
    )
    if base_url == url_of(agent.region):
        return cause
    variable = "POLYAI_BASE_URL" if base_url == agent.base_url else "POLYAI_V3_BASE_URL"
    return f"{cause}; or not to {urlsplit(base_url).netloc}: check {variable}"


def _key_text(key: str) -> Iterator[str]:
    """Yields that more than the key was sent, where it looks like it."""
    if key.lower().startswith(_SCHEMES) or not (key[:1].isalnum() and key[-1:].isalnum()):
        yield "there is more than the key in the setting, such as quotes or `Bearer`: copy it alone"


def _kind_of_key(agent: Agent, source_api: str) -> Iterator[str]:
    """Yields that it is the key of another API, as far as the settings allow."""
    if source_api == V3:
        if not agent.v3_api_key:
            yield (
                "the Conversations API v3 has a key of its own, and that of api_key was sent: set "
                "v3_api_key (POLYAI_V3_API_KEY)"
            )
    elif not agent.v3_api_key:
        missing = (
            ""
            if agent.account_id
            else (" and account_id, the Workspace ID in Agent Studio (POLYAI_ACCOUNT_ID)")
        )
        yield (
            "it is a key of the Conversations API v3: set api = 'conversations_v3' (POLYAI_API)"
            f"{missing}"
        )


def _ids(agent: Agent, source_api: str) -> Iterator[str]:
    """Yields what may be wrong with the ids, from their forms."""
    account_id = agent.account_id if source_api == V3 else None
    url = "its URL in Agent Studio, studio.REGION.poly.ai/ACCOUNT/AGENT"
    if agent.agent_id.lower().startswith("ws-"):
        yield f"agent_id {agent.agent_id} is the id of an account: set POLYAI_AGENT_ID to {url}"
    elif not agent.agent_id.startswith("PROJECT-"):
        yield (
            f"agent_id {agent.agent_id} is not spelt as the API knows it: set POLYAI_AGENT_ID to "
            f"the agent's id, PROJECT-…, or {url}"
        )
    else:
        yield f"there is no agent {agent.agent_id}: set POLYAI_AGENT_ID to {url}"
    if account_id is None:
        return
    if account_id.startswith("PROJECT-"):
        yield f"account_id {account_id} is the id of an agent: set POLYAI_ACCOUNT_ID"
    else:
        yield (
            f"the agent is not in account {account_id}: set POLYAI_ACCOUNT_ID to the Workspace ID "
            "in Agent Studio, ws-…"
        )
