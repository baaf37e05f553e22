"""Registry of all tables, which everything that walks over tables asks.

A new table is declared in a module beside this one, and added to `REGISTERED`. Erasure,
reconciliation, the load, comments in the database, and the generated documents then include it.
"""

from __future__ import annotations

from . import audit, children, conversations, debug_chats, erasure, names, recordings, turns
from .declaration import OWNER, Table

REGISTERED: tuple[Table, ...] = (
    conversations.CONVERSATIONS,
    turns.TURNS,
    turns.TURN_INTENTS,
    turns.TURN_ENTITIES,
    turns.TURN_TOPICS,
    turns.LLM_REQUESTS,
    children.METRICS,
    children.FUNCTION_EVENTS,
    children.ANNOTATIONS,
    children.CONVERSATION_TAGS,
    children.NOTES,
    names.AGENTS,
    names.DEPLOYMENTS,
    names.VARIANTS,
    names.PHONE_NUMBERS,
    recordings.ARCHIVES,
    recordings.RECORDINGS,
    audit.WRITE_BACKS,
    debug_chats.DEBUG_CHATS,
    debug_chats.DEBUG_CHAT_TURNS,
    erasure.FORGOTTEN,
    erasure.FORGOTTEN_CALLERS,
    erasure.LEDGER_ENTRIES,
    erasure.HOLDS,
    erasure.RETENTION,
    erasure.PUBLISHED_COPIES,
    audit.SYNC_RUNS,
    audit.FETCH_FAILURES,
)
"""All tables in the order of the data dictionary; parents come before their children."""


def tables() -> tuple[Table, ...]:
    """Returns all tables in the order of the data dictionary."""
    return REGISTERED


def conversation_tables() -> tuple[Table, ...]:
    """Returns the tables that a conversation's answer is shaped into, parents first."""
    return tuple(table for table in tables() if table.written_by == "answer")


def loaded_tables() -> tuple[Table, ...]:
    """Returns the tables that each chunk of a load fills."""
    return tuple(table for table in tables() if table.written_by in ("answer", "chunk"))


def name_tables() -> tuple[Table, ...]:
    """Returns the tables of the names behind ids."""
    return tuple(table for table in tables() if table.written_by == "names")


def copied_tables() -> tuple[Table, ...]:
    """Returns the tables whose rows belong into a copy of the warehouse elsewhere."""
    return tuple(table for table in tables() if not table.is_local)


def reconciled_tables() -> tuple[Table, ...]:
    """Returns the tables whose rows `status` counts and checks for duplicates and orphans."""
    return tuple(table for table in tables() if table.written_by != "command")


def erased_tables() -> tuple[Table, ...]:
    """Returns the tables whose rows `forget` deletes with a conversation, children first."""
    return tuple(table for table in reversed(tables()) if table.is_erased)


def key_of(table: Table) -> tuple[str, ...]:
    """Returns the full key: agent_id and conversation_id if required, then the table's own key."""
    required = {column.name for column in table.columns if column.required}
    return (*(name for name in OWNER if name in required), *table.key)
