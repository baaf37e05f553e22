"""DuckDB destination that resolves its configuration once: equal to dlt's own."""

from __future__ import annotations

from typing import Any

import dlt
import pytest
from dlt.destinations.impl.duckdb.configuration import DuckDbClientConfiguration

from polyai import open_pipeline
from polyai.warehouse.duckdb_destination import ResolvedDuckDb

pytestmark = pytest.mark.unit


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
    assert isinstance(ours, ResolvedDuckDb)
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
    plain, resolved = theirs.capabilities(), ours.capabilities()
    assert {k: str(v) for k, v in dict(resolved).items()} == {
        k: str(v) for k, v in dict(plain).items()
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
