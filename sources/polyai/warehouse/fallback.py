"""Fallback: reading of an agent through one API because the listing of the other one was gone."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from ..clock import in_utc
from ..config.agent import DATA, V3
from ..listing.protocol import Listing
from ..listing.v3 import WITH_DETAIL
from ..tables.rules import complete_load_sql, has_read_all, missing
from .held import COMPLETE_PACKAGES, LOAD, OF_LOADS, LoadState
from .queries import Warehouse

_MAX_RUNS = 100
"""Limit of the runs that are looked at: newer than the last one through the usual listing."""


class Fallback(NamedTuple):
    """State of an agent whose newest runs read another API than it is usually read through.

    Attributes:
        replaced_api: API whose listing was gone.
        since: Start of the newest load that read everything through that API; None for never.
    """

    replaced_api: str
    since: datetime | None


def fallback(warehouse: Warehouse, agent_id: str) -> Fallback | None:
    """Returns the fallback that the newest runs of the agent were in; None if they were in none.

    It ends with a load that reads everything without one. A killed load has not recorded its
    fallback: it began with the Data API, and what was loaded last came from v3. v3 in turn is
    listed in whole by the Data API, with which such a load may go on.
    """
    if not warehouse.has_columns("sync_runs", ("replaced_api",)):
        return None  # written by an earlier version
    usual = "SELECT max(started_at) FROM {sync_runs} WHERE agent_id = %s AND replaced_api IS NULL "
    usual += f"AND {complete_load_sql()}"
    ((ended_at,),) = warehouse.rows(usual, agent_id)
    runs = warehouse.rows(
        "SELECT replaced_api FROM {sync_runs} WHERE agent_id = %s "
        "AND (replaced_api IS NOT NULL OR "
        f"(command = '{LOAD}' AND source_api = '{DATA}' AND status IN ('running', 'interrupted'))) "
        f"{'AND started_at > %s ' if ended_at else ''}ORDER BY started_at DESC LIMIT {_MAX_RUNS}",
        agent_id,
        *((in_utc(ended_at),) if ended_at else ()),
    )
    replaced_api = next((replaced for (replaced,) in runs if replaced), None)
    if replaced_api is None and runs:
        newest = warehouse.rows(
            "SELECT source_api FROM {conversations} "
            f"WHERE agent_id = %s AND _dlt_load_id IN ({OF_LOADS}) "
            "ORDER BY fetched_at DESC LIMIT 1",
            agent_id,
        )
        replaced_api = DATA if newest == [(V3,)] else None
    if replaced_api is None:
        return None
    ((since,),) = warehouse.rows(f"{usual} AND source_api = %s", agent_id, replaced_api)
    return Fallback(replaced_api, in_utc(since))


def listed_until(
    warehouse: LoadState,
    agent_id: str,
    listing: Listing,
    before: Fallback | None,
    now: datetime,
    *,
    details: bool,
    environments: int,
) -> datetime | None:
    """Returns the time up to which conversations have been listed, and read with details.

    That is the watermark. After a fallback, it is that of the last load before it: what has arrived
    since was listed by the other API only, which may list less.

    Args:
        warehouse: State of the load.
        agent_id: The agent.
        listing: The listing that continues there.
        before: Fallback that the newest runs were in.
        now: Current time.
        details: Whether details are read.
        environments: Number of environments that are listed one by one.

    Returns:
        None for the beginning.
    """
    if before is not None and before.replaced_api == listing.source_api:
        if before.since is None:
            return None
        now = min(now, before.since)
    watermark = warehouse.watermark(agent_id, listing.environment, now=now)
    if before is None:
        return watermark
    if watermark is None and before.replaced_api != listing.source_api:
        watermark = _walked_until(warehouse, agent_id, listing, environments)
    if watermark is None or not details:
        return watermark
    oldest = _oldest_without_detail(warehouse, agent_id, before.since)
    return min(watermark, oldest) if oldest else watermark


def _walked_until(
    warehouse: LoadState, agent_id: str, listing: Listing, environments: int
) -> datetime | None:
    """Returns the watermark of a load in place of another API that found nothing to load.

    It has walked over the whole list, of which backfills had loaded everything.
    """
    ((walked_at,),) = warehouse.rows(
        "SELECT max(started_at) FROM {sync_runs} WHERE agent_id = %s AND replaced_api IS NOT NULL "
        f"AND source_api = %s AND walks >= %s AND {complete_load_sql()}",
        agent_id,
        listing.source_api,
        environments,
    )
    if walked_at is None:
        return None
    rows = warehouse.rows(
        "SELECT max(created_at) FROM {conversations} WHERE agent_id = %s AND created_at <= %s "
        f"AND _dlt_load_id IN ({COMPLETE_PACKAGES})"
        f"{' AND environment = %s' if listing.environment else ''}",
        agent_id,
        in_utc(walked_at),
        *((listing.environment,) if listing.environment else ()),
    )
    return in_utc(rows[0][0]) if rows else None


def _oldest_without_detail(
    warehouse: Warehouse, agent_id: str, since: datetime | None
) -> datetime | None:
    """Returns the oldest `created_at` of conversations that v3 alone brought since a time."""
    rows = warehouse.rows(
        "SELECT min(created_at) FROM {conversations} WHERE agent_id = %s "
        f"AND source_api = '{V3}' AND summary_hash NOT LIKE %s"
        f"{' AND fetched_at >= %s' if since else ''}",
        agent_id,
        f"%{WITH_DETAIL}",
        *((since,) if since else ()),
    )
    return in_utc(rows[0][0]) if rows else None


def unlisted_environments(
    warehouse: Warehouse, agent_id: str, listed: Sequence[str]
) -> dict[str, int]:
    """Counts the loaded conversations of environments that are not listed, by environment."""
    marks = ", ".join(["%s"] * len(listed))
    return dict(
        warehouse.rows(
            "SELECT environment, count(*) FROM {conversations} "
            f"WHERE agent_id = %s AND environment NOT IN ({marks}) "
            "GROUP BY environment ORDER BY environment",
            agent_id,
            *listed,
        )
    )


class Count(NamedTuple):
    """Number of an agent's conversations, as an API reported it.

    Attributes:
        api_count: The number.
        counted_at: Time of the report, or earlier.
        unaccounted: Conversations that were missing then; None if not known.
    """

    api_count: int
    counted_at: datetime
    unaccounted: int | None = None


def last_count(warehouse: Warehouse, agent_id: str, run_id: str) -> Count | None:
    """Returns the newest count that a run has recorded, except for the run with this id."""
    rows = warehouse.rows(
        "SELECT api_count, started_at, unaccounted, command, status FROM {sync_runs} "
        "WHERE agent_id = %s AND run_id <> %s AND api_count IS NOT NULL "
        "ORDER BY started_at DESC LIMIT 1",
        agent_id,
        run_id,
    )
    if not rows:
        return None
    api_count, started_at, unaccounted, command, status = rows[0]
    is_final = command == LOAD and has_read_all(status)
    return Count(api_count, in_utc(started_at), unaccounted if is_final else None)


def missing_of(
    warehouse: Warehouse,
    agent_id: str,
    count: Count | None,
    *,
    erased: int,
    absent: int | None,
    pending: int,
    excess: int | None,
) -> int | None:
    """Returns how many of the counted conversations are missing; see `missing`.

    Conversations that are newer than the count do not stand in for missing ones.
    """
    if count is None:
        return None
    rows = warehouse.rows(
        "SELECT count(*) FROM {conversations} "
        "WHERE agent_id = %s AND (created_at <= %s OR created_at IS NULL)",
        agent_id,
        count.counted_at,
    )
    found = missing(
        count.api_count,
        int(rows[0][0]) if rows else 0,
        erased=erased,
        absent=absent,
        pending=pending,
        excess=excess,
    )
    if found is None or count.unaccounted is None:
        return found
    return min(found, count.unaccounted)
