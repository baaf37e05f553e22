"""Cheap proofs that large tables on DuckDB have neither orphans nor duplicate keys.

A load writes the rows of a conversation one after the other and in the order of their key. If this
is still so, only the first row of each conversation has to be compared, instead of all rows. A
table without proof is a suspect, of which every key is then counted: rows that lie in another order
cost time, and no orphan or duplicate is missed. Other destinations have no proofs.

Conversations and keys are compared by hashes of 64 bits: the chance that one orphan among
10,000,000 conversations is taken for a child of another one is below 1 in 10^12.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..tables.conversations import CONVERSATIONS
from ..tables.declaration import OWNER, Table
from .queries import Warehouse

ROWS_PER_QUERY = 40_000_000
"""Rows that one query compares, since a load may be waiting for the DuckDB file."""

KEYS_PER_PART = 3_000_000
"""Hashes of keys that are grouped together, which takes some 100 MB."""

_BITS = 62
"""Values of a key that are noted in one integer."""

_UNKNOWN = (1, 0, 0)
"""Counts of a table that could not be compared, because there is no table of conversations."""


@dataclass(frozen=True)
class Suspects:
    """Tables of which every row has to be compared."""

    with_orphans: tuple[Table, ...]
    """Tables that can have orphans."""
    with_duplicates: tuple[Table, ...]
    """Tables that can have duplicate keys."""


def suspects(warehouse: Warehouse, children: Sequence[Table], sizes: Mapping[str, int]) -> Suspects:
    """Finds the children of conversations that can have orphans or duplicate keys.

    Args:
        warehouse: The warehouse.
        children: Existing tables whose keys begin with `OWNER`.
        sizes: Rows by table, of `conversations` too.
    """
    if warehouse.hash_of(OWNER) is None:
        return Suspects(tuple(children), tuple(children))
    orphans: list[Table] = []
    duplicates: list[Table] = []
    for together in _batches(children, sizes):
        runs = _runs(warehouse, together, sizes)
        for table in together:
            number, owned, distinct = runs.get(table.name, _UNKNOWN)
            if owned < number:
                orphans.append(table)
            if distinct < number or not (
                _is_ordered(table) or _are_keys_distinct(warehouse, table)
            ):
                duplicates.append(table)
    return Suspects(
        tuple(orphans),
        tuple(
            table
            for table in duplicates
            if may_have_duplicates(warehouse, table, sizes[table.name])
        ),
    )


def may_have_duplicates(warehouse: Warehouse, table: Table, size: int) -> bool:
    """Checks whether a table can have duplicate keys, in memory that its size does not determine.

    Keys are grouped by their hash, a part of the hashes at a time. Elsewhere than on DuckDB, the
    answer is always yes.
    """
    if (key_hash := warehouse.hash_of(full_key(table))) is None:
        return True
    parts = -(-size // KEYS_PER_PART)
    return any(
        warehouse.rows(
            f"SELECT 1 FROM (SELECT {key_hash} AS key_hash FROM {{{table.name}}}) k "
            f"WHERE mod(key_hash, {parts}) = {part} "
            "GROUP BY key_hash HAVING count(*) > 1 LIMIT 1"
        )
        for part in range(parts)
    )


def full_key(table: Table) -> Iterable[str]:
    """Returns the columns that identify a row."""
    return dict.fromkeys((*table.merge_key, *table.key))


def _batches(tables: Sequence[Table], sizes: Mapping[str, int]) -> Iterator[list[Table]]:
    """Splits tables into batches of at most `ROWS_PER_QUERY` rows, or of one table."""
    batch: list[Table] = []
    rows = 0
    for table in tables:
        if batch and rows + sizes[table.name] > ROWS_PER_QUERY:
            yield batch
            batch, rows = [], 0
        batch.append(table)
        rows += sizes[table.name]
    if batch:
        yield batch


def _runs(
    warehouse: Warehouse, tables: Sequence[Table], sizes: Mapping[str, int]
) -> dict[str, tuple[int, int, int]]:
    """Counts runs by table: rows of one conversation that lie together, ordered by their key.

    Returns:
        Number of runs, those whose conversation exists, and the number of these conversations at
        least; all equal if there are no orphans, and no duplicates within an ordered key.
    """
    owner = warehouse.hash_of(OWNER)
    # a smaller number would do: two conversations with the same place only make a suspect
    places = 2 * sizes[CONVERSATIONS.name] + 1
    starts = " UNION ALL ".join(_starts(table, owner) for table in tables)
    # one query for several tables, so that the hash table of conversations is built once
    rows = warehouse.rows(
        f"""
        SELECT s.table_name, count(*), count(c.place),
            coalesce(bit_count(bitstring_agg(c.place, 0, {places})), 0)
        FROM ({starts}) s
        LEFT JOIN (
            SELECT {owner} AS owner, mod(row_number() OVER (), {places}) AS place
            FROM {{conversations}}
        ) c ON c.owner = s.owner
        GROUP BY s.table_name
        """
    )
    return {table: (number, owned, distinct) for table, number, owned, distinct in rows}


def _starts(table: Table, owner: str | None) -> str:
    """Renders a query for the first row of each run, without sorting or grouping any row."""
    key = table.key if _is_ordered(table) else ()
    columns = "".join(f", {name}" for name in key)
    previous = "".join(f", lag({name}) OVER () AS previous_{name}" for name in key)
    begins = "owner IS DISTINCT FROM previous_owner"
    if key:
        before = ", ".join(f"previous_{name}" for name in key)
        begins += f" OR (({before}) < ({', '.join(key)})) IS NOT TRUE"
    return f"""
        SELECT '{table.name}' AS table_name, owner FROM (
            SELECT owner{columns}, lag(owner) OVER () AS previous_owner{previous}
            FROM (SELECT {owner} AS owner{columns} FROM {{{table.name}}}) r
        ) each_row
        WHERE {begins}
    """


def _is_ordered(table: Table) -> bool:
    """Returns whether the rows of a conversation are written in the order of their key."""
    types = {column.name: column.type for column in table.columns}
    return all(types[name] != "text" for name in table.key)


def _are_keys_distinct(warehouse: Warehouse, table: Table) -> bool:
    """Checks the keys of a text and a number from 0, such as a metric's, of each conversation.

    Each key of the table has a bit of its own, if there are not more than `_BITS` of them. The keys
    of a conversation are distinct if it has as many bits as rows.
    """
    types = {column.name: column.type for column in table.columns}
    if [types[name] for name in table.key] != ["text", "bigint"]:
        return False
    text, number = table.key
    highest = warehouse.rows(f"SELECT {text}, max({number}) FROM {{{table.name}}} GROUP BY {text}")
    # the position of a text in the list is the bit of its number 0; those of its others follow.
    # Equal keys have equal bits, also if a load that runs meanwhile adds keys without a bit
    texts = [text for text, most in highest for text in (text, *[None] * most)]

    if len(texts) > _BITS:
        return False
    place = f"list_position(%s::VARCHAR[], {text}) - 1 + {number}"
    return not warehouse.rows(
        f"""
        SELECT 1 FROM (
            SELECT {warehouse.hash_of(OWNER)} AS owner,
                1::BIGINT << least(greatest({place}, 0), {_BITS - 1})::INTEGER AS bit
            FROM {{{table.name}}}
        ) k
        GROUP BY owner HAVING count(*) IS DISTINCT FROM bit_count(bit_or(bit)) LIMIT 1
        """,
        texts,
    )
