"""Retention as a function, for the command, scripts and orchestrators."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import timedelta

from ..config.settings import retention_ages, shared_setting
from ..errors import ConfigurationError
from ..views.copies import copies
from ..warehouse.duckdb_file import duckdb_path
from ..warehouse.holds import HoldKeys
from ..warehouse.read_only import open_to_read
from ..warehouse.target import DEFAULT_TARGET, Target
from . import run
from .result import Retention
from .run import Rules


def prune(
    *,
    agents: Sequence[str] = (),
    dry_run: bool = False,
    recordings_url: str | None = None,
    wait: timedelta | None = None,
    target: Target = DEFAULT_TARGET,
    stop: threading.Event | None = None,
) -> Retention:
    """Deletes conversations, recordings and words that are too old, as each `load` does at its end.

    The settings `retention`, `retention_recordings` and `retention_transcripts` are ages after the
    end of a conversation, in whole days (UTC). What was deleted is not loaded again. Rewrites a
    DuckDB file and makes its copies for readers again, if anything was deleted. What is on legal
    hold stays. Needs no API key and sends no request.

    Args:
        agents: Only these agents. Default: all agents in the warehouse.
        dry_run: Count what would be deleted, by table; change nothing.
        recordings_url: Folder or fsspec URL of the recordings. Default: the setting.
        wait: How long to wait for other runs; no other run may write meanwhile. Default: the
            setting `lock_wait`.
        target: The warehouse.
        stop: When set, the run ends before the next part.

    Returns:
        One result per agent.

    Raises:
        BusyError: Another run writes into the warehouse.
        ConfigurationError: A setting is wrong, or none of retention is set.
        DestinationError: There is no warehouse, or it cannot be read or written.
        LeaseLostError: Another machine has taken over this run's lease.
        StoreError: Recordings cannot be deleted.
    """
    ages = retention_ages()
    if not ages:
        raise ConfigurationError(
            "no retention is set: set POLYAI_RETENTION, POLYAI_RETENTION_RECORDINGS or "
            "POLYAI_RETENTION_TRANSCRIPTS to an age, such as 400d"
        )
    rules = Rules(
        ages,
        HoldKeys(shared_setting("pii_secret"), shared_setting("phone_region")),
        recordings_url or shared_setting("recordings_url"),
        shared_setting("lock_wait") if wait is None else wait,
    )
    # also says where there is no warehouse, rather than create one
    with open_to_read(target.destination, target.dataset) as warehouse:
        if dry_run:
            pipeline = target.open(run.PIPELINE_NAME)
            database = duckdb_path(pipeline)
            found = () if database is None else copies(pipeline, database)
            places = [str(one.at(database)) for one in found if database is not None]
            return run.plan(warehouse, rules, agents, copies=places)
    return run.apply(target, rules, agents, stop=stop)
