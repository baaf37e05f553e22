"""Columns that many tables share, and the reference to the run."""

from __future__ import annotations

from .declaration import LOAD_ID, TOMBSTONE, Column, Reference, Table

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
TURN_INDEX = Column(
    "turn_index", "bigint", "Position of the turn in the conversation, from 0.", required=True
)
POSITION = Column("position", "bigint", "Position of the item in its list, from 0.", required=True)
ATTEMPTS = Column("attempts", "bigint", "Runs that tried.")
ERROR_CODE = Column(
    "error_code",
    "text",
    "PolyAI's error code, or a code of this package for an answer that cannot be used.",
    pii="label",
)
ERROR_ID = Column(
    "error_id",
    "text",
    "Correlation id, for requests to PolyAI's support: PolyAI's own, else the one sent to it.",
    pii="identifier",
)


def child_table(
    name: str,
    key: tuple[str, ...],
    description: str,
    *columns: Column,
    outline: tuple[str, ...],
    is_kept_when_withheld: bool = False,
    is_parent_optional: bool = False,
    in_extra: frozenset[str] = frozenset(),
) -> Table:
    """Declares a table that is replaced together with its conversation."""
    return Table(
        name,
        description,
        (AGENT_ID, CONVERSATION_ID, *columns, PACKAGE_ID, DELETED),
        key=key,
        is_child=True,
        written_by="answer",
        is_erased=True,
        is_kept_when_withheld=is_kept_when_withheld,
        is_parent_optional=is_parent_optional,
        outline=outline,
        in_extra=in_extra,
    )
