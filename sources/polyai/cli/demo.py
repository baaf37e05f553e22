"""The main job shown in seconds: sandbox up, load, a short look at what landed, sandbox down."""

from __future__ import annotations

import tempfile
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dlt
import duckdb

from ..config.settings import resolve
from ..errors import ConfigurationError
from ..load.loop import OnBegin
from ..load.report import RunReport
from ..load.run import load
from ..tables.registry import conversation_tables
from ..views import refresh
from ..warehouse.open import open_pipeline

AGENT_ID = "PROJECT-BOOKINGS"
API_KEY = "sandbox-key"

_KPIS = """
    WITH finished AS (FROM conversations WHERE environment = 'live' AND NOT in_progress)
    SELECT
        avg((NOT handoff)::INT) AS containment_rate,
        avg(total_duration_seconds) AS handle_time_seconds,
        (
            SELECT median(latency_seconds) FROM turns
            SEMI JOIN finished USING (agent_id, conversation_id)
        ) AS latency_seconds
    FROM finished
"""


_OWN_TABLES = """
    SELECT schema_name, table_name, bool_or(column_name = 'agent_id') AS has_agents
    FROM duckdb_columns() SEMI JOIN duckdb_tables() USING (table_oid, database_oid)
    WHERE NOT starts_with(table_name, '_dlt') GROUP BY ALL
"""
"""Tables of a file but for dlt's own, and whether they tell an agent, as all of a load do."""


@dataclass(frozen=True)
class Demo:
    """What the demo loaded and measured."""

    database: Path
    report: RunReport
    row_counts: dict[str, int]
    containment_rate: float
    """Share of finished live conversations without a handoff."""
    handle_time_seconds: float
    """Mean of the whole durations of the same."""
    latency_seconds: float
    """Median of their turns."""


def run_demo(
    database: Path, conversations: int, stop: threading.Event, on_begin: OnBegin
) -> Demo | None:
    """Loads a sandbox's conversations into a new DuckDB file.

    Args:
        database: The file; an earlier demo's is replaced, anything else refused.
        conversations: How many.
        stop: As `load` takes it.
        on_begin: As `load` takes it.

    Returns:
        What landed; None where it was stopped.

    Raises:
        ConfigurationError: The file holds other data, or the extra `sandbox` is not installed.
    """
    try:
        from ..sandbox import Sandbox, SandboxConfig, serve
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"the sandbox needs {error.name}: pip install 'polyai-warehouse[sandbox]'"
        ) from error
    _clear_earlier_demo(database)
    sandbox = Sandbox(
        SandboxConfig(
            conversations=conversations,
            agents=(AGENT_ID,),
            api_key=API_KEY,
            now=datetime.now(UTC).replace(microsecond=0),
        )
    )
    with tempfile.TemporaryDirectory() as working_directory, serve(sandbox) as base_url:
        pipeline = open_pipeline(
            dlt.destinations.duckdb(str(database)), pipelines_dir=working_directory
        )
        settings = resolve(
            agents=[{"agent_id": AGENT_ID, "api_key": API_KEY, "base_url": base_url}]
        )
        reports = load(settings, pipeline, stop=stop, on_begin=on_begin)
        dataset = pipeline.dataset_name
        if not stop.is_set():
            refresh(pipeline, settings.reporting_time_zone)
    if stop.is_set():
        return None
    (report,) = reports
    return _looked_at(database, dataset, report)


def _clear_earlier_demo(database: Path) -> None:
    """Removes the file where it holds nothing, or the demo's agent alone."""
    if not database.exists():
        return
    try:
        with duckdb.connect(str(database), read_only=True) as connection:
            is_demo = all(
                has_agents and _agents(connection, schema, table) <= {AGENT_ID}
                for schema, table, has_agents in connection.execute(_OWN_TABLES).fetchall()
            )
    except duckdb.Error as error:
        raise ConfigurationError(
            f"{database} cannot be read as a demo's database: {error}"
        ) from error
    if not is_demo:
        raise ConfigurationError(
            f"{database} holds other data than a demo's: name another file with --database"
        )
    database.unlink()
    # what a killed demo has left of its transactions does not belong to the new file
    database.with_name(f"{database.name}.wal").unlink(missing_ok=True)


def _agents(connection: duckdb.DuckDBPyConnection, schema: str, table: str) -> set[str]:
    found = connection.execute(f'SELECT DISTINCT agent_id FROM "{schema}"."{table}"').fetchall()
    return {agent_id for (agent_id,) in found}


def _looked_at(database: Path, dataset: str, report: RunReport) -> Demo:
    with duckdb.connect(str(database), read_only=True) as connection:
        connection.execute(f"SET schema = '\"{dataset}\"'")
        counts: dict[str, int] = {}
        for table in conversation_tables():
            row: Any = connection.execute(f"SELECT count(*) FROM {table.name}").fetchone()
            counts[table.name] = int(row[0])
        kpis: Any = connection.execute(_KPIS).fetchone()
    return Demo(database, report, counts, *kpis)
