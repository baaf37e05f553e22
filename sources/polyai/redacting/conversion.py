"""Conversion of the rows of a warehouse, part by part, in bounded memory.

A part is one load package. Rows that are converted already do not change again, so that a run that
was killed is simply repeated.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from ..copying.parts import Group, Part, Reader, groups, parts
from ..load.chunk import lanes_of
from ..load.committer import Committer
from ..load.source import RowsOf
from ..shape.held_rows import HeldRows, redacted_tables
from ..tables.declaration import OWNER, TOMBSTONE, Table
from ..tables.registry import key_of
from ..warehouse.queries import Warehouse

_ALL_DAYS = frozenset({None})

_READ_SECONDS = 2.0
"""Time for which the warehouse is kept open to read parts, before those that change are written."""

Key = tuple[Any, ...]


class Conversion:
    """Conversion of the rows of some agents.

    Args:
        warehouse: The warehouse.
        rows: The conversion of rows.
        agent_ids: The agents.
        emptied: Tables that have no rows in the mode.
    """

    def __init__(
        self,
        warehouse: Warehouse,
        rows: HeldRows,
        agent_ids: Sequence[str],
        emptied: Sequence[Table],
    ) -> None:
        self._warehouse = warehouse
        self._reader = Reader(warehouse)
        self._rows = rows
        self._agent_ids = agent_ids
        self._emptied = emptied

    def count(self) -> dict[str, Counter[str]]:
        """Returns the numbers of rows that would change, by agent and table."""
        counts = {agent_id: self._count_emptied(agent_id) for agent_id in self._agent_ids}
        for part in self._parts():
            for table, changed in self._changes(part).items():
                counts[part.agent_id][table.name] += changed
        return counts

    def run(self, committer: Committer, stop: threading.Event) -> dict[str, Counter[str]]:
        """Converts the rows; `stop` ends it before the next part.

        Returns:
            The numbers of changed rows, by agent and table.
        """
        counts = {agent_id: self._count_emptied(agent_id) for agent_id in self._agent_ids}
        for agent_id in self._agent_ids:
            for table in self._emptied:
                if counts[agent_id][table.name]:
                    committer.delete(table, "agent_id = %s", agent_id)
        for part, changed in self.convert(committer, self._parts(), stop):
            counts[part.agent_id] += changed
        return counts

    def convert(
        self, committer: Committer, waiting: Iterator[Part], stop: threading.Event
    ) -> Iterator[tuple[Part, Counter[str]]]:
        """Converts the rows of parts; yields those that changed, with the numbers by table."""
        while not stop.is_set() and (found := self._next_changes(waiting)) is not None:
            for part, changes in found:
                if stop.is_set():
                    return
                self._convert(committer, part, list(changes))
                yield part, Counter({table.name: changed for table, changed in changes.items()})

    def _next_changes(self, waiting: Iterator[Part]) -> list[tuple[Part, dict[Table, int]]] | None:
        """Reads parts for a while, and returns those that change; None after the last part."""
        found: list[tuple[Part, dict[Table, int]]] = []
        until = time.monotonic() + _READ_SECONDS
        with self._warehouse.kept_open():
            while time.monotonic() < until:
                part = next(waiting, None)
                if part is None:
                    return found or None
                if changes := self._changes(part):
                    found.append((part, changes))
        return found

    def _parts(self) -> Iterator[Part]:
        tables = set(redacted_tables()) - set(self._emptied)
        for group in groups():
            if group.anchor not in tables:
                continue
            own = Group(
                tuple(table for table in group.tables if table in tables),
                group.anchor,
                group.orphans,
            )
            for part in parts(self._warehouse, own):
                if part.agent_id in self._agent_ids:
                    yield part

    def _count_emptied(self, agent_id: str) -> Counter[str]:
        return Counter(
            {
                table.name: count
                for table in self._emptied
                for (count,) in self._warehouse.rows(
                    f"SELECT count(*) FROM {{{table.name}}} WHERE agent_id = %s", agent_id
                )
                if count
            }
        )

    def _changes(self, part: Part) -> dict[Table, int]:
        """Returns the tables with rows of a part that change, and how many."""
        changes: Counter[Table] = Counter()
        for table in part.group.tables:
            for rows in self._reader.rows(part, table):
                before = rows.to_pylist()
                after = self._converted(table, rows)
                same = {_key(table, row): row for row in after}
                changes[table] += sum(same.get(_key(table, row)) != row for row in before)
        return {table: count for table, count in changes.items() if count}

    def _converted(self, table: Table, rows: pa.Table) -> list[dict[str, Any]]:
        return self._rows.converted(table, rows.to_pylist())

    def _convert(self, committer: Committer, part: Part, tables: Sequence[Table]) -> None:
        # a key that changes is not replaced by a merge
        renamed = {
            table: self._renamed(part, table) for table in tables if OWNER[1] not in table.merge_key
        }
        sources: dict[Table, RowsOf] = {table: self._source(part, table) for table in tables}
        committer.commit_rows(sources, self._warehouse, lanes_of(part.agent_id, _ALL_DAYS))
        for table, keys in renamed.items():
            names = key_of(table)
            condition = " AND ".join(f"{self._warehouse.name(name)} = %s" for name in names)
            for key in keys:
                committer.delete(table, condition, *key)

    def _source(self, part: Part, table: Table) -> RowsOf:
        """Returns a function that reads and converts the rows of a part again."""

        def read() -> Iterator[pa.Table]:
            for rows in self._reader.rows(part, table):
                after = self._converted(table, rows)
                if TOMBSTONE in rows.column_names:
                    after += _tombstones(table, rows.to_pylist(), after)
                if after:
                    yield pa.Table.from_pylist(after, schema=table.arrow_schema)

        return read

    def _renamed(self, part: Part, table: Table) -> set[Key]:
        """Returns the keys of a part that no converted row has."""
        before: set[Key] = set()
        after: set[Key] = set()
        with self._warehouse.kept_open():
            for rows in self._reader.rows(part, table):
                before.update(_key(table, row) for row in rows.to_pylist())
                after.update(_key(table, row) for row in self._converted(table, rows))
        return before - after


def _key(table: Table, row: dict[str, Any]) -> Key:
    return tuple(row[name] for name in key_of(table))


def _tombstones(
    table: Table, before: Sequence[dict[str, Any]], after: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Returns one tombstone per conversation that has no row any more."""
    left = {tuple(row[name] for name in OWNER) for row in after}
    emptied = {owner: row for row in before if (owner := tuple(row[n] for n in OWNER)) not in left}
    return [row | {TOMBSTONE: True} for row in emptied.values()]
