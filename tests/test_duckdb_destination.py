"""DuckDB destination that commits a package as one transaction: same rows as dlt's own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dlt
import pytest
from dlt.destinations.impl.duckdb.configuration import DuckDbClientConfiguration

from command import AGENT, KEY, access, query, run
from polyai import open_pipeline, polyai
from polyai.sandbox import Sandbox, SandboxConfig, serve
from polyai.tables.registry import loaded_tables
from polyai.warehouse.duckdb_destination import PackageClient, PackageDuckDb
from warehouse_rows import from_duckdb, rows_by_table

pytestmark = pytest.mark.load

CONFIG = SandboxConfig(conversations=60, inventions=True)


def settings_of(config: DuckDbClientConfiguration) -> dict[str, Any]:
    """Returns all fields but the credentials, which are compared by themselves."""
    return {name: config[name] for name in config if name != "credentials"}


@pytest.mark.parametrize("layout", [None, "%s_staging_1"])
@pytest.mark.parametrize("is_partial", [False, True])
def test_configuration_and_capabilities_equal_those_of_dlt(
    monkeypatch: pytest.MonkeyPatch, layout: str | None, is_partial: bool
) -> None:
    monkeypatch.setenv("DESTINATION__DUCKDB__CREATE_INDEXES", "true")
    ours: Any = open_pipeline().destination
    credentials = ours.config_params["credentials"]
    theirs: Any = dlt.destinations.duckdb(credentials)
    assert isinstance(ours, PackageDuckDb)
    assert ours.destination_type == theirs.destination_type
    assert ours.destination_name == theirs.destination_name
    if layout is not None:
        ours.config_params["staging_dataset_name_layout"] = layout
    theirs.config_params |= ours.config_params

    def request() -> Any:
        return DuckDbClientConfiguration()._bind_dataset_name("data", "polyai")

    expected = theirs.configuration(request(), accept_partial=is_partial)
    for _ in range(2):
        found = ours.configuration(request(), accept_partial=is_partial)
        assert settings_of(found) == settings_of(expected)
        assert found.create_indexes
        assert found.is_resolved()
        assert found.credentials is expected.credentials is credentials
    plain, resolved = dict(theirs.capabilities()), dict(ours.capabilities())
    formats = {"preferred_loader_file_format", "supported_loader_file_formats"}
    assert {k: str(v) for k, v in resolved.items() if k not in formats} == {
        k: str(v) for k, v in plain.items() if k not in formats
    }


def test_each_configuration_is_resolved_once_and_is_a_copy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    destination: Any = open_pipeline().destination
    resolved: list[object] = []
    original = dlt.destinations.duckdb.configuration

    def count(self: Any, config: Any, accept_partial: bool = False) -> Any:
        resolved.append(config)
        return original(self, config, accept_partial)

    monkeypatch.setattr(dlt.destinations.duckdb, "configuration", count)

    def request(dataset: str) -> Any:
        config = DuckDbClientConfiguration()._bind_dataset_name(dataset, "polyai")
        return destination.configuration(config)

    first = request("one")
    first.create_indexes = True
    assert (request("one").create_indexes, len(resolved)) == (False, 1)
    assert (request("two").dataset_name, len(resolved)) == ("two", 2)
    destination.config_params["staging_dataset_name_layout"] = "%s_other"
    assert (request("one").staging_dataset_name_layout, len(resolved)) == ("%s_other", 3)
    destination.capabilities()
    assert len(resolved) == 3


@pytest.fixture
def site() -> Iterator[tuple[Sandbox, str]]:
    sandbox = Sandbox(CONFIG)
    with serve(sandbox) as base_url:
        yield sandbox, base_url


def change(sandbox: Sandbox) -> None:
    """Adds conversations, and takes rows away from child tables of others."""
    sandbox.advance(arrivals=3)
    for conversation_id in list(sandbox.conversation_ids(AGENT))[10:30]:
        sandbox.edit(AGENT, conversation_id, tags=[], note=None, poly_score=1.0, annotations=[])


@pytest.mark.slow
def test_the_plain_destination_of_dlt_gets_the_same_rows(site: tuple[Sandbox, str]) -> None:
    sandbox, base_url = site
    own = dlt.pipeline(
        "own",
        pipelines_dir="pipelines",
        destination=dlt.destinations.duckdb("own.duckdb"),
        dataset_name="polyai",
    )
    for _ in range(2):
        assert run("load", "--full", **access(base_url)).returncode == 0
        own.run(polyai(AGENT, KEY, base_url=base_url, full=True))
        ours, theirs = (
            rows_by_table(from_duckdb(file)) for file in ("polyai.duckdb", "own.duckdb")
        )
        notes = "SELECT conversation_id, note, valid_to IS NULL FROM polyai.notes ORDER BY ALL"
        assert query(notes) == query(notes, "own.duckdb")
        del theirs["notes"]  # whose key contains a time of the run
        for table, expected in theirs.items():
            assert expected.keys() == ours[table].keys(), table
            for key, row in expected.items():
                differing = {name for name in row if row[name] != ours[table][key][name]}
                assert differing <= {"fetched_at", "_dlt_load_id"}, table
        change(sandbox)


@pytest.mark.slow
def test_a_reader_sees_all_of_a_package_or_nothing(
    site: tuple[Sandbox, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox, base_url = site
    assert run("load", **access(base_url)).returncode == 0
    change(sandbox)
    names = [table.name for table in loaded_tables()]
    before = {name: query(f"SELECT * FROM polyai.{name} ORDER BY ALL") for name in names}
    seen: list[str] = []
    merge = PackageClient._merge

    def merge_and_look(self: PackageClient, table_name: str, paths: Any) -> None:
        merge(self, table_name, paths)
        with self.sql_client.native_connection.cursor() as reader:
            for name in names:
                found = reader.execute(f"SELECT * FROM polyai.{name} ORDER BY ALL").fetchall()
                assert found == before[name]
        seen.append(table_name)

    monkeypatch.setattr(PackageClient, "_merge", merge_and_look)
    assert run("load", "--full", **access(base_url)).returncode == 0
    assert set(seen) >= {"conversations", "turns", "conversation_tags"}
    assert query("SELECT count(*) FROM polyai.conversations") == [(63,)]
    assert (
        query("SELECT schema_name FROM duckdb_schemas() WHERE schema_name ILIKE '%staging%'") == []
    )


def test_a_large_package_is_written_into_the_file_once(site: tuple[Sandbox, str]) -> None:
    """dlt's own threshold has DuckDB write it into the log first."""
    pipeline = open_pipeline()
    with pipeline.sql_client() as client:
        found = client.execute_sql("SELECT current_setting('checkpoint_threshold')")
    assert found == [("15.2 MiB",)]
