"""Translation of our own SQL to the destination's dialect."""

from __future__ import annotations

import sqlglot
from sqlglot import exp

DIALECT = "snowflake"
"""Dialect of our SQL: sqlglot does not translate DuckDB's intervals for every destination."""


def parse(sql: str) -> exp.Expr:
    """Parses a statement or an expression in our dialect."""
    return sqlglot.parse_one(sql, read=DIALECT)


def to_sql(tree: exp.Expr, dialect: str | None) -> str:
    """Renders an expression in the destination's dialect.

    Args:
        tree: The expression. May be modified.
        dialect: sqlglot's name of the dialect.
    """
    if dialect == "bigquery":
        # BigQuery's DATE_ADD accepts dates only
        for addition in list(tree.find_all(exp.DateAdd)):
            timestamp_addition = exp.TimestampAdd(**addition.args)
            if addition is tree:
                tree = timestamp_addition
            else:
                addition.replace(timestamp_addition)
    return tree.sql(dialect)
