"""MySQL, MariaDB and SQLite through dlt's SQLAlchemy destination: one transaction per load package.

dlt's own destination merges table by table, through a staging dataset, joins without an index,
encodes JSON that is text already a second time, and creates text columns that ignore case and hold
64 KB. Here a reader sees all of a package or nothing of it, and ids and texts are compared exactly.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import Any

import pyarrow.parquet as pq
import sqlalchemy as sa
from dlt.common.destination.capabilities import DestinationCapabilitiesContext
from dlt.common.destination.dataset import DBApiCursor
from dlt.common.destination.typing import PreparedTableSchema
from dlt.common.normalizers.naming import NamingConvention
from dlt.common.schema import Schema
from dlt.common.schema.typing import TColumnSchema
from dlt.common.schema.utils import get_columns_names_with_prop
from dlt.destinations import sqlalchemy
from dlt.destinations.impl.sqlalchemy.configuration import SqlalchemyClientConfiguration
from dlt.destinations.impl.sqlalchemy.db_api_client import SqlalchemyClient
from dlt.destinations.impl.sqlalchemy.sqlalchemy_job_client import SqlalchemyJobClient
from dlt.destinations.impl.sqlalchemy.type_mapper import (
    MysqlVariantTypeMapper,
    SqlalchemyTypeMapper,
)
from sqlalchemy.dialects import mysql

from .packages import SQLALCHEMY, MergingClient, in_parquet
from .values import parameter

_EXACT = {"charset": "utf8mb4", "collation": "utf8mb4_bin"}
"""Any character, compared by its code: MySQL's default takes `A` and `a` for equal."""

_ROWS_PER_INSERT = 1_000

_KEYS_PER_DELETE = 500

_ENGINE: dict[str, dict[str, Any]] = {
    # two backfills that merge at once would block each other by locks on gaps between rows
    "mysql": {"isolation_level": "READ COMMITTED"},
    # seconds to wait for another writer
    "sqlite": {"connect_args": {"timeout": 60}},
}
"""Settings of the connections, which a user's `engine_kwargs` override."""


_NAMED = re.compile(r"(?<![:\w\\]):(?=\w)")
"""Colon that SQLAlchemy would take for the beginning of a named parameter."""


class _MysqlJson(mysql.JSON):
    """JSON column that is written from text and read as text."""

    def bind_processor(self, dialect: sa.engine.Dialect) -> None:
        return None

    def result_processor(self, dialect: sa.engine.Dialect, coltype: object) -> None:
        return None


class _MysqlTypes(MysqlVariantTypeMapper):
    def db_type_from_text_type(
        self, column: TColumnSchema, table: PreparedTableSchema
    ) -> sa.types.TypeEngine[Any]:
        return mysql.LONGTEXT(**_EXACT)

    def db_type_from_json_type(
        self, column: TColumnSchema, table: PreparedTableSchema
    ) -> sa.types.TypeEngine[Any]:
        return _MysqlJson(none_as_null=True)


class _SqliteTypes(SqlalchemyTypeMapper):
    def db_type_from_json_type(
        self, column: TColumnSchema, table: PreparedTableSchema
    ) -> sa.types.TypeEngine[Any]:
        # SQLite would turn the text of a number into a number in a column that it takes for numeric
        return sa.Text()


class _Client(SqlalchemyClient):
    """dlt's SQL client, which takes statements and values as those of other destinations do."""

    @contextmanager
    def execute_query(self, query: Any, *args: Any, **kwargs: Any) -> Iterator[DBApiCursor]:
        if isinstance(query, str) and not kwargs:
            query = _NAMED.sub(r"\\:", query)
            # not by dlt, to which any `%` marks a parameter
            first, *others = query.split("%s") if args else [query]
            query = first + "".join(f":arg{n}{text}" for n, text in enumerate(others))
            dialect = self.capabilities.sqlglot_dialect
            kwargs = {f"arg{n}": parameter(value, dialect) for n, value in enumerate(args)}
            args = ()
        with super().execute_query(query, *args, **kwargs) as cursor:
            yield cursor


class PackageClient(MergingClient, SqlalchemyJobClient):
    """dlt's client, which merges all files of a package when the package is complete."""

    def __init__(
        self,
        schema: Schema,
        config: SqlalchemyClientConfiguration,
        capabilities: DestinationCapabilitiesContext,
    ) -> None:
        super().__init__(schema, config, capabilities)
        known = self.sql_client
        self.sql_client = _Client(
            known.dataset_name, known.staging_dataset_name, config.credentials, capabilities
        )

    def _merge(self, table_name: str, paths: Sequence[str]) -> None:
        """Replaces the rows that have the merge keys of the new ones; leaves tombstones out."""
        declared = self.schema.get_table(table_name)
        table = self._to_table_object(self.prepare_load_table(table_name))
        if declared.get("write_disposition") == "merge":
            keys = get_columns_names_with_prop(declared, "merge_key")
            for path in paths:
                self._delete(table, keys, path)
        tombstones = get_columns_names_with_prop(declared, "hard_delete")
        columns = dict.fromkeys(column.name for column in table.columns)
        for path in paths:
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(_ROWS_PER_INSERT):
                    rows = [
                        columns | row
                        for row in batch.to_pylist()
                        if all(row.get(mark) is None for mark in tombstones)
                    ]
                    if rows:
                        self.sql_client.execute_sql(table.insert(), rows)

    def _delete(self, table: sa.Table, keys: Sequence[str], path: str) -> None:
        """Deletes the rows with the keys of a file, by the index on the first of the keys."""
        values = pq.read_table(path, columns=list(keys)).group_by(list(keys)).aggregate([])
        found = sorted(zip(*(values[key].to_pylist() for key in keys)))
        for first, group in groupby(found, key=lambda row: row[:-1]):
            last = [row[-1] for row in group]
            same = [table.c[key] == value for key, value in zip(keys, first)]
            for start in range(0, len(last), _KEYS_PER_DELETE):
                these = table.c[keys[-1]].in_(last[start : start + _KEYS_PER_DELETE])
                self.sql_client.execute_sql(table.delete().where(*same, these))


class PackageSqlalchemy(sqlalchemy):
    """dlt's SQLAlchemy destination for the time of a run: one transaction per load package.

    Attributes:
        merges_packages: See `merges_without_staging`.
    """

    merges_packages = True

    @property
    def client_class(self) -> type[PackageClient]:
        return PackageClient

    def _raw_capabilities(self) -> DestinationCapabilitiesContext:
        return in_parquet(super()._raw_capabilities())

    @classmethod
    def adjust_capabilities(
        cls,
        caps: DestinationCapabilitiesContext,
        config: SqlalchemyClientConfiguration,
        naming: NamingConvention | None,
    ) -> DestinationCapabilitiesContext:
        adjusted = super().adjust_capabilities(caps, config, naming)
        adjusted.type_mapper = _TYPES[str(adjusted.sqlglot_dialect)]
        return adjusted

    @property
    def destination_type(self) -> str:
        """Type by which pipelines and their stored state know dlt's own destination."""
        return SQLALCHEMY


_TYPES: dict[str, type[SqlalchemyTypeMapper]] = {"mysql": _MysqlTypes, "sqlite": _SqliteTypes}


def in_packages(destination: Any, config: SqlalchemyClientConfiguration) -> Any:
    """Returns the destination of this module for dlt's own one, if it is for the database.

    Args:
        destination: dlt's destination.
        config: Its resolved configuration.
    """
    kind = config.get_backend_name().replace("mariadb", "mysql")
    if kind not in _ENGINE:
        return destination
    credentials = config.credentials
    credentials.engine_kwargs = _ENGINE[kind] | (credentials.engine_kwargs or {})
    parameters = {**destination.config_params, "credentials": credentials}
    parameters["destination_name"] = destination.destination_name
    return PackageSqlalchemy(**parameters)
