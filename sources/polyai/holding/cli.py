"""Command `polyai-warehouse hold`."""

from __future__ import annotations

from typing import Annotated

import typer

from ..console.options import (
    DatasetOption,
    DestinationOption,
    JsonOption,
    LoadedAgentOption,
    LockWaitOption,
)
from ..console.terminal import print_error, print_json, stdout
from ..warehouse.target import Target
from . import command, show


def hold(
    conversation: Annotated[
        list[str] | None,
        typer.Argument(metavar="[CONVERSATION]...", help="Conversation ids."),
    ] = None,
    caller: Annotated[
        list[str] | None,
        typer.Option(
            "--caller",
            help="All conversations of this phone number, also later ones. Repeatable.",
        ),
    ] = None,
    reason: Annotated[
        str | None,
        typer.Option(help="Reason, such as the number of a case. With --release: only these."),
    ] = None,
    release: Annotated[
        bool, typer.Option("--release", help="Release the holds rather than place them.")
    ] = False,
    by: Annotated[
        str | None, typer.Option(help="Who does it. Default: the user of the computer.")
    ] = None,
    agent: LoadedAgentOption = None,
    wait: LockWaitOption = None,
    destination: DestinationOption = None,
    dataset: DatasetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Place, release or list legal holds: what they name is not deleted.

    Holds are on conversations and callers; forget, prune and recordings prune
    leave them, name them and exit with 3. Without conversations and callers, lists the holds.
    Needs no API key and sends no request.
    """
    if release and not (conversation or caller):
        raise typer.BadParameter("name what to release: conversation ids, or --caller")
    result = command.hold(
        *(conversation or ()),
        callers=caller or (),
        agents=agent or (),
        reason=reason,
        release=release,
        by=by,
        wait=wait,
        target=Target(destination, dataset),
    )
    if as_json:
        print_json(show.holds_as_json(result))
    else:
        show.holds(stdout, result)
    for name in result.not_found:
        print_error(f"{name} is not on hold{f' for {reason}' if reason else ''}")
    raise typer.Exit(result.exit_code)
