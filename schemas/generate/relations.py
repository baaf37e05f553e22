"""Relations between tables and between views: which rows refer to the key of which other rows.

They derive from the declared tables and views; databases do not have them as constraints.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from polyai.tables.registry import key_of, tables
from polyai.views.definitions import View, views

_JOINED_TO = ("dim_variants", "dim_dates", "dim_agents", "fct_conversations")
"""Views that other views are joined to, the narrowest first."""


@dataclass(frozen=True)
class Relation:
    """Relation of the rows of one table or view to the rows of another one.

    Attributes:
        child: Table or view with the reference.
        parent: Referenced table or view.
        columns: Columns of the same name in both; the parent's key.
        is_sure: The referenced row always exists.
    """

    child: str
    parent: str
    columns: tuple[str, ...]
    is_sure: bool


def table_relations() -> Iterator[Relation]:
    """Yields each table's relation to the table whose key begins its own, then its references.

    Every key begins with that of `agents`; only tables that declare it refer to it.
    """
    keys = {table.name: key_of(table) for table in tables()}
    for table in tables():
        own = set(keys[table.name])
        parents = [name for name, key in keys.items() if own > set(key) and len(key) > 1]
        if parents:
            parent = max(parents, key=lambda name: len(keys[name]))
            columns = keys[table.name][: len(keys[parent])]
            yield Relation(table.name, parent, columns, is_sure=not table.is_parent_optional)
    for table in tables():
        for reference in table.references:
            yield Relation(table.name, reference.table, reference.columns, is_sure=False)


def view_relations(view: View) -> Iterator[Relation]:
    """Yields the views that a view can be joined to."""
    names = {field.name for field in view.fields}
    joined: set[str] = set()
    for parent in _JOINED_TO:
        key = views()[parent].key
        # a join with the variant has the agent's columns too
        if view.name != parent and names.issuperset(key) and not joined.issuperset(key):
            yield Relation(view.name, parent, key, is_sure=True)
            joined.update(key)
