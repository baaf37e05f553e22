"""Command `polyai-warehouse copy`."""

from __future__ import annotations

from typing import Annotated

import typer

from ..console.options import DatasetOption, DestinationOption, JsonOption, LockWaitOption
from ..console.process import stop_on_signals
from ..console.progress import CopyProgress
from ..console.terminal import print_error, print_json, stderr, stdout
from ..warehouse.target import Target
from . import command, show

_STOP_MESSAGE = "stopping after this part, the next copy continues"


def copy(
    to: Annotated[
        str,
        typer.Option(
            "--to", help="dlt destination to copy to, configured as any other one of dlt's."
        ),
    ],
    to_dataset: Annotated[
        str | None, typer.Option(help="Dataset there. Default: that of the warehouse.")
    ] = None,
    wait: LockWaitOption = None,
    destination: DestinationOption = None,
    dataset: DatasetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Copy the warehouse to another destination, and compare both.

    Needs no API key: nothing is requested from PolyAI, and the next load there
    requests what has changed. Continues a copy that was killed, and brings an
    earlier one up to date. Refuses a destination that holds another warehouse.
    """
    with stop_on_signals(_STOP_MESSAGE) as stop, CopyProgress(stderr) as progress:
        done = command.copy(
            to,
            to_dataset=to_dataset,
            wait=wait,
            target=Target(destination, dataset),
            stop=stop,
            on_part=progress.update,
        )
    if as_json:
        print_json(show.copy_as_json(done))
    else:
        show.copied(stdout, done)
    if done.error:
        print_error(done.error)
    raise typer.Exit(done.exit_code)
