"""Command `polyai-warehouse forget`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

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
from ..console.terminal import print_error, print_failed, print_json, print_on_hold, stderr, stdout
from ..warehouse.open import destination_label
from ..warehouse.target import Target
from . import show
from .command import NO_RECEIPT_OF_PLAN, erase, plan_erasure
from .erasures import Erasures
from .receipt import check_receipt
from .run import PIPELINE_NAME
from .selection import Mentions

_STOP_MESSAGE = "stopping after this agent, the next forget completes the rest"


def forget(
    conversation: Annotated[
        list[str] | None,
        typer.Argument(metavar="[CONVERSATION]...", help="Conversation ids."),
    ] = None,
    caller: Annotated[
        list[str] | None,
        typer.Option("--caller", help="All conversations of this phone number. Repeatable."),
    ] = None,
    mentions: Annotated[
        bool,
        typer.Option(
            "--mentions", help="Erase other conversations too in which the caller is mentioned."
        ),
    ] = False,
    reason: Annotated[
        str | None, typer.Option(help="Reason, such as a request number; stored in `forgotten`.")
    ] = None,
    receipt: Annotated[
        Path | None,
        typer.Option(
            dir_okay=False, help="Write a receipt for an auditor, as JSON, to this new file."
        ),
    ] = None,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    agent: LoadedAgentOption = None,
    recordings_url: RecordingsUrlOption = None,
    wait: LockWaitOption = None,
    destination: DestinationOption = None,
    dataset: DatasetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Erase conversations or callers, and never load them again.

    Erases rows of all tables, recordings with their manifest, and packages
    that are not loaded yet; rewrites a DuckDB file and its published copy.
    Also completes erasures of killed runs. What is on legal hold, or under the
    Object Lock of a bucket, stays, and is named (exit 3). Needs no API key: data
    at PolyAI is not deleted.
    """
    conversations, callers = conversation or (), caller or ()
    if mentions and not callers:
        raise typer.BadParameter("--mentions needs a caller: --caller")
    if receipt is not None:
        if dry_run:
            raise typer.BadParameter(NO_RECEIPT_OF_PLAN, param_hint="--receipt")
        check_receipt(receipt)
    treatment: Mentions = "erase" if mentions else "list"
    target = Target(destination, dataset)
    plan = plan_erasure(
        conversations=conversations,
        callers=callers,
        agents=agent or (),
        mentions=treatment if dry_run or not yes else "ignore",
        target=target,
    )
    if dry_run or (plan.is_only_on_hold and receipt is None):
        if as_json:
            print_json(show.erasures_as_json(plan, plan.exit_code, dry_run=dry_run))
        else:
            show.plan(stdout, plan)
        _print_left(plan)
        raise typer.Exit(plan.exit_code)
    if not plan.agents:
        raise typer.BadParameter("give conversation ids, or a caller with --caller")
    if not yes:
        show.plan(stderr, plan)
        confirm("erasing cannot be undone: confirm with --yes", "This cannot be undone. Erase?")
    with stop_on_signals(_STOP_MESSAGE) as stop:
        done = erase(
            conversations=conversations,
            callers=callers,
            agents=agent or (),
            mentions=treatment,
            reason=reason,
            recordings_url=recordings_url,
            receipt=receipt,
            wait=wait,
            target=target,
            stop=stop,
        )
    if as_json:
        print_json(show.erasures_as_json(done, done.exit_code, dry_run=False))
    else:
        show.erasures(stdout, done, destination_label(target.open(PIPELINE_NAME)))
    print_failed(done.agents)
    _print_left(done)
    if done.error:
        print_error(done.error)
    raise typer.Exit(done.exit_code)


def _print_left(done: Erasures) -> None:
    print_on_hold(left for one in done.agents for left in (one.on_hold, one.callers_on_hold))
    for line in show.not_found(done):
        print_error(line)
