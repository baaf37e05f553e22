"""Tables of version 0.1 in MySQL and MariaDB, which cannot be upgraded in place.

Their loads ended with an error, JSON is encoded twice, and texts are compared without case and hold
64 KB.
"""

from __future__ import annotations

import dlt

from ..errors import ConfigurationError
from ..tables.conversations import CONVERSATIONS
from .clients import sql_client

_EXACT = "utf8mb4_bin"
"""Collation of the ids since version 0.2."""

_COLLATION = (
    "SELECT collation_name FROM information_schema.columns WHERE table_schema = %s "
    "AND table_name = %s AND column_name = 'conversation_id'"
)


def require_current_tables(pipeline: dlt.Pipeline) -> None:
    """Checks that the tables of an open MySQL or MariaDB are not those of version 0.1.

    Raises:
        ConfigurationError: They are.
    """
    with sql_client(pipeline) as client:
        if client.capabilities.sqlglot_dialect != "mysql":
            return
        dataset = client.fully_qualified_dataset_name(quote=False)
        found = client.execute_sql(_COLLATION, dataset, CONVERSATIONS.name)
    if found and found[0][0] != _EXACT:
        raise ConfigurationError(
            f"destination: the tables in {dataset} are of version 0.1, whose loads into MySQL and "
            "MariaDB failed, and cannot be upgraded: drop that database, or choose another one "
            "with --dataset, and load again"
        )
