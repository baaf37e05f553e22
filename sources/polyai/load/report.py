"""Report of a run over one agent: counted as it runs, shown at its end, stored in `sync_runs`."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from ..api.throttle import Traffic
from ..errors import ApiError, BusyError
from ..tables.audit import SYNC_RUNS
from ..tables.rules import has_read_all, missing

Status = Literal["running", "complete", "partial", "failed", "interrupted", "busy"]
"""Status of a run. `busy`: another run is loading the agent; not stored in `sync_runs`."""


NAMED_FAILURES = 1_000
"""Limit of the failures that a report lists; all of them are in `fetch_failures`."""


def no_op(_: object) -> None:
    """Default of the callbacks of runs."""


@dataclass
class RunReport:
    """Counts of a run over one agent; fields are named like the columns of `sync_runs`."""

    agent_id: str
    command: str
    traffic: Traffic
    run_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    source_api: str = "data"
    replaced_api: str | None = None
    """API whose listing was gone, so that `source_api` is listed in its place."""
    range_from: datetime | None = None
    range_to: datetime | None = None
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    finished_at: datetime | None = None
    status: Status = "running"
    listed: int = 0
    api_count: int | None = None
    counted_at: datetime | None = None
    """Time of `api_count`."""
    counted_missing: int | None = None
    """Of a run in place of a listing that was gone: conversations missing of those that the API
    counted last; None if unknown."""
    unlisted: dict[str, int] = field(default_factory=dict)
    """Of such a run: loaded conversations by environment, of those that are not listed."""
    new: int = 0
    changed: int = 0
    settled: int = 0
    unchanged: int = 0
    fetched: int = 0
    failed: int = 0
    withheld: int = 0
    given_up: int = 0
    absent: int | None = None
    known_absent: int | None = None
    """`absent` of this run, or of the newest run that has one."""
    count_excess: int | None = None
    """Of this run if it walked over the whole list, or else of the newest run that has one."""
    walks: int = 0
    is_proven: bool = True
    """Everything that was listed throughout the run was seen."""
    pending: int = 0
    """Conversations known to the run that are not loaded: open failures and malformed rows."""
    agent_name: str | None = None
    """Name of the agent in the warehouse at the end of a load."""
    names_read_at: datetime | None = None
    """Time at which the names behind ids were requested."""
    gaps_repaired: int = 0
    undated: int = 0
    """Conversations left out of a range, because their time is not known."""
    rows: Counter[str] = field(default_factory=Counter)
    unmapped_fields: Counter[str] = field(default_factory=Counter)
    failures: dict[str, ApiError] = field(default_factory=dict)
    """Failures by conversation, up to `NAMED_FAILURES`."""
    held: int | None = None
    """Conversations of the agent in the warehouse at the end of the run."""
    forgotten: int = 0
    """Erased conversations of the agent, which are not read again."""
    too_old: int = 0
    """Conversations of the agent that the API lists and that are too old to be loaded."""
    findings: int | None = None
    """Discrepancies of a verification that are not repaired."""
    custody_writer: str | None = None
    """Id of this warehouse in the archive of recordings."""
    custody_entries: int | None = None
    """Entries of this warehouse in the custody log."""
    custody_head: str | None = None
    """Hash of the newest of these entries."""
    error: str | None = None
    pii: str | None = None
    transcripts: str | None = None
    pii_key: str | None = None
    """Privacy mode under which the run writes rows; None for runs that write no personal data."""
    redact: Callable[[str], str] = str
    """Removes personal data from `error`."""
    load_ids: set[str] = field(default_factory=set)
    """Load packages of the run's conversations."""
    read: int = 0
    """Answers received so far; updated with each one, while `fetched` is updated per batch."""
    expected: int | None = None
    """Estimate of the conversations that the run will have compared at its end."""

    def restart(self, source_api: str, replaced_api: str | None) -> None:
        """Begins to count again what is listed, through another API.

        What the first one has counted stays: the other one may list less.

        Args:
            source_api: The other API.
            replaced_api: The first one, if its listing is gone.
        """
        self.source_api, self.replaced_api = source_api, replaced_api
        self.listed = self.unchanged = 0
        self.expected = None

    @property
    def done(self) -> int:
        """Conversations compared so far."""
        return self.read + self.unchanged

    def counts(self, seconds: float) -> str:
        """Formats the counts for a progress line.

        Args:
            seconds: Seconds since the run began.
        """
        return (
            f"{self.listed:,} listed · {sum(self.rows.values()):,} rows · "
            f"{self.read / seconds:,.0f}/s · {self.traffic.retries} retries"
        )

    @property
    def loaded(self) -> int:
        """Conversations that were written, for any reason."""
        return self.new + self.changed + self.settled

    @property
    def has_read_all(self) -> bool:
        """True if the run read everything it had to, apart from single failed conversations."""
        return has_read_all(self.status)

    @property
    def missing(self) -> int | None:
        """Conversations that the API has and the warehouse lacks; None if unknown.

        Erased conversations are not missing, nor those that are too old. Conversations that the API
        no longer has are taken into account as of the last time that the whole listing was read.
        """
        if self.replaced_api is not None:
            return self.counted_missing
        return missing(
            self.api_count,
            self.held,
            erased=self.forgotten,
            absent=self.known_absent,
            excess=self.count_excess,
            too_old=self.too_old,
        )

    @property
    def unaccounted(self) -> int | None:
        """Missing conversations of which not even the id is known; None if unknown."""
        if self.missing is None or self.replaced_api is not None:
            return self.missing
        return max(0, self.missing - self.pending)

    def finish(
        self,
        error: BaseException | None = None,
        *,
        interrupted: bool = False,
        now: datetime | None = None,
    ) -> None:
        """Sets the end of the run and its final status, from its counts and error."""
        self.finished_at = now or datetime.now(UTC)
        if error is not None:
            self.error = self.redact(str(error))
        if interrupted:
            self.status = "interrupted"
        elif isinstance(error, BusyError):
            self.status = "busy"
        elif error is not None:
            self.status = "failed"
        else:
            is_missing = self.failed or self.unaccounted or self.undated or self.unlisted
            is_complete = self.is_proven and not is_missing
            self.status = "complete" if is_complete else "partial"

    def note_failure(self, conversation_id: str, error: ApiError) -> None:
        """Records the error of a conversation that could not be read completely."""
        if len(self.failures) < NAMED_FAILURES:
            self.failures[conversation_id] = error

    def as_row(self) -> dict[str, Any]:
        """Returns the row of `sync_runs`, JSON columns as objects."""
        own = {name: getattr(self, name, None) for name in SYNC_RUNS.arrow_schema.names}
        return own | {
            "requests": self.traffic.requests,
            "retries": self.traffic.retries,
            "bytes_received": self.traffic.bytes_received,
            "rows": dict(self.rows),
            "unmapped_fields": dict(self.unmapped_fields),
        }
