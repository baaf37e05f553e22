"""Queries of users: one SELECT, which can read the warehouse and nothing else."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import dlt
import duckdb
import sqlglot
from dlt.destinations.sql_client import SqlClientBase
from sqlglot import exp
from sqlglot.errors import SqlglotError

from ..errors import ConfigurationError, first_line
from .duckdb_destination import DUCKDB
from .ducklake import DUCKLAKE

_TABLE_FUNCTIONS = frozenset(
    {"generate_series", "json_each", "json_tree", "range", "repeat", "unnest"}
)
"""DuckDB's table functions that read nothing but their arguments. Others read files and servers,
run SQL given as text, or, for an attached database, write."""

_SETTINGS = frozenset({"current_setting", "getenv"})
"""DuckDB's functions that return settings, some of which are secrets."""

_SYSTEM = "duckdb_"
"""Prefix of DuckDB's tables about itself, such as the addresses of attached databases."""

_EXECUTABLE_COMMENT = re.compile(r"/\*M?!")
"""Comment that MySQL and MariaDB execute, and a parser skips."""

_ONE_SELECT = "it has to be one SELECT"

_READ_ONLY: Mapping[str, tuple[str, str]] = {
    "mysql": ("SET SESSION TRANSACTION READ ONLY", "SET SESSION TRANSACTION READ WRITE"),
    "sqlite": ("PRAGMA query_only = ON", "PRAGMA query_only = OFF"),
}
"""Statements by dialect before and after queries that change nothing."""

_DUCKDB_LIMITS = (
    "autoinstall_known_extensions",
    "autoload_known_extensions",
    "allow_community_extensions",
    "enable_external_access",
)
"""DuckDB's settings that are switched off for a user's query."""


def check_query(sql: str, dialect: str) -> None:
    """Checks that a user's query is one SELECT that reads tables and views only.

    Args:
        sql: The query.
        dialect: sqlglot's name of the destination's dialect.

    Raises:
        ConfigurationError: It is something else.
    """
    check = _check_duckdb if dialect == "duckdb" else _check_other
    if refusal := check(sql, dialect):
        raise ConfigurationError(f"the query was not run: {refusal}")


def _check_duckdb(sql: str, _: str) -> str | None:
    """Returns why DuckDB must not run a query, from DuckDB's own parser; None if it may."""
    with duckdb.connect() as connection:
        row = connection.execute("SELECT json_serialize_sql($1::VARCHAR)", [sql]).fetchone()
    parsed: Mapping[str, Any] = json.loads(row[0] if row else "{}")
    if parsed.get("error_type") == "parser":
        return f"{parsed['error_message']}"
    if parsed.get("error") or len(parsed.get("statements", ())) != 1:
        return _ONE_SELECT
    for node in _nodes(parsed):
        name = str(node.get("function_name") or node.get("table_name") or "").lower()
        is_table = node.get("type") == "BASE_TABLE"
        if node.get("type") == "TABLE_FUNCTION":
            name = str(node["function"].get("function_name")).lower()
            is_refused = name not in _TABLE_FUNCTIONS
        else:
            is_refused = name.startswith(_SYSTEM) if is_table else name in _SETTINGS
        if is_refused:
            return f"{name} is not a table or view of the warehouse"
    return None


def _nodes(tree: Any) -> Iterator[Mapping[str, Any]]:
    """Yields all objects of a JSON document."""
    stack = [tree]
    while stack:
        node = stack.pop()
        if isinstance(node, dict):
            yield node
            stack.extend(node.values())
        elif isinstance(node, list):
            stack.extend(node)


def _check_other(sql: str, dialect: str) -> str | None:
    """Returns why another database must not run a query; None if it may."""
    try:
        found = [tree for tree in sqlglot.parse(sql, read=dialect) if tree is not None]
    except SqlglotError as error:
        return f"it is not understood as SQL of {dialect}: {first_line(error)}"
    if len(found) != 1 or not isinstance(found[0], exp.Query):
        return _ONE_SELECT
    if found[0].find(exp.DML, exp.DDL, exp.Into) or _is_executed_comment(sql, dialect):
        return f"{_ONE_SELECT} that changes and writes nothing"
    return None


def _is_executed_comment(sql: str, dialect: str) -> bool:
    return dialect == "mysql" and bool(_EXECUTABLE_COMMENT.search(sql))


@contextmanager
def restricted(pipeline: dlt.Pipeline, client: SqlClientBase[Any]) -> Iterator[None]:
    """Lets an open connection read the warehouse only, within the block.

    A DuckDB stays restricted until it is closed. The next session of a lake gets a new one.

    Args:
        pipeline: Pipeline of the warehouse.
        client: Client whose connection is open.
    """
    kind = pipeline.destination.destination_type
    dialect = str(client.capabilities.sqlglot_dialect)
    if kind in (DUCKDB, DUCKLAKE):
        _restrict_duckdb(client, is_lake=kind == DUCKLAKE)
        try:
            yield
        finally:
            if kind == DUCKLAKE:
                sessions: Any = client.credentials
                sessions.conn_pool.renew()
    elif dialect == "postgres":
        with client.begin_transaction():
            client.execute_sql("SET TRANSACTION READ ONLY")
            yield
    elif dialect in _READ_ONLY:
        before, after = _READ_ONLY[dialect]
        client.execute_sql(before)
        try:
            yield
        finally:
            # the connection goes back into a pool
            client.execute_sql(after)
    else:
        yield


def _restrict_duckdb(client: SqlClientBase[Any], *, is_lake: bool) -> None:
    """Switches off files, servers and extensions, except for the files of a lake."""
    if is_lake:
        credentials: Any = client.credentials
        folder = str(credentials.storage_url).replace("'", "''")
        client.execute_sql(f"SET allowed_directories = ['{folder}']")
    for name in _DUCKDB_LIMITS:
        client.execute_sql(f"SET {name} = false")
    if not is_lake:
        # dlt could not detach a lake any more
        client.execute_sql("SET lock_configuration = true")
