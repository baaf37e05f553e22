"""What a run did for one agent: counted as it goes, shown at the end, kept in `sync_runs`."""

from __future__ import annotations

import uuid
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

import pyarrow as pa

from .client import Traffic
from .errors import ApiError
from .schema import LOAD_ID
from .tables import SYNC_RUNS
from .values import column

Status = Literal["running", "complete", "partial", "failed", "interrupted"]


@dataclass
class RunReport:
    """Counts of one run over one agent; the names are the columns of `sync_runs`."""

    agent_id: str
    command: str
    traffic: Traffic
    run_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    source_api: str = "data"
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
    gaps_repaired: int = 0
    rows: Counter[str] = field(default_factory=Counter)
    unmapped_fields: Counter[str] = field(default_factory=Counter)
    failures: dict[str, ApiError] = field(default_factory=dict)
    """By conversation, as long as memory allows; all of them are in `fetch_failures`."""
    error: str | None = None
    read: int = 0
    """Answers taken over so far; moves with each one, while `fetched` moves with each batch."""
    expected: int | None = None
    """Conversations that the run will have looked at when it is done, as far as is known."""

    def finish(self, error: BaseException | None = None, *, interrupted: bool = False) -> None:
        """Ends the run with the status that its counts and its error give it."""
        self.finished_at = datetime.now(UTC)
        if error is not None:
            self.error = str(error)
        if interrupted:
            self.status = "interrupted"
        elif error is not None:
            self.status = "failed"
        else:
            self.status = "partial" if self.failed else "complete"

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

    def as_table(self, load_id: str) -> pa.Table:
        """The row of `sync_runs` as Arrow."""
        row = self.as_row() | {LOAD_ID: load_id}
        arrays = []
        for declared in SYNC_RUNS.columns:
            value = row[declared.name]
            if isinstance(value, datetime):
                value = value.isoformat()
            array, _ = column([value], declared.type)
            arrays.append(array)
        return pa.Table.from_arrays(arrays, schema=SYNC_RUNS.arrow_schema)
