"""Copy of a warehouse to another destination, part by part, and its comparison with the source.

A part of the target with the same rows as in the source is not copied again, so that a run that was
killed is continued, and a copy can be brought up to date. `_dlt_loads` is written last: until then,
a load into the target takes what is there for incomplete, and reads it again.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import timedelta

import dlt
import pyarrow as pa

from ..console.exit_codes import ExitCode
from ..errors import ConfigurationError, DestinationError
from ..load.committer import Committer
from ..load.exclusive import exclusive_committer
from ..load.memory import fix_mmap_threshold
from ..load.upgrade import UPGRADE_SCHEMA
from ..locking.files import LockTimeout
from ..tables.conversations import CONVERSATIONS
from ..tables.declaration import LOAD_ID, Table
from ..tables.registry import copied_tables
from ..warehouse.capabilities import advice_without_leases
from ..warehouse.duckdb_file import locked_file
from ..warehouse.open import destination_label
from ..warehouse.queries import Warehouse
from .digest import Digest
from .dlt_rows import KEYS, LOADS, Row, for_pipeline, replace_rows, rows_of
from .parts import Group, Part, Reader, groups, parts
from .sides import agents, place

_LOCK_ENDING = ".copy.lock"

logger = logging.getLogger("polyai")

PIPELINE_NAME = "polyai_copy"
"""dlt pipeline that writes the target, and schema of its load packages, whose rows in `_dlt_loads`
do not remain."""

SOURCE_PIPELINE_NAME = "polyai_copy_source"
"""dlt pipeline that reads the source."""

OnPart = Callable[[int, int], None]
"""Called with the number of conversations that are copied, and of all."""


@dataclass
class TableCopy:
    """Comparison of one table.

    Attributes:
        name: Name of the table.
        source: Rows of the source.
        target: Rows of the target.
        copied: Number of rows that this run has written.
    """

    name: str
    source: Digest = field(default_factory=Digest)
    target: Digest = field(default_factory=Digest)
    copied: int = 0

    @property
    def is_equal(self) -> bool:
        """True if both sides have the same rows."""
        return self.source == self.target


@dataclass
class Copy:
    """Result of a run.

    Attributes:
        source: Source, for messages.
        target: Target, for messages.
        tables: Comparison of each table; empty if the run was interrupted.
        is_source_changed: The source was loaded meanwhile, so that the copy may lack something.
        is_interrupted: `stop` was set before the end.
    """

    source: str
    target: str
    tables: list[TableCopy] = field(default_factory=list)
    is_source_changed: bool = False
    is_interrupted: bool = False

    @property
    def error(self) -> str | None:
        """Reason why the copy is not complete."""
        if self.is_source_changed:
            return "the source was loaded meanwhile: run copy again, it copies what has changed"
        if differing := [one.name for one in self.tables if not one.is_equal]:
            return f"the copy differs from its source in {', '.join(differing)}: run copy again"
        return None

    @property
    def exit_code(self) -> ExitCode:
        """Exit code of the command."""
        if self.is_interrupted:
            return ExitCode.INTERRUPTED
        return ExitCode.SOME_FAILED if self.error else ExitCode.DONE


def copy(
    source: dlt.Pipeline,
    target: dlt.Pipeline,
    *,
    lock_wait: timedelta = timedelta(0),
    stop: threading.Event | None = None,
    on_part: OnPart | None = None,
) -> Copy:
    """Copies all tables of a warehouse, and dlt's own, and compares both sides.

    Sends no request to PolyAI. Idempotent: what the target has already is not copied again.

    Args:
        source: Pipeline `SOURCE_PIPELINE_NAME` of the warehouse.
        target: Pipeline `PIPELINE_NAME` of the destination to copy it to.
        lock_wait: Time to wait for other runs; no other run may write to either side meanwhile.
        stop: When set, the run ends before the next part; the next run continues.
        on_part: Called after each part.

    Returns:
        The comparison of each table.

    Raises:
        BusyError: Another run writes to the source or the target.
        ConfigurationError: Source and target are the same; or the target has another warehouse.
        DestinationError: A side cannot be read or written, or the source has no warehouse.
        LeaseLostError: Another machine has taken over a lease because this run was suspended.
    """
    if place(source) == place(target):
        raise ConfigurationError(
            f"source and target are the same: {destination_label(target)}. Name another "
            "destination with --to, or another dataset with --to-dataset"
        )
    if advice := advice_without_leases(target):
        logger.warning("%s", advice)
    stop = stop or threading.Event()
    timeout = LockTimeout(lock_wait, stop)
    fix_mmap_threshold()

    def held() -> list[str]:
        return agents(Warehouse(source))

    # backfills are not locked out: if one commits meanwhile, the comparison at the end finds it
    with (
        exclusive_committer(source, timeout, held, _LOCK_ENDING) as reading,
        exclusive_committer(target, timeout, held, _LOCK_ENDING) as writing,
    ):
        return _CopyRun(reading.warehouse, writing, stop, on_part).run()


class _CopyRun:
    """One run, with both sides open."""

    def __init__(
        self,
        source: Warehouse,
        committer: Committer,
        stop: threading.Event,
        on_part: OnPart | None,
    ) -> None:
        self._source, self._target = Reader(source), Reader(committer.warehouse)
        self._committer = committer
        self._stop = stop
        self._on_part = on_part
        self._tables = {table.name: TableCopy(table.name) for table in copied_tables()}
        self._with_rows: set[Table] = set()
        """Tables that had rows in the target at the start."""
        self._conversations = 0
        self._done = 0

    def run(self) -> Copy:
        """Copies and compares."""
        source, target = self._source.warehouse, self._target.warehouse
        result = Copy(destination_label(source.pipeline), destination_label(target.pipeline))
        with source.kept_open():
            if not source.has_table(CONVERSATIONS.name):
                raise DestinationError(f"there is no warehouse to copy: {result.source}")
            self._conversations = source.count_rows(CONVERSATIONS.name)
            loads = rows_of(source, LOADS, _columns(source, LOADS))
            self._warn_of_unknown_columns()
            with target.kept_open():
                _require_own(source, target, result.target)
        self._committer.create_tables(copied_tables())
        with target.kept_open():
            self._with_rows = {table for table in copied_tables() if target.count_rows(table.name)}
        # a DuckDB file is open as shortly as possible, because others wait meanwhile
        is_shared = locked_file(source.pipeline) is not None
        with nullcontext() if is_shared else source.kept_open():
            for group in groups():
                for part in parts(source, group):
                    if self._stop.is_set():
                        result.is_interrupted = True
                        return result
                    self._copy(part)
                self._delete_others(group)
            result.is_source_changed = loads != rows_of(source, LOADS, _columns(source, LOADS))
            result.tables = self._compared()
            if all(one.is_equal for one in result.tables):
                result.tables += self._copied_dlt_rows({dict(row)[KEYS[LOADS]] for row in loads})
        return result

    def _warn_of_unknown_columns(self) -> None:
        for table in copied_tables():
            if unknown := self._source.unknown_columns(table):
                names = ", ".join(unknown)
                logger.warning("columns of yours in %s are not copied: %s", table.name, names)

    def _copy(self, part: Part) -> None:
        """Copies a part, unless the target has it already."""
        with_rows = self._with_rows.intersection(part.group.tables)
        before = [table for table in with_rows if self._target.has_rows(part, table)]
        if before:
            found = {table: self._digest(self._source, part, table) for table in part.group.tables}
            known = {table: self._digest(self._target, part, table) for table in part.group.tables}
            if found == known:
                self._include(found)
                self._report(part)
                return
            for table in before:
                condition, parameters = part.where(self._target.warehouse, part.ids)
                self._committer.delete(table, condition, *parameters)
        copied: defaultdict[Table, Digest] = defaultdict(Digest)

        def rows_of_table(table: Table) -> Callable[[], Iterator[pa.Table]]:
            def read() -> Iterator[pa.Table]:
                copied[table] = Digest()
                for rows in self._source.rows(part, table):
                    copied[table].add(table, rows)
                    if rows.num_rows:
                        yield rows

            return read

        rows = {table: rows_of_table(table) for table in part.group.tables}
        self._committer.commit_rows(rows, self._source.warehouse)
        self._include(copied)
        for table, digest in copied.items():
            self._tables[table.name].copied += digest.rows
        self._report(part)

    def _include(self, digests: dict[Table, Digest]) -> None:
        for table, digest in digests.items():
            self._tables[table.name].source.include(digest)

    def _report(self, part: Part) -> None:
        if part.group.anchor is CONVERSATIONS:
            self._done += len(part.ids)
        if self._on_part is not None:
            self._on_part(self._done, self._conversations)

    def _digest(self, reader: Reader, part: Part, table: Table) -> Digest:
        digest = Digest()
        with reader.warehouse.kept_open():
            for rows in reader.rows(part, table):
                digest.add(table, rows)
        return digest

    def _delete_others(self, group: Group) -> None:
        """Deletes rows that the source no longer has, from a copy that is brought up to date."""
        source, target = self._source.warehouse, self._target.warehouse
        if group.orphans or group.anchor not in self._with_rows:
            return
        if target.count_rows(group.anchor.name) == source.count_rows(group.anchor.name):
            return
        for part in parts(target, group):
            condition, parameters = part.where(source, part.ids)
            column = source.name(group.column)
            found = source.rows(
                f"SELECT DISTINCT {column} FROM {{{group.anchor.name}}} WHERE {condition}",
                *parameters,
            )
            known = {id_ for (id_,) in found}
            others = [id_ for id_ in part.ids if id_ not in known]
            if others:
                condition, parameters = part.where(target, others)
                for table in group.tables:
                    self._committer.delete(table, condition, *parameters)

    def _compared(self) -> list[TableCopy]:
        """Reads the target again, and compares it with what was read from the source."""
        source, target = self._source.warehouse, self._target.warehouse
        with target.kept_open(), source.kept_open():
            for group in groups():
                for part in parts(target, group):
                    for table in group.tables:
                        digest = self._digest(self._target, part, table)
                        self._tables[table.name].target.include(digest)
            for name, one in self._tables.items():
                # also rows that no part has, if a destination lost their ids
                one.source.rows = max(one.source.rows, source.count_rows(name))
                one.target.rows = max(one.target.rows, target.count_rows(name))
        return list(self._tables.values())

    def _copied_dlt_rows(self, load_ids: Collection[object]) -> list[TableCopy]:
        """Copies dlt's own tables, and compares them.

        Args:
            load_ids: Load packages that the source had at the start. Rows of later ones may be
                missing, so that the target must not have them as complete.
        """
        source, target = self._source.warehouse, self._target.warehouse
        compared = []
        for name in KEYS:
            columns = _columns(target, name)
            expected = for_pipeline(rows_of(source, name, columns), name, target.pipeline)
            if name == LOADS:
                for row in [row for row in expected if dict(row)[KEYS[LOADS]] not in load_ids]:
                    del expected[row]
            found = rows_of(target, name, columns)
            replace_rows(self._committer, name, found, expected)
            one = TableCopy(name, copied=(expected - found).total())
            one.source, one.target = (
                _digest_of(expected),
                _digest_of(rows_of(target, name, columns)),
            )
            compared.append(one)
        return compared


def _require_own(source: Warehouse, target: Warehouse, label: str) -> None:
    """Refuses a target with rows that are not from the source, which would be overwritten.

    Raises:
        ConfigurationError: The target has load packages that the source does not have.
    """
    own = (PIPELINE_NAME, UPGRADE_SCHEMA)
    others = _load_ids(target, own) - _load_ids(source)
    if others:
        raise ConfigurationError(
            f"the target already holds another warehouse, or was loaded since it was copied: "
            f"{label} has {len(others):,} load packages that the source does not have. Copy into "
            "an empty dataset with --to-dataset, or drop that one"
        )


def _load_ids(warehouse: Warehouse, without_schemas: Sequence[str] = ()) -> set[str]:
    """Returns the ids of the load packages, also of incomplete ones that wrote conversations."""
    recorded = warehouse.rows(f"SELECT load_id, schema_name FROM {{{LOADS}}}")
    of_rows = warehouse.rows(f"SELECT DISTINCT {LOAD_ID} FROM {{{CONVERSATIONS.name}}}")
    excluded = {load_id for load_id, schema_name in recorded if schema_name in without_schemas}
    return {load_id for load_id, *_ in (*recorded, *of_rows)} - excluded


def _digest_of(rows: Counter[Row]) -> Digest:
    """Returns the digest of rows of one of dlt's tables."""
    digest = Digest()
    for row, count in rows.items():
        for _ in range(count):
            digest.add_values([str(value) for _, value in row])
    return digest


def _columns(warehouse: Warehouse, table: str) -> frozenset[str]:
    return warehouse.existing_columns(table) or frozenset()
