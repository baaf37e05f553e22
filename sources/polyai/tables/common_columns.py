"""Columns that many tables have."""

from __future__ import annotations

from .declaration import LOAD_ID, TOMBSTONE, Column

AGENT_ID = Column(
    "agent_id",
    "text",
    "The agent (project) that held the conversation, as configured.",
    "path: {agentId}",
    "path: {project_id}",
    required=True,
)
CONVERSATION_ID = Column(
    "conversation_id",
    "text",
    "The conversation, unique within its agent.",
    "conversationId",
    "id",
    required=True,
)
PACKAGE_ID = Column(
    LOAD_ID, "text", "The dlt load package that wrote the row; joins `_dlt_loads.load_id`."
)
DELETED = Column(TOMBSTONE, "bool", "dlt's hard-delete flag; NULL in every row.")
EXTRA = Column(
    "extra", "json", "Fields that no column takes, as they came; NULL where there are none."
)
