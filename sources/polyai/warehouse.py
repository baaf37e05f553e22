"""The destination as the state of the load: what is held, what failed, what is due."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any, TypeVar

import dlt
import pyarrow as pa
from dlt.common.destination.dataset import DBApiCursor
from dlt.destinations.exceptions import DatabaseUndefinedRelation
from dlt.destinations.sql_client import SqlClientBase

from .answers import Held, NoteVersion
from .destination import destination_errors, when_unlocked
from .dialects import parsed, worded
from .errors import DestinationError
from .schema import LOAD_ID
from .tables import SYNC_RUNS

T = TypeVar("T")

IDS_A_QUERY = 1_000
"""Ids in one `IN` list; every destination takes that many."""

ROWS_A_QUERY = 50_000
"""Rows of one column that are read together."""

COMPLETE_PACKAGES = "SELECT DISTINCT load_id FROM {_dlt_loads} WHERE status = 0"
"""Query for the load packages of which every table was written."""

NOT_FOUND = 404
"""HTTP status of what the API does not have."""


@dataclass(frozen=True)
class Failure:
    """An open row of `fetch_failures`."""

    attempts: int
    first_failed_at: datetime


class Warehouse:
    """Reads of one destination dataset what a load has to know, a bounded part at a time.

    A conversation counts as held once the load package that wrote it is complete: after a run
    that was killed between two tables it is read again, also on another machine.
    """

    def __init__(self, pipeline: dlt.Pipeline) -> None:
        self.pipeline = pipeline

    def newest_created_at(self, agent_id: str) -> datetime | None:
        """When the newest held conversation of the agent was created; None where none is held."""
        rows = self.rows(
            f"SELECT max(created_at) FROM {{conversations}} WHERE agent_id = %s AND {_COMPLETE}",
            agent_id,
        )
        newest = rows[0][0] if rows else None
        return newest.astimezone(UTC) if newest is not None else None

    def summary_hashes(
        self,
        agent_id: str,
        conversation_ids: Sequence[str],
        created_within: tuple[datetime, datetime] | None,
    ) -> dict[str, str | None]:
        """The hash of the list row with which each of these conversations is held.

        One query takes all that were created between two moments, the bounds among them; only ids
        that are not among these are looked up by id.
        """
        columns = "SELECT conversation_id, summary_hash FROM {conversations} WHERE agent_id = %s"
        hashes: dict[str, str | None] = {}
        if created_within is not None:
            within = "created_at BETWEEN %s AND %s"
            found = self._arrow(
                f"{columns} AND {within} AND {_COMPLETE}", agent_id, *created_within
            )
            hashes.update(_pairs(found))
        missing = [name for name in conversation_ids if name not in hashes]
        for ids, marks in _in_parts(missing):
            by_id = f"{columns} AND conversation_id IN ({marks}) AND {_COMPLETE}"
            hashes.update(_pairs(self._arrow(by_id, agent_id, *ids)))
        return hashes

    def held(self, agent_id: str, conversation_ids: Sequence[str]) -> dict[str, Held]:
        """What there is of these conversations, by id, also of a package that is not complete."""
        found: dict[str, Held] = {}
        for ids, marks in _in_parts(conversation_ids):
            rows = self.rows(
                "SELECT conversation_id, num_turns, num_silences, num_ood, poly_score, "
                "poly_score_scale, note FROM {conversations} "
                f"WHERE agent_id = %s AND conversation_id IN ({marks})",
                agent_id,
                *ids,
            )
            found.update((conversation_id, Held(*values)) for conversation_id, *values in rows)
        return found

    def unfinished(self, agent_id: str) -> list[tuple[str, str]]:
        """Id and summary hash of each conversation that had not ended when it was read."""
        return self._due(agent_id, f"in_progress AND {_COMPLETE}")

    def incomplete(self, agent_id: str) -> list[tuple[str, str]]:
        """Id and summary hash of each conversation whose load package never became complete."""
        return self._due(agent_id, f"NOT ({_COMPLETE})")

    def _due(self, agent_id: str, condition: str) -> list[tuple[str, str]]:
        rows = self.rows(
            "SELECT conversation_id, summary_hash FROM {conversations} WHERE agent_id = %s "
            f"AND {condition} ORDER BY created_at",
            agent_id,
        )
        return [(conversation_id, hash_ or "") for conversation_id, hash_ in rows]

    def gone(self, agent_id: str) -> frozenset[str]:
        """Conversations that were asked for by id, and that the API does not have any more."""
        rows = self.rows(
            "SELECT conversation_id FROM {fetch_failures} WHERE agent_id = %s "
            f"AND stage = 'detail' AND http_status = {NOT_FOUND} AND resolved_at IS NOT NULL",
            agent_id,
        )
        return frozenset(row[0] for row in rows)

    def settling(
        self, agent_id: str, ages: Sequence[timedelta], now: datetime
    ) -> Iterator[tuple[str, str]]:
        """Id and summary hash of what has crossed an age since it was read, by its end.

        The ages are those of a conversation after its end. Asks for a bounded number at a time,
        so a conversation that is read meanwhile is given all the same, once.
        """
        if not ages:
            return
        crossed = " OR ".join(
            f"({_ENDED_AT} <= %s AND fetched_at < {self._later(_ENDED_AT, age)})" for age in ages
        )
        last_end, last_id = datetime(1, 1, 2, tzinfo=UTC), ""
        while True:
            rows = self.rows(
                f"SELECT conversation_id, summary_hash, {_ENDED_AT} FROM {{conversations}} "
                f"WHERE agent_id = %s AND NOT coalesce(in_progress, FALSE) AND ({crossed}) "
                f"AND ({_ENDED_AT} > %s OR ({_ENDED_AT} = %s AND conversation_id > %s)) "
                f"AND {_COMPLETE} ORDER BY {_ENDED_AT}, conversation_id LIMIT {IDS_A_QUERY}",
                agent_id,
                *(now - age for age in ages),
                last_end,
                last_end,
                last_id,
            )
            for conversation_id, hash_, _ in rows:
                yield conversation_id, hash_ or ""
            if len(rows) < IDS_A_QUERY:
                return
            last_id, _, last_end = rows[-1]

    def count_held(self, agent_id: str) -> int:
        """Conversations of the agent that are held."""
        rows = self.rows(
            f"SELECT count(*) FROM {{conversations}} WHERE agent_id = %s AND {_COMPLETE}", agent_id
        )
        return int(rows[0][0]) if rows else 0

    def conversation_ids(self, agent_id: str) -> Iterator[Sequence[str]]:
        """The ids of all held conversations of the agent, a bounded number at a time."""
        last_id = ""
        while True:
            found = self._arrow(
                "SELECT conversation_id FROM {conversations} WHERE agent_id = %s "
                f"AND conversation_id > %s AND {_COMPLETE} ORDER BY conversation_id "
                f"LIMIT {ROWS_A_QUERY}",
                agent_id,
                last_id,
            )
            if not found:
                return
            for part in found:
                yield part["conversation_id"].to_pylist()
            last_id = found[-1]["conversation_id"][-1].as_py()

    def complete_packages(self) -> frozenset[str]:
        """Load packages that the destination knows as complete."""
        return frozenset(row[0] for row in self.rows(COMPLETE_PACKAGES))

    def begun_runs(self, agent_id: str) -> list[dict[str, Any]]:
        """Runs of the agent that never said how they ended; JSON columns are left out."""
        names = [
            column.name
            for column in SYNC_RUNS.columns
            if column.type != "json" and column.name != LOAD_ID
        ]
        rows = self.rows(
            f"SELECT {', '.join(names)} FROM {{sync_runs}} "
            "WHERE agent_id = %s AND status = 'running'",
            agent_id,
        )
        return [dict(zip(names, row)) for row in rows]

    def open_failures(self, agent_id: str) -> dict[str, Failure]:
        """Conversations whose detail could not be read so far, by id."""
        return {
            conversation_id: Failure(attempts, first_failed_at.astimezone(UTC))
            for conversation_id, attempts, first_failed_at in self.rows(
                "SELECT conversation_id, attempts, first_failed_at FROM {fetch_failures} "
                "WHERE agent_id = %s AND stage = 'detail' AND resolved_at IS NULL",
                agent_id,
            )
        }

    def note_histories(
        self, agent_id: str, conversation_ids: Sequence[str]
    ) -> dict[str, list[NoteVersion]]:
        """The held versions of these conversations' notes, oldest first, by id."""
        histories: dict[str, list[NoteVersion]] = {}
        for ids, marks in _in_parts(conversation_ids):
            for conversation_id, note, valid_from, valid_to in self.rows(
                "SELECT conversation_id, note, valid_from, valid_to FROM {notes} "
                f"WHERE agent_id = %s AND conversation_id IN ({marks}) ORDER BY valid_from",
                agent_id,
                *ids,
            ):
                histories.setdefault(conversation_id, []).append(
                    NoteVersion(
                        note,
                        valid_from.astimezone(UTC),
                        valid_to.astimezone(UTC) if valid_to else None,
                    )
                )
        return histories

    def count_rows(self, table: str) -> int:
        """Rows of a table, 0 where it does not exist yet."""
        rows = self.rows(f"SELECT count(*) FROM {{{table}}}")
        return int(rows[0][0]) if rows else 0

    def answers(self) -> bool:
        """Whether the destination can be asked at all."""
        try:
            return bool(self.rows("SELECT 1"))
        except DestinationError:
            return False

    def rows(self, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Runs a query with qualified table names; nothing where a table does not exist yet."""
        return self._read(lambda cursor: cursor.fetchall(), sql, parameters) or []

    def _arrow(self, sql: str, *parameters: object) -> list[pa.Table]:
        """The same as Arrow, in parts."""
        return self._read(_in_arrow, sql, parameters) or []

    def _read(
        self, take: Callable[[DBApiCursor], T], sql: str, parameters: Sequence[object]
    ) -> T | None:
        client = self._client

        def read() -> T:
            with client, client.execute_query(query, *parameters) as cursor:
                return take(cursor)

        with destination_errors():
            query = sql.format_map(_QualifiedNames(client))
            try:
                return when_unlocked(read)
            except DatabaseUndefinedRelation:
                return None

    @cached_property
    def _client(self) -> SqlClientBase[Any]:
        """Connects anew for each query, but is configured once: that takes as long as a query."""
        client: SqlClientBase[Any] = self.pipeline.sql_client()
        return client

    def _later(self, moment: str, duration: timedelta) -> str:
        """SQL of the destination for a moment plus a duration."""
        later = parsed(f"DATEADD(SECOND, {int(duration.total_seconds())}, {moment})")
        return worded(later, self._client.capabilities.sqlglot_dialect)


_COMPLETE = f"_dlt_load_id IN ({COMPLETE_PACKAGES})"

_ENDED_AT = "coalesce(finished_at, started_at, created_at)"


def _in_arrow(cursor: DBApiCursor) -> list[pa.Table]:
    return [part for part in cursor.iter_arrow(chunk_size=ROWS_A_QUERY) if part.num_rows]


def _pairs(tables: Sequence[pa.Table]) -> Iterator[tuple[Any, Any]]:
    """The rows of tables of two columns."""
    for table in tables:
        yield from zip(*(column.to_pylist() for column in table.columns))


class _QualifiedNames(dict[str, str]):
    """Resolves `{table}` in a query to the name that the destination knows it by."""

    def __init__(self, client: Any) -> None:
        super().__init__()
        self._client = client

    def __missing__(self, table: str) -> str:
        return str(self._client.make_qualified_table_name(table))


def _in_parts(ids: Sequence[str]) -> Iterator[tuple[Sequence[str], str]]:
    """The ids in parts, with as many placeholders as each has."""
    for start in range(0, len(ids), IDS_A_QUERY):
        part = ids[start : start + IDS_A_QUERY]
        yield part, ", ".join(["%s"] * len(part))
