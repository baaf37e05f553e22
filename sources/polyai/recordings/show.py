"""Terminal and JSON output of the commands over recordings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.markup import escape

from ..console.format import SHOWN_FAILURES, seconds_of, without_internals
from ..errors import without_credentials
from .findings import Verification
from .prune import Pruning
from .report import RecordingsReport

SHOWN_FINDINGS = 20
"""Findings that the terminal shows; JSON has all of them."""


def recordings(console: Console, reports: Sequence[RecordingsReport], url: str) -> None:
    """Prints the summary of a run, one paragraph per agent; errors are printed elsewhere."""
    for report in reports:
        seconds = seconds_of(report)
        console.print(
            f"[bold]{escape(report.agent_id)}[/]: recordings {report.status} in {seconds:.1f} s — "
            f"{report.fetched:,} stored, {report.audio_bytes / 1e6:,.1f} MB, "
            f"{report.not_found:,} not found, {report.failed:,} failed"
        )
        if report.adopted:
            console.print(f"  {report.adopted:,} were in the store already and are now registered")
        if report.short:
            console.print(
                f"  [yellow]{report.short:,} much shorter than their calls[/]: requested again "
                "until recordings_wait is over; `recordings verify` names them"
            )
        if report.mismatched:
            console.print(
                f"  {report.mismatched:,} stored with a mark in recordings.error_code: their "
                "stated lengths are a little wrong, or unknown"
            )
        console.print(
            f"  {report.traffic.requests:,} requests ({report.traffic.retries:,} retries), "
            f"{report.fetched / max(seconds, 0.001):,.0f} recordings/s"
        )
        for conversation_id, error in list(report.failures.items())[:SHOWN_FAILURES]:
            console.print(f"  [red]failed[/] {escape(conversation_id)}: {escape(str(error))}")
        if report.failed:
            console.print("  failures are in fetch_failures; the next run retries them")
        if report.postponed:
            console.print(
                f"  [red]not retried yet[/] {report.postponed:,} that cannot be used: retried less "
                "and less often; `status` names them"
            )
        if report.given_up:
            console.print(
                f"  [yellow]given up[/] {report.given_up:,} that have failed for too long: a "
                "longer give_up_after, or recordings_wait for unusable files, retries them"
            )
        if report.custody_entries:
            console.print(
                f"  custody log: {report.custody_entries:,} entries, head {report.custody_head}",
                soft_wrap=True,
            )
    if reports:
        console.print(f"recordings: {escape(without_credentials(url))}", soft_wrap=True)


def recordings_as_json(reports: Sequence[RecordingsReport]) -> list[dict[str, Any]]:
    """JSON of a run, one object per agent."""
    return [
        without_internals(report.as_row())
        | {
            "adopted": report.adopted,
            "not_found": report.not_found,
            "short": report.short,
            "mismatched": report.mismatched,
            "postponed": report.postponed,
            "audio_bytes": report.audio_bytes,
            "failures": {name: str(error) for name, error in report.failures.items()},
        }
        for report in reports
    ]


def verification(console: Console, found: Verification, url: str) -> None:
    """Prints the result of a verification."""
    console.print(
        f"{found.files:,} files, {found.bytes / 1e6:,.1f} MB: {escape(without_credentials(url))}"
    )
    if found.is_empty:
        console.print("[red]there is nothing to verify[/]: no recording was stored there")
        return
    if len(found.writers) > 1:
        console.print(f"  written by {len(found.writers):,} warehouses")
    for agent_id, (entries, head) in found.heads.items():
        console.print(
            f"  custody log of {escape(agent_id)}: {entries:,} entries, head {head}",
            soft_wrap=True,
        )
    for one in found.findings[:SHOWN_FINDINGS]:
        colour = "green" if one.is_repaired else "yellow" if one.is_harmless else "red"
        word = f"{one.trouble}, repaired" if one.is_repaired else one.trouble
        console.print(
            f"  [{colour}]{word}[/] {escape(one.uri)}: {escape(one.detail)}", soft_wrap=True
        )
    if len(found.findings) > SHOWN_FINDINGS:
        console.print(f"  … and {len(found.findings) - SHOWN_FINDINGS:,} more")
    left = Counter(one.trouble for one in found.findings if not one.is_repaired)
    if found.is_stopped:
        console.print("[yellow]stopped before the end[/]")
    stated = ", ".join(f"{count:,} {trouble}" for trouble, count in left.most_common())
    if found.is_sound:
        repaired = sum(one.is_repaired for one in found.findings)
        console.print(
            f"no discrepancies{f' but {stated}' if stated else ''}"
            + (f", {repaired:,} repaired" if repaired else "")
        )
    else:
        console.print(f"[red]{stated}[/]: `recordings verify --refetch` repairs what it can")


def verification_as_json(found: Verification, url: str, code: int) -> dict[str, Any]:
    """JSON of a verification."""
    return {
        "exit_code": int(code),
        "recordings_url": without_credentials(url),
        "ok": found.is_sound,
        "files": found.files,
        "bytes": found.bytes,
        "writers": len(found.writers),
        "custody": {
            agent_id: {"entries": entries, "head": head}
            for agent_id, (entries, head) in found.heads.items()
        },
        "findings": [
            {
                "trouble": one.trouble,
                "is_mended": one.is_repaired,
                "agent_id": one.agent_id,
                "uri": one.uri,
                "said": one.detail,
            }
            | (
                {name: one.row[name] for name in ("conversation_id", "direction", "redacted")}
                if one.row
                else {}
            )
            for one in found.findings
        ],
        "refetched": recordings_as_json(found.reports),
    }


def pruning(console: Console, results: Sequence[Pruning], url: str, *, dry_run: bool) -> None:
    """Prints the result of a pruning."""
    word = "would delete" if dry_run else "deleted"
    for one in results:
        console.print(
            f"[bold]{escape(one.agent_id)}[/]: {word} {one.files:,} files, "
            f"{one.bytes / 1e6:,.1f} MB, and {one.rows:,} rows of calls before "
            f"{one.before:%Y-%m-%d %H:%M} UTC"
        )
        if one.locked:
            console.print(
                "  [red]not deleted for good[/]: the bucket keeps these files under Object Lock; "
                "the next prune after that deletes them"
            )
        for locked in one.locked[:SHOWN_FINDINGS]:
            console.print(f"  {escape(str(locked))}", soft_wrap=True)
    console.print(f"recordings: {escape(without_credentials(url))}", soft_wrap=True)


def pruning_as_json(results: Sequence[Pruning], *, dry_run: bool, code: int) -> dict[str, Any]:
    """JSON of a pruning."""
    return {
        "exit_code": int(code),
        "dry_run": dry_run,
        "agents": [asdict(one) for one in results],
    }
