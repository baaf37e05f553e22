"""Command `polyai-warehouse status`."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import typer

from ..console.options import (
    DatasetOption,
    DestinationOption,
    JsonOption,
    LoadedAgentOption,
    duration,
)
from ..console.terminal import print_json, stdout
from ..warehouse.read_only import WAIT
from ..warehouse.target import Target
from . import command, show


def status(
    agent: LoadedAgentOption = None,
    max_age: Annotated[
        timedelta | None,
        typer.Option(
            help="Exit with 1 if an agent's last complete load is older, such as 30m.",
            parser=duration,
            metavar="DURATION",
        ),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Do not compare rows, which reads whole tables.")
    ] = False,
    wait: Annotated[
        timedelta | None,
        typer.Option(
            help="How long to wait for a DuckDB file that is being written. Default: 30s.",
            parser=duration,
            metavar="DURATION",
        ),
    ] = None,
    destination: DestinationOption = None,
    dataset: DatasetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show freshness, last runs, failures, and whether rows are consistent.

    Reads only the destination: no API key is needed, no request is sent.

    Exits with 1 if an agent's last load is older than --max-age, if there are
    duplicate, lost or orphan rows, or if there is no warehouse; with 75 if a
    load keeps the DuckDB file locked.
    """
    result = command.status(
        agents=agent or (),
        max_age=max_age,
        quick=quick,
        wait=WAIT if wait is None else wait,
        target=Target(destination, dataset),
    )
    if as_json:
        print_json(show.status_as_json(result, result.exit_code))
    else:
        show.status(stdout, result)
    raise typer.Exit(result.exit_code)
