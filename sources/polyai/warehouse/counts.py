"""Whether the warehouse agrees with itself, and with what the answers say they hold.

A conversation is held once the load package that wrote its row is complete. What belongs to a
package that never became so is left out of every comparison: a load is under way, or one was
killed, and the next one reads those conversations again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from ..clock import in_utc
from ..tables.conversations import CONVERSATIONS
from ..tables.declaration import Table
from ..tables.registry import conversation_tables, reconciled_tables
from .held import COMPLETE_PACKAGES
from .queries import Warehouse

_IS_WITHHELD = "coalesce(is_transcript_withheld, FALSE)"


@dataclass(frozen=True)
class ConversationCounts:
    """The conversations of an agent; all but `incomplete` are held."""

    held: int = 0
    in_progress: int = 0
    withheld: int = 0
    """Their newest answer came without the turns that they have."""
    newest_created_at: datetime | None = None
    incomplete: int = 0
    """Their load package never became complete."""


@dataclass(frozen=True)
class TurnCounts:
    """The turns of an agent's held conversations, against their `num_turns`."""

    expected: int = 0
    """Sum of `num_turns`, where the turns are not withheld."""
    rows: int = 0
    """Rows in `turns` of the same conversations."""
    unequal: int = 0
    """Conversations among them that have more or fewer rows than `num_turns`."""
    withheld_rows: int = 0
    """Rows of the other conversations, from answers before turns were withheld."""


@dataclass(frozen=True)
class TableCounts:
    """The rows of an agent in one table."""

    rows: int = 0
    incomplete: int = 0
    """Rows of load packages that never became complete; not among `rows`."""
    orphans: int = 0
    """Rows of no conversation."""
    doubled: int = 0
    """Keys that stand more than once."""


def unequal_turns(
    warehouse: Warehouse, agent_id: str, load_ids: Sequence[str]
) -> dict[str, tuple[int, int]]:
    """Conversations with more or fewer rows in `turns` than their answer had turns.

    Looks at what these load packages wrote and at nothing else, so it costs as little in a large
    warehouse as in a small one. Only for packages that `turns` was loaded with.

    Args:
        warehouse: Where to look.
        agent_id: The agent.
        load_ids: Complete load packages. Turns always travel in the package of their conversation,
            but for those that are kept because a later answer withheld them, which is left out.

    Returns:
        `num_turns` and the rows in `turns`, by conversation.
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
    """Counts of all conversations, by agent."""
    rows = warehouse.rows(
        f"""
        SELECT agent_id, sum(is_held), sum(is_held * in_progress), sum(is_held * withheld),
            max(CASE WHEN is_held = 1 THEN created_at END), sum(1 - is_held)
        FROM (
            SELECT c.agent_id AS agent_id,
                max(CASE WHEN l.load_id IS NULL THEN 0 ELSE 1 END) AS is_held,
                max(CASE WHEN c.in_progress THEN 1 ELSE 0 END) AS in_progress,
                max(CASE WHEN c.is_transcript_withheld THEN 1 ELSE 0 END) AS withheld,
                max(coalesce(c.created_at, c.started_at)) AS created_at
            FROM {{conversations}} c
            LEFT JOIN ({COMPLETE_PACKAGES}) l
            ON l.load_id = c._dlt_load_id
            GROUP BY c.agent_id, c.conversation_id
        ) each_once
        GROUP BY agent_id
        """
    )
    return {
        agent_id: ConversationCounts(
            int(held),
            int(in_progress),
            int(withheld),
            in_utc(newest),
            int(incomplete),
        )
        for agent_id, held, in_progress, withheld, newest, incomplete in rows
    }


_TURNS_OF_HELD = f"""
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
        SELECT DISTINCT agent_id, conversation_id FROM {{turns}}
        WHERE _dlt_load_id NOT IN ({COMPLETE_PACKAGES})
    ) torn ON torn.agent_id = c.agent_id AND torn.conversation_id = c.conversation_id
    WHERE torn.agent_id IS NULL
"""
"""Held conversations with their rows in `turns`, but for those whose turns are being replaced."""

_IS_UNEQUAL = "c.withheld = 0 AND c.num_turns <> coalesce(t.n, 0)"


def turn_counts(warehouse: Warehouse) -> dict[str, TurnCounts]:
    """Counts of turns, by agent; nothing of one without any: its turns were never loaded.

    The views make tables that a load has left out, empty.
    """
    rows = warehouse.rows(
        f"""
        SELECT c.agent_id,
            sum(CASE WHEN c.withheld = 0 THEN coalesce(c.num_turns, 0) ELSE 0 END),
            sum(CASE WHEN c.withheld = 0 THEN coalesce(t.n, 0) ELSE 0 END),
            sum(CASE WHEN {_IS_UNEQUAL} THEN 1 ELSE 0 END),
            sum(CASE WHEN c.withheld = 1 THEN coalesce(t.n, 0) ELSE 0 END)
        FROM {_TURNS_OF_HELD}
        GROUP BY c.agent_id
        """
    )
    counts = {agent_id: TurnCounts(*map(int, numbers)) for agent_id, *numbers in rows}
    return {
        agent_id: count
        for agent_id, count in counts.items()
        if count.rows or count.withheld_rows or not count.expected
    }


def some_unequal_turns(
    warehouse: Warehouse, agent_id: str, limit: int
) -> dict[str, tuple[int, int]]:
    """Some of the conversations that `TurnCounts.unequal` counts, as `unequal_turns` gives them."""
    rows = warehouse.rows(
        f"""
        SELECT conversation_id, num_turns, n FROM (
            SELECT c.conversation_id AS conversation_id, c.num_turns AS num_turns,
                coalesce(t.n, 0) AS n, row_number() OVER (ORDER BY c.conversation_id) AS nth
            FROM {_TURNS_OF_HELD}
            AND c.agent_id = %s AND {_IS_UNEQUAL}
        ) numbered
        WHERE nth <= %s ORDER BY nth
        """,
        agent_id,
        limit,
    )
    return {conversation_id: (int(num_turns), int(n)) for conversation_id, num_turns, n in rows}


def table_counts(warehouse: Warehouse) -> dict[str, dict[str, TableCounts]]:
    """Counts of rows by agent and table, without tables that were never loaded."""
    tables = reconciled_tables()
    rows = _rows(warehouse, tables)
    sizes = Counter[str]()
    for (_, table), counts in rows.items():
        sizes[table] += sum(counts)
    loaded = [table for table in tables if table.name in sizes]
    children = [table for table in conversation_tables() if table.name != CONVERSATIONS.name]
    orphans = _orphans(warehouse, [table for table in loaded if table in children])
    doubled: dict[_Of, int] = {}
    # one large table at a time: a load may be waiting for the DuckDB file
    large = [table for table in loaded if sizes[table.name] > _SMALL]
    small = [table for table in loaded if sizes[table.name] <= _SMALL]
    for together in (small, *([table] for table in large)):
        doubled |= _doubled(warehouse, together)
    found: dict[str, dict[str, TableCounts]] = {}
    for (agent_id, table), (complete, incomplete) in rows.items():
        of = agent_id, table
        found.setdefault(agent_id, {})[table] = TableCounts(
            complete, incomplete, orphans.get(of, 0), doubled.get(of, 0)
        )
    return found


_SMALL = 100_000
"""Rows of a table that are grouped by their key in a moment."""

_Of = tuple[str, str]
"""Agent and table."""


def _rows(warehouse: Warehouse, tables: Sequence[Table]) -> dict[_Of, tuple[int, int]]:
    """Rows of complete load packages and of others."""
    counted = " UNION ALL ".join(
        f"SELECT agent_id, '{table.name}' AS table_name, _dlt_load_id, count(*) AS n "
        f"FROM {{{table.name}}} GROUP BY agent_id, _dlt_load_id"
        for table in tables
    )
    rows = warehouse.rows(
        f"""
        SELECT p.agent_id, p.table_name, sum(CASE WHEN l.load_id IS NULL THEN 0 ELSE p.n END),
            sum(CASE WHEN l.load_id IS NULL THEN p.n ELSE 0 END)
        FROM ({counted}) p LEFT JOIN ({COMPLETE_PACKAGES}) l ON l.load_id = p._dlt_load_id
        GROUP BY p.agent_id, p.table_name
        """
    )
    if not rows and len(tables) > 1:
        # one of them was never loaded
        return {of: n for table in tables for of, n in _rows(warehouse, [table]).items()}
    order = [table.name for table in tables]
    rows.sort(key=lambda row: (row[0], order.index(row[1])))
    return {(agent_id, table): (int(held), int(others)) for agent_id, table, held, others in rows}


def _orphans(warehouse: Warehouse, tables: Sequence[Table]) -> dict[_Of, int]:
    """Rows without a conversation."""
    if not tables:
        return {}
    # one query for all: the conversations are looked up in one hash table, made once
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


def _doubled(warehouse: Warehouse, tables: Sequence[Table]) -> dict[_Of, int]:
    """Keys that stand more than once."""
    if not tables:
        return {}
    keys = " UNION ALL ".join(
        f"SELECT t.agent_id AS agent_id, '{table.name}' AS table_name FROM {{{table.name}}} t "
        f"{_narrowed(table)} WHERE t._dlt_load_id IN ({COMPLETE_PACKAGES}) "
        f"GROUP BY {', '.join(f't.{name}' for name in _key(table))} HAVING count(*) > 1"
        for table in tables
    )
    rows = warehouse.rows(
        f"SELECT agent_id, table_name, count(*) FROM ({keys}) k GROUP BY agent_id, table_name"
    )
    return {(agent_id, table): int(n) for agent_id, table, n in rows}


def _key(table: Table) -> Iterable[str]:
    return dict.fromkeys((*table.merge_key, *table.key))


def _narrowed(table: Table) -> str:
    """A join that leaves conversations out whose keys are distinct for certain.

    Grouping a table by its whole key costs most of all. Where one number counts the rows of a
    conversation from 0, its sums tell whether they are 0, 1, … n - 1; few have to be looked at.
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
