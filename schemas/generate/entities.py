"""Entity diagrams: tables, their keys, and the references between them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from polyai.tables.declaration import Table
from polyai.tables.registry import conversation_tables, key_of, name_tables, tables
from polyai.tables.turns import TURNS
from polyai.views.definitions import views

from .document import COMMAND, grid, put
from .relations import Relation, table_relations, view_relations

_INTRODUCTION = f"""\
# Entities

Generated from the declared tables and views by `{COMMAND}`.
All columns are in the [data dictionary](dictionary.md) and in [views.md](views.md). The diagrams
show keys (`PK`), references to the key of another table (`FK`), and a few telling columns.

- Keys are unique in the warehouse, but no database has them as constraints.
- Join on all columns of a line: conversation ids are unique within their agent only.
- `||` is exactly one, `|o` zero or one, `o{{` any number.
"""


def write(folder: Path) -> None:
    """Writes `entities.md` into a folder."""
    put(folder, [("entities.md", entities())])


def entities() -> str:
    """Returns the diagrams and the keys of views, as Markdown with Mermaid."""
    relations = list(table_relations())
    shaped = [table.name for table in conversation_tables()]
    of_turns = [relation.child for relation in relations if relation.parent == TURNS.name]
    # in one diagram, lines would cross boxes
    of_conversations = [name for name in shaped if name not in of_turns]
    named = [table.name for table in name_tables()]
    others = [table.name for table in tables() if table.name not in (*shaped, *named)]
    return "\n".join(
        [
            _INTRODUCTION,
            "## Conversations\n",
            _diagram(of_conversations, relations),
            "## Turns\n",
            _diagram(of_turns, relations),
            "## Names behind ids\n",
            _diagram(named, relations),
            "## Runs and their results\n",
            _diagram(others, relations),
            "## Views\n\nKey of each view, and the views that it can be joined to.\n",
            _views(),
        ]
    )


def _diagram(names: Collection[str], relations: Iterable[Relation]) -> str:
    of_these = [relation for relation in relations if relation.child in names]
    lines = ["erDiagram"]
    for relation in of_these:
        parent_side = "||" if relation.is_sure else "|o"
        label = ", ".join(relation.columns)
        lines.append(f'    {relation.parent} {parent_side}--o{{ {relation.child} : "{label}"')
    for table in tables():
        if table.name in names:
            pointing = {name for it in of_these if it.child == table.name for name in it.columns}
            lines += [f"    {table.name} {{", *_attributes(table, pointing), "    }"]
    text = "\n".join(lines)
    return f"```mermaid\n{text}\n```\n"


def _attributes(table: Table, pointing: Collection[str]) -> Iterator[str]:
    key = key_of(table)
    columns = {column.name: column for column in table.columns}
    for name in dict.fromkeys((*key, *sorted(pointing), *table.outline)):
        marks = ", ".join(["PK"] * (name in key) + ["FK"] * (name in pointing))
        yield f"        {columns[name].type} {name} {marks}".rstrip()


def _views() -> str:
    rows = []
    for view in views().values():
        joins = "; ".join(f"`{it.parent}` by {_code(it.columns)}" for it in view_relations(view))
        rows.append((f"`{view.name}`", _code(view.key), joins))
    return grid(("view", "key", "joins"), rows)


def _code(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
