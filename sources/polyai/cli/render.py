"""Reports of load and backfill as terminal output and as JSON."""

from __future__ import annotations

from collections import Counter
from typing import Any

import dlt
from rich.console import Console
from rich.markup import escape

from ..console.format import SHOWN_FAILURES, agent_heading, seconds_of, without_internals
from ..load.report import RunReport
from ..load.slices import SliceReport
from ..tables.registry import loaded_tables
from ..warehouse.open import destination_label


def load(console: Console, reports: list[RunReport], pipeline: dlt.Pipeline) -> None:
    """Prints a paragraph per agent; errors are printed elsewhere."""
    for report in reports:
        agent = agent_heading(report.agent_id, report.agent_name)
        if report.status in ("failed", "busy") and not report.read:
            console.print(f"{agent}: {report.status}, nothing was read")
            continue
        seconds = seconds_of(report)
        console.print(
            f"{agent}: {report.status} in {seconds:.1f} s — "
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
            console.print(f"  fields without a column, kept in extra: {escape(names)}")
        for conversation_id, error in list(report.failures.items())[:SHOWN_FAILURES]:
            console.print(f"  [red]failed[/] {escape(conversation_id)}: {escape(str(error))}")
        if report.failed > SHOWN_FAILURES:
            console.print(f"  … and {report.failed - SHOWN_FAILURES:,} more")
        if report.failed:
            console.print("  they are in fetch_failures; the next run retries them")
        if report.unaccounted:
            console.print(
                f"  [red]{report.unaccounted:,} missing[/] without a known id: PolyAI counts them "
                "and does not list them"
            )
        if report.unlisted:
            unlisted = ", ".join(
                f"{environment} ({loaded:,} loaded)"
                for environment, loaded in report.unlisted.items()
            )
            console.print(
                "  [red]not listed[/] by the Conversations API v3, in place of the Data API: "
                f"conversations of {escape(unlisted)}"
            )
        if not report.is_proven:
            console.print(
                "  [red]not proven[/]: the list changed from one answer to the next; "
                "load --full reads it again"
            )
        if report.given_up:
            console.print(
                f"  [yellow]given up[/] {report.given_up:,} that kept failing: "
                "load --full retries them"
            )
    console.print(f"warehouse: {escape(destination_label(pipeline))}", soft_wrap=True)


def _reconciled(report: RunReport) -> str:
    """Compares the warehouse with PolyAI's count."""
    loaded = f"{report.held or 0:,} loaded"
    if report.api_count is not None:
        parts = [f"{loaded} of {report.api_count:,} at PolyAI"]
    else:
        parts = [f"{loaded}; this listing reports no total"]
    if report.count_excess:
        parts.append(f"{report.count_excess:+,} in its count that it does not list")
    if report.missing is not None:
        parts.append(f"{report.missing:,} missing")
    if report.absent:
        parts.append(f"{report.absent:,} no longer listed")
    if report.withheld:
        parts.append(f"{report.withheld:,} without their turns")
    return ", ".join(parts)


def load_as_json(reports: list[RunReport], pipeline: dlt.Pipeline, code: int) -> dict[str, Any]:
    """Returns the report as JSON."""
    return {
        "exit_code": int(code),
        "destination": pipeline.destination.destination_name,
        "dataset": pipeline.dataset_name,
        "agents": [
            without_internals(report.as_row())
            | {
                "agent_name": report.agent_name,
                "held": report.held,
                "missing": report.missing,
                "failures": {name: str(error) for name, error in report.failures.items()},
            }
            for report in reports
        ],
    }


def backfill(console: Console, reports: list[SliceReport], place_: str) -> None:
    """Prints the totals of a backfill, and each slice that is not complete."""
    total: Counter[str] = Counter()
    for report in reports:
        total.update(report.counts)
    by_status: Counter[str] = Counter()
    for report in reports:
        by_status[report.status] += report.joined
    stated = ", ".join(f"{count:,} {status}" for status, count in by_status.most_common())
    console.print(
        f"[bold]{by_status.total():,} slices[/]: {stated or 'none started'} — "
        f"{total['listed']:,} listed, "
        f"{total['new']:,} new, {total['changed']:,} changed, {total['unchanged']:,} unchanged, "
        f"{total['failed']:,} failed"
    )
    console.print(
        f"  {total['requests']:,} requests ({total['retries']:,} retries), "
        f"{total['bytes_received'] / 1e6:,.1f} MB, {total['rows']:,} rows"
    )
    if total["undated"]:
        console.print(
            f"  [yellow]skipped[/] {total['undated']:,} without a valid time: "
            "load --full loads them"
        )
    if total["unproven"]:
        console.print(
            f"  [red]not proven[/] {total['unproven']:,} slices, because the list is not in the "
            "order of its times: load --full finds everything"
        )
    if unmapped := sorted({name for report in reports for name in report.unmapped_fields}):
        console.print(f"  fields without a column, kept in extra: {escape(', '.join(unmapped))}")
    for report in reports:
        if report.error:
            console.print(
                f"  [red]{report.status}[/] {escape(str(report.slice))}: {escape(report.error)}"
            )
        for conversation_id, error in list(report.failures.items())[:SHOWN_FAILURES]:
            console.print(f"  [red]failed[/] {escape(conversation_id)}: {escape(error)}")
    if total["failed"]:
        console.print("  they are in fetch_failures; the next load retries them")
    console.print(f"warehouse: {escape(place_)}", soft_wrap=True)


def backfill_as_json(reports: list[SliceReport], code: int) -> dict[str, Any]:
    """Returns the report as JSON."""
    return {"exit_code": int(code), "slices": [report.as_json() for report in reports]}
