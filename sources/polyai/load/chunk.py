"""Chunks: conversations that are committed together, as batches of shaped rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from ..tables.audit import FETCH_FAILURES
from ..tables.conversations import CONVERSATIONS
from ..tables.declaration import TOMBSTONE

Tables = dict[str, pa.Table]
"""Rows by table name."""

Days = frozenset[int | None]
"""Days in UTC on which conversations were created, as days since 1970; None for an unknown one."""


LANES = 16
"""Parts of an agent's days that are merged independently, by the number of the day modulo this.
Loads that merge into the same lane take turns."""


@dataclass(frozen=True)
class Batch:
    """Conversations that were shaped together.

    Attributes:
        tables: Their rows, for every table of `loaded_tables()`.
        days: The days on which they were created.
    """

    tables: Tables
    days: Days

    @classmethod
    def of(cls, tables: Tables) -> Batch:
        """Makes a batch of these rows."""
        created_at = tables[CONVERSATIONS.name]["created_at"]
        days = created_at.cast(pa.date32()).cast(pa.int32()).unique().to_pylist()
        # a failed conversation has no row with its day
        unknown = [None] if tables[FETCH_FAILURES.name].num_rows else []
        return cls(tables, frozenset([*days, *unknown]))

    @classmethod
    def joined(cls, batches: Sequence[Batch]) -> Batch:
        """Makes one batch of several, without copying their rows."""
        first, *others = batches
        if not others:
            return first
        tables = {
            name: pa.concat_tables([rows, *(batch.tables[name] for batch in others)])
            for name, rows in first.tables.items()
        }
        return cls(tables, first.days.union(*(batch.days for batch in others)))

    @property
    def bytes(self) -> int:
        """Memory of the rows."""
        return sum(rows.nbytes for rows in self.tables.values())

    def count_rows(self, table: str) -> int:
        """Counts the rows that the warehouse will have, which excludes tombstones."""
        rows = self.tables[table]
        if TOMBSTONE not in rows.column_names:
            return int(rows.num_rows)
        return int(rows[TOMBSTONE].null_count)


@dataclass(frozen=True)
class Chunk:
    """Conversations that are committed together.

    The batches are a stream, so that memory does not depend on the size of a chunk.

    Attributes:
        batches: Reads and shapes the batches for the load package with the given id. To be called
            once, and read to its end before the next chunk is requested.
    """

    batches: Callable[[str], Iterator[Batch]]


def lanes_of(agent_id: str, days: Days) -> list[str]:
    """Names the leases that keep other loads from merging rows of the same conversations.

    These are all lanes if the day of a conversation is not known.
    """
    numbers = (
        set(range(LANES)) if None in days else {day % LANES for day in days if day is not None}
    )
    return [f"{agent_id} days {number}/{LANES}" for number in sorted(numbers)]
