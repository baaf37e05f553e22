"""Command `polyai-warehouse redact`."""

from __future__ import annotations

import typer

from ..console.options import (
    DatasetOption,
    DestinationOption,
    DryRunOption,
    JsonOption,
    LoadedAgentOption,
    LockWaitOption,
    YesOption,
    confirm,
)
from ..console.process import stop_on_signals
from ..console.terminal import print_failed, print_json, stdout
from ..warehouse.open import destination_label
from ..warehouse.target import Target
from . import command, show
from .run import PIPELINE_NAME

_STOP_MESSAGE = "stopping after this part, the next redact converts the rest"


def redact(
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    agent: LoadedAgentOption = None,
    wait: LockWaitOption = None,
    destination: DestinationOption = None,
    dataset: DatasetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Convert what is loaded to stricter settings pii and transcripts.

    All rows then are as if they had been loaded under the present settings,
    also old versions of notes, failures and debug chats. Rewrites a DuckDB
    file, and makes its copies for readers again. Can be killed at any time and
    run again; until it is complete, no load is accepted. Needs no API key and
    sends no request.
    """
    target = Target(destination, dataset)
    if not (dry_run or yes):
        confirm(
            "redacting cannot be undone: confirm with --yes",
            "This cannot be undone. Redact what is loaded?",
        )
    with stop_on_signals(_STOP_MESSAGE) as stop:
        done = command.redact(
            agents=agent or (), dry_run=dry_run, wait=wait, target=target, stop=stop
        )
    if as_json:
        print_json(show.redactions_as_json(done, done.exit_code, dry_run=dry_run))
    else:
        show.redactions(
            stdout, done, destination_label(target.open(PIPELINE_NAME)), dry_run=dry_run
        )
    print_failed(done.agents)
    raise typer.Exit(done.exit_code)
