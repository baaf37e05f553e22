"""Reports as a person reads them in a terminal, and as JSON for programs."""

from __future__ import annotations

import shlex
from typing import Any

import dlt
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .check import Finding, place
from .demo import Demo
from .report import RunReport
from .resources import LOADED_TABLES

SHOWN_FAILURES = 10
"""Failed conversations that a summary names; all are in `fetch_failures`."""

_OUTCOMES = {
    "ok": "[green]ok[/]",
    "warning": "[yellow]warning[/]",
    "failed": "[red]failed[/]",
    "skipped": "[dim]skipped[/]",
}


def load(console: Console, reports: list[RunReport], pipeline: dlt.Pipeline) -> None:
    """The summary of a load: a paragraph an agent; an error that stopped one goes elsewhere."""
    for report in reports:
        if report.status == "failed" and not report.read:
            console.print(f"[bold]{escape(report.agent_id)}[/]: failed, nothing was read")
            continue
        seconds = _seconds(report)
        console.print(
            f"[bold]{escape(report.agent_id)}[/]: {report.status} in {seconds:.1f} s — "
            f"{report.listed:,} listed, {report.new:,} new, {report.changed:,} changed, "
            f"{report.unchanged:,} unchanged, {report.failed:,} failed"
        )
        console.print(
            f"  {report.traffic.requests:,} requests ({report.traffic.retries:,} retries), "
            f"{report.traffic.bytes_received / 1e6:,.1f} MB, "
            f"{report.fetched / max(seconds, 0.001):,.0f} conversations/s, "
            f"{sum(report.rows.values()):,} rows"
        )
        for table in LOADED_TABLES:
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
    console.print(f"warehouse: {escape(place(pipeline))}", soft_wrap=True)


def load_as_json(reports: list[RunReport], pipeline: dlt.Pipeline, code: int) -> dict[str, Any]:
    """The same for programs."""
    return {
        "exit_code": int(code),
        "destination": pipeline.destination.destination_name,
        "dataset": pipeline.dataset_name,
        "agents": [
            _without_internals(report.as_row())
            | {"failures": {name: str(error) for name, error in report.failures.items()}}
            for report in reports
        ],
    }


def demo(console: Console, result: Demo) -> None:
    """What the demo loaded, three numbers, and what to try next."""
    report = result.report
    console.print(
        f"\n[bold]{report.new:,} made-up conversations[/] of a bookings line loaded in "
        f"{_seconds(report):.1f} s with {report.traffic.requests:,} requests\n"
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
        f'duckdb {path} "select channel, count(*) as conversations, '
        'avg(handoff::int) as handoff_rate from polyai.conversations group by 1"',
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
        "run": _without_internals(result.report.as_row()),
    }


def finding(console: Console, found: Finding) -> None:
    """One line of `check`."""
    where = f"{escape(found.agent_id)} " if found.agent_id else ""
    console.print(
        f"{_OUTCOMES[found.outcome]} {where}[bold]{found.subject}[/]: {escape(found.message)}"
    )


def sandbox(console: Console, base_url: str, api_key: str, agent_id: str) -> None:
    """How to talk to a sandbox that has begun to serve."""
    console.print(f"sandbox at [bold]{base_url}[/]; stop it with Ctrl-C. In another terminal:")
    console.print(
        f"  export POLYAI_BASE_URL={base_url} POLYAI_API_KEY={api_key} POLYAI_AGENT_ID={agent_id}\n"
        "  polyai-warehouse load",
        soft_wrap=True,
        markup=False,
    )


def _seconds(report: RunReport) -> float:
    if report.finished_at is None:
        return 0.0
    return (report.finished_at - report.started_at).total_seconds()


def _without_internals(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if not name.startswith("_")}
