"""DuckDB destination that commits a load package as one transaction.

dlt's own merges table by table, through a staging dataset, and marks the package as loaded at the
end. Here a reader sees all of a package or nothing of it, and a killed load leaves nothing behind.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import dlt
from dlt.common.destination.capabilities import DestinationCapabilitiesContext
from dlt.common.destination.client import FollowupJobRequest, LoadJob
from dlt.common.destination.typing import PreparedTableSchema
from dlt.common.normalizers.naming import NamingConvention
from dlt.common.schema import Schema
from dlt.common.schema.utils import get_columns_names_with_prop
from dlt.common.storages.load_package import LoadJobInfo
from dlt.destinations import duckdb
from dlt.destinations.impl.duckdb.configuration import DuckDbClientConfiguration
from dlt.destinations.impl.duckdb.duck import DuckDbClient

from .packages import FileToMerge, files_by_table

DUCKDB = "dlt.destinations.duckdb"
"""dlt's type of the DuckDB destination."""

_CHECKPOINT_THRESHOLD = "16MB"
"""Size of a transaction from which on DuckDB writes it into the file at once: its default."""


class PackageClient(DuckDbClient):
    """dlt's client of DuckDB, which merges all files of a package when the package is complete.

    Idempotent: what a package brings is deleted by merge key before it is inserted.
    """

    def __init__(
        self,
        schema: Schema,
        config: DuckDbClientConfiguration,
        capabilities: DestinationCapabilitiesContext,
    ) -> None:
        super().__init__(schema, config, capabilities)
        # dlt's threshold of 1 GB makes DuckDB write a package twice: into its log at the commit,
        # and from there into the file when it is closed, which always follows
        self.sql_client._global_config["checkpoint_threshold"] = _CHECKPOINT_THRESHOLD

    def should_load_data_to_staging_dataset(self, table_name: str) -> bool:
        return False

    def create_load_job(
        self, table: PreparedTableSchema, file_path: str, load_id: str, restore: bool = False
    ) -> LoadJob:
        return FileToMerge(file_path)

    def create_table_chain_completed_followup_jobs(
        self,
        table_chain: Sequence[PreparedTableSchema],
        completed_table_chain_jobs: Sequence[LoadJobInfo] | None = None,
    ) -> list[FollowupJobRequest]:
        return []

    def complete_load(self, load_id: str) -> None:
        """Writes all rows of a package, and its row of `_dlt_loads`, in one transaction."""
        files = files_by_table(load_id)
        with self.sql_client.begin_transaction():
            for table_name, paths in files.items():
                self._merge(table_name, paths)
            super().complete_load(load_id)

    def _merge(self, table_name: str, paths: Sequence[str]) -> None:
        """Replaces the rows that have the merge keys of the new ones; leaves tombstones out."""
        table = self.schema.get_table(table_name)
        name = self.sql_client.make_qualified_table_name(table_name)
        listed = ", ".join(self.sql_client.capabilities.escape_literal(path) for path in paths)
        rows = f"read_parquet([{listed}], union_by_name = true)"
        quote = self.sql_client.escape_column_name
        if table.get("write_disposition") == "merge":
            keys = [quote(key) for key in get_columns_names_with_prop(table, "merge_key")]
            same = " AND ".join(f"old.{key} = new.{key}" for key in keys)
            self.sql_client.execute_sql(
                f"DELETE FROM {name} AS old WHERE EXISTS (SELECT 1 FROM {rows} AS new WHERE {same})"
            )
        tombstones = [quote(mark) for mark in get_columns_names_with_prop(table, "hard_delete")]
        kept = " AND ".join(f"{mark} IS NULL" for mark in tombstones) or "true"
        self.sql_client.execute_sql(f"INSERT INTO {name} BY NAME SELECT * FROM {rows} WHERE {kept}")


class PackageDuckDb(duckdb):
    """dlt's DuckDB destination for the time of a run: one transaction per load package.

    It also resolves its configuration once. dlt creates a client for each step and each query, and
    resolves the destination's configuration for each client, 200 times in a small load: it looks
    up every field in the environment and in all configuration files. They do not change within a
    run, so an equal request gets a copy of the configuration that was resolved for the first one.
    Credentials are shared by all clients, as dlt shares resolved ones.

    Args:
        credentials: Resolved credentials.

    Attributes:
        merges_packages: See `merges_without_staging`.
    """

    merges_packages = True

    @property
    def client_class(self) -> type[PackageClient]:
        return PackageClient

    def _raw_capabilities(self) -> DestinationCapabilitiesContext:
        capabilities = super()._raw_capabilities()
        # dlt's rows about the pipeline too, which are not Arrow
        capabilities.preferred_loader_file_format = "parquet"
        capabilities.supported_loader_file_formats = ["parquet"]
        return capabilities

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


def merges_in_transactions(pipeline: dlt.Pipeline) -> bool:
    """Returns whether a merge that is interrupted leaves the rows of its table as they were."""
    capabilities = pipeline.destination.capabilities()
    supported = (capabilities.supports_transactions, capabilities.supports_ddl_transactions)
    # dlt's default is true
    return False not in supported


def _as_key(item: tuple[str, Any]) -> tuple[str, Any]:
    name, value = item
    return (name, value if isinstance(value, str | bool | int | None) else id(value))
