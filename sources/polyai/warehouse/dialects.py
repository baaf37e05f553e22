"""Translation of our own SQL to the destination's dialect.

sqlglot leaves some expressions as they are in dialects that do not have them. They are worded here,
and in `rewording`, and nowhere else, in a way that those dialects understand.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from .quantiles import rank_for_quantiles
from .rewording import reword
from .values import NATIVE

DIALECT = "snowflake"
"""Dialect of our SQL: sqlglot does not translate DuckDB's intervals for every destination."""

_WITH_QUANTILES = frozenset({"snowflake", "redshift"})
"""Dialects with the aggregate function that sqlglot renders quantiles as, beside `NATIVE`."""


def parse(sql: str) -> exp.Expr:
    """Parses a statement or an expression in our dialect."""
    return sqlglot.parse_one(sql, read=DIALECT)


def to_sql(tree: exp.Expr, dialect: str | None, **options: Any) -> str:
    """Renders an expression in the destination's dialect.

    Args:
        tree: The expression. May be modified.
        dialect: sqlglot's name of the dialect.
        options: Options of sqlglot's generator.
    """
    if dialect == "bigquery":
        # BigQuery's DATE_ADD accepts dates only, to which only days are added
        for addition in list(tree.find_all(exp.DateAdd)):
            if addition.text("unit").upper() == "DAY":
                continue
            timestamp_addition = exp.TimestampAdd(**addition.args)
            if addition is tree:
                tree = timestamp_addition
            else:
                addition.replace(timestamp_addition)
    # MySQL reserves `rows`, `rank` and other names of columns
    return tree.sql(dialect, identify=dialect == "mysql", **options)


def tables_of(tree: exp.Expr) -> frozenset[str]:
    """Returns the tables and views that a query reads, without its own common table expressions."""
    own = {cte.alias for cte in tree.find_all(exp.CTE)}
    return frozenset(table.name for table in tree.find_all(exp.Table)) - own


def qualify_tables(tree: exp.Expr, dialect: str, qualify: Callable[[str], str]) -> None:
    """Qualifies the bare names of the tables of a query; changes the tree.

    Args:
        tree: The query.
        dialect: sqlglot's name of the destination's dialect.
        qualify: Returns the full, quoted name of a table or view.
    """
    read = tables_of(tree)
    for table in list(tree.find_all(exp.Table)):
        if table.name in read and not table.db:
            place = _place(qualify(table.name), dialect).copy()
            place.set("alias", table.args.get("alias"))
            table.replace(place)


def qualified(sql: str, dialect: str, qualify: Callable[[str], str]) -> str | None:
    """Qualifies the bare names of the tables of a user's query.

    Args:
        sql: Query in the destination's dialect.
        dialect: sqlglot's name of the dialect.
        qualify: Returns the full, quoted name of a table or view.

    Returns:
        None if there is nothing to qualify, or sqlglot cannot parse the query.
    """
    try:
        tree = sqlglot.parse_one(sql, read=dialect)
    except SqlglotError:
        return None
    before = tree.copy()
    qualify_tables(tree, dialect, qualify)
    return None if tree == before else tree.sql(dialect)


@lru_cache(maxsize=100)
def _place(name: str, dialect: str) -> exp.Table:
    """Parses a qualified name, which several views have."""
    return exp.to_table(name, dialect=dialect)


def portable(tree: exp.Expr, dialect: str) -> None:
    """Rewords what sqlglot does not translate to a dialect; changes the tree.

    Args:
        tree: The query, with values in place of its parameters.
        dialect: sqlglot's name of the dialect.
    """
    if dialect in NATIVE:
        return
    if dialect == "clickhouse" and isinstance(tree, exp.Query):
        # without it, outer joins fill the columns of rows without a match with 0 and ''
        tree.set("settings", [exp.column("join_use_nulls").eq(1)])
    for cte in tree.find_all(exp.CTE):
        cte.set("materialized", None)
    for differs in list(tree.find_all(exp.NEQ)):
        # sqlglot's form of Snowflake's NOT IN
        if isinstance(differs.expression, exp.All):
            query = differs.expression.this.unnest()
            differs.replace(exp.not_(exp.In(this=differs.this, query=query.subquery())))
    for start in list(tree.find_all(exp.StartsWith)):
        start.replace(_start(start).eq(start.expression.copy()))
    if dialect not in _WITH_QUANTILES:
        rank_for_quantiles(tree)
    reword(tree, dialect)


def _start(start: exp.StartsWith) -> exp.Expr:
    """Renders the beginning of a text, without LIKE, for which `_` stands for any character."""
    length = exp.Literal.number(len(start.expression.name))
    return exp.Substring(this=start.this.copy(), start=exp.Literal.number(1), length=length)
