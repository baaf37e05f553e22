"""One scenario for every destination: the commands of a user's week, and what they leave behind.

Each step runs commands as a user does, and returns the rows of all tables and views that it left.
`DuckDB` is the reference: the others have to leave the same rows after every step.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from unittest.mock import patch

from command import access, run, start
from ducklake import home_with_extensions
from mariadb_server import mariadb
from polyai import ExitCode
from polyai.sandbox import Sandbox
from polyai.tables.audit import WRITE_BACKS
from polyai.tables.erasure import FORGOTTEN
from polyai.tables.recordings import RECORDINGS
from polyai.tables.registry import conversation_tables, key_of, name_tables
from polyai.views.definitions import View, views
from polyai.warehouse.read_only import open_to_read
from postgres_server import postgres
from s3_server import s3

Rows = dict[str, dict[str, Any]]
"""Rows by key."""

Snapshot = dict[str, Rows]
"""Rows by table or view."""

_OF_THE_RUN = frozenset(
    {
        "_dlt_load_id",
        "_deleted",
        "fetched_at",
        "newest_fetched_at",
        "last_complete_load_at",
        "load_age_minutes",
        "valid_from",
        "first_seen_at",
        "valid_to",
        "run_id",
        "archive_id",
        "uri",
        "fingerprint",
        "requested_at",
        "sent_at",
        "erased_at",
    }
)
"""Columns that differ in each run of the scenario."""

_KEYS = {"notes": ("agent_id", "conversation_id", "note")}
"""Keys of tables, where they are not those that the table declares."""

_AUDIT = (RECORDINGS, WRITE_BACKS, FORGOTTEN)


@contextmanager
def in_duckdb(folder: Path) -> Iterator[dict[str, str]]:
    yield {"DESTINATION__DUCKDB__CREDENTIALS": str(folder / "polyai.duckdb")}


@contextmanager
def in_postgres(folder: Path) -> Iterator[dict[str, str]]:
    with postgres() as url:
        yield {"DESTINATION_TYPE": "postgres", "DESTINATION__POSTGRES__CREDENTIALS": url}


@contextmanager
def in_ducklake(folder: Path) -> Iterator[dict[str, str]]:
    with postgres() as url:
        yield home_with_extensions(folder / "home") | {
            "DESTINATION_TYPE": "ducklake",
            "DESTINATION__DUCKLAKE__CREDENTIALS__CATALOG": url,
            "DESTINATION__DUCKLAKE__CREDENTIALS__STORAGE__BUCKET_URL": str(folder / "lake"),
        }


@contextmanager
def in_ducklake_on_s3(folder: Path) -> Iterator[dict[str, str]]:
    """Catalog in a SQLite file, files on S3."""
    credentials = "DESTINATION__DUCKLAKE__CREDENTIALS"
    with s3() as server:
        yield {
            **home_with_extensions(folder / "home"),
            **server.environment(f"{credentials}__STORAGE"),
            "DESTINATION_TYPE": "ducklake",
            f"{credentials}__CATALOG": f"sqlite:///{folder / 'lake.sqlite'}",
            f"{credentials}__STORAGE__BUCKET_URL": f"s3://{server.bucket}/lake",
        }


@contextmanager
def in_ducklake_of_files(folder: Path) -> Iterator[dict[str, str]]:
    """Catalog in a DuckDB file, files in a folder."""
    yield {
        **home_with_extensions(folder / "home"),
        "DESTINATION_TYPE": "ducklake",
        "DESTINATION__DUCKLAKE__CREDENTIALS__CATALOG": f"duckdb:///{folder / 'lake.duckdb'}",
        "DESTINATION__DUCKLAKE__CREDENTIALS__STORAGE__BUCKET_URL": str(folder / "lake"),
    }


@contextmanager
def in_mariadb(folder: Path) -> Iterator[dict[str, str]]:
    with mariadb() as url:
        yield {"DESTINATION_TYPE": "sqlalchemy", "DESTINATION__SQLALCHEMY__CREDENTIALS": url}


@contextmanager
def in_sqlite(folder: Path) -> Iterator[dict[str, str]]:
    url = f"sqlite:///{folder / 'warehouse.db'}"
    yield {"DESTINATION_TYPE": "sqlalchemy", "DESTINATION__SQLALCHEMY__CREDENTIALS": url}


@dataclass
class Scenario:
    """One destination, and the sandbox that is loaded into it.

    Attributes:
        sandbox: The sandbox.
        base_url: Address of the sandbox.
        destination: Environment variables that choose the destination.
        folder: Parent of the working directories.
        machine: Name of the working directory.
    """

    sandbox: Sandbox
    base_url: str
    destination: Mapping[str, str]
    folder: Path
    machine: str = "first"

    def command(
        self,
        *arguments: str,
        exit_code: ExitCode = ExitCode.DONE,
        settings: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Runs a command that has to end with a code, and returns what it prints as JSON."""
        # DuckLake takes minutes on a slow machine
        with self._working_directory(), patch("command.TIME_LIMIT_SECONDS", 600):
            result = run(*arguments, "--json", **self._environment(), **(settings or {}))
        assert result.returncode == exit_code, (arguments, result.stdout, result.stderr)
        for fault in ("Traceback", "not refreshed", "was not created"):
            assert fault not in result.stderr, result.stderr
        output: dict[str, Any] = json.loads(result.stdout)
        return output

    def load(
        self, *options: str, settings: Mapping[str, str] | None = None
    ) -> tuple[dict[str, Any], int]:
        """Loads, and returns the report of the agent and the number of details requested."""
        self.sandbox.requests.clear()
        (report,) = self.command("load", *options, settings=settings)["agents"]
        return report, self.sandbox.requests.count(r"/conversations/[^/?]+$")

    def start(
        self, *arguments: str, settings: Mapping[str, str] | None = None
    ) -> subprocess.Popen[str]:
        """Starts a command in a process of its own."""
        with self._working_directory():
            return start(*arguments, **self._environment(), **(settings or {}))

    def snapshot(self) -> Snapshot:
        """Reads all tables of conversations and all views."""
        kind = self.destination.get("DESTINATION_TYPE")
        with (
            patch.dict(os.environ, self._environment()),
            open_to_read(kind) as warehouse,
            warehouse.kept_open(),
        ):
            found: Snapshot = {}
            for table in (*conversation_tables(), *name_tables(), *_AUDIT):
                key = _KEYS.get(table.name) or key_of(table)
                json_columns = {column.name for column in table.columns if column.type == "json"}
                rows = warehouse.rows_by_column(f"SELECT * FROM {{{table.name}}}")
                found[table.name] = by_key(key, rows, json_columns)
            for view in views().values():
                rows = warehouse.rows_by_column(f"SELECT * FROM {{{view.name}}}")
                found[view.name] = by_key(key_of_view(view), rows, set())
            return found

    @contextmanager
    def _working_directory(self) -> Iterator[None]:
        folder = self.folder / self.machine
        folder.mkdir(exist_ok=True)
        with contextlib.chdir(folder):
            yield

    def _environment(self) -> dict[str, str]:
        return {
            **access(self.base_url),
            **self.destination,
            "POLYAI_RECORDINGS_URL": str(self.folder / "recordings"),
        }


def key_of_view(view: View) -> tuple[str, ...]:
    """Returns the columns that identify a row of a view, other than booleans.

    Some drivers return numbers for booleans.
    """
    return tuple(name for name in view.key if name != "is_redacted")


def by_key(key: tuple[str, ...], rows: list[dict[str, Any]], json_columns: set[str]) -> Rows:
    """Returns rows by key, without what differs in each run. Duplicate keys are errors."""
    found: Rows = {}
    for row in rows:
        clean = {
            name: json.loads(value) if name in json_columns and isinstance(value, str) else value
            for name, value in row.items()
            if name not in _OF_THE_RUN
        }
        name = " ".join(str(clean[column]) for column in key)
        assert name not in found, f"duplicate key {name}"
        found[name] = clean
    return found


def assert_same(expected: Snapshot, found: Snapshot) -> None:
    """Asserts that two destinations have the same rows; types may be those of a driver."""
    assert found.keys() == expected.keys()
    for name, rows in expected.items():
        assert found[name].keys() == rows.keys(), name
        differing = {
            (key, column): (value, found[name][key][column])
            for key, row in rows.items()
            for column, value in row.items()
            if not _is_same(value, found[name][key][column])
        }
        assert not differing, f"{name}, DuckDB's value and the destination's"


def _is_same(expected: Any, found: Any) -> bool:
    if expected is None or found is None:
        return expected is found
    if isinstance(expected, datetime):
        moment = datetime.fromisoformat(found) if isinstance(found, str) else found
        return bool(moment == expected)
    if isinstance(expected, date):
        return str(expected) == str(found)
    if isinstance(expected, bool):
        return expected == bool(found)
    if isinstance(expected, int | float | Decimal):
        return math.isclose(expected, found, rel_tol=1e-9, abs_tol=1e-9)
    return bool(expected == found)
