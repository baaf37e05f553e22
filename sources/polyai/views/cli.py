"""The command `polyai-warehouse views`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..config.settings import shared_setting
from ..console.options import DatasetOption, DestinationOption, JsonOption, LockWaitOption
from ..console.terminal import Exit, print_error, print_json, stdout
from ..warehouse.open import open_pipeline
from . import show
from .creation import PIPELINE_NAME, create_views, drop_views
from .publishing import publish, published_file


def views(
    time_zone: Annotated[
        str | None,
        typer.Option(help="Reporting time zone, such as Europe/London. Default: UTC."),
    ] = None,
    publish_to: Annotated[
        Path | None,
        typer.Option(
            "--publish",
            help="Then copy the DuckDB warehouse into this folder for dashboards and BI tools.",
            metavar="FOLDER",
        ),
    ] = None,
    drop: Annotated[bool, typer.Option("--drop", help="Drop the views instead.")] = False,
    wait: LockWaitOption = None,
    destination: DestinationOption = None,
    dataset: DatasetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Create or refresh the SQL views for analysts and BI.

    Needs no API key and can run during a load. Readers see either the old views or
    the new ones. `load` refreshes the views too, and publishes if `publish_to` is set.
    """
    lock_wait = shared_setting("lock_wait") if wait is None else wait
    pipeline = open_pipeline(destination, dataset, name=PIPELINE_NAME)
    if drop:
        drop_views(pipeline, lock_wait=lock_wait)
        if as_json:
            print_json({"exit_code": int(Exit.DONE), "dropped": True})
        else:
            stdout.print("the views are dropped, the tables are kept")
        return
    zone = time_zone or shared_setting("reporting_time_zone")
    folder = publish_to or shared_setting("publish_to")
    if folder is not None:
        published_file(pipeline, folder)  # fails before anything is changed
    report = create_views(pipeline, zone, lock_wait=lock_wait)
    published = None if folder is None else publish(pipeline, folder, wait=lock_wait)
    code = Exit.CONFIGURATION if report.failed else Exit.DONE
    if as_json:
        print_json(
            show.report_as_json(report, code) | {"published": show.published_as_json(published)}
        )
    else:
        show.report(stdout, report)
        show.published(stdout, published)
    for name, message in report.failed.items():
        print_error(f"view {name}: {message}")
    raise typer.Exit(code)
