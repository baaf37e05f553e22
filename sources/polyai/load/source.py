"""The dlt source: `listing → details →` one selectable resource a table.

However many tables are selected, each detail is read and shaped once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import dlt
from dlt.common.configuration.specs import BaseConfiguration
from dlt.extract import DltResource, DltSource

from ..config.settings import resolve
from ..tables.declaration import Table
from ..tables.registry import loaded_tables
from ..warehouse.held import LoadState
from .agent_reader import AgentReader, Chunk, Tables, rows_in

CountRows = Callable[[str, int], None]
"""Told of each table's rows as they go to dlt."""


def _not_counted(table: str, rows: int) -> None:
    """Counts nothing."""


# without a spec of its own, dlt would fill the parameters from its configuration before the
# environment's POLYAI_* are looked at: `resolve` alone knows the order
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

    Reads what the pipeline's destination does not hold yet, or holds otherwise: the first run
    everything, later runs what is new or changed. Parameters that are not given come from the
    environment's `POLYAI_*` and from dlt's configuration under `sources.polyai`.

    Args:
        agent_id: PolyAI agent (project), several separated by commas, or a Studio URL.
        api_key: Key of the Data API, for this agent and region.
        region: us, eu, uk or studio.
        full: Read the whole listing, not only the look-back.
        options: Any other setting, such as `workers` or `pii`.

    Returns:
        `listing`, `details` and a resource for each table; select tables with `with_resources`.

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

    return list(_resources(chunks, _not_counted))


def one_chunk(chunk: Chunk, count_rows: CountRows, schema: str) -> DltSource:
    """The same source over a chunk that is already under way: one load package.

    Args:
        chunk: The chunk.
        count_rows: Told of each table's rows.
        schema: dlt's name of the schema, by which the load package is known afterwards.
    """
    return _source(schema, lambda: list(_resources(lambda: [chunk], count_rows)))


def some_tables(rows: Mapping[Table, Callable[[], Any]], schema: str) -> DltSource:
    """A source for audit tables; what gives their rows is called while dlt extracts."""
    return _source(
        schema, lambda: [dlt.resource(given, **_hints(table)) for table, given in rows.items()]
    )


def empty_tables(tables: Iterable[Table], schema: str) -> DltSource:
    """A source that makes tables and nothing else."""

    def nothing(table: Table) -> Callable[[], Iterator[Any]]:
        return lambda: iter([table.arrow_schema.empty_table()])

    return some_tables({table: nothing(table) for table in tables}, schema)


def _source(schema: str, resources: Callable[[], list[DltResource]]) -> DltSource:
    made: DltSource = dlt.source(resources, name=schema, section="polyai", spec=BaseConfiguration)()
    return made


def _resources(
    chunks: Callable[[], Iterable[Chunk]], count_rows: CountRows
) -> Iterator[DltResource]:
    @dlt.resource(name="listing", selected=False)
    def listing() -> Iterator[Chunk]:
        """`GET /v1/agents/{agentId}/conversations`, compared with what is held, in chunks."""
        yield from chunks()

    @dlt.transformer(name="details", data_from=listing, selected=False)
    def details(chunk: Chunk) -> Iterator[Tables]:
        """`GET /v1/agents/{agentId}/conversations/{conversationId}`, shaped in batches."""
        yield from chunk.batches

    yield listing
    yield details
    for table in loaded_tables():
        yield _table_resource(table, details, count_rows)


def _table_resource(table: Table, details: DltResource, count_rows: CountRows) -> DltResource:
    is_first = True

    def rows(batch: Tables) -> Iterator[Any]:
        nonlocal is_first
        found = batch[table.name]
        # an empty first batch creates the table, so that no query fails for want of data
        if found.num_rows or is_first:
            is_first = False
            count_rows(table.name, rows_in(found))
            yield found

    resource: DltResource = dlt.transformer(rows, data_from=details, **_hints(table))
    return resource


def _hints(table: Table) -> dict[str, Any]:
    _quiet_json_hints()
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


def _quiet_json_hints() -> None:
    """Silences dlt's warning that Arrow text is declared as JSON, which is meant so."""
    dlt_logger = logging.getLogger("dlt")
    if not any(isinstance(known, _JsonHintFilter) for known in dlt_logger.filters):
        dlt_logger.addFilter(_JsonHintFilter())


class _JsonHintFilter(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return "when merging arrow schema with dlt schema" not in record.getMessage()
