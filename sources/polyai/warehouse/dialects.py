"""Translation of our own SQL to the destination's dialect.

sqlglot leaves some expressions as they are in dialects that do not have them. They are worded here,
and nowhere else, in a way that those dialects understand.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from .local_times import offset_sql
from .quantiles import rank_for_quantiles
from .values import NATIVE

DIALECT = "snowflake"
"""Dialect of our SQL: sqlglot does not translate DuckDB's intervals for every destination."""

_WITHOUT_ZONES = frozenset({"mysql", "sqlite"})
"""Dialects that lack time zones, quantiles and aggregates of booleans."""

_UTC_NOW = "UTC_TIMESTAMP(6)"

_LOCAL_TYPES = (exp.DType.TIMESTAMP, exp.DType.TIMESTAMPNTZ, exp.DType.DATETIME)

_DATE = "is_date"
_LOCAL = "is_local_time"
"""Marks of expressions, by which those around them are reworded."""

_MYSQL_PARTS = {
    "isodow": "(WEEKDAY({0}) + 1)",
    "isoyear": "LEFT(YEARWEEK({0}, 3), 4)",
    "week": "(YEARWEEK({0}, 3) % 100)",
}
"""Parts of a date that `EXTRACT` does not have, or has by another rule."""

_SQLITE_SECONDS = "%Y-%m-%d %H:%M:%S"

_THURSDAY = "date({0}, '-3 days', 'weekday 4')"
"""Thursday of the same week, which decides about its year and number by ISO 8601."""

_SQLITE_PARTS = {
    "year": "CAST(strftime('%Y', {0}) AS BIGINT)",
    "quarter": "((CAST(strftime('%m', {0}) AS BIGINT) + 2) / 3)",
    "month": "CAST(strftime('%m', {0}) AS BIGINT)",
    "day": "CAST(strftime('%d', {0}) AS BIGINT)",
    "hour": "CAST(strftime('%H', {0}) AS BIGINT)",
    "isodow": "((CAST(strftime('%w', {0}) AS BIGINT) + 6) % 7 + 1)",
    "isoyear": f"CAST(strftime('%Y', {_THURSDAY}) AS BIGINT)",
    "week": f"((CAST(strftime('%j', {_THURSDAY}) AS BIGINT) - 1) / 7 + 1)",
}


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
        # BigQuery's DATE_ADD accepts dates only
        for addition in list(tree.find_all(exp.DateAdd)):
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
    if dialect in _WITHOUT_ZONES:
        rank_for_quantiles(tree)
        _Rewording(dialect).reword(tree)


def _start(start: exp.StartsWith) -> exp.Expr:
    """Renders the beginning of a text, without LIKE, for which `_` stands for any character."""
    length = exp.Literal.number(len(start.expression.name))
    return exp.Substring(this=start.this.copy(), start=exp.Literal.number(1), length=length)


class _Rewording:
    """Wording of single expressions for MySQL, MariaDB and SQLite.

    SQLite keeps times as text of the form `2026-03-29 01:00:00.000000`.

    Args:
        dialect: sqlglot's name of the dialect.
    """

    def __init__(self, dialect: str) -> None:
        self._dialect = dialect
        self._is_sqlite = dialect == "sqlite"

    def reword(self, tree: exp.Expr) -> None:
        """Rewords all expressions of a query, inner ones first; changes the tree."""
        for node in reversed(list(tree.walk(bfs=False))):
            replacement = self._replacement(node)
            if replacement is not node:
                node.replace(replacement)

    def _replacement(self, node: exp.Expr) -> exp.Expr:
        match node:
            case exp.LogicalOr():
                return exp.Max(this=node.this)
            case exp.AtTimeZone():
                return self._at_zone(node)
            case exp.CurrentTimestamp():
                now = "strftime('%Y-%m-%d %H:%M:%f000', 'now')" if self._is_sqlite else _UTC_NOW
                return self._parsed(now)
            case exp.Extract():
                return self._parsed(self._part(node.name.lower(), node.expression.unnest()))
            case exp.Add() if _is_date(node.this):
                return self._day(self._sql(node.this), self._sql(node.expression))
            case exp.DateAdd() if self._is_sqlite:
                return self._moved(self._sql(node.this), self._sql(node.expression))
            case exp.Cast():
                return self._cast(node)
            case exp.DataType() if node.is_type("timestamptz") and not self._is_sqlite:
                # MySQL changes the first TIMESTAMP of a row with every update
                return exp.DataType.build("DATETIME(6)", dialect="mysql")
            case exp.Avg() if not self._is_sqlite:
                # the mean of whole numbers would have four digits after the point
                return exp.Avg(this=exp.cast(node.this, "double"))
            case exp.Concat() if self._is_sqlite:
                texts = [f"coalesce({self._sql(text)}, '')" for text in node.expressions]
                return self._parsed(f"({' || '.join(texts)})")
            case _:
                return node

    def _at_zone(self, node: exp.AtTimeZone) -> exp.Expr:
        moment, zone = self._sql(node.this), node.args["zone"].name
        is_local = bool(node.this.meta.get(_LOCAL))
        offset = offset_sql(moment, zone, is_local=is_local)
        return self._moved(moment, f"-({offset})" if is_local else offset)

    def _moved(self, moment: str, seconds: str) -> exp.Expr:
        if self._is_sqlite:
            whole = f"strftime('{_SQLITE_SECONDS}', {_whole(moment)}, ({seconds}) || ' seconds')"
            return self._parsed(f"({whole} || substr({moment}, 20))")
        return self._parsed(f"DATE_ADD({moment}, INTERVAL ({seconds}) SECOND)")

    def _day(self, day: str, days: str) -> exp.Expr:
        if self._is_sqlite:
            return _marked(self._parsed(f"date({day}, ({days}) || ' days')"), _DATE)
        return _marked(self._parsed(f"DATE_ADD({day}, INTERVAL ({days}) DAY)"), _DATE)

    def _cast(self, node: exp.Cast) -> exp.Expr:
        if node.is_type("date"):
            day = f"substr({self._sql(node.this)}, 1, 10)" if self._is_sqlite else self._sql(node)
            return _marked(self._parsed(day), _DATE)
        if node.is_type(*_LOCAL_TYPES):
            if self._is_sqlite:
                form = f"'{_SQLITE_SECONDS}.000000'"
                return _marked(self._parsed(f"strftime({form}, {self._sql(node.this)})"), _LOCAL)
            return _marked(node, _LOCAL)
        if isinstance(node.this, exp.Null) and node.is_type("text"):
            # a NULL with the connection's collation would not go with columns that have another
            return exp.null()
        return node

    def _part(self, part: str, value: exp.Expr) -> str:
        """Renders the part of a date or a time, or the seconds between two times."""
        if part == "epoch":
            return self._seconds(self._sql(value.this), self._sql(value.expression))
        moment = self._sql(value)
        if not self._is_sqlite:
            return _MYSQL_PARTS.get(part, f"EXTRACT({part} FROM {{0}})").format(moment)
        return _SQLITE_PARTS[part].format(_whole(moment))

    def _seconds(self, end: str, start: str) -> str:
        if not self._is_sqlite:
            return f"(TIMESTAMPDIFF(MICROSECOND, {start}, {end}) / 1e6)"
        whole, rest = "CAST(strftime('%s', {0}) AS BIGINT)", "CAST('0' || substr({0}, 20) AS REAL)"
        return (
            f"({whole.format(_whole(end))} - {whole.format(_whole(start))}"
            f" + ({rest.format(end)} - {rest.format(start)}))"
        )

    def _sql(self, node: exp.Expr) -> str:
        return node.sql(self._dialect)

    def _parsed(self, sql: str) -> exp.Expr:
        return sqlglot.parse_one(sql, read=self._dialect)


def _whole(moment: str) -> str:
    """Renders a time of SQLite without its fraction, which functions round to a next second."""
    return f"substr({moment}, 1, 19)"


def _is_date(node: exp.Expr) -> bool:
    """Checks whether an expression is a date: by what it is made of, or by a column's name."""
    if isinstance(node, exp.Column):
        return node.name.endswith("_date")
    return bool(node.meta.get(_DATE))


def _marked(node: exp.Expr, mark: str) -> exp.Expr:
    node.meta[mark] = True
    return node
