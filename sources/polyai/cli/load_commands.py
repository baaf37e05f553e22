"""Commands `polyai-warehouse load` and `polyai-warehouse backfill`."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated

import typer

from ..clock import utc_now
from ..config.settings import resolve
from ..console.exit_codes import ExitCode
from ..console.options import (
    AcceptMixedOption,
    AgentOption,
    ApiOption,
    BaseUrlOption,
    ChunkSizeOption,
    DatasetOption,
    DestinationOption,
    JsonOption,
    RegionOption,
    WaitOption,
    WorkersOption,
    duration,
    moment,
)
from ..console.process import stop_on_signals
from ..console.progress import BackfillProgress, LoadProgress
from ..console.terminal import print_error, print_failed, print_json, stderr, stdout
from ..errors import ConfigurationError
from ..jobs.backfill import backfill as run_backfill
from ..jobs.load import load as run_load
from ..load.backfill import SLICE_LENGTH, WORKERS
from ..load.refetch import Span
from ..load.run import selected_tables
from ..load.slices import cut
from ..recordings import show as show_recordings
from ..retention import show as show_retention
from ..views import show as show_views
from ..warehouse.open import destination_label
from ..warehouse.target import Target
from . import render

SHOWN_SLICES = 5
"""Failed slices that the error names."""


def _tables(given: list[str] | None) -> list[str]:
    """Parses the tables that `--select` names."""
    names = [name.strip() for part in given or () for name in part.split(",") if name.strip()]
    try:
        selected_tables(names)
    except ConfigurationError as error:
        raise typer.BadParameter(str(error)) from error
    return names


def load(
    agent: AgentOption = None,
    full: Annotated[
        bool, typer.Option("--full", help="Read the whole listing, not only the look-back window.")
    ] = False,
    select: Annotated[
        list[str] | None,
        typer.Option(
            help="Only this table, and conversations. Repeatable, or separated by commas.",
            callback=_tables,
        ),
    ] = None,
    lookback: Annotated[
        str | None,
        typer.Option(help="Length of the look-back window before the watermark, such as 30d."),
    ] = None,
    recordings: Annotated[
        bool, typer.Option("--recordings", help="Then fetch the missing recordings.")
    ] = False,
    accept_mixed: AcceptMixedOption = False,
    wait: WaitOption = None,
    workers: WorkersOption = None,
    chunk_size: ChunkSizeOption = None,
    api: ApiOption = None,
    region: RegionOption = None,
    base_url: BaseUrlOption = None,
    destination: DestinationOption = None,
    dataset: DatasetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Load new and changed conversations of all agents. The job for cron."""
    settings = resolve(
        api=api,
        region=region,
        base_url=base_url,
        lookback=lookback,
        lock_wait=wait,
        workers=workers,
        chunk_size=chunk_size,
        accept_mixed=accept_mixed or None,
    ).only(agent or ())
    with stop_on_signals() as stop, LoadProgress(stderr) as progress:
        result = run_load(
            settings=settings,
            target=Target(destination, dataset),
            full=full,
            select=select or (),
            recordings=recordings,
            stop=stop,
            on_begin=progress.watch,
        )
    code, published = result.exit_code, result.refreshed.published
    if as_json:
        shown = render.load_as_json(result.reports, result.pipeline, code)
        if result.retention is not None:
            shown["retention"] = show_retention.retention_as_json(result.retention, dry_run=False)
        shown["published"] = show_views.published_as_json(published)
        if recordings:
            shown["recordings"] = show_recordings.recordings_as_json(result.recordings)
        print_json(shown)
    else:
        render.load(stdout, result.reports, result.pipeline)
        show_recordings.recordings(stdout, result.recordings, settings.recordings_url)
        if result.retention is not None:
            show_retention.retention(stdout, result.retention, dry_run=False)
        show_views.published(stdout, published)
    print_failed([*result.reports, *result.recordings])
    if result.retention_error:
        print_error(f"retention: {result.retention_error}")
    if result.publish_error:
        print_error(f"nothing was published: {result.publish_error}")
    if code == ExitCode.INTERRUPTED:
        stderr.print("interrupted: what was read is committed; the next run continues from there")
    raise typer.Exit(code)


def backfill(
    since: Annotated[
        datetime,
        typer.Option(
            "--from",
            help="Start of the range (inclusive), such as 2024-01-01 or 2024-01-01T12:00:00Z.",
            parser=moment,
            metavar="DATE",
        ),
    ],
    before: Annotated[
        datetime | None,
        typer.Option(
            "--to",
            help="End of the range (exclusive). Default: now.",
            parser=moment,
            metavar="DATE",
        ),
    ] = None,
    slice_length: Annotated[
        timedelta | None,
        typer.Option(
            "--slice",
            help="Length of the slices that are committed independently; many with few "
            "conversations are joined. Default: 1d.",
            parser=duration,
            metavar="DURATION",
        ),
    ] = None,
    workers: Annotated[
        int, typer.Option(min=1, max=64, help="Concurrent slices, each in a process of its own.")
    ] = WORKERS,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume/--no-resume",
            help="Skip conversations that are loaded and unchanged, or read all of them again.",
        ),
    ] = True,
    agent: AgentOption = None,
    accept_mixed: AcceptMixedOption = False,
    chunk_size: ChunkSizeOption = None,
    api: ApiOption = None,
    region: RegionOption = None,
    base_url: BaseUrlOption = None,
    destination: DestinationOption = None,
    dataset: DatasetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Load one range of time, in slices, several of them concurrently.

    Idempotent: conversations that are loaded and unchanged are skipped. A
    failed slice does not stop the others; it is named at the end. Can run
    beside `load`, whose watermark does not change.
    """
    settings = resolve(
        api=api,
        region=region,
        base_url=base_url,
        chunk_size=chunk_size,
        accept_mixed=accept_mixed or None,
    ).only(agent or ())
    target = Target(destination, dataset)
    pipeline = target.open()
    span = Span(since, before or utc_now())
    length = slice_length or SLICE_LENGTH
    slices = len(cut([one.agent_id for one in settings.agents], span, length))
    with stop_on_signals() as stop, BackfillProgress(stderr, slices) as progress:
        result = run_backfill(
            span,
            settings=settings,
            target=target,
            slice_length=length,
            workers=workers,
            resume=resume,
            stop=stop,
            on_change=progress.watch,
        )
    if as_json:
        print_json(render.backfill_as_json(result.slices, result.exit_code))
    else:
        render.backfill(stdout, result.slices, destination_label(pipeline))
    failed = [report for report in result.slices if report.error]
    if failed:
        names = ", ".join(str(report.slice) for report in failed[:SHOWN_SLICES])
        more = f" and {len(failed) - SHOWN_SLICES} more" if failed[SHOWN_SLICES:] else ""
        joined = sum(report.joined for report in failed)
        print_error(f"{joined} of {slices} slices failed: {names}{more}. Run it again")
    if result.exit_code == ExitCode.INTERRUPTED:
        stderr.print("interrupted: what was read is committed; run it again to continue")
    raise typer.Exit(result.exit_code)
