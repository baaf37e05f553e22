"""Reconciliation of the warehouse: counts of rows, orphans, duplicates and missing turns.

A conversation is loaded once the package that wrote its row is complete. Rows of incomplete
packages are excluded from every comparison: a load is running, or one was killed, and the next one
fetches those conversations again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ..clock import in_utc
from ..tables.conversations import CONVERSATIONS
from ..tables.declaration import OWNER, Table
from ..tables.registry import conversation_tables, reconciled_tables
from .held import COMPLETE_PACKAGES
from .queries import Warehouse
from .suspects import full_key, may_have_duplicates, suspects

_COMPLETE = f"(SELECT p.load_id, 1 AS is_complete FROM ({COMPLETE_PACKAGES}) p)"
"""Complete packages with a mark to test after an outer join: ClickHouse fills the columns of rows
without a match with 0 and '', not with NULL."""

_IS_WITHHELD = "coalesce(is_transcript_withheld, FALSE)"


@dataclass(frozen=True)
class ConversationCounts:
    """Conversations of an agent, as stored in the warehouse."""

    held: int = 0
    """Loaded conversations. The other counts except `incomplete` are of these."""
    in_progress: int = 0
    withheld: int = 0
    """Conversations whose turns were missing in the newest detail (retention or permissions)."""
    newest_created_at: datetime | None = None
    incomplete: int = 0
    """Conversations of incomplete load packages."""


@dataclass(frozen=True)
class TurnCounts:
    """Turns of an agent's loaded conversations, compared with their `num_turns`."""

    expected: int = 0
    """Sum of `num_turns` of conversations whose turns are not withheld."""
    rows: int = 0
    """Rows in `turns` of these conversations."""
    unequal: int = 0
    """Number of these conversations with more or fewer rows than `num_turns`."""
    withheld_rows: int = 0
    """Rows of conversations whose turns were withheld after they were loaded."""


@dataclass(frozen=True)
class TableCounts:
    """Rows of an agent in one table."""

    rows: int = 0
    incomplete: int = 0
    """Rows of incomplete load packages; not included in `rows`."""
    orphans: int = 0
    """Rows without a conversation."""
    doubled: int = 0
    """Number of duplicate keys."""


def unequal_turns(
    warehouse: Warehouse, agent_id: str, load_ids: Sequence[str]
) -> dict[str, tuple[int, int]]:
    """Finds conversations with more or fewer rows in `turns` than their detail had turns.

    Reads only rows of the given load packages, so that the cost does not grow with the warehouse.
    Only for packages that include `turns`.

    Args:
        warehouse: The warehouse.
        agent_id: The agent.
        load_ids: Ids of complete load packages. Turns are in the same package as their
            conversation, except for withheld turns, which are excluded.

    Returns:
        `num_turns` and the number of rows in `turns`, by conversation id.
    """
    if not load_ids:
        return {}
    marks = ", ".join(["%s"] * len(load_ids))
    rows = warehouse.rows(
        f"""
        SELECT c.conversation_id, c.num_turns, coalesce(t.n, 0)
        FROM {{conversations}} c
        LEFT JOIN (
            SELECT conversation_id, count(*) AS n FROM {{turns}}
            WHERE agent_id = %s AND _dlt_load_id IN ({marks}) GROUP BY conversation_id
        ) t ON t.conversation_id = c.conversation_id
        WHERE c.agent_id = %s AND c._dlt_load_id IN ({marks})
        AND NOT {_IS_WITHHELD} AND c.num_turns <> coalesce(t.n, 0)
        ORDER BY c.conversation_id
        """,
        agent_id,
        *load_ids,
        agent_id,
        *load_ids,
    )
    return {conversation_id: (num_turns, n) for conversation_id, num_turns, n in rows}


def conversation_counts(warehouse: Warehouse) -> dict[str, ConversationCounts]:
    """Counts all conversations, by agent."""
    rows = warehouse.rows(
        f"""
        SELECT agent_id, sum(is_loaded), sum(is_loaded * in_progress), sum(is_loaded * withheld),
            max(CASE WHEN is_loaded = 1 THEN created_at END), sum(1 - is_loaded)
        FROM (
            SELECT c.agent_id AS agent_id,
                max(CASE WHEN l.is_complete = 1 THEN 1 ELSE 0 END) AS is_loaded,
                max(CASE WHEN c.in_progress THEN 1 ELSE 0 END) AS in_progress,
                max(CASE WHEN c.is_transcript_withheld THEN 1 ELSE 0 END) AS withheld,
                max(coalesce(c.created_at, c.started_at)) AS created_at
            FROM {{conversations}} c
            LEFT JOIN {_COMPLETE} l ON l.load_id = c._dlt_load_id
            GROUP BY c.agent_id, c.conversation_id
        ) each_once
        GROUP BY agent_id
        """
    )
    return {
        agent_id: ConversationCounts(
            int(loaded),
            int(in_progress),
            int(withheld),
            in_utc(newest),
            int(incomplete),
        )
        for agent_id, loaded, in_progress, withheld, newest, incomplete in rows
    }


_TURNS_OF_LOADED = f"""
    (
        SELECT agent_id, conversation_id, max(num_turns) AS num_turns,
            max(CASE WHEN {_IS_WITHHELD} THEN 1 ELSE 0 END) AS withheld
        FROM {{conversations}} WHERE _dlt_load_id IN ({COMPLETE_PACKAGES})
        GROUP BY agent_id, conversation_id
    ) c
    LEFT JOIN (
        SELECT agent_id, conversation_id, count(*) AS n FROM {{turns}}
        GROUP BY agent_id, conversation_id
    ) t ON t.agent_id = c.agent_id AND t.conversation_id = c.conversation_id
    LEFT JOIN (
        SELECT DISTINCT agent_id, conversation_id, 1 AS is_incomplete FROM {{turns}}
        WHERE _dlt_load_id NOT IN ({COMPLETE_PACKAGES})
    ) i ON i.agent_id = c.agent_id AND i.conversation_id = c.conversation_id
    WHERE coalesce(i.is_incomplete, 0) = 0
"""
"""Loaded conversations with their rows in `turns`, except those with rows of a running load."""

_IS_UNEQUAL = "c.withheld = 0 AND c.num_turns <> coalesce(t.n, 0)"


def turn_counts(warehouse: Warehouse) -> dict[str, TurnCounts]:
    """Counts turns, by agent. Agents without any rows in `turns` are left out.

    `turns` may be empty because it is not among the loaded tables: the views create missing tables.
    """
    rows = _equal_turns(warehouse) or warehouse.rows(
        f"""
        SELECT c.agent_id,
            sum(CASE WHEN c.withheld = 0 THEN coalesce(c.num_turns, 0) ELSE 0 END),
            sum(CASE WHEN c.withheld = 0 THEN coalesce(t.n, 0) ELSE 0 END),
            sum(CASE WHEN {_IS_UNEQUAL} THEN 1 ELSE 0 END),
            sum(CASE WHEN c.withheld = 1 THEN coalesce(t.n, 0) ELSE 0 END)
        FROM {_TURNS_OF_LOADED}
        GROUP BY c.agent_id
        """
    )
    counts = {agent_id: TurnCounts(*map(int, numbers)) for agent_id, *numbers in rows}
    return {
        agent_id: count
        for agent_id, count in counts.items()
        if count.rows or count.withheld_rows or not count.expected
    }


def _equal_turns(warehouse: Warehouse) -> list[tuple[Any, ...]] | None:
    """Counts turns as `turn_counts` does, at half the cost, if all conversations are equal.

    Returns:
        The counts by agent; None if a conversation may be unequal, a duplicate or being loaded, and
        on destinations other than DuckDB, where hashes of ids are compared.
    """
    owner = warehouse.hash_of(OWNER)
    if owner is None or warehouse.rows(
        f"SELECT 1 FROM {{turns}} WHERE _dlt_load_id NOT IN ({COMPLETE_PACKAGES}) LIMIT 1"
    ):
        return None
    # conversations that share their turns, because they are duplicates, share a place
    places = 2 * warehouse.count_rows(CONVERSATIONS.name) + 1
    rows = warehouse.rows(
        f"""
        SELECT c.agent_id, sum(CASE WHEN c.withheld THEN 0 ELSE coalesce(c.num_turns, 0) END),
            sum(CASE WHEN c.withheld THEN 0 ELSE coalesce(t.n, 0) END),
            sum(CASE WHEN NOT c.withheld AND c.num_turns <> coalesce(t.n, 0) THEN 1 ELSE 0 END),
            sum(CASE WHEN c.withheld THEN coalesce(t.n, 0) ELSE 0 END),
            count(t.place) - coalesce(bit_count(bitstring_agg(t.place, 0, {places})), 0)
        FROM (
            SELECT agent_id, {owner} AS owner, num_turns, {_IS_WITHHELD} AS withheld
            FROM {{conversations}} WHERE _dlt_load_id IN ({COMPLETE_PACKAGES})
        ) c
        LEFT JOIN (
            SELECT owner, n, mod(row_number() OVER (), {places}) AS place FROM (
                SELECT {owner} AS owner, count(*) AS n FROM {{turns}} GROUP BY {owner}
            ) grouped
        ) t ON t.owner = c.owner
        GROUP BY c.agent_id
        """
    )
    if any(unequal or shared for *_, unequal, _, shared in rows):
        return None
    return [row[:-1] for row in rows]


def some_unequal_turns(
    warehouse: Warehouse, agent_id: str, limit: int
) -> dict[str, tuple[int, int]]:
    """Returns some of the conversations that `TurnCounts.unequal` counts, like `unequal_turns`."""
    rows = warehouse.rows(
        f"""
        SELECT conversation_id, num_turns, n FROM (
            SELECT c.conversation_id AS conversation_id, c.num_turns AS num_turns,
                coalesce(t.n, 0) AS n, row_number() OVER (ORDER BY c.conversation_id) AS nth
            FROM {_TURNS_OF_LOADED}
            AND c.agent_id = %s AND {_IS_UNEQUAL}
        ) numbered
        WHERE nth <= %s ORDER BY nth
        """,
        agent_id,
        limit,
    )
    return {conversation_id: (int(num_turns), int(n)) for conversation_id, num_turns, n in rows}


def table_counts(warehouse: Warehouse) -> dict[str, dict[str, TableCounts]]:
    """Counts rows by agent and table, without tables that do not exist yet."""
    tables = reconciled_tables()
    rows = _rows(warehouse, tables)
    sizes = Counter[str]()
    for (_, table), counts in rows.items():
        sizes[table] += sum(counts)
    loaded = [table for table in tables if table.name in sizes]
    children = [table for table in conversation_tables() if table.name != CONVERSATIONS.name]
    owned = [table for table in loaded if table in children]
    large = [table for table in loaded if sizes[table.name] > _SMALL]
    small = [table for table in loaded if sizes[table.name] <= _SMALL]
    are_many = sizes[CONVERSATIONS.name] > _SMALL
    suspected = suspects(warehouse, [table for table in owned if are_many or table in large], sizes)
    orphans = _orphans(warehouse, suspected.with_orphans if are_many else owned)
    duplicates: dict[_Of, int] = {}
    # one query per large table, since a load may be waiting for the DuckDB file
    doubtful = [
        table
        for table in large
        if table in suspected.with_duplicates
        or (table not in owned and may_have_duplicates(warehouse, table, sizes[table.name]))
    ]
    for together in (small, *([table] for table in doubtful)):
        duplicates |= _duplicates(warehouse, together)
    found: dict[str, dict[str, TableCounts]] = {}
    for (agent_id, table), (complete, incomplete) in rows.items():
        of = agent_id, table
        found.setdefault(agent_id, {})[table] = TableCounts(
            complete, incomplete, orphans.get(of, 0), duplicates.get(of, 0)
        )
    return found


_SMALL = 100_000
"""Maximum rows of a table that is grouped by its key together with other tables, and of
conversations to which the children of all tables are compared together."""

_Of = tuple[str, str]
"""Agent id and table name."""


def _rows(warehouse: Warehouse, tables: Sequence[Table]) -> dict[_Of, tuple[int, int]]:
    """Counts rows of complete and of incomplete load packages."""
    counted = " UNION ALL ".join(
        f"SELECT agent_id, '{table.name}' AS table_name, _dlt_load_id, count(*) AS n "
        f"FROM {{{table.name}}} GROUP BY agent_id, _dlt_load_id"
        for table in tables
    )
    rows = warehouse.rows(
        f"""
        SELECT p.agent_id, p.table_name, sum(CASE WHEN l.is_complete = 1 THEN p.n ELSE 0 END),
            sum(CASE WHEN l.is_complete = 1 THEN 0 ELSE p.n END)
        FROM ({counted}) p LEFT JOIN {_COMPLETE} l ON l.load_id = p._dlt_load_id
        GROUP BY p.agent_id, p.table_name
        """
    )
    if not rows and len(tables) > 1:
        # one of the tables does not exist yet
        return {of: n for table in tables for of, n in _rows(warehouse, [table]).items()}
    order = [table.name for table in tables]
    rows.sort(key=lambda row: (row[0], order.index(row[1])))
    return {
        (agent_id, table): (int(complete), int(incomplete))
        for agent_id, table, complete, incomplete in rows
    }


def _orphans(warehouse: Warehouse, tables: Sequence[Table]) -> dict[_Of, int]:
    """Counts orphans: rows without a conversation."""
    if not tables:
        return {}
    # one query for all tables, so that the hash table of conversations is built once
    children = " UNION ALL ".join(
        f"SELECT agent_id, '{table.name}' AS table_name, conversation_id, _dlt_load_id "
        f"FROM {{{table.name}}}"
        for table in tables
    )
    rows = warehouse.rows(
        f"""
        SELECT o.agent_id, o.table_name, sum(o.n) FROM (
            SELECT t.agent_id, t.table_name, t._dlt_load_id, count(*) AS n FROM ({children}) t
            WHERE NOT EXISTS (
                SELECT 1 FROM {{conversations}} c
                WHERE c.agent_id = t.agent_id AND c.conversation_id = t.conversation_id
            )
            GROUP BY t.agent_id, t.table_name, t._dlt_load_id
        ) o
        JOIN ({COMPLETE_PACKAGES}) l ON l.load_id = o._dlt_load_id
        GROUP BY o.agent_id, o.table_name
        """
    )
    return {(agent_id, table): int(n) for agent_id, table, n in rows}


def _duplicates(warehouse: Warehouse, tables: Sequence[Table]) -> dict[_Of, int]:
    """Counts duplicate keys."""
    if not tables:
        return {}
    keys = " UNION ALL ".join(
        f"SELECT t.agent_id AS agent_id, '{table.name}' AS table_name FROM {{{table.name}}} t "
        f"{_excluding_distinct(table)} WHERE t._dlt_load_id IN ({COMPLETE_PACKAGES}) "
        f"GROUP BY {', '.join(f't.{name}' for name in full_key(table))} HAVING count(*) > 1"
        for table in tables
    )
    rows = warehouse.rows(
        f"SELECT agent_id, table_name, count(*) FROM ({keys}) k GROUP BY agent_id, table_name"
    )
    return {(agent_id, table): int(n) for agent_id, table, n in rows}


def _excluding_distinct(table: Table) -> str:
    """Renders a join that excludes conversations whose keys are certainly distinct.

    Grouping a table by its full key is the most expensive step. If the key is one number that
    counts a conversation's rows from 0, its sums show whether the numbers are 0, 1, … n - 1, and
    few conversations remain to be grouped.
    """
    types = {column.name: column.type for column in table.columns}
    if len(table.key) != 1 or types[table.key[0]] != "bigint":
        return ""
    (number,) = table.key
    n = "count(*)"
    return f"""
        JOIN (
            SELECT agent_id, conversation_id FROM {{{table.name}}}
            WHERE _dlt_load_id IN ({COMPLETE_PACKAGES}) GROUP BY agent_id, conversation_id
            HAVING max({number}) <> {n} - 1 OR 2 * sum({number}) <> {n} * ({n} - 1)
            OR 6 * sum({number} * {number}) <> {n} * ({n} - 1) * (2 * {n} - 1)
        ) odd ON odd.agent_id = t.agent_id AND odd.conversation_id = t.conversation_id
    """
