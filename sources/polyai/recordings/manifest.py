"""Manifest: the rows of `recordings` as Parquet in the store, for readers without the warehouse.

Each warehouse writes parts of its own, so that none overwrites another's rows: one part per commit
and month of calls, merged as described in `Manifest`. `_index.json` lists the parts with their
hashes, and every other file that the warehouse answers for. A part that no index lists does not
count. Compared with one file per day, a run over few calls of many days writes little.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from ..errors import StoreError, first_line
from ..tables.declaration import LOAD_ID
from ..tables.recordings import RECORDINGS
from ..warehouse.file_store import Store
from ..warehouse.incoming import Incoming
from .custody import Head
from .index import INDEX, Index, Kept, Part, manifest_folder, other_indexes
from .layout import UNKNOWN_MONTH, month_of, partition

if TYPE_CHECKING:
    from pyarrow.compute import Expression

_MOST_PARTS = 16
"""Parts of a month that are merged while the month goes on."""

_RUN_DIGITS = 12
"""Digits of the run id in the name of a part."""

_NOT_IN_PARTS = ("archive_id", "uri", LOAD_ID)
"""Columns that depend on the archive's place, or are known from it."""

SCHEMA = pa.schema(
    [each for each in RECORDINGS.arrow_schema if each.name not in _NOT_IN_PARTS]
    + [pa.field("date", pa.string())]
)
"""Columns of a part. `date`: day (UTC) on which the call began; NULL if it is unknown."""

KEY = ("conversation_id", "direction", "redacted")

Key = tuple[str, str, bool]
"""Key of a row among those of its agent."""

Row = dict[str, Any]
"""Row of `recordings`, by column."""


def key_of(row: Mapping[str, Any]) -> Key:
    """Key of a row among those of its agent."""
    return row["conversation_id"], row["direction"], row["redacted"]


def read_part(store: Store, part: Part) -> pa.Table:
    """Reads the rows of a part, with all columns.

    Raises:
        StoreError: It does not exist, or is not what its index lists.
    """
    # a load without recordings does not need it
    import pyarrow.parquet as pq

    try:
        body = store.read(part.path)
        if hashlib.sha256(body).hexdigest() != part.sha256:
            raise KeyError("its hash is not the one in its index")
        table = pq.read_table(pa.BufferReader(body))
    except (FileNotFoundError, pa.ArrowException, OSError, KeyError) as error:
        reason = "it is gone" if isinstance(error, FileNotFoundError) else first_line(error)
        raise StoreError(
            f"{store.uri(part.path)} cannot be read ({reason}): `recordings verify --refetch` "
            "rewrites it"
        ) from error
    for name in SCHEMA.names:
        # an earlier version may lack a column
        if name not in table.column_names:
            column = pa.nulls(len(table), SCHEMA.field(name).type)
            table = table.append_column(SCHEMA.field(name), column)
    return table.select(SCHEMA.names).cast(SCHEMA)


def rows_of(table: pa.Table) -> Iterator[Row]:
    """Yields rows of a part, by column of `recordings`."""
    for row in table.to_pylist():
        del row["date"]
        yield row


def day_of(table: pa.Table, day: str) -> pa.Table:
    """Filters a part by a day as in `partition`."""
    import pyarrow.compute as pc

    is_unknown = month_of(day) == UNKNOWN_MONTH
    return table.filter(pc.field("date").is_null() if is_unknown else pc.field("date") == day)


def table_of(rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Builds the table of a part, ordered by key."""
    return pa.Table.from_pylist(
        [
            {name: row.get(name) for name in SCHEMA.names}
            | {"date": f"{row['started_at']:%Y-%m-%d}" if row["started_at"] else None}
            for row in sorted(rows, key=key_of)
        ],
        schema=SCHEMA,
    )


class Manifest:
    """Manifest of one agent: reads the parts of all warehouses, and writes those of this one.

    A key is in one part of a warehouse only: a commit appends a part, unless it replaces rows.
    Parts are merged when there are many of a month, and at the end of a run over a past month.

    Args:
        store: Store of the archive.
        incoming: Folder in which files are written first.
        index: Index of this warehouse: an empty one if it has not written yet.
        run_id: Run that writes.
    """

    def __init__(self, store: Store, incoming: Incoming, index: Index, run_id: str) -> None:
        self._store = store
        self._incoming = incoming
        self._run_id = run_id
        self._written = 0
        self._others: list[Index] | None = None
        self._months: dict[str, list[pa.Table]] = {}
        self._lock = threading.Lock()
        self._dropped: list[str] = []
        """Parts that the next index no longer lists."""
        self.index = index

    def delete_orphans(self, run_ids: Iterable[str]) -> None:
        """Deletes parts that killed runs of this warehouse have left, and no index lists."""
        listed = {part.path for part in self.index.parts}
        runs = {run_id[:_RUN_DIGITS] for run_id in run_ids} - {self._run_id[:_RUN_DIGITS]}
        own = self.index.path.removesuffix(INDEX)
        found = [path for path, _ in (self._store.walk(own) if runs else ()) if path not in listed]
        self._store.delete([path for path in found if runs.intersection(path.split("."))])

    def read(self, folder: str) -> dict[Key, Row]:
        """Rows of a day's folder that any warehouse has stored; this one's prevail."""
        day = folder.rpartition("date=")[2]
        month = month_of(day)
        with self._lock:
            if month not in self._months:
                # calls come in the order in which they began
                self._months = {month: list(self._tables(month))}
            tables = self._months[month]
        rows = (row for table in tables for row in rows_of(day_of(table, day)))
        return {key_of(row): row for row in rows}

    def _tables(self, month: str) -> Iterator[pa.Table]:
        if self._others is None:
            self._others = list(other_indexes(self._store, self.index))
        for index in (*self._others, self.index):
            for part in index.parts:
                if part.month == month:
                    yield read_part(self._store, part)

    def commit(
        self,
        rows: Iterable[Row],
        *,
        custody: Head,
        kept: Sequence[Kept] = (),
        replaces: Callable[[Key], bool] = lambda _: True,
    ) -> None:
        """Upserts rows, then the index.

        Args:
            rows: Rows of `recordings`.
            custody: Head of the custody log.
            kept: Other files that the warehouse answers for from now on.
            replaces: Returns whether a key may be in the manifest already.
        """
        by_month: dict[str, dict[Key, Row]] = {}
        for row in rows:
            month = month_of(partition("", row["started_at"]).rpartition("=")[2])
            by_month.setdefault(month, {})[key_of(row)] = row
        for month, new in by_month.items():
            old = [part for part in self.index.parts if part.month == month]
            is_merged = len(old) >= _MOST_PARTS or any(map(replaces, new))
            table = table_of(new.values())
            self._replace(old if is_merged else [], [table], month)
        files = {one.path: one for one in (*self.index.kept, *kept)}
        self._save(list(self.index.parts), list(files.values()), custody)

    def remove(self, rows: Expression, paths: Collection[str], head: Head) -> None:
        """Removes rows and other files from what this warehouse answers for.

        Args:
            rows: Condition of the rows.
            paths: Paths of files that were deleted.
            head: Head of the custody log.
        """
        import pyarrow.compute as pc

        for part in list(self.index.parts):
            table = read_part(self._store, part)
            left = table.filter(~pc.coalesce(rows, False))
            if len(left) < len(table):
                self._drop([part], [left] if len(left) else [], part.month)
        kept = [one for one in self.index.kept if one.path not in paths]
        self._save(list(self.index.parts), kept, head)

    def compact(self, month_now: str) -> None:
        """Merges the parts of months that are over."""
        months: dict[str, int] = {}
        for part in self.index.parts:
            months[part.month] = months.get(part.month, 0) + 1
        merged = [month for month, parts in months.items() if parts > 1 and month < month_now]
        for month in merged:
            self._replace([part for part in self.index.parts if part.month == month], [], month)
        if merged:
            self._save(list(self.index.parts), list(self.index.kept), self.index.custody)

    def rewrite(
        self, months: Iterable[tuple[str, pa.Table]], kept: Sequence[Kept], custody: Head
    ) -> None:
        """Replaces all parts of this warehouse, and its index."""
        old = list(self.index.parts)
        self.index = replace(self.index, parts=[])
        for month, table in months:
            self._drop([], [table], month)
        self._save(list(self.index.parts), kept, custody)
        live = {part.path for part in self.index.parts}
        self._store.delete([part.path for part in old if part.path not in live])

    def _replace(self, old: Sequence[Part], new: Sequence[pa.Table], month: str) -> None:
        """Replaces parts by one with their rows and new ones, which prevail."""
        tables = [read_part(self._store, part) for part in old]
        if tables and new:
            held = pa.concat_tables(tables).append_column(
                "_place", pa.array(range(sum(map(len, tables))), pa.int64())
            )
            keys = held.select([*KEY, "_place"]).join(
                new[0].select(KEY), keys=list(KEY), join_type="left anti"
            )
            tables = [pa.concat_tables(tables).take(keys["_place"].sort())] if len(keys) else []
        self._drop(old, [*tables, *new], month)

    def _drop(self, old: Sequence[Part], tables: Sequence[pa.Table], month: str) -> None:
        """Puts one part in the place of others, which are deleted once the index is saved."""
        parts = [part for part in self.index.parts if part not in old]
        if tables:
            table = pa.concat_tables(tables).sort_by([(name, "ascending") for name in KEY])
            parts.append(self._put(table, month))
        self.index = replace(self.index, parts=parts)
        self._months.pop(month, None)
        self._dropped += [part.path for part in old]

    def _put(self, table: pa.Table, month: str) -> Part:
        import pyarrow.parquet as pq

        self._written += 1
        name = f"{month}.{self._run_id[:_RUN_DIGITS]}.{self._written}.parquet"
        path = f"{manifest_folder(self.index.agent_id)}/{self.index.writer}/{name}"
        with self._incoming.file(".parquet") as draft:
            pq.write_table(table, draft, compression="zstd")
            size = draft.stat().st_size
            with draft.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            self._store.put(draft, path)
        return Part(path, month, sha256, size, len(table))

    def _save(self, parts: Sequence[Part], kept: Sequence[Kept], custody: Head) -> None:
        self.index = replace(
            self.index, run_id=self._run_id, parts=parts, kept=kept, custody=custody
        )
        with self._incoming.file(".json") as draft:
            draft.write_bytes(self.index.encoded())
            self._store.put(draft, self.index.path)
        # after the index, which lists them until then
        self._store.delete(self._dropped)
        self._dropped = []
