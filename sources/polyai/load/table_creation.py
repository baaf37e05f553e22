"""Creation of tables from their declarations alone, without a load package."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import dlt

from ..tables.declaration import Table
from ..warehouse.duckdb_file import kept_open
from ..warehouse.errors import destination_errors, is_conflict
from ..warehouse.queries import Warehouse
from ..warehouse.retry import retry
from .source import tables_schema


def is_incomplete(warehouse: Warehouse, tables: Iterable[Table]) -> bool:
    """Returns whether any of the tables does not exist with all columns."""
    return not all(
        warehouse.has_columns(table.name, (column.name for column in table.columns))
        for table in tables
    )


def create(tables: Sequence[Table], pipeline: dlt.Pipeline, schema_name: str) -> None:
    """Creates the tables and columns that do not exist.

    Args:
        tables: The tables.
        pipeline: Pipeline of the warehouse.
        schema_name: Name of the dlt schema that gets them.

    Raises:
        DestinationError: The destination cannot create them.
    """

    def attempt() -> None:
        with kept_open(pipeline):
            schemas = pipeline.schemas
            schema = tables_schema(tables, schema_name)
            if schema_name in schemas:
                known = schemas[schema_name].clone()
                known.update_schema(schema)
                schema = known
            schemas.save_schema(schema)
            client: Any = pipeline.destination_client(schema_name)
            with client:
                client.initialize_storage()
                # also where this version of the schema is stored: a table or a column is gone
                client.update_stored_schema(force=True)

    with destination_errors():
        retry(attempt, retry_if=is_conflict)
