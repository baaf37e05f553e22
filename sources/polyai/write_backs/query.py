"""Rows that the warehouse itself has: an analyst's SQL finds them, one command sends them."""

from __future__ import annotations

from ..warehouse.read_only import open_to_read
from .rows import Record, from_rows


def query_records(sql: str, destination: str | None, dataset: str | None) -> list[Record]:
    """The rows of a query over the warehouse; tables need no dataset in front of their names.

    Args:
        sql: One `SELECT`, in the destination's own dialect.
        destination: As `open_pipeline` takes it.
        dataset: As `open_pipeline` takes it.

    Raises:
        DestinationError: There is no warehouse, or it does not take the query.
    """
    with open_to_read(destination, dataset) as warehouse:
        return from_rows(warehouse.records(sql))
