"""Reports as a person reads them in a terminal, and as JSON for programs."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

import dlt
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from ..console.format import SHOWN_FAILURES, number_of, seconds_of, without_internals
from ..load.report import RunReport
from ..load.slices import SliceReport
from ..status.report import AgentStatus, Run, Status
from ..tables.registry import loaded_tables
from ..tables.rules import has_read_all
from ..warehouse.counts import TableCounts
from ..warehouse.open import destination_label
from .demo import Demo
from .preflight import Finding

_OUTCOMES = {
    "ok": "[green]ok[/]",
    "warning": "[yellow]warning[/]",
    "failed": "[red]failed[/]",
    "skipped": "[dim]skipped[/]",
}


def load(console: Console, reports: list[RunReport], pipeline: dlt.Pipeline) -> None:
    """The summary of a load: a paragraph an agent; an error that stopped one goes elsewhere."""
    for report in reports:
        if report.status in ("failed", "busy") and not report.read:
            console.print(f"[bold]{escape(report.agent_id)}[/]: {report.status}, nothing was read")
            continue
        seconds = seconds_of(report)
        console.print(
            f"[bold]{escape(report.agent_id)}[/]: {report.status} in {seconds:.1f} s — "
            f"{report.listed:,} listed, {report.new:,} new, {report.changed:,} changed, "
            f"{report.settled:,} settled, {report.unchanged:,} unchanged, {report.failed:,} failed"
        )
        console.print(f"  {_reconciled(report)}")
        console.print(
            f"  {report.traffic.requests:,} requests ({report.traffic.retries:,} retries), "
            f"{report.traffic.bytes_received / 1e6:,.1f} MB, "
            f"{report.loaded / max(seconds, 0.001):,.0f} conversations/s, "
            f"{sum(report.rows.values()):,} rows"
        )
        for table in loaded_tables():
            if rows := report.rows[table.name]:
                console.print(f"    {table.name:<20}{rows:>12,}")
        if report.unmapped_fields:
            names = ", ".join(sorted(report.unmapped_fields))
            console.print(f"  no column takes these fields, they are in extra: {escape(names)}")
        for conversation_id, error in list(report.failures.items())[:SHOWN_FAILURES]:
            console.print(f"  [red]failed[/] {escape(conversation_id)}: {escape(str(error))}")
        if report.failed > SHOWN_FAILURES:
            console.print(f"  … and {report.failed - SHOWN_FAILURES:,} more")
        if report.failed:
            console.print("  they are in fetch_failures, and the next run tries them again")
        if report.given_up:
            console.print(
                f"  [yellow]given up[/] {report.given_up:,} that have failed for too long: "
                "load --full tries them again"
            )
    console.print(f"warehouse: {escape(destination_label(pipeline))}", soft_wrap=True)


def _reconciled(report: RunReport) -> str:
    """What PolyAI has against what the warehouse holds."""
    held = f"{report.held or 0:,} held"
    if report.api_count is not None:
        parts = [f"{held} of {report.api_count:,} at PolyAI"]
    else:
        parts = [f"{held}; this listing does not tell how many there are at PolyAI"]
    if report.missing is not None:
        parts.append(f"{report.missing:,} missing")
    if report.absent:
        parts.append(f"{report.absent:,} not listed any more")
    if report.withheld:
        parts.append(f"{report.withheld:,} read without their turns")
    return ", ".join(parts)


def load_as_json(reports: list[RunReport], pipeline: dlt.Pipeline, code: int) -> dict[str, Any]:
    """The same for programs."""
    return {
        "exit_code": int(code),
        "destination": pipeline.destination.destination_name,
        "dataset": pipeline.dataset_name,
        "agents": [
            without_internals(report.as_row())
            | {
                "held": report.held,
                "missing": report.missing,
                "failures": {name: str(error) for name, error in report.failures.items()},
            }
            for report in reports
        ],
    }


def backfill(console: Console, reports: list[SliceReport], place_: str) -> None:
    """The summary of a backfill: what all slices did, and each one that is not complete."""
    total: Counter[str] = Counter()
    for report in reports:
        total.update(report.counts)
    by_status = Counter(report.status for report in reports)
    stated = ", ".join(f"{count:,} {status}" for status, count in by_status.most_common())
    console.print(
        f"[bold]{len(reports):,} slices[/]: {stated or 'none begun'} — {total['listed']:,} listed, "
        f"{total['new']:,} new, {total['changed']:,} changed, {total['unchanged']:,} unchanged, "
        f"{total['failed']:,} failed"
    )
    console.print(
        f"  {total['requests']:,} requests ({total['retries']:,} retries), "
        f"{total['bytes_received'] / 1e6:,.1f} MB, {total['rows']:,} rows"
    )
    if total["undated"]:
        console.print(
            f"  [yellow]left out[/] {total['undated']:,} whose time cannot be read: load --full "
            "reads them"
        )
    if unmapped := sorted({name for report in reports for name in report.unmapped_fields}):
        console.print(
            f"  no column takes these fields, they are in extra: {escape(', '.join(unmapped))}"
        )
    for report in reports:
        if report.error:
            console.print(
                f"  [red]{report.status}[/] {escape(str(report.slice))}: {escape(report.error)}"
            )
        for conversation_id, error in list(report.failures.items())[:SHOWN_FAILURES]:
            console.print(f"  [red]failed[/] {escape(conversation_id)}: {escape(error)}")
    if total["failed"]:
        console.print("  what failed is in fetch_failures, and the next load tries it again")
    console.print(f"warehouse: {escape(place_)}", soft_wrap=True)


def backfill_as_json(reports: list[SliceReport], code: int) -> dict[str, Any]:
    """The same for programs."""
    return {"exit_code": int(code), "slices": [report.as_json() for report in reports]}


def demo(console: Console, result: Demo) -> None:
    """What the demo loaded, three numbers, and what to try next."""
    report = result.report
    console.print(
        f"\n[bold]{report.new:,} made-up conversations[/] of a bookings line loaded in "
        f"{seconds_of(report):.1f} s with {report.traffic.requests:,} requests\n"
    )
    tables = Table(title="Tables of polyai", title_justify="left", box=None, padding=(0, 2))
    tables.add_column("table")
    tables.add_column("rows", justify="right")
    for table, rows in result.row_counts.items():
        tables.add_row(table, f"{rows:,}")
    console.print(tables)
    kpis = Table(
        title="\nFinished live conversations",
        title_justify="left",
        box=None,
        padding=(0, 2),
        show_header=False,
    )
    kpis.add_column()
    kpis.add_column(justify="right")
    kpis.add_row("containment rate", f"{result.containment_rate:.1%}")
    kpis.add_row("average handle time", f"{result.handle_time_seconds:,.0f} s")
    kpis.add_row("median response latency", f"{result.latency_seconds:.2f} s")
    console.print(kpis)
    path = shlex.quote(str(result.database))
    console.print(
        f"\nThe database: [bold]{escape(str(result.database.resolve()))}[/]", soft_wrap=True
    )
    console.print("\nTry next (the duckdb command comes with pip install duckdb-cli):")
    for line in (
        f'duckdb {path} "select channel, sum(conversations) as conversations, '
        "sum(contained_conversations) / sum(finished_conversations) as containment "
        'from polyai.kpi_daily group by 1"',
        f'duckdb {path} "select user_input, agent_response from polyai.turns '
        "where conversation_id = (select min(conversation_id) from polyai.turns) "
        'order by turn_index"',
        "POLYAI_API_KEY=… POLYAI_AGENT_ID=… POLYAI_REGION=us polyai-warehouse check",
    ):
        console.print(f"  {line}", soft_wrap=True, markup=False)
    console.print(
        f"\nThese are made-up conversations: delete {escape(path)} before you load your own.",
        soft_wrap=True,
    )


def demo_as_json(result: Demo) -> dict[str, Any]:
    """The same for programs."""
    return {
        "database": str(result.database.resolve()),
        "rows": result.row_counts,
        "containment_rate": result.containment_rate,
        "handle_time_seconds": result.handle_time_seconds,
        "latency_seconds": result.latency_seconds,
        "run": without_internals(result.report.as_row()),
    }


def finding(console: Console, found: Finding) -> None:
    """One line of `check`."""
    where = f"{escape(found.agent_id)} " if found.agent_id else ""
    console.print(
        f"{_OUTCOMES[found.outcome]} {where}[bold]{found.subject}[/]: {escape(found.message)}"
    )


def status(console: Console, result: Status, pipeline: dlt.Pipeline) -> None:
    """How the warehouse stands: a part an agent, what is wrong in red."""
    for agent in result.agents:
        console.print(_freshness(agent, result.max_age))
        if not agent.was_begun:
            console.print()
            continue
        for run in agent.unfinished:
            console.print(
                f"  [yellow]running[/] since {_moment(run.started_at)}: under way, or killed"
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
            _paragraph(console, _TO_MEND)
        for failure in agent.failures.named:
            # which conversation it is has been said
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
    console.print(f"warehouse: {escape(destination_label(pipeline))}", soft_wrap=True)


_TO_MEND = (
    "to read a conversation again, set its summary_hash to NULL; then: polyai-warehouse load --full"
)


def _paragraph(console: Console, text: str) -> None:
    """Indented text: one line in a log, as many as it needs in a terminal."""
    console.print(f"  {text}" if console.soft_wrap else Padding(text, (0, 0, 0, 2)))


def _freshness(agent: AgentStatus, max_age: timedelta | None) -> str:
    """The line that stands above all others of an agent."""
    loaded = "never loaded" if agent.age is None else f"loaded {_age(agent.age)} ago"
    if agent.is_stale:
        loaded = f"[red]stale[/], {loaded} (--max-age {_age(max_age or timedelta(0))})"
    elif max_age is not None:
        loaded = f"[green]fresh[/], {loaded}"
    wrong = []
    ended = [run for run in agent.runs if run.status != "running"]
    if ended and ended[0].status in ("failed", "interrupted"):
        wrong.append(f"[red]the last run {'failed' if ended[0].error else 'was interrupted'}[/]")
    if not agent.is_consistent:
        wrong.append("[red]rows do not agree[/]")
    return f"[bold]{escape(agent.agent_id)}[/]: " + ", ".join([loaded, *wrong])


def _facts(agent: AgentStatus, now: datetime) -> Iterator[tuple[str, int | None, str]]:
    """Name, number and remark of what is known of an agent's conversations."""
    counts, failures = agent.conversations, agent.failures
    newest = counts.newest_created_at
    yield "listed by the API", agent.api_count, ""
    age = f"the newest is {_age(max(now - newest, timedelta(0)))} old" if newest else ""
    yield "held", counts.held, age
    if agent.absent:
        yield "no longer listed", agent.absent, "held all the same"
    hint = "[yellow]load --full looks for them[/]" if agent.missing else ""
    yield "missing", agent.missing, hint
    tries = (
        f"[red]{failures.retried:,} tried again by the next load, {failures.given_up:,} given up[/]"
    )
    yield "failed", failures.open, tries if failures.open else ""
    if agent.forgotten:
        yield "forgotten", agent.forgotten, "erased, and not read again"
    yield "transcript withheld", counts.withheld, ""
    yield "in progress", counts.in_progress, ""
    if counts.incomplete:
        hint = "[yellow]of a load under way or killed[/]"
        yield "incomplete", counts.incomplete, hint
    if agent.turns is not None:
        differs = f"[red]not as counted in {number_of(agent.turns.unequal, 'conversation')}[/]"
        rows = agent.turns.rows + agent.turns.withheld_rows
        yield "turns", rows, differs if agent.turns.unequal else "as many as the API counted"
    if agent.tables:
        yield from _table_facts(agent.tables)


def _table_facts(tables: Mapping[str, TableCounts]) -> Iterator[tuple[str, int, str]]:
    rows = sum(table.rows for table in tables.values())
    is_good = not any(table.doubled or table.orphans for table in tables.values())
    yield "rows in all", rows, "none doubled, none without conversation" if is_good else ""
    for name, table in tables.items():
        if table.doubled:
            yield f"[red]{name}[/]", table.doubled, "[red]keys that stand more than once[/]"
        if table.orphans:
            yield f"[red]{name}[/]", table.orphans, "[red]rows without a conversation[/]"


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
    """The error that stopped the newest run, unless one that did its work has followed."""
    for run in runs:
        if has_read_all(run.status):
            return None
        if run.error:
            return run.error
    return None


def _age(duration: timedelta) -> str:
    """A duration as precise as it is of use."""
    seconds = duration.total_seconds()
    for unit, length, shown_from in (("days", 86_400, 2), ("h", 3_600, 2), ("min", 60, 2)):
        if seconds >= length * shown_from:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def _moment(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M}"


def status_as_json(result: Status, pipeline: dlt.Pipeline, code: int) -> dict[str, Any]:
    """The same for programs."""
    return {
        "exit_code": int(code),
        "checked_at": result.checked_at,
        "destination": pipeline.destination.destination_name,
        "dataset": pipeline.dataset_name,
        "max_age_seconds": _inseconds_of(result.max_age),
        "agents": [
            {
                "agent_id": agent.agent_id,
                "is_stale": agent.is_stale,
                "is_consistent": agent.is_consistent,
                "age_seconds": _inseconds_of(agent.age),
                "last_run": asdict(agent.runs[0]) if agent.runs else None,
                "last_success": asdict(agent.last_success) if agent.last_success else None,
                "running": [asdict(run) for run in agent.unfinished],
                "runs": [asdict(run) for run in agent.runs],
                "conversations": asdict(agent.conversations)
                | {
                    "listed": agent.api_count,
                    "absent": agent.absent,
                    "missing": agent.missing,
                    "failed": agent.failures.open,
                    "forgotten": agent.forgotten,
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


def _inseconds_of(duration: timedelta | None) -> float | None:
    return duration.total_seconds() if duration is not None else None


def sandbox(console: Console, base_url: str, api_key: str, agent_id: str) -> None:
    """How to talk to a sandbox that has begun to serve."""
    console.print(f"sandbox at [bold]{base_url}[/]; stop it with Ctrl-C. In another terminal:")
    console.print(
        f"  export POLYAI_BASE_URL={base_url} POLYAI_API_KEY={api_key} POLYAI_AGENT_ID={agent_id}\n"
        "  polyai-warehouse load",
        soft_wrap=True,
        markup=False,
    )
