"""dlt sources: `polyai` for pipelines of the user, and those of the committer's load packages.

In `polyai`, one `listing → details` chain feeds a selectable resource per table, so that each
detail is read and shaped once, however many tables are selected.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

import dlt
import pyarrow as pa
from dlt.common.configuration.specs import BaseConfiguration
from dlt.common.schema import Schema
from dlt.common.schema.utils import pipeline_state_table
from dlt.extract import DltResource, DltSource

from ..config.settings import resolve
from ..errors import ApiError, ConfigurationError, ListingError, PolyAIError
from ..shape.audit_rows import audit_table
from ..tables.audit import FETCH_FAILURES
from ..tables.declaration import Table
from ..tables.erasure import FORGOTTEN, FORGOTTEN_CALLERS, HOLDS, LEDGER_ENTRIES, RETENTION
from ..tables.registry import loaded_tables
from ..warehouse.capabilities import require_support
from ..warehouse.held import LoadState
from ..warehouse.packages import merges_without_staging
from .agent_reader import AgentReader
from .chunk import Batch, Chunk
from .chunk_files import RowsFile, write_files
from .fetch import Fetched
from .report import no_op

logger = logging.getLogger("polyai")

OnBatch = Callable[[Batch], None]
"""Called with each batch before its rows go to dlt."""

RowsOf = Callable[[], Iterator[pa.Table]]
"""Function that returns rows of one table in parts."""

PAGE_SIZE = 100
"""Conversations of one item of `listing`, which is what `add_limit` counts."""

ITEM_BYTES = 8 * 2**20
"""Rows that dlt extracts together. It compares the schema of each item of each table with the one
that it knows, which takes 3 CPU ms. Items of 12 MB would save 2 % of a load, and take 15 MB more
memory at its peak."""

_KEPT_TABLES = frozenset(
    table.name for table in (FORGOTTEN, FORGOTTEN_CALLERS, LEDGER_ENTRIES, HOLDS, RETENTION)
)
"""Tables that `refresh` does not drop: erased conversations must not be loaded again, and holds
stay until they are released."""

_OF_ONE_AGENT = (ApiError, ConfigurationError, ListingError)
"""Errors that keep no other agent from being read."""


class PolyaiSource(DltSource):
    """The source, whose limit applies to `listing`, from which all tables are derived."""

    def add_limit(
        self,
        max_items: int | None = None,
        max_time: float | None = None,
        count_rows: bool | None = False,
    ) -> Self:
        """Limits what is read: pages of `PAGE_SIZE` conversations, the oldest first, or seconds.

        The next run continues after what was read.

        Args:
            max_items: Number of pages; of conversations with `count_rows`, but whole pages.
            max_time: Seconds.
            count_rows: Count conversations.
        """
        self.resources["listing"].add_limit(max_items, max_time, count_rows)
        return self

    def with_resources(self, *resource_names: str) -> PolyaiSource:
        """Selects tables, in a copy of the source.

        Failures are recorded in any case, so that the next run reads them again; `fetch_failures`
        is then created with the first one.
        """
        source = self.clone()
        source.resources.select(*dict.fromkeys((*resource_names, FETCH_FAILURES.name)))
        if FETCH_FAILURES.name not in resource_names:
            source.resources[FETCH_FAILURES.name].add_filter(lambda rows: rows.num_rows > 0)
        return source

    def clone(self, with_name: str | None = None) -> PolyaiSource:
        """Copies the source."""
        schema = self.schema.clone(with_name=with_name) if with_name else self.schema.clone()
        return PolyaiSource(schema, self.section, list(self.resources.values()))


class _Page(list[Fetched]):
    """Answers of one item of `listing`; a list, so that dlt can count them."""

    def __init__(self, reader: AgentReader, answers: Sequence[Fetched]) -> None:
        super().__init__(answers)
        self._reader = reader

    def batches(self, load_id: str) -> Iterator[Batch]:
        """Shapes them, as one batch, for the load package with this id."""
        yield self._reader.shape(self, load_id)


# without a spec of its own, dlt would fill the parameters from its configuration before the
# environment's POLYAI_* are looked at: only `resolve` knows the order
@dlt.source(name="polyai", section="polyai", spec=BaseConfiguration, _impl_cls=PolyaiSource)
def polyai(
    agent_id: str | None = None,
    api_key: str | None = None,
    region: str | None = None,
    *,
    full: bool = False,
    **options: Any,
) -> list[DltResource]:
    """Every conversation of one or several PolyAI agents, as eleven related tables.

    Reads what is missing or outdated in the pipeline's destination: the first run reads everything,
    later runs what is new or changed. Parameters that are not given come from the environment's
    `POLYAI_*` and from dlt's configuration under `sources.polyai`. A run with `refresh` reads
    everything again; `add_limit` reads a sample.

    An agent that cannot be read is logged as an error of the logger `polyai`, and the others are
    loaded; the run fails if no agent can be read. The next run reads what is missing.

    Args:
        agent_id: PolyAI agent (project), several separated by commas, or a Studio URL.
        api_key: Key of the Data API, for this agent and region.
        region: us, eu, uk or studio.
        full: Read the whole listing, not only the look-back window.
        options: Any other setting, such as `workers` or `pii`.

    Returns:
        `listing`, `details` and a resource per table; select tables with `with_resources`.

    Raises:
        ConfigurationError: A setting is missing or wrong.
    """
    settings = resolve(agent_id=agent_id, api_key=api_key, region=region, **options)

    def pages() -> Iterator[_Page]:
        if (pipeline := dlt.current.pipeline()).destination:
            require_support(pipeline)
        warehouse = _state_after_refresh()
        stopped: dict[str, PolyAIError] = {}
        for agent in settings.agents:
            try:
                with AgentReader(agent, settings, warehouse, full=full) as reader:
                    for page in reader.pages(PAGE_SIZE):
                        yield _Page(reader, page)
                    if reader.stopped_by is not None:
                        raise reader.stopped_by
            except _OF_ONE_AGENT as error:
                stopped[agent.agent_id] = error
        if len(stopped) == len(settings.agents):
            # dlt then loads nothing; the next run reads the same again
            raise next(iter(stopped.values()))
        for agent_id, reason in stopped.items():
            logger.error("agent %s was not read to its end: %s", agent_id, reason)

    return list(_resources(pages, no_op, creates_tables=True))


def _state_after_refresh() -> LoadState:
    """Returns the state of the warehouse that the load package will be merged into.

    With `refresh`, dlt drops or truncates tables when it loads the package, after this source has
    compared the listing with them. If any of our tables is, everything is read again.
    """
    state = dlt.current.load_package_state()["state"]
    dropped = [table for table in state.get("dropped_tables", ()) if not _is_kept(table)]
    if "dropped_tables" in state:
        state["dropped_tables"] = dropped
    names = {table["name"] for table in (*dropped, *state.get("truncated_tables", ()))}
    ours = frozenset(table.name for table in loaded_tables())
    absent = frozenset() if ours.isdisjoint(names) else ours
    return LoadState(dlt.current.pipeline(), absent=absent)


def _is_kept(table: Mapping[str, Any]) -> bool:
    return table["name"] in _KEPT_TABLES


@contextmanager
def chunk_source(
    pipeline: dlt.Pipeline, chunk: Chunk, tables: Sequence[str], on_batch: OnBatch, schema: str
) -> Iterator[DltSource]:
    """The same source over one chunk, whose tables exist: one load package.

    Args:
        pipeline: The pipeline that extracts it within the block.
        chunk: The chunk, whose rows are read while dlt extracts.
        tables: Names of the tables to load.
        on_batch: Called with each batch before its rows go to dlt.
        schema: Name of the dlt schema, recorded with the load package in `_dlt_loads`.
    """
    if merges_without_staging(pipeline):
        # in the working directory, which is discarded after a kill
        with TemporaryDirectory(dir=pipeline.working_dir) as folder:
            yield _files_source(chunk, tables, on_batch, schema, Path(folder))
        return
    items = _source(
        schema, lambda: list(_resources(lambda: [chunk], on_batch, creates_tables=False))
    )
    yield items.with_resources(*tables)


def _files_source(
    chunk: Chunk, tables: Sequence[str], on_batch: OnBatch, schema: str, folder: Path
) -> DltSource:
    """The same as Parquet files that we write, and dlt takes as they are.

    dlt would examine the columns of each item of each table, and resolve its configuration for each
    file, which takes more CPU than to write them.
    """
    selected = [table for table in loaded_tables() if table.name in tables]

    @cache
    def files() -> dict[str, RowsFile]:
        batches = _joined(chunk.batches(_load_id()), on_batch)
        return write_files(batches, {table.name: _file_schema(table) for table in selected}, folder)

    def resource(table: Table) -> DltResource:
        def file() -> Iterator[Any]:
            if found := files().get(table.name):
                yield dlt.mark.with_file_import(str(found.path), "parquet", found.rows)

        made: DltResource = dlt.resource(file, **_hints(table))
        return made

    return _source(schema, lambda: list(map(resource, selected)))


def _file_schema(table: Table) -> pa.Schema:
    """Returns the columns of a table in the order of its dlt schema, else dlt rewrites the file.

    In a warehouse of an earlier version, columns that have been added since are the last ones.
    """
    declared = table.arrow_schema
    known = dlt.current.source_schema().tables.get(table.name, {}).get("columns", {})
    ordered = [name for name in known if name in declared.names]
    others = [name for name in declared.names if name not in known]
    return pa.schema([declared.field(name) for name in (*ordered, *others)])


def tables_schema(tables: Sequence[Table], schema: str) -> Schema:
    """The dlt schema with these tables alone, and those that dlt itself keeps beside them.

    Args:
        tables: The tables.
        schema: Name of the dlt schema.
    """
    discovered = rows_source({table: [] for table in tables}, schema).discover_schema()
    # dlt declares it with the first package that holds a state; two runs at once would create it
    discovered.update_table(pipeline_state_table(add_dlt_id=True))
    return discovered


def rows_source(rows: Mapping[Table, Sequence[Mapping[str, Any]]], schema: str) -> DltSource:
    """A source of rows of audit tables: one load package.

    Args:
        rows: Rows by column name; times as `datetime`, JSON columns as objects.
        schema: Name of the dlt schema.
    """

    def items(table: Table) -> Callable[[], Iterator[Any]]:
        return lambda: iter([audit_table(table, rows[table], _load_id())])

    return _source(schema, lambda: [dlt.resource(items(table), **_hints(table)) for table in rows])


def arrow_source(rows: Mapping[Table, RowsOf], schema: str) -> DltSource:
    """A source of rows that have their load ids already: one load package.

    Args:
        rows: Returns the rows of each table, in parts that are read while dlt extracts.
        schema: Name of the dlt schema.
    """
    return _source(schema, lambda: [dlt.resource(rows[table], **_hints(table)) for table in rows])


def _load_id() -> str:
    """Returns the id of the load package that dlt is extracting.

    dlt 1.31 creates the id itself and accepts none from its caller. It passes it to resources by
    `dlt.current` alone; from here on it is an argument.
    """
    return str(dlt.current.load_package_state()["load_id"])


def _source(schema: str, resources: Callable[[], list[DltResource]]) -> DltSource:
    made: DltSource = dlt.source(resources, name=schema, section="polyai", spec=BaseConfiguration)()
    return made


def _resources(
    parts: Callable[[], Iterable[Chunk | _Page]], on_batch: OnBatch, *, creates_tables: bool
) -> Iterator[DltResource]:
    @dlt.resource(name="listing", selected=False)
    def listing() -> Iterator[Chunk | _Page]:
        """`GET /v1/agents/{agentId}/conversations`, compared with the warehouse, in parts."""
        yield from parts()

    @dlt.transformer(name="details", data_from=listing, selected=False)
    def details(part: Chunk | _Page) -> Iterator[Batch]:
        """`GET /v1/agents/{agentId}/conversations/{conversationId}`, shaped in batches."""
        yield from _joined(part.batches(_load_id()), on_batch)

    yield listing
    yield details
    for table in loaded_tables():
        yield _table_resource(table, details, creates_tables=creates_tables)


def _joined(batches: Iterable[Batch], on_batch: OnBatch) -> Iterator[Batch]:
    """Joins batches into items of `ITEM_BYTES`."""
    waiting: list[Batch] = []
    size = 0
    for batch in batches:
        on_batch(batch)
        waiting.append(batch)
        size += batch.bytes
        if size >= ITEM_BYTES:
            yield Batch.joined(waiting)
            waiting, size = [], 0
    if waiting:
        yield Batch.joined(waiting)


def _table_resource(table: Table, details: DltResource, *, creates_tables: bool) -> DltResource:
    begun = ""

    def rows(batch: Batch) -> Iterator[Any]:
        nonlocal begun
        found = batch.tables[table.name]
        if creates_tables and begun != (load_id := _load_id()):
            # an empty first batch creates the table, so that no query fails for lack of data
            begun = load_id
            yield found
        elif found.num_rows:
            yield found

    resource: DltResource = dlt.transformer(rows, data_from=details, **_hints(table))
    return resource


def _hints(table: Table) -> dict[str, Any]:
    _silence_json_hints()
    hints: dict[str, Any] = {
        "name": table.name,
        "columns": table.dlt_columns,
        "merge_key": list(table.merge_key),
        "write_disposition": table.write_disposition,
    }
    if table.is_child:
        keys = ["agent_id", "conversation_id"]
        hints["references"] = [
            {"columns": keys, "referenced_table": "conversations", "referenced_columns": keys}
        ]
    return hints


def _silence_json_hints() -> None:
    """Silences dlt's warning that Arrow text is declared as JSON, which is intended."""
    dlt_logger = logging.getLogger("dlt")
    if not any(isinstance(known, _JsonHintFilter) for known in dlt_logger.filters):
        dlt_logger.addFilter(_JsonHintFilter())


class _JsonHintFilter(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return "when merging arrow schema with dlt schema" not in record.getMessage()
