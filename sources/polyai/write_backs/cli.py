"""Commands `polyai-warehouse annotate` and `polyai-warehouse note`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from ..config.settings import Settings, resolve
from ..console.options import (
    AcceptMixedOption,
    AgentOption,
    BaseUrlOption,
    DatasetOption,
    DestinationOption,
    DryRunOption,
    JsonOption,
    RegionOption,
    WaitOption,
    WorkersOption,
)
from ..console.process import stop_on_signals
from ..console.progress import LoadProgress
from ..console.terminal import print_failed, print_json, stderr, stdout
from ..warehouse.target import Target
from . import command, show
from .rows import Kind, Record

_STOPPING = "stopping after the rows in progress"

FileArgument = Annotated[
    str | None,
    typer.Argument(metavar="[FILE]", help="CSV, JSON lines or Parquet; - for standard input."),
]
QueryOption = Annotated[
    str | None,
    typer.Option("--query", help="Read the rows from the warehouse: a SELECT in its SQL dialect."),
]


def annotate(
    file: FileArgument = None,
    query: QueryOption = None,
    dry_run: DryRunOption = False,
    agent: AgentOption = None,
    accept_mixed: AcceptMixedOption = False,
    wait: WaitOption = None,
    workers: WorkersOption = None,
    region: RegionOption = None,
    base_url: BaseUrlOption = None,
    destination: DestinationOption = None,
    dataset: DatasetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Add annotations to turns, from a file or a query; idempotent.

    Columns: conversation_id, turn_index (counted from 0), role (user or agent),
    annotation_type (missing_topic, wrong_transcript or wrong_info), and
    agent_id if several agents are configured. An invalid row does not stop the
    others. Can be killed at any time and run again.

    Exits with 3 if a row was not sent.
    """
    target = Target(destination, dataset)
    records = _records(file, query, target)
    settings = resolve(
        lock_wait=wait,
        workers=workers,
        region=region,
        base_url=base_url,
        accept_mixed=accept_mixed or None,
    )
    _send(
        "annotation",
        records,
        settings.only(agent or ()),
        target,
        file or "the query",
        dry_run=dry_run,
        as_json=as_json,
    )


def note(
    file: FileArgument = None,
    query: QueryOption = None,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Also replace notes newer than in the warehouse."),
    ] = False,
    dry_run: DryRunOption = False,
    agent: AgentOption = None,
    accept_mixed: AcceptMixedOption = False,
    wait: WaitOption = None,
    workers: WorkersOption = None,
    region: RegionOption = None,
    base_url: BaseUrlOption = None,
    destination: DestinationOption = None,
    dataset: DatasetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Set the notes of conversations, from a file or a query.

    Columns: conversation_id, note, and agent_id if several agents are
    configured. A note that is newer than in the warehouse is only replaced
    with --overwrite.

    Exits with 3 if a row was not sent.
    """
    target = Target(destination, dataset)
    records = _records(file, query, target)
    settings = resolve(
        lock_wait=wait,
        workers=workers,
        region=region,
        base_url=base_url,
        accept_mixed=accept_mixed or None,
    )
    _send(
        "note",
        records,
        settings.only(agent or ()),
        target,
        file or "the query",
        overwrite=overwrite,
        dry_run=dry_run,
        as_json=as_json,
    )


def _records(file: str | None, query: str | None, target: Target) -> list[Record]:
    if (file is None) == (query is None):
        raise typer.BadParameter("give a file, - for standard input, or --query", param_hint="FILE")
    return command.read(None, file, query, target)


def _send(
    kind: Kind,
    records: Sequence[Record],
    settings: Settings,
    target: Target,
    source: str,
    *,
    overwrite: bool = False,
    dry_run: bool,
    as_json: bool,
) -> None:
    with stop_on_signals(_STOPPING) as stop, LoadProgress(stderr) as progress:
        done = command.send(
            kind,
            records,
            settings=settings,
            target=target,
            overwrite=overwrite,
            dry_run=dry_run,
            stop=stop,
            on_begin=progress.watch,
        )
    if as_json:
        print_json(show.write_backs_as_json(done, done.exit_code))
    else:
        is_text = all(record.is_line for record in records)
        show.write_backs(stdout, done, source, "line" if is_text else "row")
    print_failed(done.reports)
    raise typer.Exit(done.exit_code)
