"""Byte searches after every kind of erasure: nothing is found, wherever copies were made."""

from __future__ import annotations

import gzip
import json
import os
import stat
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import psycopg2
import pytest

from command import AGENT, KEY, error_of, run
from erasing import IDS_IN, Company, calls_of, first_column, open_company
from polyai import open_pipeline, resolve
from polyai.load.run import load
from polyai.shape.forgotten_callers import ForgottenCaller, ForgottenCallers
from polyai.views import PIPELINE_NAME as VIEWS
from polyai.views.query_reader import open_reader
from postgres_server import binaries, postgres

KEPT = {"forgotten"}
"""Tables with ids of erased conversations, so that these are not loaded again."""

KEPT_FOLDERS = {"custody", "erasures"}
"""Folders of logs, ledger and receipts, which have these ids too."""


@pytest.fixture
def company() -> Iterator[Company]:
    with open_company() as company:
        yield company


class Kind(NamedTuple):
    """A kind of erasure.

    Attributes:
        name: Name of its files.
        arguments: Arguments of `forget`.
        ids: Erased conversations.
        needles: What must not be found afterwards: numbers or addresses, and words.
    """

    name: str
    arguments: tuple[str, ...]
    ids: list[str]
    needles: list[str]


def kinds(company: Company) -> list[Kind]:
    """Returns each kind of erasure, with words in the conversations that nothing else has."""
    numbered, number = calls_of(company.sandbox, "+")[0]
    named, address = calls_of(company.sandbox, "sip:")[0]
    loaded = first_column(f"{IDS_IN}recordings WHERE status = 'stored' ORDER BY started_at")
    one = next(name for name in loaded if name not in {*numbered, *named})
    found = [
        Kind("number", ("--caller", number, "--mentions"), numbered, [number.removeprefix("+")]),
        Kind("address", ("--caller", address.upper(), "--mentions"), named, [address[4:]]),
        Kind("id", (one,), [one], []),
    ]
    for kind in found:
        words = f"canary-{kind.name}-" + "".join(chr(33 + n * n % 90) for n in range(500))
        kind.needles.append(words[:14])
        for name in kind.ids:
            company.sandbox.edit(AGENT, name, note=words.replace('"', "").replace("\\", ""))
    return found


def together(kinds: list[Kind]) -> Kind:
    """Returns all kinds in one command."""
    return Kind(
        "all",
        tuple(argument for kind in kinds for argument in kind.arguments),
        [name for kind in kinds for name in kind.ids],
        [needle for kind in kinds for needle in kind.needles],
    )


Tables = Callable[[], dict[str, str]]
"""Function that returns all rows by place and table, as text."""


def places(needles: list[str], ids: list[str], tables: Tables) -> set[str]:
    """Returns where needles or ids are found, in all files and tables."""
    found = set()
    for path in (path for path in Path.cwd().rglob("*") if path.is_file()):
        shown = str(path.relative_to(Path.cwd()))
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
        if path.suffix == ".parquet":
            content = str(duckdb.sql(f"FROM read_parquet('{path}')").fetchall()).encode()
        has_ids = KEPT_FOLDERS & set(path.parts) or path.suffix == ".duckdb" or "forgotten" in shown
        sought = needles if has_ids else [*needles, *ids]
        if any(one.encode() in content for one in sought):
            found.add(shown)
        if any(name in shown for name in ids):
            found.add(shown)
    for table, rows in tables().items():
        sought = needles if table.rpartition(".")[2] in KEPT else [*needles, *ids]
        if any(one in rows for one in sought):
            found.add(table)
    return found


def duckdb_tables() -> dict[str, str]:
    """All tables and views of all DuckDB files, whose texts may be compressed in their bytes."""
    found = {}
    for path in Path.cwd().rglob("*.duckdb"):
        with duckdb.connect(str(path), read_only=True) as connection:
            for schema, name in connection.execute(
                "SELECT schema_name, table_name FROM duckdb_tables() UNION ALL "
                "SELECT schema_name, view_name FROM duckdb_views() WHERE NOT internal"
            ).fetchall():
                rows = connection.execute(f'SELECT * FROM "{schema}"."{name}"').fetchall()
                found[f"{path.relative_to(Path.cwd())}: {schema}.{name}"] = str(rows)
    return found


@pytest.mark.load
@pytest.mark.slow
@pytest.mark.parametrize(
    "is_together",
    [
        pytest.param(True, id="together"),
        pytest.param(False, id="one by one", marks=pytest.mark.matrix),
    ],
)
def test_nothing_is_found_after_any_kind_of_erasure(company: Company, is_together: bool) -> None:
    company.fetch_recordings()
    environment = company.environment | {
        "POLYAI_FORGET_LEDGER": "erasures/ledger",
        "POLYAI_RECORDINGS_URL": "recordings/",
    }
    Path("erasures").mkdir()
    erased = kinds(company)
    if is_together:
        erased = [together(erased)]
    company.load(full=True)
    for target in ("published", "lake/"):
        assert run("views", "--publish", target, **environment).returncode == 0
    with open_reader(open_pipeline(name=VIEWS), None) as reader:  # the dashboard's copy
        assert reader.query("SELECT count(*) AS n FROM fct_conversations")[0]["n"] == 120
    for kind in erased:
        before = places(kind.needles, kind.ids, duckdb_tables)
        roots = {place.split(":")[0].split("/")[0] for place in before}
        assert roots >= {"polyai.duckdb", "published", "lake", ".dlt", "recordings"}, kind.name
        receipt = Path(f"erasures/{kind.name}.json")
        done = run(
            "forget", *kind.arguments, "--yes", "--receipt", str(receipt), "--reason", "DSR-7",
            **environment,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert_receipt(receipt, kind, before)
        assert places(kind.needles, kind.ids, duckdb_tables) == set(), kind.name
    assert run("load", "--full", **environment).returncode == 0
    for kind in erased:
        assert places(kind.needles, kind.ids, duckdb_tables) == set(), kind.name


def assert_receipt(path: Path, kind: Kind, before: set[str]) -> None:
    text = path.read_text()
    assert not any(needle in text for needle in kind.needles)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    content: dict[str, Any] = json.loads(text)
    (agent,) = content["agents"]
    asked = content["asked"]
    assert asked["callers"] == kind.arguments.count("--caller")
    assert asked["conversations"] == [name for name in kind.ids if name in kind.arguments]
    assert asked["reason"] == "DSR-7"
    assert content["is_complete"]
    assert content["not_done"] == []
    assert content["out_of_reach"] == ["PolyAI's own data", "backups"]
    assert agent["conversations"] == sorted(kind.ids)
    assert agent["rows"]["conversations"] == len(kind.ids)
    assert {file["path"] for file in agent["recordings"]} == {
        place.removeprefix("recordings/") for place in before if place.endswith(".wav")
    }
    assert all(len(file["sha256"]) == 64 for file in agent["recordings"])
    copies = {str(Path(copy).relative_to(Path.cwd())) for copy in content["published_copies"]}
    assert copies == {".dlt/published/polyai.duckdb", "lake", "published/polyai.duckdb"}
    assert agent["run_id"] in first_column("SELECT run_id FROM polyai.sync_runs")
    # an auditor who knows a number can check it
    rows = [ForgottenCaller(requested_at=datetime.now(UTC), **one) for one in agent["callers"]]
    for option, caller in pairwise(kind.arguments):
        assert option != "--caller" or ForgottenCallers(rows).includes(caller)


@pytest.mark.load
def test_a_receipt_is_of_an_erasure_and_replaces_no_file(company: Company) -> None:
    name = first_column(f"{IDS_IN}conversations")[0]
    planned = run("forget", name, "--dry-run", "--receipt", "r.json", **company.environment)
    assert planned.returncode == 2
    assert "--json" in planned.stderr
    Path("r.json").write_text("evidence")
    for place, problem in (("r.json", "exists already"), ("no/r.json", "folder")):
        refused = run("forget", name, "--yes", "--receipt", place, **company.environment)
        assert refused.returncode == 1
        assert problem in error_of(refused)
    assert Path("r.json").read_text() == "evidence"
    assert first_column(f"{IDS_IN}conversations WHERE conversation_id = '{name}'") == [name]


@pytest.mark.server
@pytest.mark.matrix
@pytest.mark.skipif(
    binaries() is None and not os.environ.get("CI"),
    reason="needs a PostgreSQL server: install the package postgresql",
)
def test_nothing_is_found_in_postgres(company: Company, monkeypatch: pytest.MonkeyPatch) -> None:
    company.fetch_recordings()
    erased = kinds(company)
    Path("polyai.duckdb").unlink()
    settings = resolve(agent_id=AGENT, api_key=KEY, base_url=company.base_url)
    with postgres() as url:
        monkeypatch.setenv("DESTINATION__POSTGRES__CREDENTIALS", url)
        load(settings, open_pipeline("postgres"), clock=lambda: company.sandbox.now)
        environment = company.environment | {
            "DESTINATION__POSTGRES__CREDENTIALS": url,
            "POLYAI_RECORDINGS_URL": "other/",
        }

        def tables() -> dict[str, str]:
            found = {}
            with psycopg2.connect(url) as connection, connection.cursor() as cursor:
                cursor.execute(
                    "SELECT table_schema, table_name FROM information_schema.tables "
                    "WHERE table_schema LIKE 'polyai%'"
                )
                for schema, name in cursor.fetchall():
                    cursor.execute(f'SELECT * FROM "{schema}"."{name}"')
                    found[f"{schema}.{name}"] = str(cursor.fetchall())
            return found

        for kind in erased:
            assert "polyai.notes" in places(kind.needles, kind.ids, tables)
            done = run(
                "forget", *kind.arguments, "--yes", "--destination", "postgres", **environment
            )
            assert done.returncode == 0, done.stderr
            found = places(kind.needles, kind.ids, tables)
            assert {place for place in found if not place.startswith("recordings")} == set()
