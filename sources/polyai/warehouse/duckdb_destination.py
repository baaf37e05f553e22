"""DuckDB destination that commits a load package as one transaction.

dlt's own merges table by table, through a staging dataset, and marks the package as loaded at the
end. Here a reader sees all of a package or nothing of it, and a killed load leaves nothing behind.
"""

from __future__ import annotations

from collections.abc import Sequence

import dlt
from dlt.common.destination.capabilities import DestinationCapabilitiesContext
from dlt.common.normalizers.naming import NamingConvention
from dlt.common.schema import Schema
from dlt.common.schema.utils import get_columns_names_with_prop
from dlt.destinations import duckdb
from dlt.destinations.impl.duckdb.configuration import DuckDbClientConfiguration
from dlt.destinations.impl.duckdb.duck import DuckDbClient

from .packages import MergingClient, in_parquet
from .resolved_once import ResolvedOnce

DUCKDB = "dlt.destinations.duckdb"
"""dlt's type of the DuckDB destination."""

_CHECKPOINT_THRESHOLD = "16MB"
"""Size of a transaction from which on DuckDB writes it into the file at once: its default."""


class DuckDbMerge(MergingClient):
    """Merge of a package's files by DuckDB, into its own tables or those of a DuckLake."""

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


class PackageClient(DuckDbMerge, DuckDbClient):
    """dlt's client, which merges all files of a package when the package is complete."""

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


class PackageDuckDb(ResolvedOnce, duckdb):
    """dlt's DuckDB destination for the time of a run: one transaction per load package.

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
        return in_parquet(super()._raw_capabilities())

    @property
    def destination_type(self) -> str:
        """Type by which pipelines and their stored state know dlt's own destination."""
        return DUCKDB

    def capabilities(
        self,
        config: DuckDbClientConfiguration | None = None,
        naming: NamingConvention | None = None,
    ) -> DestinationCapabilitiesContext:
        # DuckDB's do not depend on the configuration, which dlt would resolve for them
        return super().capabilities(config or self.spec(), naming)


def merges_in_transactions(pipeline: dlt.Pipeline) -> bool:
    """Returns whether a merge that is interrupted leaves the rows of its table as they were."""
    capabilities = pipeline.destination.capabilities()
    supported = (capabilities.supports_transactions, capabilities.supports_ddl_transactions)
    # dlt's default is true
    return False not in supported
