"""SQL of our own in the words of whatever destination there is."""

from __future__ import annotations

import sqlglot
from sqlglot import exp

DIALECT = "snowflake"
"""What such SQL is written in: sqlglot does not bring DuckDB's intervals into a form that all
take."""


def parsed(sql: str) -> exp.Expr:
    """A statement or an expression that is written in our dialect."""
    return sqlglot.parse_one(sql, read=DIALECT)


def worded(tree: exp.Expr, dialect: str | None) -> str:
    """It in the destination's words; `dialect` is sqlglot's name of them."""
    if dialect == "bigquery":
        # its DATE_ADD is for dates
        for sum_ in list(tree.find_all(exp.DateAdd)):
            moved = exp.TimestampAdd(**sum_.args)
            if sum_ is tree:
                tree = moved
            else:
                sum_.replace(moved)
    return tree.sql(dialect)
