"""Grants on views that are dropped and recreated; PostgreSQL drops them with the old view."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from dlt.destinations.sql_client import SqlClientBase
from sqlglot import exp

_WITH_GRANTS = frozenset({"postgres", "redshift"})
"""Dialects in which a replaced view keeps its grants and a dropped view loses them."""

_GRANTED = (
    "SELECT table_name, grantee, privilege_type, is_grantable "
    "FROM information_schema.role_table_grants "
    "WHERE table_schema = %s AND grantee <> grantor ORDER BY table_name, grantee, privilege_type"
)


def grants_on(client: SqlClientBase[Any], names: Iterable[str]) -> list[str]:
    """Returns the statements that restore the current grants on views.

    Args:
        client: Client of the destination.
        names: Names of the views; those that do not exist are skipped.
    """
    dialect = str(client.capabilities.sqlglot_dialect)
    if dialect not in _WITH_GRANTS:
        return []
    wanted = set(names)
    return [
        f"GRANT {privilege} ON {client.make_qualified_table_name(name)} TO {_role(grantee)}"
        + " WITH GRANT OPTION" * (is_grantable == "YES")
        for name, grantee, privilege, is_grantable in client.execute_sql(
            _GRANTED, client.dataset_name
        )
        or ()
        if name in wanted
    ]


def _role(name: str) -> str:
    """Returns a role as SQL; `PUBLIC` is a keyword, not a name."""
    return name if name == "PUBLIC" else exp.to_identifier(name, quoted=True).sql("postgres")
