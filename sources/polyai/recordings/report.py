"""Report of a run over one agent's recordings, written to `sync_runs`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from ..load.report import RunReport
from ..tables.recordings import RECORDINGS
from .outcome import Outcome


@dataclass
class RecordingsReport(RunReport):
    """Counts of a run over one agent's recordings; `fetched` counts files that were stored."""

    adopted: int = 0
    """Files that were in the store already, from a killed run or an earlier warehouse."""
    not_found: int = 0
    """Recordings that PolyAI does not have (yet)."""
    short: int = 0
    """Stored recordings that are much shorter than their calls."""
    mismatched: int = 0
    """Files that were stored although the lengths that they state are a little wrong or unknown."""
    postponed: int = 0
    """Recordings that cannot be used, whose next retry is not due yet."""
    audio_bytes: int = 0
    """Total size of the files that were stored."""

    @property
    def loaded(self) -> int:
        """Recordings that are now registered in the warehouse."""
        return self.fetched + self.adopted

    def counts(self, seconds: float) -> str:
        """Progress line."""
        return (
            f"{self.fetched:,} stored · {self.not_found:,} not found · {self.failed:,} failed · "
            f"{self.read / seconds:,.0f}/s · {self.traffic.bytes_received / 1e6:,.0f} MB · "
            f"{self.traffic.retries} retries"
        )

    def finish(
        self,
        error: BaseException | None = None,
        *,
        interrupted: bool = False,
        now: datetime | None = None,
    ) -> None:
        """Sets the end and status of the run; failures that wait for a retry make it partial."""
        super().finish(error, interrupted=interrupted, now=now)
        if self.status == "complete" and self.postponed:
            self.status = "partial"

    def count(self, outcome: Outcome) -> None:
        """Adds the outcome of one recording."""
        row = outcome.row
        self.read += 1
        self.rows[RECORDINGS.name] += 1
        self.short += outcome.is_short
        if outcome.error is not None:
            self.failed += 1
            self.note_failure(row["conversation_id"], outcome.error)
        elif outcome.is_adopted:
            self.adopted += 1
        elif row["status"] == "stored":
            # one that is not longer than before is not stored again
            if not outcome.is_known:
                self.fetched += 1
                self.audio_bytes += row["bytes"]
                self.mismatched += row["error_code"] is not None
        else:
            self.not_found += 1
