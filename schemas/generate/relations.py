"""How tables and views belong together: the key of each, and which rows of others a row points to.

Only what this says of the declared tables and of the views; no database is asked, and none holds
these keys as constraints.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from polyai.tables.registry import TABLES, key_of
from polyai.views.definitions import INFO_VIEW, View

_CONVERSATION = ("agent_id", "conversation_id")
_DAY = ("agent_id", "channel", "environment", "variant_id", "local_date")

VIEW_KEYS: Mapping[str, tuple[str, ...]] = {
    "annotation_queue": _CONVERSATION,
    "conversations_local": _CONVERSATION,
    "csat_responses": _CONVERSATION,
    "data_freshness": ("agent_id",),
    "dim_agents": ("agent_id",),
    "dim_dates": ("local_date",),
    "dim_variants": ("agent_id", "variant_id"),
    "fct_conversations": _CONVERSATION,
    "function_health_daily": (*_DAY, "function_name"),
    "handoff_reasons_daily": (*_DAY, "handoff_reason"),
    "kpi_daily": _DAY,
    "outbound_daily": _DAY,
    "red_flags": ("agent_id", "local_date", "flag"),
    "repeat_callers": _CONVERSATION,
    "topics_daily": (*_DAY, "topic"),
    "turn_latency_daily": _DAY,
    INFO_VIEW: (),
}
"""What is different in each row of a view; a view with nothing has one row."""

_JOINED_TO = ("dim_variants", "dim_dates", "dim_agents", "fct_conversations")
"""What views are joined to, the narrowest first."""

_FURTHER = (
    ("debug_chats", "conversations", ("agent_id", "conversation_id")),
    ("write_backs", "sync_runs", ("agent_id", "run_id")),
    ("forgotten", "sync_runs", ("agent_id", "run_id")),
    ("forgotten_callers", "sync_runs", ("agent_id", "run_id")),
)
"""Tables that point to another one with columns that are not in their key."""

_ALONE = frozenset({"function_events", "recordings", "write_backs", "fetch_failures"})
"""Tables whose rows can be there without the row that their key points to.

An answer can bring function events and no turns; the others are told of apart from conversations.
"""


@dataclass(frozen=True)
class Relation:
    """Rows of one table or view that point to a row of another one.

    Attributes:
        child: Whose rows point.
        parent: What they point to.
        columns: Of the same name in both; the parent's key.
        is_sure: Whether the row pointed to is always there.
    """

    child: str
    parent: str
    columns: tuple[str, ...]
    is_sure: bool


def table_relations() -> Iterator[Relation]:
    """Each table's way to the table whose key its own key begins with, and a few further ones."""
    keys = {table.name: key_of(table) for table in TABLES}
    for table in TABLES:
        own = set(keys[table.name])
        parents = [name for name, key in keys.items() if own > set(key)]
        if parents:
            parent = max(parents, key=lambda name: len(keys[name]))
            columns = keys[table.name][: len(keys[parent])]
            yield Relation(table.name, parent, columns, is_sure=table.name not in _ALONE)
    for child, parent, columns in _FURTHER:
        yield Relation(child, parent, columns, is_sure=False)


def view_relations(view: View) -> Iterator[Relation]:
    """The views that a view can be joined to."""
    names = {field.name for field in view.fields}
    joined: set[str] = set()
    for parent in _JOINED_TO:
        key = VIEW_KEYS[parent]
        # who has joined the variant has its agent too
        if view.name != parent and names.issuperset(key) and not joined.issuperset(key):
            yield Relation(view.name, parent, key, is_sure=True)
            joined.update(key)
