"""Warehouses that are loaded once in a process, and copied for each test that starts from one."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import lru_cache
from pathlib import Path

import dlt

from command import AGENT, KEY
from polyai import load, open_pipeline, resolve
from polyai.sandbox import Sandbox, SandboxConfig, serve

_FILE = "polyai.duckdb"


def put_loaded(config: SandboxConfig) -> None:
    """Puts what `load` makes of a new sandbox of this configuration into the working directory.

    It was loaded by the sandbox's own clock.

    The destination is all that a load needs to go on, so the DuckDB file is all that is copied.
    """
    shutil.copy(_loaded(config) / _FILE, _FILE)


@lru_cache
def _loaded(config: SandboxConfig) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="polyai-loaded-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with serve(Sandbox(config)) as base_url:
        settings = resolve(agent_id=AGENT, api_key=KEY, base_url=base_url)
        destination = dlt.destinations.duckdb(str(folder / _FILE))
        pipeline = open_pipeline(destination, pipelines_dir=folder / "pipelines")
        (report,) = load(settings, pipeline, clock=lambda: config.now)
    assert report.status == "complete"
    return folder
