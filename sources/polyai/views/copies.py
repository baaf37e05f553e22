"""Registration of the copies of a DuckDB warehouse that are published for readers.

A copy is registered in the warehouse before it is made, so that an erasure finds the copies that
were made for an earlier `publish_to`, and for the dashboard.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import dlt
import duckdb

from ..clock import utc_now
from ..tables.conversations import CONVERSATIONS
from ..tables.erasure import PUBLISHED_COPIES
from ..warehouse.duckdb_file import (
    COPY_CONFIG,
    duckdb_path,
    exclusive_file_lock,
    retry_while_locked,
)
from ..warehouse.queries import Warehouse

Form = Literal["duckdb", "parquet"]

_TYPES = {"text": "VARCHAR", "timestamp": "TIMESTAMP WITH TIME ZONE"}

_NAME = PUBLISHED_COPIES.name


@dataclass(frozen=True)
class Copy:
    """A registered copy.

    Attributes:
        form: `duckdb` for a file, `parquet` for a folder or bucket of files.
        place: Path of the file, or folder or URL; relative to the folder of the warehouse if it is
            in there, so that both can be moved together.
        warehouse: File of the warehouse at that time.
    """

    form: Form
    place: str
    warehouse: str

    def at(self, database: Path) -> Path | str:
        """Returns the file, or the folder or URL, for a warehouse in this file."""
        if "://" in self.place:
            return self.place
        path = database.parent / self.place
        return path if self.form == "duckdb" else f"{path}/"


def register(pipeline: dlt.Pipeline, form: Form, place: Path | str) -> None:
    """Registers a copy in the warehouse, if need be. Locks the file for a moment.

    Args:
        pipeline: Pipeline of the warehouse, a DuckDB file.
        form: As for `Copy`.
        place: Absolute path of the copy, or URL.
    """
    database: Any = duckdb_path(pipeline)
    if not database.exists():
        return  # publishing reports it
    copy = Copy(form, _relative(place, database.parent), str(database))
    with exclusive_file_lock(database):
        with retry_while_locked(lambda: duckdb.connect(str(database), read_only=True)) as reader:
            agents = _unregistered_agents(reader, pipeline.dataset_name, copy)
        if agents:
            config = dict(COPY_CONFIG)
            with retry_while_locked(lambda: duckdb.connect(str(database), config=config)) as writer:
                _insert(writer, pipeline.dataset_name, copy, agents)


def copies(pipeline: dlt.Pipeline, database: Path) -> Iterator[Copy]:
    """Yields the registered copies, and that of a dashboard of an earlier version.

    Args:
        pipeline: Pipeline of the warehouse.
        database: File of the warehouse.
    """
    rows = Warehouse(pipeline, locks_file=True).rows(
        f"SELECT DISTINCT form, place, warehouse FROM {{{_NAME}}} ORDER BY place, warehouse"
    )
    yield from (Copy(*row) for row in rows)
    earlier = Path(pipeline.pipelines_dir).with_name("published") / database.name
    if earlier != database and all(_relative(earlier, database.parent) != row[1] for row in rows):
        yield Copy("duckdb", _relative(earlier, database.parent), str(database))


def _relative(place: Path | str, folder: Path) -> str:
    if isinstance(place, Path) and place.is_relative_to(folder):
        return str(place.relative_to(folder))
    return str(place)


def _unregistered_agents(
    connection: duckdb.DuckDBPyConnection, schema: str, copy: Copy
) -> list[str]:
    names = {
        name
        for (name,) in connection.execute(
            "SELECT table_name FROM duckdb_tables() WHERE database_name = current_database() "
            "AND schema_name = ?",
            [schema],
        ).fetchall()
    }
    if CONVERSATIONS.name not in names:
        return []
    known = ""
    if _NAME in names:
        known = (
            f'EXCEPT SELECT agent_id FROM "{schema}".{_NAME} WHERE place = $1 AND warehouse = $2'
        )
    found = connection.execute(
        f'SELECT DISTINCT agent_id FROM "{schema}".{CONVERSATIONS.name} {known} ORDER BY 1',
        [copy.place, copy.warehouse] if known else [],
    )
    return [agent_id for (agent_id,) in found.fetchall()]


def _insert(
    connection: duckdb.DuckDBPyConnection, schema: str, copy: Copy, agents: list[str]
) -> None:
    table = f'"{schema}".{_NAME}'
    columns = ", ".join(
        f"{column.name} {_TYPES[column.type]}{' NOT NULL' if column.required else ''}"
        for column in PUBLISHED_COPIES.columns
    )
    connection.execute("BEGIN")
    connection.execute(f"CREATE TABLE IF NOT EXISTS {table} ({columns})")
    for agent_id in agents:
        connection.execute(
            f"DELETE FROM {table} WHERE agent_id = ? AND place = ?", [agent_id, copy.place]
        )
        connection.execute(
            f"INSERT INTO {table} (agent_id, place, form, warehouse, published_at) "
            "VALUES (?, ?, ?, ?, ?)",
            [agent_id, copy.place, copy.form, copy.warehouse, utc_now()],
        )
    connection.execute("COMMIT")
