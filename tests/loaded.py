"""Warehouses that are loaded once in a run of the suite, and copied for each test."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import dlt
import duckdb
from filelock import FileLock

from command import KEY
from polyai import open_pipeline, resolve
from polyai.load.run import load
from polyai.sandbox import Sandbox, SandboxConfig, serve

_FILE = "polyai.duckdb"
_folder = Path()


def keep_in(folder: Path) -> None:
    """Sets the folder of the loaded warehouses, which several processes can share."""
    global _folder
    folder.mkdir(exist_ok=True)
    _folder = folder


def put_loaded(
    config: SandboxConfig,
    later: timedelta = timedelta(0),
    clock: Callable[[], datetime] | None = None,
) -> None:
    """Copies a loaded sandbox of this configuration into the working directory.

    All of its agents are loaded. The destination is all that the next load needs, so only the
    DuckDB file is copied.

    Args:
        config: Configuration of the sandbox.
        later: Time by which the sandbox is advanced before the load.
        clock: Clock of the load. Default: that of the sandbox.
    """
    key = f"{config} {later} {clock.__name__ if clock else ''}"
    put_made(key, lambda pipeline: load_sandbox(pipeline, config, later, clock))


def restore(export: Path) -> None:
    """Restores a DuckDB file of version 0.1 from an `EXPORT DATABASE` in the working directory."""
    with duckdb.connect(_FILE) as connection:
        connection.execute((export / "schema.sql").read_text(encoding="utf-8"))
        for file in sorted(export.glob("*.parquet")):
            connection.execute(f"INSERT INTO main.{file.stem} SELECT * FROM '{file}'")


def load_sandbox(
    pipeline: dlt.Pipeline,
    config: SandboxConfig,
    later: timedelta = timedelta(0),
    clock: Callable[[], datetime] | None = None,
) -> None:
    """Loads all agents of a new sandbox of this configuration; see `put_loaded`."""
    sandbox = Sandbox(config)
    sandbox.advance(later)
    with serve(sandbox) as base_url:
        settings = resolve(agent_id=",".join(config.agents), api_key=KEY, base_url=base_url)
        reports = load(settings, pipeline, clock=clock or (lambda: sandbox.now))
    assert {report.status for report in reports} == {"complete"}


def put_made(key: str, make: Callable[[dlt.Pipeline], object]) -> None:
    """Copies a warehouse into the working directory, and makes it if it is the first of its key.

    Args:
        key: Names the warehouse, with all that it depends on.
        make: Fills the warehouse of a pipeline.
    """
    kept = _folder / f"{hashlib.sha256(key.encode()).hexdigest()}.duckdb"
    with FileLock(kept.with_suffix(".lock")):
        if not kept.exists():
            folder = Path(tempfile.mkdtemp(dir=_folder))
            destination = dlt.destinations.duckdb(str(folder / _FILE))
            make(open_pipeline(destination, pipelines_dir=folder / "pipelines"))
            # renamed only when complete
            (folder / _FILE).rename(kept)
    shutil.copy(kept, _FILE)
