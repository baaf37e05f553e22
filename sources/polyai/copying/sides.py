"""Sides of a copy: their places, agents and locks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import dlt

from ..debug_chats import result_store as debug_chats
from ..errors import BusyError
from ..load.committer import Committer, open_committer
from ..load.run import LOCK_ENDING
from ..locking.files import LockTimeout, database_lock
from ..recordings import run as recordings
from ..tables.registry import tables
from ..warehouse.duckdb_file import duckdb_path
from ..warehouse.ducklake import DUCKLAKE, places
from ..warehouse.queries import Warehouse
from ..write_backs import run as write_backs

_OTHER_LOCK_ENDINGS = (
    recordings.LOCK_ENDING,
    write_backs.LOCK_ENDING,
    debug_chats.LOCK_ENDING,
)
"""Lock files of the other commands that write rows into a DuckDB file.

Backfills are not locked out; if one commits meanwhile, the comparison at the end finds it.
"""


def agents(warehouse: Warehouse) -> list[str]:
    """Returns the agents with rows in any table."""
    found: set[str] = set()
    for table in tables():
        rows = warehouse.rows(f"SELECT DISTINCT agent_id FROM {{{table.name}}}")
        found.update(agent_id for (agent_id,) in rows)
    return sorted(found)


def place(pipeline: dlt.Pipeline) -> tuple[object, ...]:
    """Returns what distinguishes the datasets of all destinations."""
    kind, dataset = pipeline.destination.destination_type, pipeline.dataset_name
    if (database := duckdb_path(pipeline)) is not None:
        return kind, database, dataset
    config: Any = pipeline.destination_client().config
    if kind == DUCKLAKE:
        return kind, places(config), dataset
    credentials = config.credentials
    host, name = getattr(credentials, "host", None), getattr(credentials, "database", None)
    if name and not host:
        name = Path(name).resolve()
    return kind, host, getattr(credentials, "port", None), name, dataset


@contextmanager
def exclusive_committer(
    pipeline: dlt.Pipeline, timeout: LockTimeout, agent_ids: Callable[[], list[str]]
) -> Iterator[Committer]:
    """Opens a committer, and locks out all other runs that write rows."""

    def lease_names() -> list[str]:
        return [
            name
            for agent_id in agent_ids()
            for name in (
                agent_id,
                recordings.lease_name(agent_id),
                write_backs.lease_name(agent_id),
                debug_chats.lease_name(agent_id),
            )
        ]

    with ExitStack() as locks:
        for ending in _OTHER_LOCK_ENDINGS:
            locks.enter_context(database_lock(pipeline, timeout, ending))
        committer, others = locks.enter_context(
            open_committer(pipeline, LOCK_ENDING, lease_names, timeout)
        )
        for name, holder in others.items():
            raise BusyError(f"{holder} holds the lease on {name}")
        yield committer
