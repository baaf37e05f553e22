"""Command `polyai-warehouse prune`."""

from __future__ import annotations

import typer

from ..console.options import (
    DatasetOption,
    DestinationOption,
    DryRunOption,
    JsonOption,
    LoadedAgentOption,
    LockWaitOption,
    RecordingsUrlOption,
    YesOption,
    confirm,
)
from ..console.process import stop_on_signals
from ..console.terminal import print_failed, print_json, print_on_hold, stderr, stdout
from ..warehouse.target import Target
from . import command, show

_STOP_MESSAGE = "stopping after this part, the next prune deletes the rest"


def prune(
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    agent: LoadedAgentOption = None,
    recordings_url: RecordingsUrlOption = None,
    wait: LockWaitOption = None,
    destination: DestinationOption = None,
    dataset: DatasetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Delete what is older than the settings of retention, as each load does.

    The settings retention (whole conversations), retention_recordings and
    retention_transcripts (their words) are ages in days after the end of a
    conversation. Deletes rows, recordings and both in copies; rewrites a DuckDB
    file. Nothing of it is loaded again. What is on legal hold stays, and is
    named (exit 3). Needs no API key and sends no request.
    """
    target = Target(destination, dataset)
    if not (dry_run or yes):
        planned = command.prune(
            agents=agent or (), dry_run=True, recordings_url=recordings_url, target=target
        )
        show.retention(stderr, planned, dry_run=True)
        confirm("deleting cannot be undone: confirm with --yes", "This cannot be undone. Delete?")
    with stop_on_signals(_STOP_MESSAGE) as stop:
        done = command.prune(
            agents=agent or (),
            dry_run=dry_run,
            recordings_url=recordings_url,
            wait=wait,
            target=target,
            stop=stop,
        )
    if as_json:
        print_json(show.retention_as_json(done, dry_run=dry_run))
    else:
        show.retention(stdout, done, dry_run=dry_run)
    print_failed(done.agents)
    print_on_hold(one.on_hold for one in done.agents)
    raise typer.Exit(done.exit_code)
