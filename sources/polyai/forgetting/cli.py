"""The command `polyai-warehouse forget`."""

from __future__ import annotations

import logging
import sys
from typing import Annotated

import typer

from ..config.settings import shared_setting
from ..console.options import (
    DatasetOption,
    DestinationOption,
    JsonOption,
    LockWaitOption,
    RecordingsUrlOption,
)
from ..console.terminal import (
    Exit,
    print_error,
    print_failed,
    print_json,
    stderr,
    stdout,
    stop_on_signals,
)
from ..warehouse.open import open_pipeline, place
from ..warehouse.read_only import open_to_read
from . import show
from .run import PIPELINE_NAME, Erasures, Readers, planned
from .run import forget as run_forget
from .selection import select

logger = logging.getLogger("polyai")

_ENDING = "ending after this agent; what is left the next forget does"


def forget(
    conversation: Annotated[
        list[str] | None,
        typer.Argument(metavar="[CONVERSATION]...", help="Ids of conversations."),
    ] = None,
    caller: Annotated[
        list[str] | None,
        typer.Option("--caller", help="All conversations with this phone number; repeatable."),
    ] = None,
    reason: Annotated[
        str | None, typer.Option(help="Kept in the table `forgotten`: a request's number.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be erased.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    agent: Annotated[
        list[str] | None,
        typer.Option("--agent", help="Only this agent's; repeat for several. Default: all held."),
    ] = None,
    recordings_url: RecordingsUrlOption = None,
    wait: LockWaitOption = None,
    destination: DestinationOption = None,
    dataset: DatasetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Erase conversations, or all of a caller, and keep them from coming back.

    Rows of all tables, recordings and their manifest, packages that wait to be
    loaded; a DuckDB file and its copy for readers are written anew. Needs no
    key: PolyAI is asked for nothing, and keeps its own. What a killed run has
    left to be done is done as well.
    """
    conversation_ids, callers = list(dict.fromkeys(conversation or ())), caller or []
    secret = shared_setting("pii_secret")
    if callers and shared_setting("pii") == "drop":
        logger.warning(
            "numbers are not kept (pii = drop): what is held of a caller is not found. Name the "
            "conversations too"
        )
    with open_to_read(destination, dataset) as warehouse:
        plan = planned(
            select(warehouse, conversation_ids, callers, agent_ids=agent or (), pii_secret=secret)
        )
    if dry_run:
        if as_json:
            print_json(show.erasures_as_json(plan, Exit.DONE, dry_run=True))
        else:
            show.plan(stdout, plan)
        return
    if not plan.agents:
        raise typer.BadParameter("name conversations, or a caller with --caller")
    if not yes:
        _ask(plan)
    pipeline = open_pipeline(destination, dataset, name=PIPELINE_NAME)
    with stop_on_signals(_ENDING) as stop:
        done = run_forget(
            pipeline,
            conversation_ids,
            callers,
            recordings_url=recordings_url or shared_setting("recordings_url"),
            readers=Readers(shared_setting("reporting_time_zone"), shared_setting("publish_to")),
            agent_ids=agent or (),
            reason=reason,
            pii_secret=secret,
            lock_wait=wait or shared_setting("lock_wait"),
            stop=stop,
        )
    is_done = done.error is None and not any(one.error for one in done.agents)
    if stop.is_set() and len(done.agents) < len(plan.agents):
        code = Exit.INTERRUPTED
    else:
        code = Exit.DONE if is_done else Exit.CONFIGURATION
    if as_json:
        print_json(show.erasures_as_json(done, code, dry_run=False))
    else:
        show.erasures(stdout, done, place(pipeline))
    print_failed(done.agents)
    if done.error:
        print_error(done.error)
    raise typer.Exit(code)


def _ask(plan: Erasures) -> None:
    """Asks whether that is meant.

    Raises:
        typer.BadParameter: Nobody is there to answer.
        typer.Abort: It is not.
    """
    show.plan(stderr, plan)
    if not sys.stdin.isatty():
        raise typer.BadParameter("it cannot be undone: say that it is meant with --yes")
    typer.confirm("It cannot be undone. Erase?", abort=True, err=True)
