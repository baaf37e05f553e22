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
from ..warehouse.open import destination_label, open_pipeline
from ..warehouse.read_only import open_to_read
from . import show
from .run import PIPELINE_NAME, Erasures, Readers, planned
from .run import forget as run_forget
from .selection import select

logger = logging.getLogger("polyai")

_STOP_MESSAGE = "stopping after this agent; the next forget completes the rest"


def forget(
    conversation: Annotated[
        list[str] | None,
        typer.Argument(metavar="[CONVERSATION]...", help="Conversation ids."),
    ] = None,
    caller: Annotated[
        list[str] | None,
        typer.Option("--caller", help="All conversations of this phone number. Repeatable."),
    ] = None,
    reason: Annotated[
        str | None, typer.Option(help="Reason, such as a request number; stored in `forgotten`.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only list what would be erased.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    agent: Annotated[
        list[str] | None,
        typer.Option("--agent", help="Only this agent. Repeatable. Default: all in the warehouse."),
    ] = None,
    recordings_url: RecordingsUrlOption = None,
    wait: LockWaitOption = None,
    destination: DestinationOption = None,
    dataset: DatasetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Erase conversations or callers, and never load them again.

    Erases rows of all tables, recordings with their manifest, and packages
    that are not loaded yet; rewrites a DuckDB file and its published copy.
    Also completes erasures of killed runs. Needs no API key: data at PolyAI is
    not deleted.
    """
    conversation_ids, callers = list(dict.fromkeys(conversation or ())), caller or []
    secret = shared_setting("pii_secret")
    if callers and shared_setting("pii") == "drop":
        logger.warning(
            "phone numbers are not stored (pii = drop), so the conversations of a caller cannot be "
            "found: pass their conversation ids too"
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
        raise typer.BadParameter("give conversation ids, or a caller with --caller")
    if not yes:
        _confirm(plan)
    pipeline = open_pipeline(destination, dataset, name=PIPELINE_NAME)
    with stop_on_signals(_STOP_MESSAGE) as stop:
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
        show.erasures(stdout, done, destination_label(pipeline))
    print_failed(done.agents)
    if done.error:
        print_error(done.error)
    raise typer.Exit(code)


def _confirm(plan: Erasures) -> None:
    """Asks for confirmation.

    Raises:
        typer.BadParameter: The input is not a terminal.
        typer.Abort: The answer is no.
    """
    show.plan(stderr, plan)
    if not sys.stdin.isatty():
        raise typer.BadParameter("erasing cannot be undone: confirm with --yes")
    typer.confirm("This cannot be undone. Erase?", abort=True, err=True)
