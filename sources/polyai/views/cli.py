"""Command `polyai-warehouse views`."""

from __future__ import annotations

from typing import Annotated

import typer

from ..config.settings import shared_setting
from ..console.exit_codes import ExitCode
from ..console.options import DatasetOption, DestinationOption, JsonOption, LockWaitOption
from ..console.terminal import print_error, print_json, stdout
from ..warehouse.target import Target
from . import command, show
from .creation import PIPELINE_NAME, drop_views


def views(
    time_zone: Annotated[
        str | None,
        typer.Option(help="Reporting time zone, such as Europe/London. Default: UTC."),
    ] = None,
    publish_to: Annotated[
        str | None,
        typer.Option(
            "--publish",
            help="Then copy the DuckDB warehouse into this folder for dashboards and BI tools; or, "
            "to a URL such as s3://bucket/polyai or a folder that ends with /, Parquet files.",
            metavar="FOLDER|URL",
        ),
    ] = None,
    drop: Annotated[bool, typer.Option("--drop", help="Drop the views instead.")] = False,
    wait: LockWaitOption = None,
    destination: DestinationOption = None,
    dataset: DatasetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Create or replace the SQL views for analysts and BI.

    Needs no API key and can run during a load. Readers see either the old views or
    the new ones. `load` refreshes the views too, and publishes if `publish_to` is set.
    """
    target = Target(destination, dataset)
    if drop:
        lock_wait = shared_setting("lock_wait") if wait is None else wait
        drop_views(target.open(PIPELINE_NAME), lock_wait=lock_wait)
        if as_json:
            print_json({"exit_code": int(ExitCode.DONE), "dropped": True})
        else:
            stdout.print("the views are dropped, the tables are kept")
        return
    result = command.views(time_zone=time_zone, publish_to=publish_to, wait=wait, target=target)
    if as_json:
        print_json(
            show.report_as_json(result.report, result.exit_code)
            | {"published": show.published_as_json(result.published)}
        )
    else:
        show.report(stdout, result.report)
        show.published(stdout, result.published)
    for name, error in result.report.failed.items():
        print_error(f"view {name}: {error}")
    raise typer.Exit(result.exit_code)
