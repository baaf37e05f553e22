"""What a run did for one agent: counted as it goes, shown at the end, kept in `sync_runs`."""

from __future__ import annotations

import uuid
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from ..api.throttle import Traffic
from ..errors import ApiError, BusyError
from ..tables.audit import SYNC_RUNS
from ..tables.rules import has_read_all, missing

Status = Literal["running", "complete", "partial", "failed", "interrupted", "busy"]
"""`busy`: another run loads this agent; such a one is not kept in `sync_runs`."""


NAMED_FAILURES = 1_000
"""Failures that a report names; all of them are in `fetch_failures`."""


@dataclass
class RunReport:
    """Counts of one run over one agent; the names are the columns of `sync_runs`."""

    agent_id: str
    command: str
    traffic: Traffic
    run_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    source_api: str = "data"
    range_from: datetime | None = None
    range_to: datetime | None = None
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    finished_at: datetime | None = None
    status: Status = "running"
    listed: int = 0
    api_count: int | None = None
    new: int = 0
    changed: int = 0
    settled: int = 0
    unchanged: int = 0
    fetched: int = 0
    failed: int = 0
    withheld: int = 0
    given_up: int = 0
    absent: int | None = None
    gaps_repaired: int = 0
    undated: int = 0
    """Conversations left out of a range, because it is not known whether they lie in it."""
    rows: Counter[str] = field(default_factory=Counter)
    unmapped_fields: Counter[str] = field(default_factory=Counter)
    failures: dict[str, ApiError] = field(default_factory=dict)
    """By conversation, as long as memory allows; all of them are in `fetch_failures`."""
    held: int | None = None
    """Conversations of the agent in the warehouse when the run ended."""
    forgotten: int = 0
    """Conversations of the agent that were erased, and are not read again."""
    error: str | None = None
    load_ids: set[str] = field(default_factory=set)
    """Load packages that carry its rows."""
    read: int = 0
    """Answers taken over so far; moves with each one, while `fetched` moves with each batch."""
    expected: int | None = None
    """Conversations that the run will have looked at when it is done, as far as is known."""

    @property
    def done(self) -> int:
        """Conversations that were looked at so far."""
        return self.read + self.unchanged

    def counts(self, seconds: float) -> str:
        """What is told while it runs.

        Args:
            seconds: Since it began.
        """
        return (
            f"{self.listed:,} listed · {sum(self.rows.values()):,} rows · "
            f"{self.read / seconds:,.0f}/s · {self.traffic.retries} retries"
        )

    @property
    def loaded(self) -> int:
        """Conversations that were written, for whatever reason."""
        return self.new + self.changed + self.settled

    @property
    def has_read_all(self) -> bool:
        """It came to its end, also where single conversations failed."""
        return has_read_all(self.status)

    @property
    def missing(self) -> int | None:
        """Conversations that the API has and the warehouse has not; None where that is not known.

        Those that were erased are none of them. Those that the API has no more are not taken for
        others only where all was listed.
        """
        return missing(self.api_count, self.held, erased=self.forgotten, absent=self.absent)

    def finish(
        self,
        error: BaseException | None = None,
        *,
        interrupted: bool = False,
        now: datetime | None = None,
    ) -> None:
        """Ends the run with the status that its counts and its error give it."""
        self.finished_at = now or datetime.now(UTC)
        if error is not None:
            self.error = str(error)
        if interrupted:
            self.status = "interrupted"
        elif isinstance(error, BusyError):
            self.status = "busy"
        elif error is not None:
            self.status = "failed"
        else:
            self.status = "partial" if self.failed else "complete"

    def note_failure(self, conversation_id: str, error: ApiError) -> None:
        """Names a conversation of which something could not be read."""
        if len(self.failures) < NAMED_FAILURES:
            self.failures[conversation_id] = error

    def as_row(self) -> dict[str, Any]:
        """The row of `sync_runs`, its JSON columns as objects."""
        own = {name: getattr(self, name, None) for name in SYNC_RUNS.arrow_schema.names}
        return own | {
            "requests": self.traffic.requests,
            "retries": self.traffic.retries,
            "bytes_received": self.traffic.bytes_received,
            "rows": dict(self.rows),
            "unmapped_fields": dict(self.unmapped_fields),
        }
