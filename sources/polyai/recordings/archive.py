"""Queries over an agent's recordings in the warehouse: missing, stored, pruned."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any, NamedTuple

from ..clock import in_utc
from ..tables.recordings import RECORDINGS
from ..tables.rules import BEGAN_AT, ENDED_AT, PLACED_AT
from ..warehouse.held import PRUNE
from ..warehouse.queries import IDS_PER_QUERY, Warehouse
from .short import call_seconds_sql, is_short, short_sql

_WITHOUT_SOUND = ("%CHAT%", "%SMS%", "%RCS%", "%WHATSAPP%", "%MESSAG%", "%MAIL%")
"""Channels without recordings; those of an unknown channel are requested."""

ROWS_PER_DAYS = 5_000
"""Rows that are read together, of as many whole days as they make."""

_BEGINNING = datetime(1, 1, 2, tzinfo=UTC)

_FINISHED_CALLS = (
    f"SELECT conversation_id, {BEGAN_AT.sql()} AS began, {PLACED_AT.sql()} AS place, "
    f"{ENDED_AT.sql()} AS ended_at, {call_seconds_sql()} AS call_seconds FROM {{conversations}} "
    "WHERE agent_id = %s AND NOT coalesce(in_progress, FALSE)"
    + " AND upper(coalesce(channel, '')) NOT LIKE %s"
    * len(_WITHOUT_SOUND)
)


def agents_with_recordings(warehouse: Warehouse) -> list[str]:
    """Agents that have rows in `recordings`."""
    rows = warehouse.rows("SELECT DISTINCT agent_id FROM {recordings} ORDER BY agent_id")
    return [agent_id for (agent_id,) in rows]


class Kind(NamedTuple):
    """Variant of a conversation's recording."""

    direction: str
    redacted: bool


class Due(NamedTuple):
    """Conversation with a missing recording.

    Attributes:
        conversation_id: The conversation.
        began: Its start; None if unknown.
        ended_at: Its end; None if unknown.
        rows: Its known recordings, as rows of `recordings`.
        call_seconds: Length of the part that is recorded; None if unknown.
    """

    conversation_id: str
    began: datetime | None
    ended_at: datetime | None
    rows: Mapping[Kind, Mapping[str, Any]]
    call_seconds: float | None = None

    def lacks(self, kind: Kind, wait: timedelta) -> bool:
        """Returns whether this recording is not stored, or too short, and may still appear."""
        row = self.rows.get(kind, {})
        if row.get("status") == "stored":
            return self.is_short(kind) and is_awaited(row, self.ended_at, wait)
        if row.get("status") == "not_found" and self.ended_at is not None:
            return is_awaited(row, self.ended_at, wait)
        return True

    def is_short(self, kind: Kind) -> bool:
        """Returns whether this recording is stored and much shorter than the call."""
        row = self.rows.get(kind, {})
        return row.get("status") == "stored" and is_short(
            self.call_seconds, row["duration_seconds"]
        )


class Short(NamedTuple):
    """Stored recording that is much shorter than its call.

    Attributes:
        row: Row of `recordings`.
        ended_at: End of the call; None if unknown.
        call_seconds: Length of the part that is recorded.
    """

    row: dict[str, Any]
    ended_at: datetime | None
    call_seconds: float


def is_awaited(row: Mapping[str, Any], ended_at: datetime | None, wait: timedelta) -> bool:
    """Returns whether a recording that has not appeared as a whole is still requested.

    The last request is the first one that comes `wait` after the end of the call.
    """
    return ended_at is not None and bool(row["fetched_at"] < ended_at + wait)


class Archive:
    """One agent's recordings in the warehouse.

    Args:
        warehouse: The warehouse.
        agent_id: The agent.
        not_before: Start of the oldest calls whose recordings are downloaded, by the setting
            `retention_recordings`.
    """

    def __init__(
        self, warehouse: Warehouse, agent_id: str, not_before: datetime | None = None
    ) -> None:
        self._not_before = not_before
        self._warehouse = warehouse
        self._agent_id = agent_id

    def due(self, kinds: Sequence[Kind], wait: timedelta) -> Iterator[Due]:
        """Yields finished calls that lack one of these recordings, oldest first.

        A recording is missing until it is stored and not much shorter than its call, or was still
        so, or not found, `wait` after the call's end.
        """
        names = RECORDINGS.arrow_schema.names
        last_place, last_id = self._first_place(), ""
        while True:
            sql, parameters = self._lacking(kinds, wait, last_place, last_id)
            # a join, because DuckDB is slow with many parameters
            rows = self._warehouse.rows(
                f"SELECT d.*, {', '.join(f'r.{name}' for name in names)} "
                f"FROM ({sql} ORDER BY c.place, c.conversation_id LIMIT {IDS_PER_QUERY}) d "
                "LEFT JOIN {recordings} r "
                "ON r.conversation_id = d.conversation_id AND r.agent_id = %s "
                "ORDER BY d.place, d.conversation_id",
                *parameters,
                self._agent_id,
            )
            calls = 0
            for call, group in groupby(rows, key=lambda row: row[:5]):
                last_id, began, ended_at, last_place, call_seconds = call
                calls += 1
                found = [_with_times(dict(zip(names, row[5:]))) for row in group]
                known = {
                    Kind(row["direction"], row["redacted"]): row
                    for row in found
                    if row["direction"] is not None
                }
                yield Due(last_id, in_utc(began), in_utc(ended_at), known, call_seconds)
            if calls < IDS_PER_QUERY:
                return

    def count_due(self, kinds: Sequence[Kind], wait: timedelta) -> int:
        """Number of calls that `due` yields."""
        begin = self._first_place()
        sql, parameters = self._lacking(kinds, wait, begin, "")
        found = self._warehouse.rows(f"SELECT count(*) FROM ({sql}) d", *parameters)
        return int(found[0][0]) if found else 0

    def _lacking(
        self, kinds: Sequence[Kind], wait: timedelta, place: datetime, last_id: str
    ) -> tuple[str, list[object]]:
        """SQL, with parameters, for the calls after a position that lack a recording."""
        wanted = " OR ".join(["(direction = %s AND redacted = %s)"] * len(kinds))
        old_enough = self._warehouse.later("c.ended_at", wait)
        columns = "c.conversation_id, c.began, c.ended_at, c.place, c.call_seconds"
        too_short = short_sql("c.call_seconds", "r.seconds")
        sql = (
            f"SELECT {columns} FROM ({_FINISHED_CALLS}) c "
            "LEFT JOIN (SELECT conversation_id AS asked_id, status, fetched_at AS asked_at, "
            "duration_seconds AS seconds "
            f"FROM {{recordings}} WHERE agent_id = %s AND ({wanted})) r "
            "ON r.asked_id = c.conversation_id AND ((r.status = 'stored' "
            f"AND NOT ({too_short} AND coalesce(r.asked_at < {old_enough}, FALSE))) "
            f"OR (r.status = 'not_found' AND r.asked_at >= {old_enough})) "
            "WHERE c.place > %s OR (c.place = %s AND c.conversation_id > %s) "
            f"GROUP BY {columns} "
            f"HAVING count(r.asked_id) < {len(kinds)}"
        )
        parameters: list[object] = [self._agent_id, *_WITHOUT_SOUND, self._agent_id]
        parameters += [value for kind in kinds for value in kind]
        return sql, [*parameters, place, place, last_id]

    def short(self) -> list[Short]:
        """Stored recordings that are much shorter than their calls, oldest first."""
        names = RECORDINGS.arrow_schema.names
        rows = self._warehouse.rows(
            f"SELECT {', '.join(f'r.{name}' for name in names)}, c.ended_at, c.call_seconds "
            "FROM {recordings} r JOIN (SELECT agent_id, conversation_id AS call_id, "
            f"{ENDED_AT.sql()} AS ended_at, {call_seconds_sql()} AS call_seconds "
            "FROM {conversations}) c ON c.call_id = r.conversation_id AND c.agent_id = r.agent_id "
            f"WHERE r.agent_id = %s AND r.status = 'stored' "
            f"AND {short_sql('c.call_seconds', 'r.duration_seconds')} "
            "ORDER BY r.started_at, r.conversation_id",
            self._agent_id,
        )
        return [Short(_with_times(dict(zip(names, row))), in_utc(row[-2]), row[-1]) for row in rows]

    def _first_place(self) -> datetime:
        limits = (self.pruned_before(), self._not_before, _BEGINNING)
        return max(time for time in limits if time is not None)

    def pruned_before(self) -> datetime | None:
        """Limit of the last pruning: older recordings are not downloaded again."""
        rows = self._warehouse.rows(
            "SELECT max(range_to) FROM {sync_runs} WHERE agent_id = %s AND command = %s",
            self._agent_id,
            PRUNE,
        )
        return in_utc(rows[0][0]) if rows else None

    def days(self, before: datetime | None = None) -> Iterator[list[dict[str, Any]]]:
        """Yields the rows of the agent's recordings, one day (UTC) of conversations at a time.

        Args:
            before: Only conversations that began before; None for all, including those whose
                start is unknown.
        """
        end = before or datetime.max.replace(tzinfo=UTC)
        place = _BEGINNING
        while rows := self._rows(
            "started_at >= %s AND started_at < %s",
            place,
            end,
            rest=f"ORDER BY started_at LIMIT {ROWS_PER_DAYS}",
        ):
            days = [list(day) for _, day in groupby(rows, key=lambda row: row["started_at"].date())]
            if len(rows) == ROWS_PER_DAYS:
                # the last day may have more
                last = days.pop()
                if not days:
                    first = last[0]["started_at"]
                    bounds = (first, min(end, next_day(first)))
                    days = [self._rows("started_at >= %s AND started_at < %s", *bounds)]
            yield from days
            place = next_day(days[-1][0]["started_at"])
        if before is None and (rows := self._rows("started_at IS NULL")):
            yield rows

    def _rows(self, condition: str, *bounds: datetime, rest: str = "") -> list[dict[str, Any]]:
        names = RECORDINGS.arrow_schema.names
        rows = self._warehouse.rows(
            f"SELECT {', '.join(names)} FROM {{recordings}} WHERE agent_id = %s AND {condition} "
            f"{rest}",
            self._agent_id,
            *bounds,
        )
        return [_with_times(dict(zip(names, row))) for row in rows]


def next_day(moment: datetime) -> datetime:
    """Start of the next day, in the moment's time zone."""
    day = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    return day + timedelta(days=1)


def _with_times(row: dict[str, Any]) -> dict[str, Any]:
    """Converts the row's times to UTC."""
    times = ("started_at", "fetched_at")
    return row | {name: in_utc(row[name]) for name in times if name in row}
