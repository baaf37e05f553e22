"""Wording of single expressions that sqlglot leaves as they are in dialects that lack them."""

from __future__ import annotations

from collections.abc import Mapping

import sqlglot
from sqlglot import exp

from .local_times import offset_sql

_DAY, _SECONDS, _UTC = "days later", "seconds between", "UTC of a local time"

_MICROSECONDS = "(TIMESTAMPDIFF(MICROSECOND, {1}, {0}) / 1000000)"

_THURSDAY = "date({0}, '-3 days', 'weekday 4')"
"""Thursday of the same week, which decides about its year and number by ISO 8601."""

_WHOLE = "substr({0}, 1, 19)"
"""Time of SQLite without its fraction, which SQLite's functions round to the next second."""

_WORDS: Mapping[str, Mapping[str, str]] = {
    "snowflake": {
        "isodow": "DAYOFWEEKISO({0})",
        "isoyear": "YEAROFWEEKISO({0})",
        "week": "WEEKISO({0})",
        _DAY: "DATEADD(DAY, {1}, {0})",
        _UTC: "CONVERT_TIMEZONE({1}, 'UTC', {0})",
        _SECONDS: _MICROSECONDS,
    },
    "bigquery": {
        "isodow": "(MOD(EXTRACT(DAYOFWEEK FROM {0}) + 5, 7) + 1)",
        "week": "EXTRACT(ISOWEEK FROM {0})",
        _DAY: "DATE_ADD({0}, INTERVAL ({1}) DAY)",
        _SECONDS: "(TIMESTAMP_DIFF({0}, {1}, MICROSECOND) / 1000000)",
        _UTC: "TIMESTAMP({0}, {1})",
    },
    "databricks": {
        "isodow": "(WEEKDAY({0}) + 1)",
        "isoyear": "EXTRACT(YEAROFWEEK FROM {0})",
        _DAY: "DATE_ADD({0}, {1})",
        _UTC: "TO_UTC_TIMESTAMP({0}, {1})",
        _SECONDS: _MICROSECONDS,
    },
    "redshift": {
        "isodow": "(MOD(CAST(DATE_PART(DOW, {0}) AS INT) + 6, 7) + 1)",
        "isoyear": "CAST(TO_CHAR({0}, 'IYYY') AS INT)",
        _SECONDS: "(DATEDIFF(MICROSECOND, {1}, {0}) / 1000000.0)",
    },
    "mysql": {
        "isodow": "(WEEKDAY({0}) + 1)",
        "isoyear": "LEFT(YEARWEEK({0}, 3), 4)",
        "week": "(YEARWEEK({0}, 3) % 100)",
        _DAY: "DATE_ADD({0}, INTERVAL ({1}) DAY)",
        # a number with a point would keep four digits after it
        _SECONDS: "(TIMESTAMPDIFF(MICROSECOND, {1}, {0}) / 1e6)",
    },
    "sqlite": {
        "year": f"CAST(strftime('%Y', {_WHOLE}) AS BIGINT)",
        "quarter": f"((CAST(strftime('%m', {_WHOLE}) AS BIGINT) + 2) / 3)",
        "month": f"CAST(strftime('%m', {_WHOLE}) AS BIGINT)",
        "day": f"CAST(strftime('%d', {_WHOLE}) AS BIGINT)",
        "hour": f"CAST(strftime('%H', {_WHOLE}) AS BIGINT)",
        "isodow": f"((CAST(strftime('%w', {_WHOLE}) AS BIGINT) + 6) % 7 + 1)",
        "isoyear": f"CAST(strftime('%Y', {_THURSDAY}) AS BIGINT)",
        "week": f"((CAST(strftime('%j', {_THURSDAY}) AS BIGINT) - 1) / 7 + 1)",
        _DAY: "date({0}, ({1}) || ' days')",
        _SECONDS: (
            f"(CAST(strftime('%s', {_WHOLE}) AS BIGINT) - "
            f"CAST(strftime('%s', substr({{1}}, 1, 19)) AS BIGINT) + "
            "(CAST('0' || substr({0}, 20) AS REAL) - CAST('0' || substr({1}, 20) AS REAL)))"
        ),
    },
}
"""Templates by dialect: parts of dates, days added to a date, seconds between two times, and
the time in UTC of a local time.

MySQL and SQLite are tested on servers; the others follow their manuals."""

_LOCAL_TYPES = (exp.DType.TIMESTAMP, exp.DType.TIMESTAMPNTZ, exp.DType.DATETIME)

_DATE = "is_date"
_LOCAL = "is_local_time"
"""Marks of expressions, by which those around them are reworded."""


def reword(tree: exp.Expr, dialect: str) -> None:
    """Rewords the expressions of a query, inner ones first; changes the tree.

    Args:
        tree: The query.
        dialect: sqlglot's name of the dialect.
    """
    if dialect not in _WORDS:
        return
    rewording = _OTHERS.get(dialect, _Rewording)(dialect)
    for node in reversed(list(tree.walk(bfs=False))):
        replacement = rewording.replacement(node)
        if replacement is not node:
            node.replace(replacement)


class _Rewording:
    """Wording by the templates of a dialect.

    Args:
        dialect: sqlglot's name of the dialect.
    """

    def __init__(self, dialect: str) -> None:
        self._dialect = dialect
        self._words = _WORDS[dialect]

    def replacement(self, node: exp.Expr) -> exp.Expr:
        """Returns the expression that replaces one whose parts are reworded, or itself."""
        match node:
            case exp.Extract():
                return self._part(node, node.name.lower(), node.expression.unnest())
            case exp.Add() if _is_date(node.this) and _DAY in self._words:
                return _marked(self._worded(_DAY, node.this, node.expression), _DATE)
            case exp.Cast() if node.is_type("date"):
                return _marked(self._date(node), _DATE)
            case exp.Cast() if node.is_type(*_LOCAL_TYPES):
                return _marked(self._time(node), _LOCAL)
            case exp.AtTimeZone():
                return self._at_zone(node)
            case _:
                return node

    def _part(self, node: exp.Extract, part: str, value: exp.Expr) -> exp.Expr:
        if part == "epoch" and isinstance(value, exp.Sub):
            return self._worded(_SECONDS, value.this, value.expression)
        return self._worded(part, value) if part in self._words else node

    def _date(self, node: exp.Cast) -> exp.Expr:
        return node

    def _time(self, node: exp.Cast) -> exp.Expr:
        return node

    def _at_zone(self, node: exp.AtTimeZone) -> exp.Expr:
        is_worded = _UTC in self._words and node.this.meta.get(_LOCAL)
        return self._worded(_UTC, node.this, node.args["zone"]) if is_worded else node

    def _worded(self, name: str, *values: exp.Expr) -> exp.Expr:
        return self._parsed(self._words[name].format(*map(self._sql, values)))

    def _sql(self, node: exp.Expr) -> str:
        return node.sql(self._dialect)

    def _parsed(self, sql: str) -> exp.Expr:
        return sqlglot.parse_one(sql, read=self._dialect)


class _Mysql(_Rewording):
    """Wording for MySQL and MariaDB, which lack time zones and aggregates of booleans."""

    now = "UTC_TIMESTAMP(6)"

    def replacement(self, node: exp.Expr) -> exp.Expr:
        match node:
            case exp.LogicalOr():
                return exp.Max(this=node.this)
            case exp.CurrentTimestamp():
                return self._parsed(self.now)
            case _:
                return self._other(super().replacement(node))

    def _other(self, node: exp.Expr) -> exp.Expr:
        match node:
            case exp.Cast(this=exp.Null()) if node.is_type("text"):
                # one with the connection's collation would not go with columns that have another
                return exp.null()
            case exp.DataType() if node.is_type("timestamptz"):
                # the first TIMESTAMP of a row would change with every update
                return exp.DataType.build("DATETIME(6)", dialect="mysql")
            case exp.Avg():
                # the mean of whole numbers would have four digits after the point
                return exp.Avg(this=exp.cast(node.this, "double"))
            case _:
                return node

    def _at_zone(self, node: exp.AtTimeZone) -> exp.Expr:
        moment, zone = self._sql(node.this), node.args["zone"].name
        is_local = bool(node.this.meta.get(_LOCAL))
        offset = offset_sql(moment, zone, is_local=is_local)
        return self._moved(moment, f"-({offset})" if is_local else offset)

    def _moved(self, moment: str, seconds: str) -> exp.Expr:
        return self._parsed(f"DATE_ADD({moment}, INTERVAL ({seconds}) SECOND)")


class _Sqlite(_Mysql):
    """Wording for SQLite, which has times as text of the form `2026-03-29 01:00:00.000000`."""

    now = "strftime('%Y-%m-%d %H:%M:%f000', 'now')"

    def _other(self, node: exp.Expr) -> exp.Expr:
        match node:
            case exp.DateAdd():
                return self._moved(self._sql(node.this), self._sql(node.expression))
            case exp.Concat():
                texts = [f"coalesce({self._sql(text)}, '')" for text in node.expressions]
                return self._parsed(f"({' || '.join(texts)})")
            case _:
                return node

    def _moved(self, moment: str, seconds: str) -> exp.Expr:
        whole = f"strftime('%Y-%m-%d %H:%M:%S', {_WHOLE.format(moment)}, ({seconds}) || ' seconds')"
        return self._parsed(f"({whole} || substr({moment}, 20))")

    def _date(self, node: exp.Cast) -> exp.Expr:
        return self._parsed(f"substr({self._sql(node.this)}, 1, 10)")

    def _time(self, node: exp.Cast) -> exp.Expr:
        return self._parsed(f"strftime('%Y-%m-%d %H:%M:%S.000000', {self._sql(node.this)})")


_OTHERS: Mapping[str, type[_Rewording]] = {"mysql": _Mysql, "sqlite": _Sqlite}


def _is_date(node: exp.Expr) -> bool:
    """Checks whether an expression is a date: by what it is made of, or by a column's name."""
    if isinstance(node, exp.Column):
        return node.name.endswith("_date")
    return bool(node.meta.get(_DATE))


def _marked(node: exp.Expr, mark: str) -> exp.Expr:
    node.meta[mark] = True
    return node
