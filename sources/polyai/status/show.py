"""Status of a warehouse as terminal output and as JSON."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from ..config.agent import V3
from ..console.format import agent_heading, number_of
from ..tables.rules import has_read_all
from ..warehouse.counts import TableCounts
from .report import AgentStatus, Run, Status


def status(console: Console, result: Status) -> None:
    """Prints a section per agent, with problems in red."""
    for agent in result.agents:
        console.print(_freshness(agent, result.max_age))
        if not agent.was_begun:
            console.print()
            continue
        for run in agent.unfinished:
            console.print(
                f"  [yellow]running[/] since {_moment(run.started_at)}: still running, or killed"
            )
        facts = Table(box=None, padding=(0, 1), show_header=False, pad_edge=False)
        facts.add_column()
        facts.add_column(justify="right")
        facts.add_column(overflow="fold")
        for name, number, remark in _facts(agent, result.checked_at):
            facts.add_row(f"  {name}", f"{number:,}" if number is not None else "?", remark)
        console.print(facts)
        if agent.runs:
            console.print(_runs(agent.runs))
        if error := _last_error(agent.runs):
            _paragraph(console, f"[red]error[/] {escape(error)}")
        for conversation_id, (counted, rows) in agent.unequal_turns.items():
            _paragraph(
                console,
                f"[red]turns[/] {escape(conversation_id)}: {counted:,} counted, {rows:,} rows",
            )
        if not agent.is_consistent:
            _paragraph(console, _REPAIR)
        for failure in agent.failures.named:
            # the conversation is already named
            message = re.sub(r", at https?://[^\s)]+", "", failure.message or "")
            _paragraph(
                console,
                f"[red]failed[/] {escape(failure.conversation_id)}: "
                f"{number_of(failure.attempts, 'attempt')} since "
                f"{_moment(failure.first_failed_at)}, {escape(message)}",
            )
        if (more := agent.failures.open - len(agent.failures.named)) > 0:
            _paragraph(console, f"… and {more:,} more in fetch_failures")
        console.print()
    console.print(f"warehouse: {escape(result.place)}", soft_wrap=True)


_REPAIR = (
    "to read a conversation again, set its summary_hash to NULL and run "
    "polyai-warehouse load --full"
)


def _paragraph(console: Console, text: str) -> None:
    """Prints indented text: one line in a log, wrapped on a terminal."""
    console.print(f"  {text}" if console.soft_wrap else Padding(text, (0, 0, 0, 2)))


def _freshness(agent: AgentStatus, max_age: timedelta | None) -> str:
    """Returns the first line of an agent."""
    loaded = "never loaded" if agent.age is None else f"loaded {_age(agent.age)} ago"
    if agent.source_api == V3:
        loaded += " through the Conversations API v3"
    if agent.is_stale:
        loaded = f"[red]stale[/], {loaded} (--max-age {_age(max_age or timedelta(0))})"
    elif max_age is not None:
        loaded = f"[green]fresh[/], {loaded}"
    wrong = []
    ended = [run for run in agent.runs if run.status != "running"]
    if ended and ended[0].status in ("failed", "interrupted"):
        wrong.append(f"[red]the last run {'failed' if ended[0].error else 'was interrupted'}[/]")
    if not agent.is_consistent:
        wrong.append("[red]rows are inconsistent[/]")
    return f"{agent_heading(agent.agent_id, agent.agent_name)}: " + ", ".join([loaded, *wrong])


def _facts(agent: AgentStatus, now: datetime) -> Iterator[tuple[str, int | None, str]]:
    """Yields name, number and remark of each count of an agent."""
    counts, failures = agent.conversations, agent.failures
    newest = counts.newest_created_at
    yield "listed by the API", agent.api_count, ""
    age = f"the newest is {_age(max(now - newest, timedelta(0)))} old" if newest else ""
    yield "loaded", counts.held, age
    if agent.count_excess:
        yield "counted, not listed", agent.count_excess, "the API's count is wrong"
    if agent.absent:
        yield "no longer listed", agent.absent, "still in the warehouse"
    hint = "[yellow]load --full finds them[/]" if agent.missing else ""
    yield "missing", agent.missing, hint
    tries = f"[red]{failures.retried:,} retried by the next load, {failures.given_up:,} given up[/]"
    yield "failed", failures.open, tries if failures.open else ""
    if agent.forgotten:
        yield "forgotten", agent.forgotten, "erased, not loaded again"
    if agent.too_old:
        yield "too old", agent.too_old, "older than the setting retention, not loaded"
    yield "transcript withheld", counts.withheld, ""
    yield "in progress", counts.in_progress, ""
    if counts.incomplete:
        hint = "[yellow]from a running or killed load[/]"
        yield "incomplete", counts.incomplete, hint
    if (verified := agent.last_verify) is not None:
        hint = f"verified {_age(now - verified.started_at)} ago"
        wrong = f"[red]{hint}: {escape(verified.error or 'findings')}[/]"
        yield "findings in recordings", verified.findings, wrong if verified.findings else hint
    if agent.turns is not None:
        differs = f"[red]differ in {number_of(agent.turns.unequal, 'conversation')}[/]"
        rows = agent.turns.rows + agent.turns.withheld_rows
        yield "turns", rows, differs if agent.turns.unequal else "as counted by the API"
    if agent.tables:
        yield from _table_facts(agent.tables)


def _table_facts(tables: Mapping[str, TableCounts]) -> Iterator[tuple[str, int, str]]:
    rows = sum(table.rows for table in tables.values())
    is_good = not any(table.doubled or table.orphans for table in tables.values())
    yield "rows in total", rows, "no duplicates, no orphans" if is_good else ""
    for name, table in tables.items():
        if table.doubled:
            yield f"[red]{name}[/]", table.doubled, "[red]duplicate keys[/]"
        if table.orphans:
            yield f"[red]{name}[/]", table.orphans, "[red]orphans: rows without a conversation[/]"


def _runs(runs: tuple[Run, ...]) -> Table:
    shown = Table(box=None, padding=(0, 1), pad_edge=False)
    for name in ("  run (UTC)", "status", "took", "listed", "new", "changed", "failed"):
        is_text = name.strip() in ("run (UTC)", "status")
        shown.add_column(name, justify="left" if is_text else "right", no_wrap=True)
    for run in runs:
        took = _age(run.finished_at - run.started_at) if run.finished_at else ""
        numbers = (run.listed, run.new, run.changed, run.failed)
        shown.add_row(
            f"  {_moment(run.started_at)} {run.command}",
            _STATUSES.get(run.status, run.status),
            took,
            *(f"{number:,}" if number is not None else "" for number in numbers),
        )
    return shown


_STATUSES = {
    "complete": "[green]complete[/]",
    "partial": "[yellow]partial[/]",
    "failed": "[red]failed[/]",
    "interrupted": "[yellow]interrupted[/]",
    "running": "[yellow]running[/]",
}


def _last_error(runs: tuple[Run, ...]) -> str | None:
    """Returns the newest error that no complete run has followed."""
    for run in runs:
        if has_read_all(run.status):
            return None
        if run.error:
            return run.error
    return None


def _age(duration: timedelta) -> str:
    """Formats a duration in its largest useful unit."""
    seconds = duration.total_seconds()
    for unit, length, shown_from in (("days", 86_400, 2), ("h", 3_600, 2), ("min", 60, 2)):
        if seconds >= length * shown_from:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def _moment(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M}"


def status_as_json(result: Status, code: int) -> dict[str, Any]:
    """Returns the status as JSON."""
    return {
        "exit_code": int(code),
        "checked_at": result.checked_at,
        "destination": result.destination,
        "dataset": result.dataset,
        "max_age_seconds": _seconds(result.max_age),
        "agents": [
            {
                "agent_id": agent.agent_id,
                "agent_name": agent.agent_name,
                "is_stale": agent.is_stale,
                "is_consistent": agent.is_consistent,
                "age_seconds": _seconds(agent.age),
                "source_api": agent.source_api,
                "last_run": asdict(agent.runs[0]) if agent.runs else None,
                "last_success": asdict(agent.last_success) if agent.last_success else None,
                "last_verify": asdict(agent.last_verify) if agent.last_verify else None,
                "running": [asdict(run) for run in agent.unfinished],
                "runs": [asdict(run) for run in agent.runs],
                "conversations": asdict(agent.conversations)
                | {
                    "listed": agent.api_count,
                    "absent": agent.absent,
                    "count_excess": agent.count_excess,
                    "missing": agent.missing,
                    "failed": agent.failures.open,
                    "forgotten": agent.forgotten,
                    "too_old": agent.too_old,
                },
                "failures": asdict(agent.failures) | {"retried": agent.failures.retried},
                "turns": asdict(agent.turns)
                | {
                    "unequal_conversations": [
                        {"conversation_id": name, "num_turns": counted, "rows": rows}
                        for name, (counted, rows) in agent.unequal_turns.items()
                    ]
                }
                if agent.turns
                else None,
                "tables": {name: asdict(table) for name, table in agent.tables.items()},
            }
            for agent in result.agents
        ],
    }


def _seconds(duration: timedelta | None) -> float | None:
    return duration.total_seconds() if duration is not None else None
