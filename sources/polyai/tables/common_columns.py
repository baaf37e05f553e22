"""Columns that many tables share, and the reference to the run."""

from __future__ import annotations

from .declaration import LOAD_ID, TOMBSTONE, Column, Reference

AGENT_ID = Column(
    "agent_id",
    "text",
    "PolyAI agent (project), as configured.",
    "path: {agentId}",
    "path: {project_id}",
    required=True,
    pii="label",
)
CONVERSATION_ID = Column(
    "conversation_id",
    "text",
    "Conversation id, unique within its agent.",
    "conversationId",
    "id",
    required=True,
    pii="identifier",
)
RUN_ID = Column("run_id", "text", "Run that wrote the row; joins `sync_runs.run_id`.")
PACKAGE_ID = Column(
    LOAD_ID, "text", "dlt load package that wrote the row; joins `_dlt_loads.load_id`."
)
DELETED = Column(TOMBSTONE, "bool", "dlt's hard-delete flag; NULL in every row.")
OF_RUN = Reference("sync_runs", ("agent_id", "run_id"))
EXTRA = Column(
    "extra", "json", "Fields that have no column, as sent; NULL if there are none.", pii="free_text"
)
