"""dlt sources: `polyai` for pipelines of the user, and those of the committer's load packages.

In `polyai`, one `listing → details` chain feeds a selectable resource per table, so that each
detail is read and shaped once, however many tables are selected.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import dlt
from dlt.common.configuration.specs import BaseConfiguration
from dlt.extract import DltResource, DltSource

from ..config.settings import resolve
from ..shape.audit_rows import audit_table
from ..tables.declaration import Table
from ..tables.registry import loaded_tables
from ..warehouse.held import LoadState
from .agent_reader import AgentReader
from .chunk import Batch, Chunk
from .report import no_op

OnBatch = Callable[[Batch], None]
"""Called with each batch before its rows go to dlt."""


# without a spec of its own, dlt would fill the parameters from its configuration before the
# environment's POLYAI_* are looked at: only `resolve` knows the order
@dlt.source(name="polyai", section="polyai", spec=BaseConfiguration)
def polyai(
    agent_id: str | None = None,
    api_key: str | None = None,
    region: str | None = None,
    *,
    full: bool = False,
    **options: Any,
) -> list[DltResource]:
    """Every conversation of one or several PolyAI agents, as ten related tables.

    Reads what is missing or outdated in the pipeline's destination: the first run reads everything,
    later runs what is new or changed. Parameters that are not given come from the environment's
    `POLYAI_*` and from dlt's configuration under `sources.polyai`.

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

    def chunks() -> Iterator[Chunk]:
        warehouse = LoadState(dlt.current.pipeline())
        for agent in settings.agents:
            with AgentReader(agent, settings, warehouse, full=full) as reader:
                yield from reader.chunks()
                if reader.stopped_by is not None:
                    raise reader.stopped_by

    return list(_resources(chunks, no_op))


def chunk_source(chunk: Chunk, on_batch: OnBatch, schema: str) -> DltSource:
    """The same source over one chunk: one load package.

    Args:
        chunk: The chunk, whose rows are read while dlt extracts.
        on_batch: Called with each batch before its rows go to dlt.
        schema: Name of the dlt schema, recorded with the load package in `_dlt_loads`.
    """
    return _source(schema, lambda: list(_resources(lambda: [chunk], on_batch)))


def rows_source(rows: Mapping[Table, Sequence[Mapping[str, Any]]], schema: str) -> DltSource:
    """A source of rows of audit tables: one load package.

    Args:
        rows: Rows by column name; times as `datetime`, JSON columns as objects. A table without
            rows is created.
        schema: Name of the dlt schema.
    """

    def items(table: Table) -> Callable[[], Iterator[Any]]:
        return lambda: iter([audit_table(table, rows[table], _load_id())])

    return _source(schema, lambda: [dlt.resource(items(table), **_hints(table)) for table in rows])


def _load_id() -> str:
    """Returns the id of the load package that dlt is extracting.

    dlt 1.31 creates the id itself and accepts none from its caller. It passes it to resources by
    `dlt.current` alone; from here on it is an argument.
    """
    return str(dlt.current.load_package_state()["load_id"])


def _source(schema: str, resources: Callable[[], list[DltResource]]) -> DltSource:
    made: DltSource = dlt.source(resources, name=schema, section="polyai", spec=BaseConfiguration)()
    return made


def _resources(chunks: Callable[[], Iterable[Chunk]], on_batch: OnBatch) -> Iterator[DltResource]:
    @dlt.resource(name="listing", selected=False)
    def listing() -> Iterator[Chunk]:
        """`GET /v1/agents/{agentId}/conversations`, compared with the warehouse, in chunks."""
        yield from chunks()

    @dlt.transformer(name="details", data_from=listing, selected=False)
    def details(chunk: Chunk) -> Iterator[Batch]:
        """`GET /v1/agents/{agentId}/conversations/{conversationId}`, shaped in batches."""
        for batch in chunk.batches(_load_id()):
            on_batch(batch)
            yield batch

    yield listing
    yield details
    for table in loaded_tables():
        yield _table_resource(table, details)


def _table_resource(table: Table, details: DltResource) -> DltResource:
    is_first = True

    def rows(batch: Batch) -> Iterator[Any]:
        nonlocal is_first
        found = batch.tables[table.name]
        # an empty first batch creates the table, so that no query fails for lack of data
        if found.num_rows or is_first:
            is_first = False
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
