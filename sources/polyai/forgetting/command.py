"""Erasure as a function, for the command, scripts and orchestrators."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from ..config.settings import shared_setting
from ..errors import ConfigurationError
from ..warehouse.open import destination_label
from ..warehouse.read_only import open_to_read
from ..warehouse.target import DEFAULT_TARGET, Target
from . import run
from .erasures import Erasures
from .ledger import open_ledger
from .receipt import check_receipt, receipt_of, write_receipt
from .run import PIPELINE_NAME, Readers
from .selection import Mentions, select

logger = logging.getLogger("polyai")

NO_RECEIPT_OF_PLAN = "a receipt is of an erasure, not of a plan: --json has the plan"


def forget(
    *conversations: str,
    callers: Sequence[str] = (),
    agents: Sequence[str] = (),
    mentions: bool = False,
    reason: str | None = None,
    dry_run: bool = False,
    recordings_url: str | None = None,
    receipt: Path | None = None,
    wait: timedelta | None = None,
    target: Target = DEFAULT_TARGET,
    stop: threading.Event | None = None,
) -> Erasures:
    """Erases conversations, or all of a caller, and keeps later loads from restoring them.

    Erases rows of all tables, recordings with their manifest entries, and packages that wait to be
    loaded; rewrites a DuckDB file and its published copy. Needs no API key and no confirmation;
    does not erase anything at PolyAI. Also completes the work of a killed run.

    Args:
        conversations: Conversation ids, loaded or not.
        callers: Phone numbers. Conversations until now are not loaded again; later ones are.
        agents: Only these agents. Default: all agents in the warehouse.
        mentions: Erase other conversations too in which a caller is mentioned. They are listed in
            any case.
        reason: Saved in the table `forgotten`.
        dry_run: Report what would be erased; change nothing.
        recordings_url: Folder or fsspec URL of the recordings. Default: the setting.
        receipt: File that is written at the end, for an auditor: what was erased, when and where,
            without personal data. Must not exist; not for a `dry_run`.
        wait: How long to wait for other runs; no other run may write meanwhile. Default: the
            setting `lock_wait`.
        target: The warehouse.
        stop: When set, the run ends before the next agent.

    Returns:
        One report per agent; a failed agent does not stop the others. Empty if there is nothing to
        erase.

    Raises:
        BusyError: Another run writes into the warehouse.
        ConfigurationError: A setting is wrong, an agent is unknown, or the receipt cannot be
            written.
        DestinationError: There is no warehouse, or it cannot be read or written.
        LeaseLostError: Another machine has taken over this run's lease.
        StoreError: The ledger of erasures cannot be read.
    """
    if receipt is not None:
        if dry_run:
            raise ConfigurationError(NO_RECEIPT_OF_PLAN)
        check_receipt(receipt)
    plan = plan_erasure(
        conversations=conversations,
        callers=callers,
        agents=agents,
        mentions=_mentions(erase=mentions) if dry_run else "ignore",
        target=target,
    )
    if dry_run or not plan.agents or (plan.is_only_on_hold and receipt is None):
        return plan
    return erase(
        conversations=conversations,
        callers=callers,
        agents=agents,
        mentions=_mentions(erase=mentions),
        reason=reason,
        recordings_url=recordings_url,
        receipt=receipt,
        wait=wait,
        target=target,
        stop=stop,
    )


def plan_erasure(
    *,
    conversations: Sequence[str],
    callers: Sequence[str],
    agents: Sequence[str],
    mentions: Mentions,
    target: Target,
) -> Erasures:
    """Reports what `forget` would erase, and warns if callers cannot be found."""
    if callers and shared_setting("pii") == "drop":
        logger.warning(
            "phone numbers are not stored (pii = drop), so the conversations of a caller cannot be "
            "found: pass their conversation ids too"
        )
    with open_to_read(target.destination, target.dataset) as warehouse:
        return Erasures.planned(
            select(
                warehouse,
                _unique(conversations),
                callers,
                agent_ids=agents,
                pii_secret=shared_setting("pii_secret"),
                phone_region=shared_setting("phone_region"),
                mentions=mentions,
                ledger=open_ledger(shared_setting("forget_ledger"), Path()),
            )
        )


def erase(
    *,
    conversations: Sequence[str],
    callers: Sequence[str],
    agents: Sequence[str],
    mentions: Mentions,
    reason: str | None,
    recordings_url: str | None,
    receipt: Path | None,
    wait: timedelta | None,
    target: Target,
    stop: threading.Event | None,
) -> Erasures:
    """Erases without a plan; see `forget`. The receipt has been checked."""
    pipeline = target.open(PIPELINE_NAME)
    done = run.forget(
        pipeline,
        _unique(conversations),
        callers,
        recordings_url=recordings_url or shared_setting("recordings_url"),
        readers=Readers(shared_setting("reporting_time_zone"), shared_setting("publish_to")),
        agent_ids=agents,
        reason=reason,
        pii_secret=shared_setting("pii_secret"),
        phone_region=shared_setting("phone_region"),
        mentions=mentions,
        forget_ledger=shared_setting("forget_ledger"),
        lock_wait=wait or shared_setting("lock_wait"),
        stop=stop,
    )
    if receipt is not None:
        content = receipt_of(
            done,
            conversations=_unique(conversations),
            callers=len(callers),
            erases_mentions=mentions == "erase",
            reason=reason,
            warehouse=destination_label(pipeline),
        )
        write_receipt(receipt, content)
    return done


def _mentions(*, erase: bool) -> Mentions:
    return "erase" if erase else "list"


def _unique(conversations: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(conversations))
