"""Dashboards served in the test process, over a loaded sandbox."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dlt
import duckdb

import kpis
from polyai import open_pipeline, resolve
from polyai.dashboard.dashboard import Dashboard
from polyai.dashboard.server import serve as serve_dashboard
from polyai.load.run import load
from polyai.sandbox import Sandbox, SandboxConfig, serve
from polyai.sandbox.model import Conversation
from polyai.views import PIPELINE_NAME, create_views
from polyai.views.query_reader import open_reader

AGENTS = ("PROJECT-BOOKINGS", "PROJECT-SPA")
NOW = datetime(2026, 11, 3, 13, tzinfo=UTC)
FILE = "polyai.duckdb"

DAYS = "days=custom&from=2026-09-20&to=2026-11-03"
"""Query for days that have conversations, independent of the current date."""


@dataclass(frozen=True)
class Loaded:
    """A warehouse with views, and its content.

    Attributes:
        folder: Folder of the database file.
        sandbox: The sandbox that it was loaded from.
        calls: Its conversations.
    """

    folder: Path
    sandbox: Sandbox
    calls: list[Conversation]


def load_all(folder: Path, conversations: int = 60) -> Loaded:
    """Loads two agents of a new sandbox into a file in the folder, and creates the views."""
    config = SandboxConfig(
        conversations=conversations, agents=AGENTS, now=NOW, span=timedelta(days=44)
    )
    sandbox = Sandbox(config)
    with serve(sandbox) as base_url:
        settings = resolve(agent_id=",".join(AGENTS), api_key="sandbox-key", base_url=base_url)
        load(
            settings,
            open_pipeline(destination(folder), pipelines_dir=folder),
            clock=lambda: config.now,
        )
    pipeline = open_pipeline(destination(folder), pipelines_dir=folder, name=PIPELINE_NAME)
    assert not create_views(pipeline).failed
    return Loaded(folder, sandbox, kpis.all_calls(sandbox))


def destination(folder: Path) -> dlt.destinations.duckdb:
    """Returns the destination for the DuckDB file in the folder."""
    return dlt.destinations.duckdb(str(folder / FILE))


@contextmanager
def dashboard(
    folder: Path, edit: Callable[[duckdb.DuckDBPyConnection], object] | None = None, **options: str
) -> Iterator[str]:
    """Serves the warehouse in the folder, and yields the URL with the token.

    Args:
        folder: Folder of the database file.
        edit: Changes the warehouse first.
        options: Options of `server.serve`.
    """
    if edit:
        with duckdb.connect(str(folder / FILE)) as connection:
            connection.execute("SET schema = 'main'")
            edit(connection)
    pipeline = open_pipeline(destination(folder), pipelines_dir=folder, name=PIPELINE_NAME)
    with (
        open_reader(pipeline, folder / "published") as reader,
        serve_dashboard(Dashboard(reader), port=0, **options) as served,
    ):
        yield served.token_url


def copied(loaded: Loaded, folder: Path) -> Path:
    """Copies the warehouse to the folder, and returns it."""
    shutil.copy(loaded.folder / FILE, folder / FILE)
    return folder
