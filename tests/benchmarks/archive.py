"""Memory and CPU seconds of `recordings verify` over large archives in a folder.

Version 0.1 could have left the archive: its files share one body, and the first `verify` upgrades
it, so that manifest and custody log are written by the package itself.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from pathlib import Path

import duckdb

from polyai.sandbox import Sandbox, SandboxConfig, serve

from .commands import AGENT_ID, run
from .measuring import report

LIMIT_MEGABYTES = 400

COMMANDS = {
    "upgrade and verify": ("recordings", "verify"),
    "verify": ("recordings", "verify"),
    "verify --quick": ("recordings", "verify", "--quick"),
}

TABLES = {
    "conversations": """
        SELECT template.* REPLACE (
            'CA' || md5(i::VARCHAR) AS conversation_id,
            $first + to_microseconds(i * $pace) AS started_at,
            $first + to_microseconds(i * $pace) AS created_at,
            $first + to_microseconds(i * $pace) + INTERVAL 1 SECOND AS finished_at,
            1.0 AS total_duration_seconds, 1.0 AS polyai_duration_seconds)
        FROM template_conversations AS template, range($rows) AS numbers(i)
    """,
    "recordings": """
        SELECT template.* REPLACE (
            'CA' || md5(i::VARCHAR) AS conversation_id,
            $first + to_microseconds(i * $pace) AS started_at, $first AS fetched_at,
            NULL AS path, NULL AS archive_id,
            concat($folder, '/agent_id=', agent_id, '/date=',
                strftime($first + to_microseconds(i * $pace), '%Y-%m-%d'),
                '/CA', md5(i::VARCHAR), '.combined.redacted.wav') AS uri)
        FROM template_recordings AS template, range($rows) AS numbers(i)
    """,
}


def make(folder: Path, recordings: int, days: int) -> None:
    """Makes warehouse and archive in a folder, from one recording of the sandbox."""
    config = SandboxConfig(conversations=10, detail="small", recording_cap_seconds=0.1)
    with serve(Sandbox(config)) as url:
        variables = {
            "POLYAI_BASE_URL": url,
            "POLYAI_API_KEY": config.api_key,
            "POLYAI_AGENT_ID": AGENT_ID,
        }
        run(folder, "load", "--recordings", variables=variables)
    archive = folder.resolve() / "recordings"
    with duckdb.connect(str(folder / "polyai.duckdb")) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        ((uri,),) = connection.execute(
            "SELECT min(uri) FROM polyai.recordings WHERE status = 'stored'"
        ).fetchall()
        body = Path(uri).read_bytes()
        call = "(SELECT min(conversation_id) FROM polyai.recordings WHERE uri = ?)"
        shutil.rmtree(archive)
        connection.execute("DELETE FROM polyai.archives; DELETE FROM polyai.sync_runs")
        for name in TABLES:
            connection.execute(
                f"CREATE TEMP TABLE template_{name} AS "
                f"SELECT * FROM polyai.{name} WHERE conversation_id = {call}",
                [uri],
            )
        for name, rows in TABLES.items():
            connection.execute(f"DELETE FROM polyai.{name}")
            values = {
                "first": connection.execute("SELECT TIMESTAMPTZ '2025-01-01'").fetchall()[0][0],
                "pace": days * 86_400_000_000 // recordings,
                "rows": recordings,
            }
            if name == "recordings":
                values["folder"] = str(archive)
            connection.execute(f"INSERT INTO polyai.{name} {rows}", values)
        made = connection.execute("SELECT uri FROM polyai.recordings").fetchall()
    for (uri,) in made:
        path = Path(uri)
        if not path.parent.exists():
            path.parent.mkdir(parents=True)
        path.write_bytes(body)


def main() -> None:
    """Measures the commands at each size."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.archive", description=__doc__)
    parser.add_argument("--recordings", type=int, nargs="+", default=[20_000, 100_000])
    parser.add_argument("--days", type=int, default=365, help="days of calls")
    options = parser.parse_args()
    for recordings in options.recordings:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            make(folder, recordings, options.days)
            for title, command in COMMANDS.items():
                began = time.perf_counter()
                cost = run(folder, *command)
                peak = cost.peak_rss_bytes / 1e6
                report(
                    f"{recordings:,} recordings of {options.days} days, {title}: "
                    f"{time.perf_counter() - began:.1f} s, {cost.cpu_seconds:.1f} CPU s, "
                    f"peak {peak:.0f} MB: {'yes' if peak < LIMIT_MEGABYTES else 'NO'}"
                )


if __name__ == "__main__":
    main()
