"""Registry of all tables of the warehouse, in the order of the data dictionary."""

from __future__ import annotations

from .audit import (
    AUDIT_TABLES,
    DEBUG_CHAT_TURNS,
    DEBUG_CHATS,
    FORGOTTEN,
    FORGOTTEN_CALLERS,
    RECORDINGS,
    WRITE_BACKS,
)
from .conversations import CONVERSATION_TABLES
from .declaration import OWNER, Table

TABLES = (
    *CONVERSATION_TABLES,
    RECORDINGS,
    WRITE_BACKS,
    DEBUG_CHATS,
    DEBUG_CHAT_TURNS,
    FORGOTTEN,
    FORGOTTEN_CALLERS,
    *AUDIT_TABLES,
)
"""All tables, in the order of the dictionary."""


def key_of(table: Table) -> tuple[str, ...]:
    """Full key of a table: agent_id and conversation_id where every row has them, and the rest."""
    required = {column.name for column in table.columns if column.required}
    return (*(name for name in OWNER if name in required), *table.key)
