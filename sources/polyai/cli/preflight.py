"""Command `polyai-warehouse check`: tests key, permissions and destination before a load."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import dlt
import typer
from rich.console import Console
from rich.markup import escape

from ..api.client import ConversationsV3, DataApi
from ..config.agent import V3, Agent
from ..config.settings import Settings, resolve
from ..console.exit_codes import ExitCode
from ..console.options import (
    AgentOption,
    ApiOption,
    BaseUrlOption,
    DatasetOption,
    DestinationOption,
    JsonOption,
    RegionOption,
)
from ..console.terminal import print_json, stdout
from ..errors import ApiError, ConversationError, PolyAIError
from ..shape.redaction import has_redacted_numbers
from ..warehouse.open import destination_label
from ..warehouse.queries import Warehouse
from ..warehouse.target import Target

_SUBJECTS = {401: "key", 403: "permission", 404: "agent"}
"""Subject of the finding when the listing is refused, by HTTP status; otherwise the API."""

SAMPLE = 20
"""Newest conversations that are read to find out what the key may see."""

Outcome = Literal["ok", "warning", "failed", "skipped"]


@dataclass(frozen=True)
class Finding:
    """Outcome of one test, with advice if it failed."""

    agent_id: str
    subject: str
    outcome: Outcome
    message: str


def check(
    agent: AgentOption = None,
    api: ApiOption = None,
    region: RegionOption = None,
    base_url: BaseUrlOption = None,
    destination: DestinationOption = None,
    dataset: DatasetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Test key, region, agent and permissions, with advice for each failure."""
    settings = resolve(api=api, region=region, base_url=base_url).only(agent or ())
    findings = []
    for finding in run_check(settings, Target(destination, dataset).open()):
        findings.append(finding)
        if not as_json:
            _show(stdout, finding)
    failed = any(finding.outcome == "failed" for finding in findings)
    if as_json:
        print_json({"ok": not failed, "findings": [vars(finding) for finding in findings]})
    elif not failed:
        stdout.print("ready: polyai-warehouse load")
    raise typer.Exit(ExitCode.CONFIGURATION if failed else ExitCode.DONE)


def run_check(settings: Settings, pipeline: dlt.Pipeline) -> Iterator[Finding]:
    """Tests the destination, then each agent's key and permissions, with a few requests per agent.

    Nothing is loaded.
    """
    yield _destination(pipeline)
    for agent in settings.agents:
        if agent.problem:
            yield Finding(agent.agent_id, "key", "failed", agent.problem)
            continue
        with DataApi(agent, **settings.request_limits) as api:
            findings = list(_data_api(agent, api))
        if settings.api == V3 and not settings.details:
            # the load will not use this API
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
        "", "destination", "ok", f"{destination_label(pipeline)}: {held:,} conversations loaded"
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
        yield finding("detail", "skipped", "the agent has no conversation to read")
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
        yield finding(
            "detail", "failed", f"none of {len(page.conversations)} conversations can be read by id"
        )
        return
    yield finding(
        "detail", "ok", f"read {len(details)} of the {len(page.conversations)} newest conversations"
    )
    if any(detail.get("turns") for detail in details):
        yield finding("transcripts", "ok", "turns are available")
    else:
        yield finding(
            "transcripts",
            "warning",
            "none of them has turns: if that is unexpected, enable transcripts in the project's "
            "API configuration in Agent Studio",
        )
    if has_redacted_numbers(details):
        yield finding(
            "pii",
            "warning",
            "phone numbers arrive as REDACTED, and recordings are redacted: to distinguish "
            "callers, use a key with PII access",
        )
    else:
        yield finding("pii", "ok", "phone numbers are available")


def _recommended(agent: Agent, outcomes: Mapping[str, Outcome]) -> Finding:
    """Recommends one of the two listings."""
    has_data, has_v3 = outcomes.get("key") == "ok", outcomes["conversations_v3"] == "ok"
    if has_data and has_v3:
        message = (
            "both listings can be used: api = 'data' includes notes, tags, scores "
            "and function events, at one request per conversation; for years of calls start with "
            "`backfill --api conversations_v3`, up to 1,000 conversations per request"
        )
    elif has_v3:
        message = "use api = 'conversations_v3', the only listing that this key can use"
    elif has_data:
        message = "use api = 'data', the only listing that this key can use"
    else:
        return Finding(agent.agent_id, "listing", "skipped", "neither listing can be used")
    return Finding(agent.agent_id, "listing", "ok", message)


def _v3(agent: Agent, settings: Settings) -> Finding:
    def finding(outcome: Outcome, message: str) -> Finding:
        return Finding(agent.agent_id, "conversations_v3", outcome, message)

    is_chosen = settings.api == V3
    if not agent.account_id or not agent.v3_base_url:
        missing = (
            "region studio does not have it"
            if not agent.v3_base_url
            else "set account_id to test it"
        )
        if is_chosen:
            return finding("failed", f"listing of api = '{V3}': {missing}")
        return finding("skipped", f"optional listing of the Conversations API v3: {missing}")
    api = ConversationsV3(agent, **settings.request_limits)
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


_OUTCOMES = {
    "ok": "[green]ok[/]",
    "warning": "[yellow]warning[/]",
    "failed": "[red]failed[/]",
    "skipped": "[dim]skipped[/]",
}


def _show(console: Console, found: Finding) -> None:
    """Prints one line of `check`."""
    where = f"{escape(found.agent_id)} " if found.agent_id else ""
    console.print(
        f"{_OUTCOMES[found.outcome]} {where}[bold]{found.subject}[/]: {escape(found.message)}"
    )
