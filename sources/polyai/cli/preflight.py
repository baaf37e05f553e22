"""Tests what a key can do, agent by agent, before a first load or when one has failed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import dlt

from ..api.client import ConversationsV3, DataApi
from ..config.settings import Agent, Settings
from ..errors import ApiError, ConversationError, PolyAIError
from ..shape.answer import V3
from ..shape.redaction import has_redacted_numbers
from ..warehouse.open import destination_label
from ..warehouse.queries import Warehouse

_SUBJECTS = {401: "key", 403: "permission", 404: "agent"}
"""What a refused listing tells about, by HTTP status; any other failure is the API's."""

SAMPLE = 20
"""Newest conversations that are looked at for what the key may see."""

Outcome = Literal["ok", "warning", "failed", "skipped"]


@dataclass(frozen=True)
class Finding:
    """One tested thing: how it stands, and what to do where it fails."""

    agent_id: str
    subject: str
    outcome: Outcome
    message: str


def check(settings: Settings, pipeline: dlt.Pipeline) -> Iterator[Finding]:
    """Yields findings as they are made: the destination, then each agent's key and permissions.

    A few requests an agent; nothing is loaded.
    """
    yield _destination(pipeline)
    for agent in settings.agents:
        with DataApi(
            agent, request_timeout=settings.request_timeout, max_attempts=settings.max_attempts
        ) as api:
            findings = list(_data_api(agent, api))
        if settings.api == V3 and not settings.details:
            # not what the load will ask
            findings = [
                replace(found, outcome="warning") if found.outcome == "failed" else found
                for found in findings
            ]
        findings.append(_v3(agent, settings))
        yield from findings
        yield _recommended(agent, {found.subject: found.outcome for found in findings})


def _destination(pipeline: dlt.Pipeline) -> Finding:
    try:
        held = Warehouse(pipeline).count_rows("conversations")
    except PolyAIError as error:
        return Finding("", "destination", "failed", str(error))
    return Finding(
        "", "destination", "ok", f"{destination_label(pipeline)}: {held:,} conversations held"
    )


def _data_api(agent: Agent, api: DataApi) -> Iterator[Finding]:
    def finding(subject: str, outcome: Outcome, message: str) -> Finding:
        return Finding(agent.agent_id, subject, outcome, message)

    try:
        page = api.conversations(limit=SAMPLE, offset=0)
    except ApiError as error:
        yield finding(_SUBJECTS.get(error.status or 0, "api"), "failed", str(error))
        return
    yield finding("key", "ok", f"lists {page.count:,} conversations in region {agent.region}")
    if not page.conversations:
        yield finding("detail", "skipped", "the agent has no conversation to look at")
        return
    details: list[dict[str, Any]] = []
    for row in page.conversations:
        try:
            details.append(api.conversation(str(row.get("conversationId"))))
        except ConversationError:
            continue
        except ApiError as error:
            yield finding("detail", "failed", str(error))
            return
    if not details:
        yield finding("detail", "failed", f"none of {len(page.conversations)} can be read by id")
        return
    yield finding("detail", "ok", f"{len(details)} of the {len(page.conversations)} newest read")
    if any(detail.get("turns") for detail in details):
        yield finding("transcripts", "ok", "turns are sent")
    else:
        yield finding(
            "transcripts",
            "warning",
            "no turns in any of them: if they had some, ask for access to transcripts in the "
            "project's API configuration in Agent Studio",
        )
    if has_redacted_numbers(details):
        yield finding(
            "pii",
            "warning",
            "numbers come as REDACTED, and recordings redacted: to tell callers apart, use a key "
            "with PII access",
        )
    else:
        yield finding("pii", "ok", "numbers are sent")


def _recommended(agent: Agent, outcomes: Mapping[str, Outcome]) -> Finding:
    """Which of the two listings this agent is best read through."""
    has_data, has_v3 = outcomes.get("key") == "ok", outcomes["conversations_v3"] == "ok"
    if has_data and has_v3:
        message = (
            "both listings can be used: api = 'data', the default, brings notes, tags, scores and "
            "function events, at a request a conversation; for years of calls begin with "
            "`backfill --api conversations_v3`, up to a thousand conversations a request"
        )
    elif has_v3:
        message = "use api = 'conversations_v3', the only one that this key lists with"
    elif has_data:
        message = "use api = 'data', the default"
    else:
        return Finding(agent.agent_id, "listing", "skipped", "neither listing can be used yet")
    return Finding(agent.agent_id, "listing", "ok", message)


def _v3(agent: Agent, settings: Settings) -> Finding:
    def finding(outcome: Outcome, message: str) -> Finding:
        return Finding(agent.agent_id, "conversations_v3", outcome, message)

    is_chosen = settings.api == V3
    if not agent.account_id or not agent.v3_base_url:
        missing = "region studio has none" if not agent.v3_base_url else "set account_id to test it"
        if is_chosen:
            return finding("failed", f"the listing that api = '{V3}' chooses: {missing}")
        return finding("skipped", f"optional listing of the Conversations API v3: {missing}")
    api = ConversationsV3(
        agent, request_timeout=settings.request_timeout, max_attempts=settings.max_attempts
    )
    try:
        for environment in settings.environments:
            api.conversations(environment=environment, since=None, before=None, limit=1)
    except ApiError as error:
        if is_chosen:
            return finding("failed", str(error))
        return finding("warning", f"the optional listing cannot be used with this key: {error}")
    finally:
        api.close()
    return finding("ok", f"lists conversations of {', '.join(settings.environments)}")
