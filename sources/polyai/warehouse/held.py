"""The destination as the state of the load: what is held, what failed, what is due."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

import dlt
import pyarrow as pa
from dlt.common.destination.dataset import DBApiCursor
from dlt.destinations.exceptions import DatabaseUndefinedRelation
from dlt.destinations.sql_client import SqlClientBase

from ..errors import DestinationError
from ..shape.answer import DATA, Held, NoteVersion
from ..shape.audit_rows import Failure, Stage
from ..shape.caller_identity import ForgottenCaller
from ..tables.audit import SYNC_RUNS
from ..tables.conversations import CONVERSATIONS, METRICS, TURNS
from ..tables.declaration import LOAD_ID, Table
from .dialects import parsed, worded
from .open import destination_errors, turn, when_unlocked

T = TypeVar("T")


IDS_A_QUERY = 1_000
"""Ids in one `IN` list; every destination takes that many."""

ROWS_A_QUERY = 50_000
"""Rows of one column that are read together."""

COMPLETE_PACKAGES = "SELECT DISTINCT load_id FROM {_dlt_loads} WHERE status = 0"
"""Query for the load packages of which every table was written."""

STEADY = "polyai"
"""dlt schema of the load packages of `load`."""

BACKFILL = "polyai_backfill"
"""dlt schema of the load packages of backfills: what they bring says nothing of how far the steady
load has come."""

LOADING = ("load", "backfill")
"""Commands that write conversations."""

ENDED_AT = "coalesce(finished_at, started_at, created_at)"
"""SQL for when a conversation ended, as far as is known."""

PRUNE = "prune"
"""Command that deletes recordings by age; `range_to` of its runs is the limit."""

NOT_FOUND = 404
"""HTTP status of what the API does not have."""


class Due(NamedTuple):
    """A held conversation that has to be read again, listed or not."""

    conversation_id: str
    summary_hash: str
    created_at: datetime | None
    environment: str | None


class Warehouse:
    """Reads of one destination dataset what a load has to know, a bounded part at a time.

    A conversation counts as held once the load package that wrote it is complete: after a run
    that was killed between two tables it is read again, also on another machine.

    Args:
        pipeline: Whose destination it is.
        takes_turns: Wait for other processes that write the same DuckDB file, however long they
            take; for those that write it too.
    """

    def __init__(self, pipeline: dlt.Pipeline, *, takes_turns: bool = False) -> None:
        self.pipeline = pipeline
        self._takes_turns = takes_turns
        self._turn = turn(pipeline) if takes_turns else nullcontext()

    def twin(self) -> Warehouse:
        """The same for another thread; made here, because dlt makes clients in one thread only."""
        twin = Warehouse(self.pipeline, takes_turns=self._takes_turns)
        twin._client.make_qualified_table_name(SYNC_RUNS.name)
        return twin

    def position(self, agent_id: str, environment: str | None = None) -> datetime | None:
        """How far the steady load has come: when the newest conversation that it brought began.

        Args:
            agent_id: The agent.
            environment: Of its conversations only those of this one; None for all.

        Returns:
            None where it has brought nothing yet.
        """
        condition, chosen = (
            ("", ()) if environment is None else (" AND environment = %s", (environment,))
        )
        rows = self.rows(
            f"SELECT max(created_at) FROM {{conversations}} WHERE agent_id = %s{condition} "
            f"AND _dlt_load_id IN ({COMPLETE_PACKAGES} AND schema_name <> '{BACKFILL}')",
            agent_id,
            *chosen,
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
        for ids, marks in in_parts(missing):
            by_id = f"{columns} AND conversation_id IN ({marks}) AND {_COMPLETE}"
            hashes.update(_pairs(self._arrow(by_id, agent_id, *ids)))
        return hashes

    def held(
        self, agent_id: str, conversation_ids: Sequence[str], *, children: bool
    ) -> dict[str, Held]:
        """What there is of these conversations, by id, also of a package that is not complete.

        Args:
            agent_id: The agent.
            conversation_ids: The conversations.
            children: Read the rows of child tables too that an answer may not replace wholly.
        """
        found: dict[str, Held] = {}
        for row in self._by_id(CONVERSATIONS, agent_id, conversation_ids):
            found[row["conversation_id"]] = Held(
                **{name: row[name] for name in _HELD_VALUES},
                source_api=row["source_api"] or DATA,
                columns=row,
            )
        for table in (TURNS, METRICS) if children else ():
            for row in self._by_id(table, agent_id, list(found)):
                rows = found[row["conversation_id"]].children
                rows.setdefault(table.name, {})[tuple(row[name] for name in table.key)] = row
        return found

    def _by_id(
        self, table: Table, agent_id: str, conversation_ids: Sequence[str]
    ) -> Iterator[dict[str, Any]]:
        """Rows of these conversations, by column."""
        names = [column.name for column in table.columns]
        for ids, marks in in_parts(conversation_ids):
            for row in self.rows(
                f"SELECT {', '.join(names)} FROM {{{table.name}}} "
                f"WHERE agent_id = %s AND conversation_id IN ({marks})",
                agent_id,
                *ids,
            ):
                yield dict(zip(names, row))

    def unfinished(
        self, agent_id: str, created_within: tuple[datetime, datetime] | None = None
    ) -> list[Due]:
        """Each conversation that had not ended when it was read, of a range or of all."""
        condition = f"in_progress AND {_COMPLETE}"
        if created_within is None:
            return self._due(agent_id, condition)
        return self._due(agent_id, f"created_at BETWEEN %s AND %s AND {condition}", *created_within)

    def written_back(self, agent_id: str) -> list[Due]:
        """Each conversation that an annotation or a note was sent to since it was read."""
        return [
            _as_due(row)
            for row in self.rows(
                "SELECT DISTINCT c.conversation_id, c.summary_hash, c.created_at, c.environment "
                "FROM {conversations} c JOIN {write_backs} w "
                "ON w.agent_id = c.agent_id AND w.conversation_id = c.conversation_id "
                "WHERE c.agent_id = %s AND w.status <> 'rejected' "
                "AND coalesce(w.sent_at, w.requested_at) >= c.fetched_at",
                agent_id,
            )
        ]

    def incomplete(self, agent_id: str) -> list[Due]:
        """Each conversation whose load package never became complete."""
        return self._due(agent_id, f"NOT ({_COMPLETE})")

    def _due(self, agent_id: str, condition: str, *parameters: object) -> list[Due]:
        rows = self.rows(
            f"SELECT {_DUE} FROM {{conversations}} WHERE agent_id = %s "
            f"AND {condition} ORDER BY created_at",
            agent_id,
            *parameters,
        )
        return [_as_due(row) for row in rows]

    def gone(self, agent_id: str) -> frozenset[str]:
        """Conversations that were asked for by id, and that the API does not have any more."""
        rows = self.rows(
            "SELECT conversation_id FROM {fetch_failures} WHERE agent_id = %s "
            f"AND stage = 'detail' AND http_status = {NOT_FOUND} AND resolved_at IS NOT NULL",
            agent_id,
        )
        return frozenset(row[0] for row in rows)

    def forgotten(self, agent_id: str) -> frozenset[str]:
        """Conversations that were erased, or are being: none of them is to come back."""
        rows = self.rows("SELECT conversation_id FROM {forgotten} WHERE agent_id = %s", agent_id)
        return frozenset(row[0] for row in rows)

    def forgotten_callers(self, agent_id: str) -> list[ForgottenCaller]:
        """Callers whose conversations were erased."""
        return [
            ForgottenCaller(hashed, salt, requested_at.astimezone(UTC))
            for hashed, salt, requested_at in self.rows(
                "SELECT caller_hash, salt, requested_at FROM {forgotten_callers} "
                "WHERE agent_id = %s",
                agent_id,
            )
        ]

    def returned(self, agent_id: str) -> list[str]:
        """Erased conversations that are there again: a run had read them before.

        Not those of which the erasure was cut short: their files are still to be found by them.
        """
        rows = self.rows(
            "SELECT c.conversation_id FROM {conversations} c JOIN {forgotten} f "
            "ON f.agent_id = c.agent_id AND f.conversation_id = c.conversation_id "
            "WHERE c.agent_id = %s AND f.erased_at IS NOT NULL",
            agent_id,
        )
        return [row[0] for row in rows]

    def settling(
        self,
        agent_id: str,
        ages: Sequence[timedelta],
        now: datetime,
        since: datetime | None = None,
    ) -> Iterator[Due]:
        """What has crossed an age since it was read, by its end.

        The ages are those of a conversation after its end. Asks for a bounded number at a time,
        so a conversation that is read meanwhile is given all the same, once.

        Args:
            agent_id: The agent.
            ages: The ages.
            now: What time it is.
            since: Leave out what had crossed it at this moment already, read since or not.
        """
        if not ages:
            return
        crossed = " OR ".join(
            f"({ENDED_AT} <= %s AND {ENDED_AT} > %s AND fetched_at < {self.later(ENDED_AT, age)})"
            for age in ages
        )
        first_end = datetime(1, 1, 2, tzinfo=UTC)
        bounds = [(now - age, since - age if since else first_end) for age in ages]
        last_end, last_id = first_end, ""
        while True:
            rows = self.rows(
                f"SELECT {_DUE}, {ENDED_AT} FROM {{conversations}} "
                f"WHERE agent_id = %s AND NOT coalesce(in_progress, FALSE) AND ({crossed}) "
                f"AND ({ENDED_AT} > %s OR ({ENDED_AT} = %s AND conversation_id > %s)) "
                f"AND {_COMPLETE} ORDER BY {ENDED_AT}, conversation_id LIMIT {IDS_A_QUERY}",
                agent_id,
                *(bound for pair in bounds for bound in pair),
                last_end,
                last_end,
                last_id,
            )
            for row in rows:
                yield _as_due(row[:-1])
            if len(rows) < IDS_A_QUERY:
                return
            last_id, last_end = rows[-1][0], rows[-1][-1]

    def last_complete_run(self, agent_id: str) -> datetime | None:
        """When the last steady load began that read all that it was to read."""
        rows = self.rows(
            "SELECT max(started_at) FROM {sync_runs} WHERE agent_id = %s "
            "AND command = 'load' AND status IN ('complete', 'partial')",
            agent_id,
        )
        return rows[0][0].astimezone(UTC) if rows and rows[0][0] else None

    def holds_any(self, agent_id: str) -> bool:
        """Whether any conversation of the agent is held."""
        return bool(
            self.rows(
                "SELECT conversation_id FROM {conversations} "
                f"WHERE agent_id = %s AND {_COMPLETE} LIMIT 1",
                agent_id,
            )
        )

    def count_held(self, agent_id: str) -> int:
        """Conversations of the agent that are held."""
        rows = self.rows(
            f"SELECT count(*) FROM {{conversations}} WHERE agent_id = %s AND {_COMPLETE}", agent_id
        )
        return int(rows[0][0]) if rows else 0

    def conversation_ids(
        self, agent_id: str, environments: Sequence[str] = ()
    ) -> Iterator[Sequence[str]]:
        """The ids of all held conversations of the agent, a bounded number at a time.

        Args:
            agent_id: The agent.
            environments: Only of these; none for all.
        """
        within = ", ".join(["%s"] * len(environments))
        chosen = f"AND environment IN ({within}) " if environments else ""
        last_id = ""
        while True:
            found = self._arrow(
                "SELECT conversation_id FROM {conversations} WHERE agent_id = %s "
                f"{chosen}AND conversation_id > %s AND {_COMPLETE} ORDER BY conversation_id "
                f"LIMIT {ROWS_A_QUERY}",
                agent_id,
                *environments,
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

    def begun_runs(self, agent_id: str, commands: Sequence[str]) -> list[dict[str, Any]]:
        """Runs of the agent that never said how they ended; JSON columns are left out.

        Args:
            agent_id: The agent.
            commands: Of these commands.
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

    def open_failures(self, agent_id: str, stage: Stage = "detail") -> dict[str, Failure]:
        """Conversations of which something could not be read so far, by id."""
        return {
            conversation_id: Failure(attempts, first_failed_at.astimezone(UTC))
            for conversation_id, attempts, first_failed_at in self.rows(
                "SELECT conversation_id, attempts, first_failed_at FROM {fetch_failures} "
                "WHERE agent_id = %s AND stage = %s AND resolved_at IS NULL",
                agent_id,
                stage,
            )
        }

    def note_histories(
        self, agent_id: str, conversation_ids: Sequence[str]
    ) -> dict[str, list[NoteVersion]]:
        """The held versions of these conversations' notes, oldest first, by id."""
        histories: dict[str, list[NoteVersion]] = {}
        for ids, marks in in_parts(conversation_ids):
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

    def has_table(self, name: str) -> bool:
        """Whether there is such a table."""
        return self._read(lambda _: True, f"SELECT 1 FROM {{{name}}} WHERE 1 = 0", ()) is not None

    def answers(self) -> bool:
        """Whether the destination can be asked at all."""
        try:
            return bool(self.rows("SELECT 1"))
        except DestinationError:
            return False

    def rows(self, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Runs a query with qualified table names; nothing where a table does not exist yet."""
        return self._read(lambda cursor: cursor.fetchall(), sql, parameters) or []

    def records(self, sql: str) -> list[dict[str, Any]]:
        """Runs a user's own query; its rows by column.

        Raises:
            DestinationError: The destination does not take it.
        """

        def take(cursor: DBApiCursor) -> list[dict[str, Any]]:
            names = [column[0] for column in cursor.description or ()]
            return [dict(zip(names, row)) for row in cursor.fetchall()]

        with destination_errors():
            return self._taken(take, sql, ())

    def _arrow(self, sql: str, *parameters: object) -> list[pa.Table]:
        """The same as Arrow, in parts."""
        return self._read(_in_arrow, sql, parameters) or []

    def _read(
        self, take: Callable[[DBApiCursor], T], sql: str, parameters: Sequence[object]
    ) -> T | None:
        with destination_errors():
            query = sql.format_map(_QualifiedNames(self._client))
            try:
                return self._taken(take, query, parameters)
            except DatabaseUndefinedRelation:
                return None

    def _taken(
        self, take: Callable[[DBApiCursor], T], query: str, parameters: Sequence[object]
    ) -> T:
        client = self._client

        def read() -> T:
            with self._turn, client, client.execute_query(query, *parameters) as cursor:
                return take(cursor)

        return when_unlocked(read)

    @cached_property
    def _client(self) -> SqlClientBase[Any]:
        """Connects anew for each query, but is configured once: that takes as long as a query."""
        client: SqlClientBase[Any] = self.pipeline.sql_client()
        return client

    def later(self, moment: str, duration: timedelta) -> str:
        """SQL of the destination for a moment plus a duration."""
        later = parsed(f"DATEADD(SECOND, {int(duration.total_seconds())}, {moment})")
        return worded(later, self._client.capabilities.sqlglot_dialect)


_HELD_VALUES = (
    "num_turns",
    "num_silences",
    "num_ood",
    "poly_score",
    "poly_score_scale",
    "note",
)

_DUE = "conversation_id, summary_hash, created_at, environment"

_COMPLETE = f"_dlt_load_id IN ({COMPLETE_PACKAGES})"


def _as_due(row: Sequence[Any]) -> Due:
    conversation_id, hash_, created_at, environment = row
    return Due(
        conversation_id,
        hash_ or "",
        created_at.astimezone(UTC) if created_at else None,
        environment,
    )


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


def in_parts(ids: Sequence[str]) -> Iterator[tuple[Sequence[str], str]]:
    """The ids in parts that an `IN` list takes, with as many placeholders as each has."""
    for start in range(0, len(ids), IDS_A_QUERY):
        part = ids[start : start + IDS_A_QUERY]
        yield part, ", ".join(["%s"] * len(part))
