"""Command `polyai-warehouse check`: tests keys, permissions and destination before a load."""

from __future__ import annotations

import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import dlt
import typer
from rich.console import Console
from rich.markup import escape

from ..config.agent import AUTO, DATA, V3, Agent
from ..config.providers import secret_files
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
from ..errors import PolyAIError
from ..shape.redaction import has_redacted_numbers
from ..shape.v3_rows import to_data_api_names
from ..warehouse.open import destination_label
from ..warehouse.queries import Warehouse
from ..warehouse.target import Target
from .access import Access, Attempt
from .recommendation import Recommendation, as_toml, recommend

_SUBJECTS = {401: "key", 403: "permission", 404: "agent"}
"""Subject of the finding when the listing is refused, by HTTP status; otherwise the API."""

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
    """Test keys, regions, ids and permissions; print what works and the settings to use."""
    settings = resolve(api=api, region=region, base_url=base_url).only(agent or ())
    findings: list[Finding] = []
    recommendations: list[Recommendation] = []
    for found in run_check(settings, Target(destination, dataset).open()):
        if isinstance(found, Recommendation):
            recommendations.append(found)
            continue
        findings.append(found)
        if not as_json:
            _show(stdout, found)
    failed = any(finding.outcome == "failed" for finding in findings)
    if as_json:
        print_json(
            {
                "ok": not failed,
                "findings": [vars(finding) for finding in findings],
                "settings": [vars(one) for one in recommendations],
            }
        )
    else:
        if recommendations:
            stdout.print("\nsettings to use, in .dlt/config.toml or as POLYAI_<NAME>:")
            for line in as_toml(recommendations):
                stdout.print(line, markup=False, soft_wrap=True)
        if not failed:
            stdout.print("ready: polyai-warehouse load")
    raise typer.Exit(ExitCode.CONFIGURATION if failed else ExitCode.DONE)


def run_check(settings: Settings, pipeline: dlt.Pipeline) -> Iterator[Finding | Recommendation]:
    """Tests the destination, then what each agent's keys can read, with some requests per agent.

    A key that is refused is also tried on the other API and in the other regions of PolyAI. Nothing
    is loaded.
    """
    yield _destination(pipeline)
    yield from _secrets()
    for agent in settings.agents:
        if agent.problem:
            yield Finding(agent.agent_id, "key", "failed", agent.problem)
            continue
        access = Access.of(agent, settings)
        yield from _Findings(agent, settings, access)
        if (recommended := recommend(agent, access)) is not None:
            yield recommended


def _destination(pipeline: dlt.Pipeline) -> Finding:
    try:
        held = Warehouse(pipeline).count_rows("conversations")
    except PolyAIError as error:
        return Finding("", "destination", "failed", str(error))
    return Finding(
        "", "destination", "ok", f"{destination_label(pipeline)}: {held:,} conversations loaded"
    )


def _secrets() -> Iterator[Finding]:
    """Yields the files with secrets that others than their owner can read."""
    for path in secret_files():
        if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            yield Finding(
                "",
                "secrets",
                "warning",
                f"other users of this machine can read {path}: chmod 600 {path}",
            )


class _Findings:
    """Findings about one agent.

    Args:
        agent: The agent as it is set.
        settings: The settings.
        access: What its keys can read.
    """

    def __init__(self, agent: Agent, settings: Settings, access: Access) -> None:
        self._agent = agent
        self._api = settings.api
        self._settings = settings
        self._access = access

    def __iter__(self) -> Iterator[Finding]:
        access = self._access
        yield self._data()
        yield from self._details()
        yield from self._contents()
        yield self._v3()
        yield self._names()
        yield self._listing(access.data, access.v3)

    def _finding(self, subject: str, outcome: Outcome, message: str) -> Finding:
        return Finding(self._agent.agent_id, subject, outcome, message)

    def _refusal(self, source_api: str) -> Outcome:
        """Returns how bad it is that a listing cannot be used as it is set."""
        other = self._access.v3 if source_api == DATA else self._access.data
        if self._api == AUTO:
            return "warning" if other.is_as_set else "failed"
        if self._api == source_api or (source_api == DATA and self._settings.details):
            return "failed"
        return "warning"

    def _data(self) -> Finding:
        data = self._access.data
        if data.is_as_set:
            message = f"lists {data.count or 0:,} conversations in region {self._agent.region}"
            return self._finding("key", "ok", message)
        status = data.status
        subject = "key" if status is None and not self._agent.api_key else "api"
        message = f"{data.error}{_elsewhere(data, self._agent)}"
        return self._finding(_SUBJECTS.get(status or 0, subject), self._refusal(DATA), message)

    def _v3(self) -> Finding:
        v3, agent = self._access.v3, self._agent
        if v3.is_as_set:
            environments = ", ".join(self._settings.environments)
            return self._finding(V3, "ok", f"lists conversations of {environments}")
        outcome = self._refusal(V3)
        if agent.account_id and agent.v3_base_url:
            return self._finding(V3, outcome, f"{v3.error}{_elsewhere(v3, agent)}")
        # it was not asked as it is set
        if not agent.v3_base_url:
            missing = f"region {agent.region} does not have it"
        elif v3.is_usable:
            missing = f"set account_id to {v3.agent.account_id!r} (POLYAI_ACCOUNT_ID)"
        else:
            missing = (
                "set account_id (POLYAI_ACCOUNT_ID), the Workspace ID in Agent Studio, ws-…, or "
                "agent_id to the agent's URL in Agent Studio, which has both"
            )
        is_meant = self._api == V3 or bool(agent.v3_api_key) or not agent.api_key
        return self._finding(
            V3,
            "failed" if outcome == "failed" and is_meant else "skipped",
            f"to use the Conversations API v3: {missing}{_elsewhere(v3, agent)}",
        )

    def _details(self) -> Iterator[Finding]:
        data, details = self._access.data, self._access.details
        if details is None:
            if data.is_usable:
                yield self._finding("detail", "skipped", "the agent has no conversation to read")
        elif details.error is not None:
            yield self._finding("detail", "failed", str(details.error))
        elif not details.found:
            yield self._finding(
                "detail", "failed", f"none of {details.asked} conversations can be read by id"
            )
        else:
            yield self._finding(
                "detail",
                "ok",
                f"read {len(details.found)} of the {details.asked} newest conversations",
            )

    def _contents(self) -> Iterator[Finding]:
        """Yields what the key may see of the newest conversations."""
        details = self._access.details
        rows: Sequence[Mapping[str, Any]] = details.found if details else ()
        rows = rows or [to_data_api_names(row) for row in self._access.v3.rows]
        if not rows:
            return
        for subject, name in (("transcripts", "turns"), ("metrics", "metrics")):
            if any(row.get(name) for row in rows):
                yield self._finding(subject, "ok", f"{name} are available")
                continue
            yield self._finding(
                subject,
                "warning",
                f"none of {len(rows)} conversations has {name}: if that is unexpected, switch on "
                f"{subject} in the key's Configuration, on the page API Keys in Agent Studio",
            )
        if has_redacted_numbers(rows):
            yield self._finding(
                "pii",
                "warning",
                "phone numbers arrive as REDACTED, and recordings are redacted: to distinguish "
                "callers, use a key with PII access",
            )
        else:
            yield self._finding("pii", "ok", "phone numbers are available")

    def _names(self) -> Finding:
        error = self._access.names_error
        if error is None:
            return self._finding("names", "ok", "deployments can be read (Agents API)")
        status = getattr(error, "status", None)
        why = f"HTTP {status}" if status else str(error)
        return self._finding(
            "names",
            "skipped",
            f"the names behind ids cannot be read with this key (Agents API: {why}); nothing else "
            "depends on it",
        )

    def _listing(self, data: Attempt, v3: Attempt) -> Finding:
        """Recommends one of the two listings."""
        if data.is_usable and v3.is_usable:
            message = (
                "both listings can be used: api = 'auto' reads the Data API's, with notes, tags, "
                "scores and function events, at one request per conversation. PolyAI has "
                "deprecated it: when it is gone, a load goes on through the Conversations API v3. "
                "For years of calls start with `backfill --api conversations_v3`, up to 1,000 "
                "conversations per request"
            )
        elif v3.is_usable:
            message = (
                "use api = 'conversations_v3', the only listing that these settings can use; "
                "notes, tags, scores and function events need a key of the Data API as well"
            )
        elif data.is_usable:
            message = (
                "use api = 'auto', which reads the Data API's listing. PolyAI has deprecated it: "
                "set account_id and, if it is another one, v3_api_key (POLYAI_V3_API_KEY), so that "
                "loads go on through the Conversations API v3 when it is gone"
            )
        else:
            return self._finding("listing", "skipped", "neither listing can be used")
        return self._finding("listing", "ok", message)


def _elsewhere(attempt: Attempt, agent: Agent) -> str:
    """Returns with which settings a refused listing works, or what another region answers."""
    if not attempt.is_usable:
        if attempt.hint is None or attempt.hint[0] == agent.region:
            return ""
        region, error = attempt.hint
        return f". Region {region} answers differently: {error}"
    changes = []
    if attempt.agent.region != agent.region:
        changes.append(f"region = '{attempt.agent.region}' (POLYAI_REGION)")
    if attempt.agent.account_id != agent.account_id:
        changes.append(f"account_id = '{attempt.agent.account_id}' (POLYAI_ACCOUNT_ID)")
    return f". It works with {' and '.join(changes or [f'the key of {attempt.key}'])}"


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
