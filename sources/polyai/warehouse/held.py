"""State of the load, read from the warehouse: what is loaded, what failed, what is due."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any, NamedTuple

from ..clock import in_utc
from ..config.agent import DATA
from ..shape.answer import LoadedConversation, NoteVersion
from ..shape.audit_rows import Failure, Stage
from ..tables.children import METRICS
from ..tables.conversations import CONVERSATIONS
from ..tables.declaration import Table
from ..tables.rules import ENDED_AT
from ..tables.turns import TURNS
from .queries import IDS_PER_QUERY, ROWS_PER_QUERY, id_batches
from .run_history import RunHistory

COMPLETE_PACKAGES = "SELECT DISTINCT load_id FROM {_dlt_loads} WHERE status = 0"
"""Query for the ids of load packages of which every table was written."""

LOAD_SCHEMA = "polyai"
"""dlt schema of the packages of `load`."""

BACKFILL_SCHEMA = "polyai_backfill"
"""dlt schema of the packages of backfills, which do not move the watermark."""

OF_LOADS = f"{COMPLETE_PACKAGES} AND schema_name <> '{BACKFILL_SCHEMA}'"
"""The same query without the packages of backfills."""

LOAD = "load"
"""Command that loads what is new or changed, and the names behind ids."""

LOAD_COMMANDS = (LOAD, "backfill")
"""Commands that write conversations."""

PRUNE = "prune"
"""Command that deletes recordings by age; `range_to` of its runs is the limit."""

_IS_COMPLETE = f"_dlt_load_id IN ({COMPLETE_PACKAGES})"

_DUE_COLUMNS = "conversation_id, summary_hash, created_at, environment, fetched_at"

_KEPT_VALUES = (
    "num_turns",
    "num_silences",
    "num_ood",
    "note",
)
"""Columns of `conversations` that are merged with a new answer."""


class Due(NamedTuple):
    """Loaded conversation that has to be fetched again, whether it is listed or not."""

    conversation_id: str
    summary_hash: str
    created_at: datetime | None
    environment: str | None
    fetched_at: datetime | None = None


class LoadState(RunHistory):
    """Warehouse as the state of the load, which needs no other.

    A conversation is loaded if the package that wrote it is complete. One that a killed run wrote
    partially is fetched again, also from another machine. All times are in UTC.
    """

    def watermark(
        self, agent_id: str, environment: str | None = None, *, now: datetime
    ) -> datetime | None:
        """Returns the newest `created_at` that `load` brought; backfills do not count.

        Times in the future do not count either: one absurd date would hide all that is new.

        Args:
            agent_id: The agent.
            environment: Only its conversations in this environment; None for all.
            now: Current time.

        Returns:
            None if `load` has brought nothing yet.
        """
        condition, parameters = (
            ("", ()) if environment is None else (" AND environment = %s", (environment,))
        )
        rows = self.rows(
            "SELECT max(created_at) FROM {conversations} "
            f"WHERE agent_id = %s AND created_at <= %s{condition} "
            f"AND _dlt_load_id IN ({OF_LOADS})",
            agent_id,
            now,
            *parameters,
        )
        return in_utc(rows[0][0]) if rows else None

    def summary_hashes(
        self,
        agent_id: str,
        conversation_ids: Sequence[str],
        created_within: tuple[datetime, datetime] | None,
    ) -> dict[str, str | None]:
        """Returns `summary_hash` of loaded conversations, by id.

        Args:
            agent_id: The agent.
            conversation_ids: Ids to look up.
            created_within: Range of `created_at` (both inclusive) in which most of them are. One
                query reads all of the range; only the other ids are looked up by id.
        """
        columns = "SELECT conversation_id, summary_hash FROM {conversations} WHERE agent_id = %s"
        hashes: dict[str, str | None] = {}
        if created_within is not None:
            within = "created_at BETWEEN %s AND %s"
            found = self.rows(
                f"{columns} AND {within} AND {_IS_COMPLETE}", agent_id, *created_within
            )
            hashes.update(found)
        others = [id_ for id_ in conversation_ids if id_ not in hashes]
        for ids, marks in id_batches(others):
            by_id = f"{columns} AND conversation_id IN ({marks}) AND {_IS_COMPLETE}"
            hashes.update(self.rows(by_id, agent_id, *ids))
        return hashes

    def loaded(
        self, agent_id: str, conversation_ids: Sequence[str], *, children: bool
    ) -> dict[str, LoadedConversation]:
        """Returns the rows of conversations, by id, including those of incomplete packages.

        Args:
            agent_id: The agent.
            conversation_ids: Ids to look up.
            children: Include the rows of child tables that an answer may replace only partly.
        """
        found: dict[str, LoadedConversation] = {}
        for row in self._by_id(CONVERSATIONS, agent_id, conversation_ids):
            found[row["conversation_id"]] = LoadedConversation(
                **{name: row[name] for name in _KEPT_VALUES},
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
        for ids, marks in id_batches(conversation_ids):
            # all columns, because an earlier version may have created the table without some
            for row in self.rows_by_column(
                f"SELECT * FROM {{{table.name}}} "
                f"WHERE agent_id = %s AND conversation_id IN ({marks})",
                agent_id,
                *ids,
            ):
                yield {column.name: row.get(column.name) for column in table.columns}

    def in_progress(
        self, agent_id: str, created_within: tuple[datetime, datetime] | None = None
    ) -> list[Due]:
        """Returns conversations that had not ended when they were fetched.

        Args:
            agent_id: The agent.
            created_within: Range of `created_at` (both inclusive); None for all.
        """
        condition = f"in_progress AND {_IS_COMPLETE}"
        if created_within is None:
            return self._due(agent_id, condition)
        return self._due(agent_id, f"created_at BETWEEN %s AND %s AND {condition}", *created_within)

    def written_back(self, agent_id: str) -> list[Due]:
        """Returns conversations that received an annotation or a note since they were fetched."""
        return [
            _as_due(row)
            for row in self.rows(
                "SELECT DISTINCT c.conversation_id, c.summary_hash, c.created_at, c.environment, "
                "c.fetched_at "
                "FROM {conversations} c JOIN {write_backs} w "
                "ON w.agent_id = c.agent_id AND w.conversation_id = c.conversation_id "
                "WHERE c.agent_id = %s AND w.status <> 'rejected' "
                "AND coalesce(w.sent_at, w.requested_at) >= c.fetched_at",
                agent_id,
            )
        ]

    def partially_loaded(self, agent_id: str) -> list[Due]:
        """Returns conversations whose package is not complete."""
        return self._due(agent_id, f"NOT ({_IS_COMPLETE})")

    def _due(self, agent_id: str, condition: str, *parameters: object) -> list[Due]:
        rows = self.rows(
            f"SELECT {_DUE_COLUMNS} FROM {{conversations}} WHERE agent_id = %s "
            f"AND {condition} ORDER BY created_at",
            agent_id,
            *parameters,
        )
        return [_as_due(row) for row in rows]

    def gone(self, agent_id: str) -> frozenset[str]:
        """Returns ids of conversations that the API does not have any more (HTTP 404)."""
        rows = self.rows(
            "SELECT conversation_id FROM {fetch_failures} WHERE agent_id = %s AND stage = 'detail' "
            f"AND http_status = {HTTPStatus.NOT_FOUND} AND resolved_at IS NOT NULL",
            agent_id,
        )
        return frozenset(row[0] for row in rows)

    def forgotten(self, agent_id: str) -> frozenset[str]:
        """Returns ids of conversations that are erased or being erased, never to be loaded."""
        rows = self.rows("SELECT conversation_id FROM {forgotten} WHERE agent_id = %s", agent_id)
        return frozenset(row[0] for row in rows)

    def reloaded_after_erasure(self, agent_id: str) -> list[str]:
        """Returns ids of erased conversations that a run had fetched before, and loaded since.

        Without those of an interrupted erasure, which still needs their rows to find their files.
        """
        rows = self.rows(
            "SELECT c.conversation_id FROM {conversations} c JOIN {forgotten} f "
            "ON f.agent_id = c.agent_id AND f.conversation_id = c.conversation_id "
            "WHERE c.agent_id = %s AND f.erased_at IS NOT NULL",
            agent_id,
        )
        return [row[0] for row in rows]

    def past_refetch_age(
        self,
        agent_id: str,
        ages: Sequence[timedelta],
        now: datetime,
        since: datetime | None = None,
    ) -> Iterator[Due]:
        """Iterates over conversations that crossed a re-fetch age since they were fetched.

        Ordered by their end. Queries a bounded number at a time by keyset pagination, so fetching
        some of them meanwhile neither skips nor repeats any.

        Args:
            agent_id: The agent.
            ages: The re-fetch ages, from the end of a conversation.
            now: Current time.
            since: Leave out conversations that had crossed the age at this time already, whether
                they were fetched since or not.
        """
        if not ages:
            return
        ended_at = ENDED_AT.sql()
        crossed = " OR ".join(
            f"({ended_at} <= %s AND {ended_at} > %s AND fetched_at < {self.later(ended_at, age)})"
            for age in ages
        )
        first_end = datetime(1, 1, 2, tzinfo=UTC)
        bounds = [(now - age, since - age if since else first_end) for age in ages]
        last_end, last_id = first_end, ""
        while True:
            rows = self.rows(
                f"SELECT {_DUE_COLUMNS}, {ended_at} FROM {{conversations}} "
                f"WHERE agent_id = %s AND NOT coalesce(in_progress, FALSE) AND ({crossed}) "
                f"AND ({ended_at} > %s OR ({ended_at} = %s AND conversation_id > %s)) "
                f"AND {_IS_COMPLETE} ORDER BY {ended_at}, conversation_id LIMIT {IDS_PER_QUERY}",
                agent_id,
                *(bound for pair in bounds for bound in pair),
                last_end,
                last_end,
                last_id,
            )
            for row in rows:
                yield _as_due(row[:-1])
            if len(rows) < IDS_PER_QUERY:
                return
            last_id, last_end = rows[-1][0], rows[-1][-1]

    def last_fetched_at(self, agent_id: str) -> datetime | None:
        """Returns the time at which a conversation was fetched last."""
        rows = self.rows(
            "SELECT max(fetched_at) FROM {conversations} WHERE agent_id = %s", agent_id
        )
        return in_utc(rows[0][0]) if rows else None

    def has_conversations(self, agent_id: str) -> bool:
        """Checks whether any conversation of the agent is loaded."""
        return bool(
            self.rows(
                "SELECT conversation_id FROM {conversations} "
                f"WHERE agent_id = %s AND {_IS_COMPLETE} LIMIT 1",
                agent_id,
            )
        )

    def count_conversations(self, agent_id: str) -> int:
        """Counts the loaded conversations of the agent."""
        rows = self.rows(
            f"SELECT count(*) FROM {{conversations}} WHERE agent_id = %s AND {_IS_COMPLETE}",
            agent_id,
        )
        return int(rows[0][0]) if rows else 0

    def count_unloaded_failures(self, agent_id: str) -> int:
        """Counts the open failures without a loaded conversation: of details, and of list rows."""
        rows = self.rows(
            "SELECT count(*) FROM {fetch_failures} f WHERE f.agent_id = %s "
            "AND f.stage IN ('detail', 'listing') AND f.resolved_at IS NULL AND NOT EXISTS ("
            "SELECT 1 FROM {conversations} c WHERE c.agent_id = f.agent_id "
            f"AND c.conversation_id = f.conversation_id AND c.{_IS_COMPLETE})",
            agent_id,
        )
        return int(rows[0][0]) if rows else 0

    def conversation_ids(
        self, agent_id: str, environments: Sequence[str] = ()
    ) -> Iterator[Sequence[str]]:
        """Iterates over the ids of all loaded conversations, in batches, ordered by id.

        Args:
            agent_id: The agent.
            environments: Only conversations in these environments; all if empty.
        """
        within = ", ".join(["%s"] * len(environments))
        condition = f"AND environment IN ({within}) " if environments else ""
        last_id = ""
        while True:
            found = self.arrow(
                "SELECT conversation_id FROM {conversations} WHERE agent_id = %s "
                f"{condition}AND conversation_id > %s AND {_IS_COMPLETE} "
                f"ORDER BY conversation_id LIMIT {ROWS_PER_QUERY}",
                agent_id,
                *environments,
                last_id,
            )
            if not found:
                return
            for part in found:
                yield part.column(0).to_pylist()
            last_id = found[-1].column(0)[-1].as_py()

    def open_failures(self, agent_id: str, stage: Stage = "detail") -> dict[str, Failure]:
        """Returns the unresolved failures of a stage, by conversation id."""
        return {
            conversation_id: Failure(attempts, in_utc(first), in_utc(last))
            for conversation_id, attempts, first, last in self.rows(
                "SELECT conversation_id, attempts, first_failed_at, last_failed_at "
                "FROM {fetch_failures} "
                "WHERE agent_id = %s AND stage = %s AND resolved_at IS NULL",
                agent_id,
                stage,
            )
        }

    def tags(self, agent_id: str, conversation_ids: Sequence[str]) -> dict[str, list[str]]:
        """Returns the loaded tags of these conversations, by id; empty lists for none."""
        found: dict[str, list[str]] = {name: [] for name in conversation_ids}
        for ids, marks in id_batches(conversation_ids):
            for conversation_id, tag in self.rows(
                "SELECT conversation_id, tag FROM {conversation_tags} "
                f"WHERE agent_id = %s AND conversation_id IN ({marks})",
                agent_id,
                *ids,
            ):
                found[conversation_id].append(tag)
        return found

    def note_histories(
        self, agent_id: str, conversation_ids: Sequence[str]
    ) -> dict[str, list[NoteVersion]]:
        """Returns the loaded versions of notes, oldest first, by conversation id."""
        histories: dict[str, list[NoteVersion]] = {}
        for ids, marks in id_batches(conversation_ids):
            for conversation_id, note, valid_from, valid_to in self.rows(
                "SELECT conversation_id, note, valid_from, valid_to FROM {notes} "
                f"WHERE agent_id = %s AND conversation_id IN ({marks}) ORDER BY valid_from",
                agent_id,
                *ids,
            ):
                histories.setdefault(conversation_id, []).append(
                    NoteVersion(note, in_utc(valid_from), in_utc(valid_to))
                )
        return histories


def _as_due(row: Sequence[Any]) -> Due:
    conversation_id, hash_, created_at, environment, fetched_at = row
    return Due(conversation_id, hash_ or "", in_utc(created_at), environment, in_utc(fetched_at))
