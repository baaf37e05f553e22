"""Indexes in PostgreSQL, MySQL and SQLite: merges and queries do not read whole tables.

Other destinations get none: they prune blocks of rows by themselves, or do not support indexes.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

import dlt
from dlt.destinations.exceptions import DatabaseException
from dlt.destinations.sql_client import SqlClientBase

from ..errors import first_line
from ..tables.declaration import OWNER, Table
from ..tables.registry import tables as registered_tables
from .clients import sql_client
from .errors import destination_errors

logger = logging.getLogger("polyai")

_EXISTING = {
    "postgres": """
        SELECT t.tablename, i.indexname
        FROM pg_tables t LEFT JOIN pg_indexes i ON i.schemaname = t.schemaname
        AND i.tablename = t.tablename
        WHERE t.schemaname = %s
    """,
    "mysql": """
        SELECT DISTINCT t.table_name, s.index_name
        FROM information_schema.tables t
        LEFT JOIN information_schema.statistics s ON s.table_schema = t.table_schema
        AND s.table_name = t.table_name
        WHERE t.table_schema = %s
    """,
    "sqlite": """
        SELECT t.name, i.name FROM {0}.sqlite_master t
        LEFT JOIN {0}.sqlite_master i ON i.tbl_name = t.name AND i.type = 'index'
        WHERE t.type = 'table'
    """,
}
"""Queries for the tables and indexes of a dataset, by the dialects that get indexes."""

_MYSQL_PREFIX = 100
"""Characters of a text that an index of MySQL has; it cannot have whole texts."""

_ONE_AT_A_TIME = "SELECT pg_advisory_xact_lock(hashtext('polyai_indexes'))"
"""`IF NOT EXISTS` fails if two transactions create an index of one name at once."""


def indexes_of(table: Table) -> Mapping[str, tuple[str, ...]]:
    """Returns the columns of a table's indexes by the name of the index.

    They are the owner's ids, the first two columns of the merge key, and what the table declares.
    """
    names = {column.name for column in table.columns}
    owner = [OWNER] if names.issuperset(OWNER) else []
    found = dict.fromkeys([*owner, table.merge_key[:2], *table.read_by])
    return {f"polyai_{table.name}_{'_'.join(columns)}": columns for columns in found}


class Indexes:
    """Indexes of one run's destination; no-op for dialects without any.

    Args:
        pipeline: The pipeline.
    """

    def __init__(self, pipeline: dlt.Pipeline) -> None:
        self._pipeline = pipeline
        self._dialect = str(sql_client(pipeline).capabilities.sqlglot_dialect)
        self._existing: set[str] | None = None

    def create(self, tables: Iterable[Table]) -> None:
        """Creates missing indexes of tables that exist; the first call, of all such tables.

        The first call takes one query, later ones none if all indexes exist. Readers are not
        blocked. An index that cannot be created is logged, because loads succeed without it.

        Args:
            tables: Tables that exist.
        """
        if self._dialect not in _EXISTING:
            return
        found = list(tables)
        if self._existing is None:
            existing = self._read_existing()
            self._existing = {index for _, index in existing if index is not None}
            names = {table for table, _ in existing}
            found += [table for table in registered_tables() if table.name in names]
        for table in found:
            for name, columns in indexes_of(table).items():
                if name not in self._existing:
                    self._existing.add(name)
                    self._create(table, name, columns)

    def _read_existing(self) -> list[tuple[str, str | None]]:
        with destination_errors(), sql_client(self._pipeline) as client:
            dataset = client.fully_qualified_dataset_name(quote=False)
            query = _EXISTING[self._dialect].format(client.fully_qualified_dataset_name())
            parameters = [dataset] * query.count("%s")
            return [(table, name) for table, name in client.execute_sql(query, *parameters) or ()]

    def _create(self, table: Table, name: str, columns: Iterable[str]) -> None:
        try:
            # one transaction each, which blocks writers of one table only
            with sql_client(self._pipeline) as client, client.begin_transaction():
                if self._dialect == "postgres":
                    client.execute_sql(_ONE_AT_A_TIME)
                client.execute_sql(self._statement(client, table, name, columns))
        except DatabaseException as error:
            logger.warning("index %s was not created: %s", name, first_line(error))

    def _statement(
        self, client: SqlClientBase[Any], table: Table, name: str, columns: Iterable[str]
    ) -> str:
        texts = {column.name for column in table.columns if column.type == "text"}
        prefix = f"({_MYSQL_PREFIX})" if self._dialect == "mysql" else ""
        listed = ", ".join(
            client.escape_column_name(column) + (prefix if column in texts else "")
            for column in columns
        )
        index, place = client.escape_column_name(name), client.make_qualified_table_name(table.name)
        if self._dialect == "sqlite":
            # the index is in the file of its table, whose name stands before that of the index
            index = f"{client.fully_qualified_dataset_name()}.{index}"
            place = client.escape_column_name(table.name)
        # MySQL, other than MariaDB, does not know the condition
        condition = "" if self._dialect == "mysql" else "IF NOT EXISTS "
        return f"CREATE INDEX {condition}{index} ON {place} ({listed})"
