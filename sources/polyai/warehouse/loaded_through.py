"""API that the loaded conversations of an agent came from."""

from __future__ import annotations

from ..config.agent import DATA, V3
from ..listing.v3 import WITH_DETAIL
from .fallback import fallback
from .held import OF_LOADS
from .queries import Warehouse


def loaded_through(warehouse: Warehouse, agent_id: str) -> tuple[str, bool] | None:
    """Returns the API from which `load` last read a conversation of the agent.

    Backfills do not count: they often go through the faster API. After a load in place of a listing
    that was gone, it is the API of that listing.

    Returns:
        `source_api`, and whether the detail was read too; None if `load` has brought nothing, or
        nothing but in place of a listing that was gone.
    """
    replaced = fallback(warehouse, agent_id)
    if replaced is not None and replaced.since is None:
        return None
    only = f" AND source_api = '{replaced.replaced_api}'" if replaced is not None else ""
    rows = warehouse.rows(
        "SELECT source_api, summary_hash FROM {conversations} "
        f"WHERE agent_id = %s AND _dlt_load_id IN ({OF_LOADS}){only} "
        "ORDER BY fetched_at DESC LIMIT 1",
        agent_id,
    )
    if not rows:
        return (replaced.replaced_api, replaced.replaced_api == DATA) if replaced else None
    source_api, summary_hash = rows[0]
    if source_api != V3:
        return DATA, True
    return V3, (summary_hash or "").endswith(WITH_DETAIL)
