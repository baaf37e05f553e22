"""Erasures of the ledger, applied again to a warehouse that was restored from a backup."""

from __future__ import annotations

import logging
import threading

from ..config.settings import Settings
from ..errors import BusyError, StoreError
from ..warehouse.duckdb_file import duckdb_path
from ..warehouse.queries import Warehouse
from ..warehouse.target import Target
from . import run
from .ledger import open_ledger
from .run import PIPELINE_NAME, Readers

logger = logging.getLogger("polyai")


def apply_ledger(settings: Settings, target: Target, stop: threading.Event) -> None:
    """Applies the erasures that the ledger has and the warehouse has not.

    For a load, before it reads anything, so that a restored backup brings nothing back. Two queries
    if there is nothing to do.

    Args:
        settings: Settings with `forget_ledger`, and agents that may not be loaded yet.
        target: The warehouse.
        stop: When set, the run ends before the next agent.

    Raises:
        BusyError: Another run writes into the warehouse.
        ConfigurationError: A setting is wrong.
        DestinationError: The destination cannot be read or written.
        StoreError: The ledger cannot be read, or an erasure cannot be completed.
    """
    pipeline = target.open(PIPELINE_NAME)
    ledger = open_ledger(settings.forget_ledger, pipeline.pipelines_dir)
    if ledger is None:
        return
    agent_ids = {agent.agent_id for agent in settings.agents}
    loaded: set[str] = set()
    database = duckdb_path(pipeline)
    if database is not None and not database.exists():
        pending = bool(ledger.read(agent_ids, frozenset()))
    else:
        warehouse = Warehouse(pipeline, locks_file=True)
        with warehouse.kept_open():
            runs = warehouse.rows("SELECT DISTINCT agent_id FROM {sync_runs}")
            loaded = {agent_id for (agent_id,) in runs}
            pending = bool(ledger.pending(warehouse, sorted(agent_ids | loaded)))
    if not pending:
        return
    logger.info("applying erasures of %s that the warehouse does not have", settings.forget_ledger)
    try:
        done = run.forget(
            pipeline,
            (),
            # a new warehouse knows no archive yet, and readers keep the copy of a lost one until
            # something is loaded
            recordings_url=settings.recordings_url if loaded else None,
            readers=Readers(settings.reporting_time_zone, settings.publish_to if loaded else None),
            agent_ids=sorted(agent_ids | loaded),
            pii_secret=settings.pii_secret,
            phone_region=settings.phone_region,
            forget_ledger=settings.forget_ledger,
            lock_wait=settings.lock_wait,
            stop=stop,
        )
    except BusyError:
        if not stop.is_set():
            raise
        return  # interrupted while it waited for the lock
    problems = [error for error in (done.error, *(one.error for one in done.agents)) if error]
    if problems:
        raise StoreError(
            f"erasures of {settings.forget_ledger} cannot be completed, so nothing was read: "
            f"{'; '.join(dict.fromkeys(problems))}"
        )
