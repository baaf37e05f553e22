"""Command `polyai-warehouse demo`: loads a sandbox into DuckDB and shows the result."""

from __future__ import annotations

import shlex
import tempfile
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import dlt
import duckdb
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..config.settings import resolve
from ..console.exit_codes import ExitCode, reports_exit_code
from ..console.format import seconds_of, without_internals
from ..console.options import JsonOption
from ..console.process import stop_on_signals
from ..console.progress import LoadProgress
from ..console.terminal import print_json, stderr, stdout
from ..errors import ConfigurationError, extra_required
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
"""Tables of a file except dlt's own, and whether they have an agent_id, as all of ours do."""


@dataclass(frozen=True)
class Demo:
    """Result of the demo."""

    database: Path
    report: RunReport
    row_counts: dict[str, int]
    containment_rate: float
    """Share of finished live conversations without a handoff."""
    handle_time_seconds: float
    """Mean total duration of finished live conversations."""
    latency_seconds: float
    """Median latency of their turns."""


def demo(
    conversations: Annotated[
        int, typer.Option(min=10, max=100_000, help="Number of conversations.")
    ] = 300,
    database: Annotated[Path, typer.Option(help="DuckDB file.")] = Path("polyai.duckdb"),
    as_json: JsonOption = False,
) -> None:
    """Start the sandbox, load it into DuckDB, and show the result."""
    with stop_on_signals("stopping the demo") as stop, LoadProgress(stderr) as progress:
        result = run_demo(database, conversations, stop, progress.watch)
    if result is None:
        raise typer.Exit(ExitCode.INTERRUPTED)
    if as_json:
        print_json(_as_json(result))
    else:
        _show(stdout, result)
    raise typer.Exit(reports_exit_code([result.report]))


def run_demo(
    database: Path, conversations: int, stop: threading.Event, on_begin: OnBegin
) -> Demo | None:
    """Loads a sandbox's conversations into a new DuckDB file.

    Args:
        database: The file; one of an earlier demo is replaced, any other is refused.
        conversations: Number of conversations.
        stop: As for `load`.
        on_begin: As for `load`.

    Returns:
        Loaded tables and KPIs; None if it was interrupted.

    Raises:
        ConfigurationError: The file contains other data, or the extra `sandbox` is missing.
    """
    with extra_required("the sandbox", "sandbox"):
        from ..sandbox import Sandbox, SandboxConfig, serve
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
    return _measure(database, dataset, report)


def _clear_earlier_demo(database: Path) -> None:
    """Removes the file if it is empty or contains only the demo's agent."""
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
            f"{database} cannot be read as the database of a demo: {error}"
        ) from error
    if not is_demo:
        raise ConfigurationError(
            f"{database} contains other data than a demo: name another file with --database"
        )
    database.unlink()
    # the write-ahead log of a killed demo does not belong to the new file
    database.with_name(f"{database.name}.wal").unlink(missing_ok=True)


def _agents(connection: duckdb.DuckDBPyConnection, schema: str, table: str) -> set[str]:
    found = connection.execute(f'SELECT DISTINCT agent_id FROM "{schema}"."{table}"').fetchall()
    return {agent_id for (agent_id,) in found}


def _measure(database: Path, dataset: str, report: RunReport) -> Demo:
    with duckdb.connect(str(database), read_only=True) as connection:
        connection.execute(f"SET schema = '\"{dataset}\"'")
        counts: dict[str, int] = {}
        for table in conversation_tables():
            row: Any = connection.execute(f"SELECT count(*) FROM {table.name}").fetchone()
            counts[table.name] = int(row[0])
        kpis: Any = connection.execute(_KPIS).fetchone()
    return Demo(database, report, counts, *kpis)


def _show(console: Console, result: Demo) -> None:
    """Prints the loaded tables, three KPIs, and commands to try next."""
    report = result.report
    console.print(
        f"\n[bold]{report.new:,} synthetic conversations[/] of a bookings line loaded in "
        f"{seconds_of(report):.1f} s with {report.traffic.requests:,} requests\n"
    )
    tables = Table(title="Tables of polyai", title_justify="left", box=None, padding=(0, 2))
    tables.add_column("table")
    tables.add_column("rows", justify="right")
    for table, rows in result.row_counts.items():
        tables.add_row(table, f"{rows:,}")
    console.print(tables)
    kpis = Table(
        title="\nFinished live conversations",
        title_justify="left",
        box=None,
        padding=(0, 2),
        show_header=False,
    )
    kpis.add_column()
    kpis.add_column(justify="right")
    kpis.add_row("containment rate", f"{result.containment_rate:.1%}")
    kpis.add_row("average handle time", f"{result.handle_time_seconds:,.0f} s")
    kpis.add_row("median response latency", f"{result.latency_seconds:.2f} s")
    console.print(kpis)
    path = shlex.quote(str(result.database))
    console.print(
        f"\nThe database: [bold]{escape(str(result.database.resolve()))}[/]", soft_wrap=True
    )
    console.print("\nTry next (the duckdb command comes with pip install duckdb-cli):")
    for line in (
        f'duckdb {path} "select channel, sum(conversations) as conversations, '
        "sum(contained_conversations) / sum(finished_conversations) as containment "
        'from polyai.kpi_daily group by 1"',
        f'duckdb {path} "select user_input, agent_response from polyai.turns '
        "where conversation_id = (select min(conversation_id) from polyai.turns) "
        'order by turn_index"',
        "POLYAI_API_KEY=… POLYAI_AGENT_ID=… POLYAI_REGION=us polyai-warehouse check",
    ):
        console.print(f"  {line}", soft_wrap=True, markup=False)
    console.print(
        f"\nThese conversations are synthetic: delete {escape(path)} before you load your own.",
        soft_wrap=True,
    )


def _as_json(result: Demo) -> dict[str, Any]:
    """Returns the report as JSON."""
    return {
        "database": str(result.database.resolve()),
        "rows": result.row_counts,
        "containment_rate": result.containment_rate,
        "handle_time_seconds": result.handle_time_seconds,
        "latency_seconds": result.latency_seconds,
        "run": without_internals(result.report.as_row()),
    }
