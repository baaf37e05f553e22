"""A company whose conversations are erased, and what must be left of them: nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb

from command import AGENT, KEY, access, query
from loaded import put_loaded
from polyai import open_pipeline, resolve
from polyai.forgetting.erasures import Erasures
from polyai.forgetting.run import PIPELINE_NAME, Readers, forget
from polyai.load.run import load
from polyai.recordings.run import PIPELINE_NAME as RECORDINGS
from polyai.recordings.run import fetch_recordings
from polyai.sandbox import Sandbox, SandboxConfig, serve

CONFIG = SandboxConfig(
    conversations=120, span=timedelta(days=6), recording_rate_hz=20, detail="small"
)

IDS_IN = "SELECT conversation_id FROM polyai."


class Company:
    """A sandbox, and a warehouse in the working directory that has loaded all of it."""

    def __init__(self, sandbox: Sandbox, base_url: str) -> None:
        self.sandbox = sandbox
        self.base_url = base_url
        self.environment = access(base_url)
        put_loaded(sandbox.config)

    def load(self, *, full: bool = False, **options: Any) -> Any:
        """Runs `load` once, with the sandbox's clock."""
        settings = resolve(agent_id=AGENT, api_key=KEY, base_url=self.base_url, **options)
        (report,) = load(settings, open_pipeline(), full=full, clock=lambda: self.sandbox.now)
        assert report.status == "complete"
        return report

    def fetch_recordings(self) -> None:
        """Runs `recordings` once, at a time when no recording is pending any more."""
        settings = resolve(agent_id=AGENT, api_key=KEY, base_url=self.base_url)
        (report,) = fetch_recordings(
            settings,
            open_pipeline(name=RECORDINGS),
            clock=lambda: self.sandbox.now + timedelta(days=30),
        )
        assert report.status == "complete"

    def forget(self, *conversations: str, **options: Any) -> Erasures:
        """Runs `forget` once."""
        given: dict[str, Any] = {"recordings_url": "recordings", "readers": Readers("UTC", None)}
        return forget(open_pipeline(name=PIPELINE_NAME), conversations, **(given | options))

    def recorded(self) -> list[str]:
        """Returns the ids of conversations with a recording, oldest first."""
        return first_column(f"{IDS_IN}recordings WHERE status = 'stored' ORDER BY started_at")


@contextmanager
def open_company() -> Iterator[Company]:
    """Serves a sandbox whose conversations are loaded."""
    sandbox = Sandbox(CONFIG)
    with serve(sandbox) as url:
        yield Company(sandbox, url)


def first_column(sql: str, database: str = "polyai.duckdb") -> list[str]:
    """Returns the first column of a query."""
    return [str(row[0]) for row in query(sql, database)]


def row_counts() -> dict[str, Counter[str]]:
    """Number of rows by table and conversation id, of all tables but `forgotten`."""
    tables = first_column(
        "SELECT table_name FROM duckdb_columns() JOIN duckdb_tables() USING (schema_name, "
        "table_name) WHERE column_name = 'conversation_id' AND table_name <> 'forgotten'"
    )
    return {table: Counter(first_column(f"{IDS_IN}{table}")) for table in tables}


def without(counts: dict[str, Counter[str]], *ids: str) -> dict[str, Counter[str]]:
    """Returns the counts without those of these conversations."""
    return {
        table: Counter({name: n for name, n in rows.items() if name not in ids})
        for table, rows in counts.items()
    }


def assert_no_trace(*ids: str) -> None:
    """Asserts that no table, file name or manifest mentions these conversations."""
    counts = row_counts()
    assert without(counts, *ids) == counts
    for path in Path.cwd().rglob("*"):
        assert not any(name in path.name for name in ids), path
    if any(Path("recordings").rglob("*.parquet")):
        listed = duckdb.sql(
            "SELECT conversation_id FROM read_parquet('recordings/manifest/**/*.parquet')"
        ).fetchall()
        assert not {name for (name,) in listed} & set(ids)


def calls_of(sandbox: Sandbox, prefix: str) -> list[tuple[list[str], str]]:
    """Returns each caller with this prefix and its conversations, oldest first, by number."""
    calls: dict[str, list[str]] = {}
    for index in sorted(sandbox.listed(AGENT)):
        head = sandbox.head(AGENT, index)
        caller = head.from_number or ""
        if caller.startswith(prefix) and head.direction != "outbound":
            calls.setdefault(caller, []).append(head.conversation_id)
    return sorted(
        ((ids, caller) for caller, ids in calls.items()), key=lambda one: (-len(one[0]), one[1])
    )
