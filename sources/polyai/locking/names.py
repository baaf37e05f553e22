"""Names of the locks and leases of the commands that write rows of agents."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Writer:
    """Command whose runs exclude each other.

    Attributes:
        lock_ending: Ending of the name of its lock file beside a DuckDB file.
        lease_ending: Ending of the name of its lease on an agent.
    """

    lock_ending: str
    lease_ending: str

    def lease(self, agent_id: str) -> str:
        """Returns the name of its lease on an agent."""
        return f"{agent_id}{self.lease_ending}"


LOAD_WRITER = Writer(".lock", "")
RECORDINGS_WRITER = Writer(".recordings.lock", " recordings")
WRITE_BACKS_WRITER = Writer(".write-backs.lock", " write-backs")
DEBUG_CHATS_WRITER = Writer(".debug-chats.lock", " debug chats")

WRITERS = (LOAD_WRITER, RECORDINGS_WRITER, WRITE_BACKS_WRITER, DEBUG_CHATS_WRITER)
"""All of them, in the order in which a run that excludes all takes their locks.

Backfills are none: they lock slices of an agent.
"""
