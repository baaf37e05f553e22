"""Tests what a key can do, agent by agent, before a first load or when one has failed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import dlt

from .client import DataApi, Transport, encode_segment
from .errors import ApiError, ConversationError, PolyAIError
from .redaction import REDACTED
from .settings import Agent, Settings
from .warehouse import Warehouse

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
            yield from _data_api(agent, api)
        yield _v3(agent, settings)


def _destination(pipeline: dlt.Pipeline) -> Finding:
    try:
        held = Warehouse(pipeline).count_rows("conversations")
    except PolyAIError as error:
        return Finding("", "destination", "failed", str(error))
    return Finding("", "destination", "ok", f"{place(pipeline)}: {held:,} conversations held")


def place(pipeline: dlt.Pipeline) -> str:
    """Where the pipeline loads to, as its user names it."""
    name, dataset = str(pipeline.destination.destination_name), pipeline.dataset_name
    credentials: Any = pipeline.destination_client().config.credentials
    if not (database := getattr(credentials, "database", None)):
        return f"{name}, dataset {dataset}"
    # in a file of the dataset's own name, see `open_pipeline`
    dataset = Path(database).stem if dataset == "main" else dataset
    return f"{name} {database}, dataset {dataset}"


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
    numbers = {detail.get(name) for detail in details for name in ("fromNumber", "toNumber")}
    if REDACTED in numbers:
        yield finding(
            "pii",
            "warning",
            "numbers come as REDACTED, and recordings redacted: to tell callers apart, use a key "
            "with PII access",
        )
    else:
        yield finding("pii", "ok", "numbers are sent")


def _v3(agent: Agent, settings: Settings) -> Finding:
    def finding(outcome: Outcome, message: str) -> Finding:
        return Finding(agent.agent_id, "conversations_v3", outcome, message)

    if not agent.account_id or not agent.v3_base_url:
        missing = "region studio has none" if not agent.v3_base_url else "set account_id to test it"
        return finding("skipped", f"optional listing of the Conversations API v3: {missing}")
    transport = Transport(
        agent,
        base_url=agent.v3_base_url,
        request_timeout=settings.request_timeout,
        max_attempts=settings.max_attempts,
    )
    account, project = encode_segment(agent.account_id), encode_segment(agent.agent_id)
    path = f"/v3/{account}/{project}/conversations?limit=1"
    try:
        transport.get(path, subject="agent", accept=lambda payload, body: payload)
    except ApiError as error:
        return finding("warning", f"the optional listing cannot be used with this key: {error}")
    finally:
        transport.close()
    return finding("ok", "the key lists conversations here too")
