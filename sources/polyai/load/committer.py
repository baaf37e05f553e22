"""Committer: the one component that writes load packages into the destination.

Loads, slices of backfills, audit rows, recordings, write-backs, debug chats and erasure commit
through it. There is one rule for what a killed or refused run left behind: `open_committer`
discards it, and its rows are read again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

import dlt
from dlt.common.storages.load_package import create_load_id
from dlt.destinations.sql_client import SqlClientBase
from dlt.extract import DltSource
from dlt.pipeline.exceptions import PipelineStepFailed

from ..locking.files import (
    LockTimeout,
    agent_leases,
    database_lock,
    staging_dataset_name,
    working_directory_lock,
)
from ..locking.leases import Holder, Leases
from ..shape.audit_rows import audit_table
from ..tables.audit import SYNC_RUNS
from ..tables.conversations import CONVERSATIONS
from ..tables.declaration import Table
from ..tables.registry import loaded_tables
from ..tables.registry import tables as registered_tables
from ..warehouse.clients import sql_client
from ..warehouse.direct_write import (
    MOST_ROWS,
    can_write_directly,
    erase_rows,
    record_load,
    replace_rows,
)
from ..warehouse.duckdb_file import kept_open, lift_memory_limit
from ..warehouse.ducklake import DUCKLAKE
from ..warehouse.errors import destination_errors, is_conflict
from ..warehouse.held import LoadState
from ..warehouse.holds import Deletion, Hold, HoldKeys, Holds
from ..warehouse.indexes import Indexes
from ..warehouse.open import connect, owner_only
from ..warehouse.packages import merges_without_staging
from ..warehouse.queries import Warehouse
from ..warehouse.retry import retry
from .chunk import Batch, Chunk, Days, lanes_of
from .discard import discard, drop_datasets, remove_old_records
from .memory import release_unused
from .report import RunReport, no_op
from .source import OnBatch, RowsOf, arrow_source, chunk_source, rows_source
from .table_creation import create, is_incomplete
from .upgrade import (
    UPGRADE,
    UPGRADE_SCHEMA,
    UPGRADED_TABLES,
    is_upgraded,
    protect_callers,
    set_directions,
    upgrade_chunks,
)

logger = logging.getLogger("polyai")

_TABLES = "tables"
"""Name of the lease on creating tables."""

_UPGRADE = "upgrade"
"""Name of the lease on upgrading the warehouse. Its holder commits, so it is held alone."""

_COMMITS = "commits"
"""Name of the lease on any load into DuckLake: of two commits at once, one loses all its work."""


@contextmanager
def open_committer(
    pipeline: dlt.Pipeline,
    lock_ending: str | None,
    lease_names: Callable[[], Iterable[str]],
    timeout: LockTimeout,
    schema: str | None = None,
) -> Iterator[tuple[Committer, Mapping[str, Holder]]]:
    """Opens a committer for one run, and keeps out other runs over the same tables.

    Args:
        pipeline: The pipeline, with a working directory that this run holds until it ends.
        lock_ending: Ending of the name of the lock file beside a DuckDB file; None for runs that
            need none.
        lease_names: Returns the names of the leases that the run needs; called once the
            destination answers.
        timeout: Time to wait for other runs.
        schema: Name of the dlt schema of its load packages, by default the pipeline's name.

    Yields:
        The committer, and the holders of those leases that the run did not get.

    Raises:
        BusyError: Another run holds the working directory or the lock.
        DestinationError: The destination cannot be used.
    """
    with ExitStack() as stack:
        stack.enter_context(owner_only())
        stack.enter_context(working_directory_lock(pipeline, timeout))
        if lock_ending is not None:
            stack.enter_context(database_lock(pipeline, timeout, lock_ending))
        has_discarded = discard(pipeline)
        # before the leases, which create the dataset: dlt resets itself where it was dropped
        connect(pipeline)
        names = list(lease_names())
        leases, others = stack.enter_context(agent_leases(pipeline, names, timeout))
        if leases is not None and not names:
            # a killed run of this working directory may have left those of lanes
            leases.release_leftovers()
        committer = Committer(pipeline, leases, schema or pipeline.pipeline_name)
        if has_discarded:
            committer.drop_staging()
        yield committer, others
        if not merges_without_staging(pipeline):
            committer.drop_staging()
        remove_old_records(pipeline)


class Committer:
    """Commits load packages of one run, through a pipeline that no other run is using.

    Args:
        pipeline: The pipeline.
        leases: Leases of the run; None where the destination needs none.
        schema: Name of the dlt schema of the packages.

    Attributes:
        warehouse: State of the load.
    """

    def __init__(self, pipeline: dlt.Pipeline, leases: Leases | None, schema: str) -> None:
        self.pipeline = pipeline
        self.warehouse = LoadState(pipeline, locks_file=True)
        self._leases = leases
        self._schema = schema
        self._indexes = Indexes(pipeline)
        self._complete: set[Table] = set()
        """Tables that are known to have all columns."""
        self._is_upgraded = False
        """True once the warehouse is known to have the values of new columns."""
        self._commits = [_COMMITS] if pipeline.destination.destination_type == DUCKLAKE else []
        """Leases on any commit, as far as the destination needs one."""

    def kept_open(self) -> AbstractContextManager[None]:
        """Keeps the destination open during several steps, each of which would open it."""
        return self.warehouse.kept_open()

    def commit_chunk(
        self, chunk: Chunk, agent_id: str, tables: Sequence[str], on_batch: OnBatch
    ) -> None:
        """Commits a chunk as one load package, and keeps other runs out of its lanes meanwhile.

        Args:
            chunk: The chunk.
            agent_id: Its agent.
            tables: Names of the tables to load.
            on_batch: Called with each batch before its rows go to dlt.
        """
        self.create_tables(table for table in loaded_tables() if table.name in tables)
        days: list[Days] = []

        def extracted(batch: Batch) -> None:
            days.append(batch.days)
            on_batch(batch)

        with chunk_source(self.pipeline, chunk, tables, extracted, self._schema) as source:
            self._extract(source)
        self._load(lanes_of(agent_id, frozenset().union(*days)))

    def write(self, rows: Mapping[Table, Sequence[Mapping[str, Any]]]) -> None:
        """Commits rows of audit tables: a few by statements, else as one load package.

        Args:
            rows: Rows by column name; times as `datetime`, JSON columns as objects. A table without
                rows is created.
        """
        self.create_tables(rows)
        if can_write_directly(self.pipeline) and sum(map(len, rows.values())) <= MOST_ROWS:
            retry(lambda: self._write_directly(rows), retry_if=is_conflict)
            return
        self._extract(rows_source(rows, self._schema))
        self._load()

    def commit_rows(
        self, rows: Mapping[Table, RowsOf], source: Warehouse, lanes: Iterable[str] = ()
    ) -> None:
        """Commits rows that have their load ids already, in place of those with their merge keys.

        Args:
            rows: Returns the rows of each table, all of the same merge key together. The tables
                exist.
            source: Warehouse that they are read from. It is closed before they are loaded, because
                an open DuckDB file takes up to its limit of memory.
            lanes: Leases to hold while they are loaded.
        """
        with source.kept_open():
            self._extract(arrow_source(rows, self._schema))
        self._load(lanes)

    def create_tables(self, tables: Iterable[Table]) -> None:
        """Creates tables, columns of tables, and indexes that do not exist.

        If one is missing, all tables of the registry are created, because queries and views of
        users expect them. One run at a time, because two at once would fail.

        What an earlier version loaded is upgraded, unless the caller keeps the destination open:
        then the next call does it.

        Args:
            tables: The tables that are looked up, beside `sync_runs`.
        """
        unknown = [table for table in (SYNC_RUNS, *tables) if table not in self._complete]
        if unknown:
            with self.kept_open():
                self._is_upgraded = self._is_upgraded or is_upgraded(self.warehouse)
                if is_incomplete(self.warehouse, unknown) or not self._is_upgraded:
                    with self._hold([_TABLES, *self._commits]):
                        if is_incomplete(self.warehouse, (*registered_tables(), *unknown)):
                            is_new = not self.warehouse.has_table(CONVERSATIONS.name)
                            create(registered_tables(), self.pipeline, self._schema)
                            if is_new:
                                with destination_errors(), sql_client(self.pipeline) as client:
                                    record_load(client, UPGRADE, UPGRADE_SCHEMA, None)
                                self._is_upgraded = True
            self._complete.update(unknown)
            self._indexes.create(self._complete)
        # long, and each chunk opens the destination by itself, so that others can use it between
        if not (self._is_upgraded or self.warehouse.is_kept_open):
            self._upgrade()
            self._is_upgraded = True

    def begin(
        self, report: RunReport, commands: Sequence[str], tables: Iterable[Table] = ()
    ) -> list[dict[str, Any]]:
        """Writes a run's first row of `sync_runs`, and creates tables.

        Args:
            report: Report of the run.
            commands: Commands of which at most one runs per agent at a time.
            tables: Tables that it reads or writes.

        Returns:
            Rows that mark runs without an end as interrupted; to be written at the end of this run.
        """
        self.create_tables(tables)
        self.write({SYNC_RUNS: [report.as_row()]})
        return [
            {**run, "status": "interrupted"}
            for run in self.warehouse.unfinished_runs(report.agent_id, commands)
            if run["run_id"] != report.run_id
        ]

    def delete(self, table: Table, condition: str, *parameters: object) -> None:
        """Deletes rows of a table that no other run writes.

        Args:
            table: The table.
            condition: SQL, with `%s` for each parameter.
            parameters: Values of the parameters.
        """
        with self.statements() as client:
            name = client.make_qualified_table_name(table.name)
            client.execute_sql(f"DELETE FROM {name} WHERE {condition}", *parameters)

    def erase(
        self,
        agent_id: str,
        conversation_ids: Sequence[str],
        keys: HoldKeys,
        delete_files: Callable[[Sequence[str]], None] = no_op,
    ) -> Deletion:
        """Deletes conversations: their files, then all rows but those that record the erasure.

        There is no other way to delete a conversation. What is on legal hold stays.

        Args:
            agent_id: The agent.
            conversation_ids: Conversations, loaded or not.
            keys: Settings by which callers on hold are recognized.
            delete_files: Deletes the recordings of conversations. Called first, because their rows
                name the files; an error leaves the rows.

        Raises:
            ConfigurationError: A caller on hold cannot be recognized.
        """
        on_hold = self.on_hold(agent_id, conversation_ids, keys)
        others = [name for name in conversation_ids if name not in on_hold]
        delete_files(others)
        with self.statements() as client:
            return Deletion(erase_rows(client, self.warehouse, agent_id, others), on_hold)

    def on_hold(
        self, agent_id: str, conversation_ids: Collection[str], keys: HoldKeys
    ) -> dict[str, Hold]:
        """Returns those of these conversations that are on legal hold now.

        Whatever deletes conversations, their words or their recordings leaves these out.

        Args:
            agent_id: The agent.
            conversation_ids: Conversations, loaded or not.
            keys: Settings by which callers on hold are recognized.

        Raises:
            ConfigurationError: A caller on hold cannot be recognized.
        """
        holds = Holds(self.warehouse, agent_id, keys)
        return holds.among(self.warehouse, conversation_ids)

    def drop_staging(self) -> None:
        """Drops the staging dataset, which belongs to this working directory alone."""
        drop_datasets(self.pipeline, [staging_dataset_name(self.pipeline)])

    @contextmanager
    def statements(self) -> Iterator[SqlClientBase[Any]]:
        """Opens the destination for statements, which need the same lease as a load."""
        with (
            self._hold(self._commits),
            destination_errors(),
            kept_open(self.pipeline),
            sql_client(self.pipeline) as client,
        ):
            yield client

    def _upgrade(self) -> None:
        """Moves what an earlier version loaded into new columns; one run at a time, and once."""
        with self._hold([_UPGRADE]):
            if is_upgraded(self.warehouse):
                return
            for chunk in upgrade_chunks(self.warehouse):
                names = UPGRADED_TABLES
                with chunk_source(self.pipeline, chunk, names, no_op, self._schema) as source:
                    self._extract(source)
                self._load()
            with self.statements() as client:
                set_directions(client)
                protect_callers(client)
                record_load(client, UPGRADE, UPGRADE_SCHEMA, None)

    def _write_directly(self, rows: Mapping[Table, Sequence[Mapping[str, Any]]]) -> None:
        load_id = create_load_id()
        tables = {table: audit_table(table, rows[table], load_id) for table in rows}
        schemas = self.pipeline.schemas
        known = schemas[self._schema].stored_version_hash if self._schema in schemas else None
        with self.statements() as client:
            replace_rows(client, tables, load_id, self._schema, known)

    def _hold(self, names: Iterable[str]) -> AbstractContextManager[None]:
        return self._leases.holding(names) if self._leases is not None else nullcontext()

    def _extract(self, source: DltSource) -> None:
        with destination_errors():
            self.pipeline.extract(source)

    def _load(self, lanes: Iterable[str] = ()) -> None:
        """Normalizes and loads the package that was extracted.

        Args:
            lanes: Leases to hold while it is loaded.
        """
        with destination_errors():
            self.pipeline.normalize()
            release_unused()
            with self._hold(self._commits or lanes):
                retry(self._load_package, retry_if=self._may_retry)

    def _load_package(self) -> None:
        if self._leases is not None:
            self._leases.renew()
        with kept_open(self.pipeline):
            self.pipeline.load()

    def _may_retry(self, error: Exception) -> bool:
        """Checks whether the package may be loaded after all, with the jobs that have failed.

        In the process that began it, dlt knows which jobs the destination has committed, so that
        none is repeated. A package of another process is never continued.
        """
        if not isinstance(error, PipelineStepFailed):
            return False
        if lift_memory_limit(self.pipeline, error):
            logger.warning("texts of this size need more memory: DuckDB's limit is lifted")
            return True
        if is_conflict(error):
            logger.info("another run committed at the same time: retrying")
            return True
        return False
