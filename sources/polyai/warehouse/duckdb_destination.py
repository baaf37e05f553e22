"""DuckDB destination that resolves its configuration once instead of for each client."""

from __future__ import annotations

import copy
from functools import cached_property
from typing import Any

from dlt.common.destination.capabilities import DestinationCapabilitiesContext
from dlt.common.normalizers.naming import NamingConvention
from dlt.destinations import duckdb
from dlt.destinations.impl.duckdb.configuration import DuckDbClientConfiguration

DUCKDB = "dlt.destinations.duckdb"
"""dlt's type of the DuckDB destination."""


class ResolvedDuckDb(duckdb):
    """dlt's DuckDB destination for the time of a run.

    dlt creates a client for each step and each query, and resolves the destination's configuration
    for each client, 200 times in a small load: it looks up every field in the environment and in
    all configuration files. They do not change within a run, so an equal request gets a copy of
    the configuration that was resolved for the first one. Credentials are shared by all clients,
    as dlt shares resolved ones.

    Args:
        credentials: Resolved credentials.
    """

    @property
    def destination_type(self) -> str:
        """Type by which pipelines and their stored state know dlt's own destination."""
        return DUCKDB

    def configuration(
        self, initial_config: DuckDbClientConfiguration, accept_partial: bool = False
    ) -> DuckDbClientConfiguration:
        request = [*vars(initial_config).items(), *self.config_params.items()]
        key = (accept_partial, *map(_as_key, request))
        if key not in self._configurations:
            resolved = super().configuration(initial_config, accept_partial)
            # kept with the objects of the request, which the key has by their ids
            self._configurations[key] = resolved, request
        return copy.copy(self._configurations[key][0])

    def capabilities(
        self,
        config: DuckDbClientConfiguration | None = None,
        naming: NamingConvention | None = None,
    ) -> DestinationCapabilitiesContext:
        # DuckDB's do not depend on the configuration, which dlt would resolve for them
        return super().capabilities(config or self.spec(), naming)

    @cached_property
    def _configurations(
        self,
    ) -> dict[tuple[object, ...], tuple[DuckDbClientConfiguration, list[tuple[str, Any]]]]:
        return {}


def _as_key(item: tuple[str, Any]) -> tuple[str, Any]:
    name, value = item
    return (name, value if isinstance(value, str | bool | int | None) else id(value))
