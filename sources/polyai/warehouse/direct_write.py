"""Direct write and deletion of rows: statements in one transaction instead of a load package.

A package of dlt's takes about half a CPU second, however few its rows are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import dlt
import pyarrow as pa
from dlt.common.schema.typing import LOADS_TABLE_NAME
from dlt.destinations.sql_client import SqlClientBase

from ..clock import utc_now
from ..tables.declaration import Table
from ..tables.registry import erased_tables
from .duckdb_destination import DUCKDB
from .ducklake import DUCKLAKE
from .queries import Warehouse, id_batches

MOST_ROWS = 50
"""Rows up to which statements are cheaper than a package: each row takes two."""

_DESTINATIONS = frozenset({DUCKDB, DUCKLAKE, "dlt.destinations.postgres"})
"""dlt's types of destinations whose transactions cover several tables, and whose statements take
text for JSON."""


def can_write_directly(pipeline: dlt.Pipeline) -> bool:
    """Returns whether the destination supports `replace_rows`."""
    return pipeline.destination.destination_type in _DESTINATIONS


def replace_rows(
    client: SqlClientBase[Any],
    rows: Mapping[Table, pa.Table],
    load_id: str,
    schema_name: str,
    schema_hash: str | None,
) -> None:
    """Replaces rows by merge key in one transaction, with a row of `_dlt_loads` as of a package.

    Args:
        client: The open destination, in which the tables have all columns.
        rows: New rows by table.
        load_id: Load id that the rows have.
        schema_name: Name of the dlt schema, recorded with the load id.
        schema_hash: Hash of its version; None if it is not known.
    """
    with client.begin_transaction():
        for table, new in rows.items():
            name = client.make_qualified_table_name(table.name)
            same = " AND ".join(f"{client.escape_column_name(key)} = %s" for key in table.merge_key)
            values = new.to_pylist()
            for row in values:
                keys = [row[key] for key in table.merge_key]
                client.execute_sql(f"DELETE FROM {name} WHERE {same}", *keys)
            for row in values:
                _insert(client, name, row)
        record_load(client, load_id, schema_name, schema_hash)


def record_load(
    client: SqlClientBase[Any], load_id: str, schema_name: str, schema_hash: str | None
) -> None:
    """Inserts the row of `_dlt_loads` that marks a load as complete.

    Args:
        client: The open destination.
        load_id: Load id.
        schema_name: Name of the dlt schema, recorded with the load id.
        schema_hash: Hash of its version; None if it is not known.
    """
    _insert(
        client,
        client.make_qualified_table_name(LOADS_TABLE_NAME),
        {
            "load_id": load_id,
            "schema_name": schema_name,
            "status": 0,
            "inserted_at": utc_now(),
            "schema_version_hash": schema_hash,
        },
    )


def erase_rows(
    client: SqlClientBase[Any],
    warehouse: Warehouse,
    agent_id: str,
    conversation_ids: Sequence[str],
) -> Counter[str]:
    """Deletes all rows of conversations, except those that record their erasure.

    Args:
        client: The open destination.
        warehouse: The same destination, for queries.
        agent_id: Agent of the conversations.
        conversation_ids: Their ids.

    Returns:
        Numbers of deleted rows by table.
    """
    rows: Counter[str] = Counter()
    for table in erased_tables():
        if not warehouse.has_table(table.name):
            continue
        name = client.make_qualified_table_name(table.name)
        for ids, marks in id_batches(conversation_ids):
            these = f"FROM {name} WHERE agent_id = %s AND conversation_id IN ({marks})"
            found = client.execute_sql(f"SELECT count(*) {these}", agent_id, *ids)
            if found and found[0][0]:
                client.execute_sql(f"DELETE {these}", agent_id, *ids)
                rows[table.name] += found[0][0]
    return rows


def _insert(client: SqlClientBase[Any], name: str, row: Mapping[str, Any]) -> None:
    columns = ", ".join(client.escape_column_name(column) for column in row)
    marks = ", ".join(["%s"] * len(row))
    client.execute_sql(f"INSERT INTO {name} ({columns}) VALUES ({marks})", *row.values())
