"""Warehouses that are loaded once in a run of the suite, and copied for each test."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import dlt
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


def put_loaded(config: SandboxConfig, file: str = _FILE) -> None:
    """Puts what `load` makes of a new sandbox of this configuration into the working directory.

    All of its agents are loaded, by the sandbox's own clock. The destination is all that a load
    needs to go on, so the DuckDB file is all that is copied.
    """
    kept = _folder / f"{hashlib.sha256(repr(config).encode()).hexdigest()}.duckdb"
    with FileLock(kept.with_suffix(".lock")):
        if not kept.exists():
            _load(config, kept)
    shutil.copy(kept, file)


def _load(config: SandboxConfig, kept: Path) -> None:
    folder = kept.with_suffix("")
    folder.mkdir()
    with serve(Sandbox(config)) as base_url:
        settings = resolve(agent_id=",".join(config.agents), api_key=KEY, base_url=base_url)
        destination = dlt.destinations.duckdb(str(folder / _FILE))
        pipeline = open_pipeline(destination, pipelines_dir=folder / "pipelines")
        reports = load(settings, pipeline, clock=lambda: config.now)
    assert {report.status for report in reports} == {"complete"}
    # the lock is held meanwhile; a load that failed leaves no file of this name
    (folder / _FILE).rename(kept)
