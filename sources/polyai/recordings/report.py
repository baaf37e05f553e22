"""What a run over an agent's recordings did: counted as it goes, kept in `sync_runs`."""

from __future__ import annotations

from dataclasses import dataclass

from ..load.report import RunReport
from ..tables.audit import RECORDINGS
from .fetcher import Outcome


@dataclass
class RecordingsReport(RunReport):
    """Counts of one run over one agent's recordings; `fetched` are files that were stored."""

    adopted: int = 0
    """Files that were in the store already: a killed run's, or an earlier warehouse's."""
    not_found: int = 0
    """Recordings that PolyAI does not have, or not yet."""
    audio_bytes: int = 0
    """Of the files that were stored."""

    @property
    def loaded(self) -> int:
        """Recordings of which the warehouse tells now."""
        return self.fetched + self.adopted

    def counts(self, seconds: float) -> str:
        """What is told while it runs."""
        return (
            f"{self.fetched:,} stored · {self.not_found:,} not found · {self.failed:,} failed · "
            f"{self.read / seconds:,.0f}/s · {self.traffic.bytes_received / 1e6:,.0f} MB · "
            f"{self.traffic.retries} retries"
        )

    def count(self, outcome: Outcome) -> None:
        """Adds what came of a recording."""
        row = outcome.row
        self.read += 1
        self.rows[RECORDINGS.name] += 1
        if outcome.error is not None:
            self.failed += 1
            self.note_failure(row["conversation_id"], outcome.error)
        elif outcome.is_adopted:
            self.adopted += 1
        elif row["status"] == "stored":
            self.fetched += 1
            self.audio_bytes += row["bytes"]
        else:
            self.not_found += 1
