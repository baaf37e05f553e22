"""The main job shown in seconds: sandbox up, load, a short look at what landed, sandbox down."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dlt
import duckdb

from .errors import ConfigurationError
from .report import RunReport
from .settings import resolve
from .sync import OnBegin, load
from .tables import CONVERSATION_TABLES
from .warehouse import open_pipeline

AGENT_ID = "PROJECT-BOOKINGS"
API_KEY = "sandbox-key"

_KPIS = """
    SELECT
        count(*) AS conversations,
        avg((NOT handoff)::INT) AS containment_rate,
        avg(total_duration_seconds) AS handle_time_seconds,
        (SELECT median(latency_seconds) FROM turns) AS latency_seconds
    FROM conversations WHERE environment = 'live' AND NOT in_progress
"""


@dataclass(frozen=True)
class Demo:
    """What the demo loaded and measured."""

    database: Path
    report: RunReport
    row_counts: dict[str, int]
    containment_rate: float
    """Share of finished live conversations without a handoff."""
    handle_time_seconds: float
    latency_seconds: float
    """Median of the turns."""


def run_demo(database: Path, conversations: int, on_begin: OnBegin) -> Demo:
    """Loads a sandbox's conversations into a new DuckDB file.

    Args:
        database: The file; an earlier demo's is replaced, anything else refused.
        conversations: How many.
        on_begin: As `load` takes it.

    Raises:
        ConfigurationError: The file holds other data, or the extra `sandbox` is not installed.
    """
    try:
        from .sandbox import Sandbox, SandboxConfig, serve
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
        (report,) = load(settings, pipeline, on_begin=on_begin)
        dataset = pipeline.dataset_name
    return _looked_at(database, dataset, report)


def _clear_earlier_demo(database: Path) -> None:
    """Removes the file where it holds the demo's agent alone."""
    if not database.exists():
        return
    try:
        with duckdb.connect(str(database), read_only=True) as connection:
            schemas = connection.execute(
                "SELECT table_schema FROM information_schema.tables "
                "WHERE table_name = 'conversations' AND table_schema IN ('main', 'polyai')"
            ).fetchall()
            agents = {
                agent_id
                for (schema,) in schemas
                for (agent_id,) in connection.execute(
                    f'SELECT DISTINCT agent_id FROM "{schema}".conversations'
                ).fetchall()
            }
    except duckdb.Error as error:
        raise ConfigurationError(
            f"{database} cannot be read as a demo's database: {error}"
        ) from error
    if agents != {AGENT_ID}:
        raise ConfigurationError(
            f"{database} holds other data than a demo's: name another file with --database"
        )
    database.unlink()


def _looked_at(database: Path, dataset: str, report: RunReport) -> Demo:
    with duckdb.connect(str(database), read_only=True) as connection:
        connection.execute(f"SET schema = '\"{dataset}\"'")
        counts: dict[str, int] = {}
        for table in CONVERSATION_TABLES:
            row: Any = connection.execute(f"SELECT count(*) FROM {table.name}").fetchone()
            counts[table.name] = int(row[0])
        kpis: Any = connection.execute(_KPIS).fetchone()
    return Demo(database, report, counts, *kpis[1:])
