"""Privacy modes of the rows of a warehouse, as its runs recorded them."""

from __future__ import annotations

from ..shape.privacy_mode import PrivacyMode
from ..tables.audit import SYNC_RUNS
from .queries import Warehouse

REDACT = "redact"
"""Value of `command` in `sync_runs` of runs that convert what is loaded to a stricter mode."""


def privacy_modes(warehouse: Warehouse, agent_id: str) -> frozenset[PrivacyMode]:
    """Returns the privacy modes of the rows of an agent; none if no run recorded one.

    Runs that were over when the newest complete `redact` began do not count, because that has
    converted their rows. Version 0.1 recorded no modes.
    """
    names = PrivacyMode._fields
    if not warehouse.has_columns(SYNC_RUNS.name, names):
        return frozenset()
    redacted = warehouse.rows(
        "SELECT max(started_at) FROM {sync_runs} WHERE agent_id = %s AND command = %s "
        "AND status = 'complete'",
        agent_id,
        REDACT,
    )
    since = [began for (began,) in redacted if began is not None]
    # a killed run has no end, but no run except a slice can go on beside `redact`
    condition = " AND coalesce(finished_at, started_at) >= %s" if since else ""
    found = warehouse.rows(
        f"SELECT DISTINCT {', '.join(names)} FROM {{sync_runs}} "
        f"WHERE agent_id = %s AND pii IS NOT NULL{condition}",
        agent_id,
        *since,
    )
    return frozenset(map(PrivacyMode._make, found))


def has_loads(warehouse: Warehouse, agent_id: str) -> bool:
    """Returns whether a run has loaded the agent, whether it recorded its mode or not."""
    found = warehouse.rows(
        "SELECT run_id FROM {sync_runs} WHERE agent_id = %s "
        "AND command IN ('load', 'backfill') LIMIT 1",
        agent_id,
    )
    return bool(found)
