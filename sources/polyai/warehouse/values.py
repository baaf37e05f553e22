"""Values of parameters and of results, which drivers pass in types of their own.

DuckDB and PostgreSQL take and return what the rest of the code works with. Elsewhere, times may be
returned without a zone or as text, and booleans as numbers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any

from ..clock import in_utc
from ..tables.registry import tables

NATIVE = frozenset({"duckdb", "postgres"})
"""sqlglot's names of the dialects whose drivers need no conversion."""

_SQLITE = "sqlite"

_MYSQL = "mysql"

_TIME_IN_SQLITE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}")
"""Form in which SQLAlchemy stores times in SQLite, which has no type for them."""

_LOCAL = "local_"
"""Beginning of the names of columns of views with local times, which have no zone."""


def parameter(value: object, dialect: str | None) -> object:
    """Converts the value of a parameter to what the driver of a dialect stores in such a column.

    Args:
        value: Any value; times have a time zone.
        dialect: sqlglot's name of the dialect.
    """
    if isinstance(value, datetime) and dialect in (_MYSQL, _SQLITE):
        moment = in_utc(value).replace(tzinfo=None)
        return moment if dialect == _MYSQL else moment.isoformat(" ", "microseconds")
    return value


def rows_of(
    names: Sequence[str], rows: Sequence[Sequence[Any]], dialect: str | None
) -> list[tuple[Any, ...]]:
    """Converts the rows of a result: times with a zone in UTC, booleans as `bool`.

    Args:
        names: Names of the columns.
        rows: The rows, by position.
        dialect: sqlglot's name of the dialect.
    """
    if dialect in NATIVE:
        return list(map(tuple, rows))
    converters = [_converter(name.lower(), dialect) for name in names]
    return [
        tuple(
            value if value is None or convert is None else convert(value)
            for value, convert in zip(row, converters)
        )
        for row in rows
    ]


@cache
def _types() -> dict[str, str]:
    """Types of the declared columns by name; no name has two."""
    return {column.name: column.type for table in tables() for column in table.columns}


def _converter(name: str, dialect: str | None) -> Callable[[Any], Any] | None:
    """Returns the conversion for the values of a column; None for no conversion.

    In SQLite, only the values show whether a computed column is a time. A declared column of text
    never is one.
    """
    type_ = _types().get(name)
    if type_ == "bool":
        return bool
    if name.startswith(_LOCAL) or type_ not in (None, "timestamp"):
        return None
    return _time_or_text if dialect == _SQLITE else _time


def _time(value: Any) -> Any:
    if not isinstance(value, datetime):
        return value
    return value.replace(tzinfo=UTC) if value.tzinfo is None else in_utc(value)


def _time_or_text(value: Any) -> Any:
    if isinstance(value, str) and _TIME_IN_SQLITE.fullmatch(value):
        return datetime.fromisoformat(value).replace(tzinfo=UTC)
    return value
