"""Commands `polyai-warehouse recordings`, `verify` and `prune`; `place_cli` has the others."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import typer

from ..config.settings import resolve, shared_setting
from ..console.exit_codes import ExitCode
from ..console.options import (
    AcceptMixedOption,
    AgentOption,
    BaseUrlOption,
    DatasetOption,
    DestinationOption,
    DirectionsOption,
    DryRunOption,
    JsonOption,
    LockWaitOption,
    RecordingsUrlOption,
    RedactedOption,
    RegionOption,
    WaitOption,
    WorkersOption,
    confirm,
    duration,
)
from ..console.process import stop_on_signals
from ..console.progress import FilesProgress, LoadProgress
from ..console.terminal import print_failed, print_json, print_on_hold, stderr, stdout
from ..warehouse.holds import HoldKeys
from ..warehouse.read_only import open_to_read
from ..warehouse.target import Target
from . import command, place_cli, show
from .prune import prune
from .run import PIPELINE_NAME
from .verify import verify, verify_and_repair

CONFIRMED_AGE = timedelta(days=30)
"""Age below which `prune` asks for confirmation, since such a limit is often a mistake."""

app = typer.Typer(
    name="recordings",
    help="Download missing recordings; verify, prune, move or prove stored ones.",
    epilog="Example: polyai-warehouse recordings --recordings-url s3://bucket/recordings",
    invoke_without_command=True,
    add_completion=False,
    subcommand_metavar="[verify|prune|move|adopt|prove]",
)


@app.callback()
def recordings(
    context: typer.Context,
    agent: AgentOption = None,
    directions: DirectionsOption = None,
    redacted: RedactedOption = None,
    recordings_url: RecordingsUrlOption = None,
    accept_mixed: AcceptMixedOption = False,
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
        accept_mixed=accept_mixed or None,
    ).only(agent or ())
    with stop_on_signals() as stop, LoadProgress(stderr) as progress:
        result = command.recordings(
            settings=settings,
            target=Target(destination, dataset),
            stop=stop,
            on_begin=progress.watch,
        )
    code = result.exit_code
    if as_json:
        print_json({"exit_code": int(code), "agents": show.recordings_as_json(result.reports)})
    else:
        show.recordings(stdout, result.reports, settings.recordings_url)
    print_failed(result.reports)
    if code == ExitCode.INTERRUPTED:
        stderr.print("interrupted: fetched files are kept; the next run continues from there")
    raise typer.Exit(code)


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
    """Compare files, manifest, custody log and warehouse, each with the others.

    Needs no API key and changes no file unless --refetch is given; leaves a row
    in sync_runs.

    Exits with 1 if there is a discrepancy or nothing to verify, and with 3 if the only one is that
    recordings are much shorter than their calls and may still become longer.
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
            pipeline = Target(destination, dataset).open(PIPELINE_NAME)
            found = verify_and_repair(
                settings,
                pipeline,
                agent_ids=agent or (),
                quick=quick,
                stop=stop,
                on_files=progress.update,
            )
        else:
            url = recordings_url or shared_setting("recordings_url")
            with open_to_read(destination, dataset):
                pass  # the warehouse exists
            found = verify(
                Target(destination, dataset).open(PIPELINE_NAME),
                url,
                agent_ids=agent or (),
                wait=shared_setting("recordings_wait"),
                quick=quick,
                workers=workers or shared_setting("workers"),
                lock_wait=shared_setting("lock_wait") if wait is None else duration(wait),
                stop=stop,
                on_files=progress.update,
            )
    if stop.is_set():
        code = ExitCode.INTERRUPTED
    elif found.is_sound:
        code = ExitCode.DONE
    else:
        is_archive_damaged = not refetch and not found.is_intact
        code = ExitCode.CONFIGURATION if is_archive_damaged else ExitCode.SOME_FAILED
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
            help="Minimum age of a call whose recordings are deleted, such as 730d or 24mo.",
            parser=duration,
            metavar="DURATION",
        ),
    ],
    dry_run: DryRunOption = False,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Do not ask, even for less than 30 days.")
    ] = False,
    agent: AgentOption = None,
    recordings_url: RecordingsUrlOption = None,
    wait: LockWaitOption = None,
    destination: DestinationOption = None,
    dataset: DatasetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Delete recordings by age: files, manifest entries and rows.

    Asks for confirmation if recordings of the last 30 days would be deleted.
    Needs no API key. Deleted recordings are not fetched again. What is on
    legal hold, or under the Object Lock of a bucket, stays, and is named (exit 3).
    """
    if older_than < CONFIRMED_AGE and not (dry_run or yes):
        warning = (
            "this also deletes recordings of the last 30 days: all that are older than "
            f"{older_than}"
        )
        confirm(
            f"{warning}. Confirm with --yes, or see what would be deleted with --dry-run",
            f"{warning.capitalize()}. Delete them?",
        )
    url = recordings_url or shared_setting("recordings_url")
    pipeline = Target(destination, dataset).open(PIPELINE_NAME)
    with stop_on_signals("stopping after this day") as stop, FilesProgress(stderr) as progress:
        results = prune(
            pipeline,
            url,
            older_than,
            agent_ids=agent,
            keys=HoldKeys(shared_setting("pii_secret"), shared_setting("phone_region")),
            lock_wait=wait or shared_setting("lock_wait"),
            dry_run=dry_run,
            stop=stop,
            on_rows=progress.update,
        )
    is_left = any(result.on_hold or result.locked for result in results)
    code = ExitCode.SOME_FAILED if is_left else ExitCode.DONE
    if stop.is_set():
        code = ExitCode.INTERRUPTED
    if as_json:
        print_json(show.pruning_as_json(results, dry_run=dry_run, code=code))
    else:
        show.pruning(stdout, results, url, dry_run=dry_run)
    print_on_hold(result.on_hold for result in results)
    raise typer.Exit(code)


app.command(
    name="move", epilog="Example: polyai-warehouse recordings move --to s3://bucket/recordings"
)(place_cli.move_command)
app.command(
    name="adopt", epilog="Example: polyai-warehouse recordings adopt s3://bucket/recordings"
)(place_cli.adopt_command)
app.command(name="prove", epilog="Example: polyai-warehouse recordings prove CA0123456789abcdef")(
    place_cli.prove_command
)
