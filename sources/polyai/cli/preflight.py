"""Command `polyai-warehouse check`: tests keys, permissions and destination before a load."""

from __future__ import annotations

import stat
from collections.abc import Iterator

import typer
from rich.console import Console
from rich.markup import escape

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
from ..warehouse.loaded_through import loaded_through
from ..warehouse.queries import Warehouse
from ..warehouse.target import Target
from .access import Access
from .destination import OpenedDestination
from .findings import AgentFindings, Finding
from .recommendation import Recommendation, lines_of, recommend


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
    opened = OpenedDestination.of(Target(destination, dataset))
    for found in run_check(settings, opened):
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
                "destination": opened.as_json(),
                "findings": [vars(finding) for finding in findings],
                "settings": [vars(one) for one in recommendations],
            }
        )
    else:
        if recommendations:
            stdout.print()
            for line in lines_of(recommendations, is_alone=len(settings.agents) == 1):
                stdout.print(line, markup=False, soft_wrap=True)
        if not failed:
            stdout.print("ready: polyai-warehouse load")
        elif recommendations:
            stdout.print("# set these, then run polyai-warehouse check again")
    raise typer.Exit(ExitCode.CONFIGURATION if failed else ExitCode.DONE)


def run_check(settings: Settings, opened: OpenedDestination) -> Iterator[Finding | Recommendation]:
    """Tests the destination, then what each agent's keys can read, with some requests per agent.

    A key that is refused is also tried on the other API and in the other regions of PolyAI. Nothing
    is loaded, and nothing is requested if the destination is refused or not configured.
    """
    destination, *others = opened.findings()
    yield destination
    yield from others
    yield from _secrets()
    if (pipeline := opened.pipeline) is None:
        return
    for agent in settings.agents:
        if agent.problem:
            yield Finding(agent.agent_id, "key", "failed", agent.problem)
            continue
        loaded = None
        if destination.outcome == "ok":
            loaded = loaded_through(Warehouse(pipeline), agent.agent_id)
        access = Access.of(agent, settings)
        yield from AgentFindings(agent, settings, access, loaded)
        if (recommended := recommend(agent, access, settings.api, loaded)) is not None:
            yield recommended


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
