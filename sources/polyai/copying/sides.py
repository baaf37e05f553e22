"""Sides of a copy: their places and agents."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dlt

from ..tables.registry import copied_tables
from ..warehouse.duckdb_file import duckdb_path
from ..warehouse.ducklake import DUCKLAKE, places
from ..warehouse.queries import Warehouse


def agents(warehouse: Warehouse) -> list[str]:
    """Returns the agents with rows in any table."""
    found: set[str] = set()
    for table in copied_tables():
        rows = warehouse.rows(f"SELECT DISTINCT agent_id FROM {{{table.name}}}")
        found.update(agent_id for (agent_id,) in rows)
    return sorted(found)


def place(pipeline: dlt.Pipeline) -> tuple[object, ...]:
    """Returns what distinguishes the datasets of all destinations."""
    kind, dataset = pipeline.destination.destination_type, pipeline.dataset_name
    if (database := duckdb_path(pipeline)) is not None:
        return kind, database, dataset
    config: Any = pipeline.destination_client().config
    if kind == DUCKLAKE:
        return kind, places(config), dataset
    credentials = config.credentials
    host, name = getattr(credentials, "host", None), getattr(credentials, "database", None)
    if name and not host:
        name = Path(name).resolve()
    return kind, host, getattr(credentials, "port", None), name, dataset
