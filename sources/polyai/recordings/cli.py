"""Commands `polyai-warehouse recordings`, `recordings verify` and `recordings prune`."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Annotated

import typer

from ..config.settings import Settings, resolve, shared_setting
from ..console.options import (
    ENDING,
    AgentOption,
    BaseUrlOption,
    DatasetOption,
    DestinationOption,
    DirectionsOption,
    JsonOption,
    LockWaitOption,
    RecordingsUrlOption,
    RedactedOption,
    RegionOption,
    WaitOption,
    WorkersOption,
    duration,
    exit_code,
)
from ..console.progress import FilesProgress, LoadProgress
from ..console.terminal import (
    Exit,
    print_failed,
    print_json,
    stderr,
    stdout,
    stop_on_signals,
)
from ..errors import BusyError
from ..warehouse.open import open_pipeline
from ..warehouse.read_only import open_to_read
from . import show
from .archive import agents_with_recordings
from .prune import prune
from .report import RecordingsReport
from .run import PIPELINE_NAME, OnBegin, fetch_recordings
from .store import open_store
from .verify import verify, verify_and_repair

app = typer.Typer(
    name="recordings",
    help="Download missing recordings; verify or prune stored ones.",
    epilog="Example: polyai-warehouse recordings --recordings-url s3://bucket/recordings",
    invoke_without_command=True,
    subcommand_metavar="[verify|prune]",
)


@app.callback()
def recordings(
    context: typer.Context,
    agent: AgentOption = None,
    directions: DirectionsOption = None,
    redacted: RedactedOption = None,
    recordings_url: RecordingsUrlOption = None,
    wait: WaitOption = None,
    workers: WorkersOption = None,
    region: RegionOption = None,
    base_url: BaseUrlOption = None,
    destination: DestinationOption = None,
    dataset: DatasetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Download the missing recordings of calls in the warehouse.

    Files go into a folder or bucket; the table `recordings` and a Parquet
    manifest beside the files list them. Can be killed at any time.
    """
    if context.invoked_subcommand:
        return
    settings = resolve(
        directions=directions,
        redacted=redacted,
        recordings_url=recordings_url,
        lock_wait=wait,
        workers=workers,
        region=region,
        base_url=base_url,
    ).only(agent or ())
    with stop_on_signals(ENDING) as stop, LoadProgress(stderr) as progress:
        reports = fetch(settings, destination, dataset, stop, progress.watch)
    code = exit_code(reports, interrupted=stop.is_set())
    if as_json:
        print_json({"exit_code": int(code), "agents": show.recordings_as_json(reports)})
    else:
        show.recordings(stdout, reports, settings.recordings_url)
    print_failed(reports)
    if code == Exit.INTERRUPTED:
        stderr.print("interrupted: downloaded recordings are kept, the next run continues")
    raise typer.Exit(code)


def fetch(
    settings: Settings,
    destination: str | None,
    dataset: str | None,
    stop: threading.Event,
    on_begin: OnBegin,
) -> list[RecordingsReport]:
    """Downloads missing recordings; empty if interrupted while waiting for another run."""
    pipeline = open_pipeline(destination, dataset, name=PIPELINE_NAME)
    try:
        return fetch_recordings(settings, pipeline, stop=stop, on_begin=on_begin)
    except BusyError:
        if not stop.is_set():
            raise
        return []


@app.command(name="verify", epilog="Example: polyai-warehouse recordings verify --refetch")
def verify_command(
    agent: AgentOption = None,
    quick: Annotated[
        bool,
        typer.Option("--quick", help="Compare sizes only, without reading files."),
    ] = False,
    refetch: Annotated[
        bool,
        typer.Option(
            "--refetch", help="Download missing or changed files again and repair manifests."
        ),
    ] = False,
    recordings_url: RecordingsUrlOption = None,
    wait: WaitOption = None,
    workers: WorkersOption = None,
    region: RegionOption = None,
    base_url: BaseUrlOption = None,
    destination: DestinationOption = None,
    dataset: DatasetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check files against the warehouse, the manifest and their hashes.

    Needs no API key and changes nothing unless --refetch is given.

    Exits with 1 if there is a discrepancy.
    """
    with stop_on_signals("stopping") as stop, FilesProgress(stderr) as progress:
        if refetch:
            settings = resolve(
                recordings_url=recordings_url,
                lock_wait=wait,
                workers=workers,
                region=region,
                base_url=base_url,
            ).only(agent or ())
            url = settings.recordings_url
            pipeline = open_pipeline(destination, dataset, name=PIPELINE_NAME)
            found = verify_and_repair(
                settings, pipeline, quick=quick, stop=stop, on_files=progress.tell
            )
        else:
            url = recordings_url or shared_setting("recordings_url")
            store = open_store(url)
            store.check()
            with open_to_read(destination, dataset) as warehouse:
                found = verify(
                    warehouse,
                    store,
                    agent or agents_with_recordings(warehouse),
                    quick=quick,
                    workers=workers or shared_setting("workers"),
                    stop=stop,
                    on_files=progress.tell,
                )
    if stop.is_set():
        code = Exit.INTERRUPTED
    elif found.is_sound:
        code = Exit.DONE
    else:
        code = Exit.SOME_FAILED if refetch else Exit.CONFIGURATION
    if as_json:
        print_json(show.verification_as_json(found, url, code))
    else:
        show.verification(stdout, found, url)
    print_failed(found.reports)
    raise typer.Exit(code)


@app.command(
    name="prune", epilog="Example: polyai-warehouse recordings prune --older-than 730d --dry-run"
)
def prune_command(
    older_than: Annotated[
        timedelta,
        typer.Option(
            help="Minimum age of a call whose recordings are deleted, such as 730d.",
            parser=duration,
            metavar="DURATION",
        ),
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only report what would be deleted.")
    ] = False,
    agent: AgentOption = None,
    recordings_url: RecordingsUrlOption = None,
    wait: LockWaitOption = None,
    destination: DestinationOption = None,
    dataset: DatasetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Delete recordings by age: files, manifest and rows.

    Needs no API key. `recordings` does not download them again.
    """
    url = recordings_url or shared_setting("recordings_url")
    pipeline = open_pipeline(destination, dataset, name=PIPELINE_NAME)
    with (
        stop_on_signals("stopping after this day") as stop,
        FilesProgress(stderr) as progress,
    ):
        results = prune(
            pipeline,
            url,
            older_than,
            agent_ids=agent,
            lock_wait=wait or shared_setting("lock_wait"),
            dry_run=dry_run,
            stop=stop,
            on_rows=progress.tell,
        )
    code = Exit.INTERRUPTED if stop.is_set() else Exit.DONE
    if as_json:
        print_json(show.pruning_as_json(results, dry_run=dry_run, code=code))
    else:
        show.pruning(stdout, results, url, dry_run=dry_run)
    raise typer.Exit(code)
