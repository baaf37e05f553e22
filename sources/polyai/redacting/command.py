"""Redaction of what is loaded as a function, for the command, scripts and orchestrators."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import timedelta

from ..config.settings import privacy_settings, shared_setting
from ..shape.column_rules import ColumnRules
from ..warehouse.read_only import open_to_read
from ..warehouse.target import DEFAULT_TARGET, Target
from . import run
from .run import PIPELINE_NAME, Privacy, Redactions


def redact(
    *,
    agents: Sequence[str] = (),
    dry_run: bool = False,
    wait: timedelta | None = None,
    target: Target = DEFAULT_TARGET,
    stop: threading.Event | None = None,
) -> Redactions:
    """Converts what is loaded to the settings `pii` and `transcripts`, which have become stricter.

    All rows then are as if they had been loaded under these settings. Rewrites a DuckDB file and
    makes its copies for readers again. Cannot be undone. Needs no API key, sends no request, and
    asks for no confirmation. Can be killed at any time and run again.

    Args:
        agents: Only these agents. Default: all agents in the warehouse.
        dry_run: Count the rows that would change; change nothing.
        wait: How long to wait for other runs; no other run may write meanwhile. Default: the
            setting `lock_wait`.
        target: The warehouse.
        stop: When set, the run ends before the next part.

    Returns:
        The conversion of each agent.

    Raises:
        BusyError: Another run writes into the warehouse.
        ConfigurationError: A setting is wrong, or nothing is to be redacted; what is loaded is
            stricter already; or an agent is unknown.
        DestinationError: There is no warehouse, or it cannot be read or written.
        LeaseLostError: Another machine has taken over this run's lease.
    """
    rules = ColumnRules.named(shared_setting("keep_columns"), shared_setting("drop_columns"))
    privacy = Privacy(*privacy_settings(), rules)
    # also says where there is no warehouse, rather than create one
    with open_to_read(target.destination, target.dataset) as warehouse:
        if dry_run:
            return run.plan(warehouse, privacy, agents)
    return run.redact(
        target.open(PIPELINE_NAME),
        privacy,
        agents,
        lock_wait=shared_setting("lock_wait") if wait is None else wait,
        stop=stop,
    )
