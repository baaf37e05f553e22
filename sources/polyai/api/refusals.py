"""Likely causes of a refusal (401, 403, 404), in order, from what was actually sent."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

from ..config import regions
from ..config.agent import FIND_ACCOUNT, V3, Agent

_SCHEMES = ("bearer", "basic", "token", "apikey", "api-key", "api_key", "x-api-key")


def advice(
    status: int,
    agent: Agent,
    source_api: str,
    base_url: str,
    key: str,
    *,
    is_region_known: bool = False,
    is_other_key_right: bool = False,
) -> str:
    """Returns the likely causes, with the setting that removes each.

    Args:
        status: 401, 403 or 404.
        agent: Agent of the request.
        source_api: API that refused.
        base_url: Its URL.
        key: Key that was sent; never shown.
        is_region_known: Whether the region is no cause.
        is_other_key_right: Whether the other API accepts the other key: they are not swapped.
    """
    causes = [] if is_region_known else [_region(agent, source_api, base_url)]
    causes += _key_text(key)
    if status == 404:
        causes += _ids(agent, source_api)
    else:
        causes += _confused_ids(agent, source_api)
        if not is_other_key_right or not (agent.api_key and agent.v3_api_key):
            causes += _kind_of_key(agent, source_api)
        causes.append(
            "the key has expired, or was not copied as a whole"
            if status == 401
            else f"the key has no permission to read agent {agent.agent_id}: check "
            "POLYAI_AGENT_ID, or ask an administrator of the workspace for a key that can read its "
            "conversations"
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
    if agent.v3_api_key and agent.api_key and agent.v3_api_key != agent.api_key:
        yield (
            "the keys of the two APIs are swapped: exchange api_key (POLYAI_API_KEY, of the Data "
            "API) and v3_api_key (POLYAI_V3_API_KEY)"
        )
    elif source_api == V3:
        advice = (
            "set v3_api_key (POLYAI_V3_API_KEY) to one of the Conversations API v3, which has keys "
            "of its own"
            if agent.api_key
            else "set it as api_key (POLYAI_API_KEY)"
        )
        yield f"it is a key of the Data API: {advice}"
    else:
        account = (
            "" if agent.account_id else f", and account_id (POLYAI_ACCOUNT_ID) to {FIND_ACCOUNT}"
        )
        yield (
            "it is a key of the Conversations API v3, which is enough for that API: set api = "
            f"'conversations_v3' (POLYAI_API){account}"
        )


_URL = "its URL in Agent Studio, studio.REGION.poly.ai/ACCOUNT/AGENT"


def _confused_ids(agent: Agent, source_api: str) -> Iterator[str]:
    """Yields ids that are those of something else."""
    if _is_account(agent.agent_id):
        yield f"agent_id {agent.agent_id} is the id of an account: set POLYAI_AGENT_ID to {_URL}"
    if source_api == V3 and (agent.account_id or "").startswith("PROJECT-"):
        yield f"account_id {agent.account_id} is the id of an agent: set POLYAI_ACCOUNT_ID"


def _ids(agent: Agent, source_api: str) -> Iterator[str]:
    """Yields what may be wrong with the ids, from their forms."""
    yield from _confused_ids(agent, source_api)
    if agent.agent_id.startswith("PROJECT-"):
        yield f"there is no agent {agent.agent_id}: set POLYAI_AGENT_ID to {_URL}"
    elif not _is_account(agent.agent_id):
        yield (
            f"agent_id {agent.agent_id} is not spelt as the API knows it: set POLYAI_AGENT_ID to "
            f"the agent's id, PROJECT-…, or {_URL}"
        )
    account_id = agent.account_id if source_api == V3 else None
    if account_id and not account_id.startswith("PROJECT-"):
        yield (
            f"the agent is not in account {account_id}: set POLYAI_ACCOUNT_ID to the Workspace ID "
            "in Agent Studio, ws-…"
        )


def _is_account(name: str) -> bool:
    return name.lower().startswith("ws-")
