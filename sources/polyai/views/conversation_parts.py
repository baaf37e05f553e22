"""Copy of a view of one row per conversation, in parts of conversations that are stored together.

Such a view joins conversations with several tables of their children. A filter on days reaches the
conversations, but DuckDB reads the children from end to end, because ids are random. Conversations
that were loaded together have children that lie together: for each part of the conversations, only
the spans of rows with their children are read.

Each part is computed by the view's own query, in a database in memory whose tables have the same
names and only the rows of the part.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb

from ..tables.conversations import CONVERSATIONS
from ..tables.declaration import OWNER
from ..tables.registry import conversation_tables
from ..warehouse.duckdb_file import COPY_CONFIG, execute_in_memory_limit
from .definitions import views

CONVERSATIONS_PER_PART = 5_000
"""Conversations in one part, whose texts, percentiles and joins have to fit into memory."""

_LIMIT = {"memory_limit": "150MB"}
"""Limit that leaves room for what DuckDB takes beside it to compress the many columns of the copy,
each time that a file is closed."""

_BLOCK_ROWS = 8_192
"""Rows that are looked for children together."""

_GAP_ROWS = 122_880
"""Rows between two spans that are read as one: DuckDB reads whole row groups of this size."""

_PART = "part_of_file"
"""Name of the database in memory."""

Span = tuple[int, int]
"""First number of a row, and the one after the last."""


@dataclass(frozen=True)
class Part:
    """Rows of some conversations: spans of rows by table, of `conversations` and its children."""

    spans: Mapping[str, tuple[Span, ...]]


def copy_in_parts(file: Path, schema: str, view: str, table: str) -> None:
    """Creates a table with the rows of a view.

    Args:
        file: DuckDB file with the view, whose other views of one row per conversation were replaced
            by tables.
        schema: Schema of the view and of the table.
        view: Name of a view with one row per conversation.
        table: Name of the table.
    """
    verb = "CREATE TABLE {} AS"
    for part in _parts(file, schema, view):
        # opened for each part, because DuckDB keeps memory until the file is closed
        with _opened(file, schema) as copy:
            _narrow(copy, schema, view, part)
            # stored first, because the file's newest rows are in memory while it is written
            execute_in_memory_limit(copy, f"CREATE TABLE part AS FROM {_quoted(schema)}.{view}")
            place = f"{_in_file(copy, schema)}.{table}"
            execute_in_memory_limit(copy, f"{verb.format(place)} FROM part")
        verb = "INSERT INTO {}"


@contextmanager
def _opened(file: Path, schema: str) -> Iterator[duckdb.DuckDBPyConnection]:
    """Opens a file, with an empty database in memory as the current one."""
    with duckdb.connect(str(file), config={**COPY_CONFIG, **_LIMIT}) as copy:
        copy.execute(f"ATTACH ':memory:' AS {_PART}")
        copy.execute(f"USE {_PART}")
        copy.execute(f"CREATE SCHEMA IF NOT EXISTS {_quoted(schema)}")
        yield copy


def _parts(file: Path, schema: str, view: str) -> list[Part]:
    """Divides all conversations into parts; one without rows if there are none."""
    blocks: dict[int, dict[str, set[int]]] = defaultdict(lambda: defaultdict(set))
    # hashes of ids take less memory; two ids with the same one only add a block
    owner = f"hash({', '.join(OWNER)})"
    numbered = f"SELECT {owner} AS owner, rowid // {CONVERSATIONS_PER_PART} AS part"
    with _opened(file, schema) as copy:
        place = _in_file(copy, schema)
        for child in _children(copy, schema, view):
            for part, block in copy.execute(
                f"SELECT DISTINCT c.part, t.block FROM ("
                f"SELECT {owner} AS owner, rowid // {_BLOCK_ROWS} AS block FROM {place}.{child}"
                f") t JOIN ({numbered} FROM {place}.{CONVERSATIONS.name}) c ON c.owner = t.owner"
            ).fetchall():
                blocks[part][child].add(block)
        found = copy.execute(
            f"SELECT DISTINCT rowid // {CONVERSATIONS_PER_PART} AS part "
            f"FROM {place}.{CONVERSATIONS.name} ORDER BY part"
        ).fetchall()
    return [
        Part(
            {CONVERSATIONS.name: (_rows(part, part + 1, CONVERSATIONS_PER_PART),)}
            | {child: tuple(_spans(of_child)) for child, of_child in blocks[part].items()}
        )
        for (part,) in found
    ] or [Part({})]


def _spans(blocks: Iterable[int]) -> Iterator[Span]:
    """Joins blocks of rows to spans."""
    first = after = -1
    for block in sorted(blocks):
        if first >= 0 and (block - after) * _BLOCK_ROWS >= _GAP_ROWS:
            yield _rows(first, after, _BLOCK_ROWS)
            first = -1
        first = block if first < 0 else first
        after = block + 1
    yield _rows(first, after, _BLOCK_ROWS)


def _rows(first: int, after: int, size: int) -> Span:
    return first * size, after * size


def _narrow(copy: duckdb.DuckDBPyConnection, schema: str, view: str, part: Part) -> None:
    """Creates the tables and views that a view reads, with the rows of a part, and the view."""
    place = _in_file(copy, schema)
    narrowed = {CONVERSATIONS.name, *_children(copy, schema, view)}
    tables = _tables(copy, schema)
    for name in tables:
        whole = f"SELECT * FROM {place}.{_quoted(name)}"
        query = whole
        if name in narrowed:
            query = " UNION ALL ".join(
                f"{whole} WHERE rowid >= {first} AND rowid < {after}"
                for first, after in part.spans.get(name, ((0, 0),))
            )
        copy.execute(f"CREATE VIEW {_quoted(schema)}.{_quoted(name)} AS {query}")
    queries = dict(
        copy.execute(
            "SELECT view_name, sql FROM duckdb_views() WHERE database_name = ? AND schema_name = ?",
            [_file_name(copy), schema],
        ).fetchall()
    )
    # as tables, so that they are read once and DuckDB knows that they are small
    for name in views()[view].reads & views().keys() & {*tables, *queries}:
        own = f"{_quoted(schema)}.{name}"
        copied = f"{own}__part"
        if name in queries:
            copy.execute(queries[name])
            copy.execute(f"CREATE TABLE {copied} AS FROM {own}")
        else:
            ids = ", ".join(OWNER)
            copy.execute(
                f"CREATE TABLE {copied} AS FROM {own} WHERE ({ids}) IN "
                f"(SELECT ({ids}) FROM {_quoted(schema)}.{CONVERSATIONS.name})"
            )
        copy.execute(f"DROP VIEW {own}")
        copy.execute(f"ALTER TABLE {copied} RENAME TO {name}")
    copy.execute(queries[view])


def _children(copy: duckdb.DuckDBPyConnection, schema: str, view: str) -> set[str]:
    """Returns the tables with children of conversations that a view reads."""
    children = {table.name for table in conversation_tables()} - {CONVERSATIONS.name}
    return children & views()[view].reads & set(_tables(copy, schema))


def _tables(copy: duckdb.DuckDBPyConnection, schema: str) -> list[str]:
    found = copy.execute(
        "SELECT table_name FROM duckdb_tables() WHERE database_name = ? AND schema_name = ?",
        [_file_name(copy), schema],
    ).fetchall()
    return [name for (name,) in found]


def _in_file(copy: duckdb.DuckDBPyConnection, schema: str) -> str:
    """Returns the full name of the schema in the file."""
    return f"{_quoted(_file_name(copy))}.{_quoted(schema)}"


def _file_name(copy: duckdb.DuckDBPyConnection) -> str:
    ((name,),) = copy.execute(
        "SELECT database_name FROM duckdb_databases() WHERE NOT internal AND path IS NOT NULL"
    ).fetchall()
    return str(name)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
