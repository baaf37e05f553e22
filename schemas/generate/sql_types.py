"""SQL dialects of the generated files, and DuckDB's names of the declared types."""

from __future__ import annotations

from collections.abc import Mapping

from polyai.tables.declaration import ColumnType
from polyai.views.field import FieldType

DIALECTS = ("duckdb", "postgres")
"""SQL dialects of the generated SQL files, as named by sqlglot."""

DUCKDB_TYPES: Mapping[ColumnType, str] = {
    "text": "VARCHAR",
    "bigint": "BIGINT",
    "double": "DOUBLE",
    "bool": "BOOLEAN",
    "timestamp": "TIMESTAMP WITH TIME ZONE",
    "json": "JSON",
}
"""DuckDB's name of each type of a table's column."""

VIEW_TYPES: Mapping[FieldType, str] = {
    "text": DUCKDB_TYPES["text"],
    "bigint": DUCKDB_TYPES["bigint"],
    "double": DUCKDB_TYPES["double"],
    "bool": DUCKDB_TYPES["bool"],
    "timestamp": DUCKDB_TYPES["timestamp"],
    "local timestamp": "TIMESTAMP",
    "date": "DATE",
}
"""DuckDB's name of each type of a view's column."""
