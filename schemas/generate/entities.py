"""The entity diagram: which tables there are, their keys, and how rows point to each other."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

from polyai.tables.conversations import CONVERSATION_TABLES, TURNS
from polyai.tables.declaration import Table
from polyai.tables.registry import TABLES, key_of
from polyai.views.definitions import views

from .dictionary import COMMAND, grid, put
from .relations import VIEW_KEYS, Relation, table_relations, view_relations

_INTRODUCTION = f"""\
# Entities

Generated from the declared tables and views by `{COMMAND}`.
The [data dictionary](dictionary.md) and [views.md](views.md) have every column; here are keys
(`PK`), what points to the key of another table (`FK`), and a few columns that tell what a row is.

- A key is unique in the warehouse, but no database holds it as a constraint.
- Join on all columns that a line names: conversation ids are unique within their agent only.
- `||` is exactly one, `|o` one or none, `o{{` any number.
"""

_TELLING: Mapping[str, tuple[str, ...]] = {
    "conversations": ("channel", "variant_id", "started_at", "handoff", "poly_score", "summary"),
    "turns": ("user_input", "agent_response", "latency_seconds", "is_ood"),
    "turn_intents": ("intent",),
    "turn_entities": ("name", "value"),
    "turn_topics": ("topic",),
    "metrics": ("value", "value_number"),
    "function_events": ("name", "duration_ms", "error"),
    "annotations": ("role", "annotation_type", "annotated_by"),
    "conversation_tags": ("tag",),
    "notes": ("note", "valid_to"),
    "recordings": ("status", "uri", "sha256"),
    "write_backs": ("kind", "status", "sent_at"),
    "debug_chats": ("scenario", "label", "passed"),
    "debug_chat_turns": ("user_input", "response", "passed"),
    "forgotten": ("requested_at", "erased_at", "reason"),
    "forgotten_callers": ("requested_at", "reason"),
    "sync_runs": ("command", "status", "finished_at"),
    "fetch_failures": ("error_code", "resolved_at"),
}
"""Columns that a diagram shows beside the keys."""


def write(folder: Path) -> None:
    """Writes `entities.md` into a folder."""
    put(folder, [("entities.md", entities())])


def entities() -> str:
    """The diagrams and the views' keys, as Markdown with Mermaid."""
    relations = list(table_relations())
    held = [table.name for table in CONVERSATION_TABLES]
    of_turns = [relation.child for relation in relations if relation.parent == TURNS.name]
    # in one diagram, lines would cross boxes
    of_conversations = [name for name in held if name not in of_turns]
    done = [table.name for table in TABLES if table.name not in held]
    return "\n".join(
        [
            _INTRODUCTION,
            "## Conversations\n",
            _diagram(of_conversations, relations),
            "## Turns\n",
            _diagram(of_turns, relations),
            "## What was done\n",
            _diagram(done, relations),
            "## Views\n\nWhat is different in each row of a view, and what it can be joined to.\n",
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
    for table in TABLES:
        if table.name in names:
            pointing = {name for it in of_these if it.child == table.name for name in it.columns}
            lines += [f"    {table.name} {{", *_attributes(table, pointing), "    }"]
    text = "\n".join(lines)
    return f"```mermaid\n{text}\n```\n"


def _attributes(table: Table, pointing: Collection[str]) -> Iterator[str]:
    key = key_of(table)
    columns = {column.name: column for column in table.columns}
    for name in dict.fromkeys((*key, *sorted(pointing), *_TELLING[table.name])):
        marks = ", ".join(["PK"] * (name in key) + ["FK"] * (name in pointing))
        yield f"        {columns[name].type} {name} {marks}".rstrip()


def _views() -> str:
    rows = []
    for view in views().values():
        joins = "; ".join(f"`{it.parent}` by {_code(it.columns)}" for it in view_relations(view))
        rows.append((f"`{view.name}`", _code(VIEW_KEYS[view.name]), joins))
    return grid(("view", "key", "joins"), rows)


def _code(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
