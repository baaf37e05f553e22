"""Rows from a query over the warehouse."""

from __future__ import annotations

from ..warehouse.read_only import open_to_read
from .rows import Record, from_rows


def query_records(sql: str, destination: str | None, dataset: str | None) -> list[Record]:
    """Returns the rows of a query over the warehouse; tables need no dataset prefix.

    Args:
        sql: One `SELECT` in the destination's dialect.
        destination: As for `open_pipeline`.
        dataset: As for `open_pipeline`.

    Raises:
        DestinationError: The warehouse does not exist, or refuses the query.
    """
    with open_to_read(destination, dataset) as warehouse:
        return from_rows(warehouse.records(sql))
