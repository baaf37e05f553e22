"""Queries of `sync_runs`: what earlier runs read, and how they ended."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from ..clock import in_utc
from ..errors import DestinationError
from ..tables.audit import SYNC_RUNS
from ..tables.declaration import LOAD_ID
from ..tables.rules import complete_load_sql
from .queries import Warehouse


class WholeWalks(NamedTuple):
    """Facts about the whole list of an agent, as recorded by loads; None where unknown.

    Attributes:
        count_excess: Newest known `sync_runs.count_excess`.
        absent: Newest known `sync_runs.absent`.
        unaccounted: `sync_runs.unaccounted` of the newest load that walked over the whole list.
        walked_at: Start of that load.
    """

    count_excess: int | None = None
    absent: int | None = None
    unaccounted: int | None = None
    walked_at: datetime | None = None


class RunHistory(Warehouse):
    """Warehouse as the history of the runs. All times are in UTC."""

    def unfinished_runs(self, agent_id: str, commands: Sequence[str]) -> list[dict[str, Any]]:
        """Returns the rows of `sync_runs` with status `running`: in progress or killed.

        Args:
            agent_id: The agent.
            commands: Only runs of these commands.

        Returns:
            Rows by column, without JSON columns.
        """
        names = [
            column.name
            for column in SYNC_RUNS.columns
            if column.type != "json" and column.name != LOAD_ID
        ]
        rows = self.rows(
            f"SELECT {', '.join(names)} FROM {{sync_runs}} "
            "WHERE agent_id = %s AND status = 'running' "
            f"AND command IN ({', '.join(['%s'] * len(commands))})",
            agent_id,
            *commands,
        )
        return [dict(zip(names, row)) for row in rows]

    def last_complete_run(self, agent_id: str, now: datetime) -> datetime | None:
        """Returns the start of the newest `load` that fetched all that was due.

        Args:
            agent_id: The agent.
            now: Current time. A run in the future, of a machine whose clock was wrong, is ignored.
        """
        rows = self.rows(
            "SELECT max(started_at) FROM {sync_runs} WHERE agent_id = %s "
            f"AND started_at <= %s AND {complete_load_sql()}",
            agent_id,
            now,
        )
        return in_utc(rows[0][0]) if rows else None

    def names_read_at(self, agent_id: str, now: datetime) -> datetime | None:
        """Returns the time at which a run last requested the names behind ids; None for never.

        Args:
            agent_id: The agent.
            now: Current time; a run in the future is ignored.
        """
        rows = self.rows(
            "SELECT max(names_read_at) FROM {sync_runs} "
            "WHERE agent_id = %s AND names_read_at <= %s",
            agent_id,
            now,
        )
        return in_utc(rows[0][0]) if rows else None

    def was_interrupted_at_first(self, agent_id: str, run_id: str) -> bool:
        """Returns whether loads of the agent began, and none of them has read everything.

        Args:
            agent_id: The agent.
            run_id: Current run, which does not count.
        """
        rows = self.rows(
            f"SELECT count(*), sum(CASE WHEN {complete_load_sql()} THEN 1 ELSE 0 END) "
            "FROM {sync_runs} WHERE agent_id = %s AND run_id <> %s AND command = 'load'",
            agent_id,
            run_id,
        )
        return bool(rows and rows[0][0] and not rows[0][1])

    def whole_walks(self, agent_id: str, now: datetime) -> WholeWalks:
        """Returns what loads recorded about the whole list of the agent.

        Loads in place of a listing that was gone do not count: they may list less.

        Args:
            agent_id: The agent.
            now: Current time; a run in the future is ignored.
        """
        try:
            rows = self.rows(
                "SELECT started_at, count_excess, absent, unaccounted, walks FROM {sync_runs} "
                f"WHERE agent_id = %s AND started_at <= %s AND {complete_load_sql()} "
                "AND replaced_api IS NULL "
                "AND (absent IS NOT NULL OR count_excess IS NOT NULL OR walks > 0) "
                "ORDER BY started_at DESC LIMIT 1000",
                agent_id,
                now,
            )
        except DestinationError:
            # written by an earlier version; the next run's row adds the columns
            return WholeWalks()
        walked = next((row for row in rows if row[4]), None)
        return WholeWalks(
            count_excess=next((row[1] for row in rows if row[1] is not None), None),
            absent=next((row[2] for row in rows if row[2] is not None), None),
            unaccounted=walked[3] if walked else None,
            walked_at=in_utc(walked[0]) if walked else None,
        )
