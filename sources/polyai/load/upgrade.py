"""Upgrade of a warehouse of an earlier version, from what it holds: nothing is requested again.

`Committer.create_tables` runs it once per warehouse, before anything is loaded, and records it in
`_dlt_loads`. Each chunk replaces whole conversations of a table, so that an upgrade that was killed
is repeated without duplicates.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

from dlt.destinations.sql_client import SqlClientBase

from ..shape.forgotten_callers import slow_hash
from ..shape.upgrade import UPGRADED, Row, upgraded, upgraded_llm_requests
from ..tables.conversations import CONVERSATIONS
from ..tables.declaration import Table
from ..tables.erasure import FORGOTTEN_CALLERS
from ..tables.registry import loaded_tables
from ..tables.rules import OUTBOUND, direction_unknown_sql
from ..tables.turns import LLM_REQUESTS, TURNS
from ..warehouse.duckdb_destination import merges_in_transactions
from ..warehouse.held import LoadState
from ..warehouse.queries import id_batches
from .batching import BATCH_SIZE
from .chunk import Batch, Chunk

logger = logging.getLogger("polyai")

UPGRADE_SCHEMA = "polyai_upgrade"
"""Schema name of the rows of `_dlt_loads` that record upgrades."""

UPGRADE = "0.2"
"""Load id of the row that records this upgrade."""

UPGRADED_TABLES = (*(table.name for table in UPGRADED), LLM_REQUESTS.name)
"""Names of the tables that get rows."""

CHUNK_SIZE = 2_000
"""Conversations per load package."""


def is_upgraded(warehouse: LoadState) -> bool:
    """Returns whether the upgrade is recorded: one query of a small table."""
    return bool(
        warehouse.rows(
            "SELECT load_id FROM {_dlt_loads} WHERE load_id = %s AND schema_name = %s",
            UPGRADE,
            UPGRADE_SCHEMA,
        )
    )


def upgrade_chunks(warehouse: LoadState) -> Iterator[Chunk]:
    """Yields the rows to replace, in chunks of one load package each.

    None for a destination whose merges are not transactions: there, one that is interrupted could
    lose the rows.

    Args:
        warehouse: The warehouse, whose tables have all columns.
    """
    upgraded_conversations = 0
    agents = warehouse.rows("SELECT DISTINCT agent_id FROM {conversations}")
    if agents and not merges_in_transactions(warehouse.pipeline):
        logger.warning(
            "new columns and tables of this version stay empty for what is loaded, because "
            "this destination cannot replace rows safely: backfill --no-resume fills them"
        )
        return
    for (agent_id,) in agents:
        for page in warehouse.conversation_ids(agent_id):
            for ids in _parts(page, CHUNK_SIZE):
                batches = _batches(warehouse, agent_id, ids)
                if (first := next(batches, None)) is None:
                    continue
                if not upgraded_conversations:
                    logger.info("moving values that an earlier version loaded into new columns")
                yield _chunk(chain([first], batches))
                upgraded_conversations += len(ids)
    if upgraded_conversations:
        logger.info("upgraded %s conversations", f"{upgraded_conversations:,}")


def set_directions(client: SqlClientBase[Any]) -> None:
    """Sets the direction of outbound conversations that were loaded without one."""
    name = client.make_qualified_table_name(CONVERSATIONS.name)
    client.execute_sql(
        f"UPDATE {name} SET direction = '{OUTBOUND}' WHERE {direction_unknown_sql()}"
    )


def protect_callers(client: SqlClientBase[Any]) -> None:
    """Replaces the hashes of erased callers that version 0.1 made, which are fast to try."""
    name = client.make_qualified_table_name(FORGOTTEN_CALLERS.name)
    rows = client.execute_sql(
        f"SELECT agent_id, caller_hash, salt FROM {name} WHERE method IS NULL"
    )
    for agent_id, fast, salt in rows or ():
        client.execute_sql(
            f"UPDATE {name} SET caller_hash = %s, method = 'scrypt' "
            "WHERE agent_id = %s AND caller_hash = %s",
            slow_hash(fast, salt),
            agent_id,
            fast,
        )


def _chunk(batches: Iterator[Batch]) -> Chunk:
    # the rows keep the load packages that they have
    return Chunk(lambda _: batches)


def _batches(warehouse: LoadState, agent_id: str, ids: Sequence[str]) -> Iterator[Batch]:
    empty = {table.name: table.arrow_schema.empty_table() for table in loaded_tables()}
    for part in _parts(ids, BATCH_SIZE):
        tables = {}
        for table in UPGRADED:
            rows = _rows(warehouse, table, agent_id, part)
            if (moved := upgraded(table, rows)) is not None:
                tables[table.name] = moved
            if table is TURNS and (found := upgraded_llm_requests(agent_id, rows)) is not None:
                tables[LLM_REQUESTS.name] = found
        if tables:
            yield Batch(empty | tables, frozenset())


def _parts(ids: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    return (ids[start : start + size] for start in range(0, len(ids), size))


def _rows(
    warehouse: LoadState, table: Table, agent_id: str, conversation_ids: Sequence[str]
) -> list[Row]:
    return [
        row
        for ids, marks in id_batches(conversation_ids)
        for row in warehouse.rows_by_column(
            f"SELECT {warehouse.columns_of(table)} FROM {{{table.name}}} "
            f"WHERE agent_id = %s AND conversation_id IN ({marks})",
            agent_id,
            *ids,
        )
    ]
