"""What came of each row, and what a run over one agent's rows did."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Literal

from ..load.report import RunReport
from .rows import Row

Outcome = Literal["sent", "there", "to send", "rejected", "unknown", "not sent"]
"""`there`: PolyAI has it already; `to send`: in a dry run; `unknown`: PolyAI does not show whether
it has it; `not sent`: the run ended before."""

DONE: frozenset[Outcome] = frozenset({"sent", "there", "to send"})
"""Nothing is left to be done about these."""


@dataclass(frozen=True)
class Result:
    """What came of one row.

    Attributes:
        place: Its line in the file, or its number, counted from 1.
        conversation_id: Of which conversation; None where it does not say.
        said: What it says, in a line.
        outcome: What came of it.
        reason: Why, where there is something to be done about it.
        write_back_id: Its row in `write_backs`, where it was fit to be sent.
    """

    place: int
    conversation_id: str | None
    said: str
    outcome: Outcome
    reason: str | None = None
    write_back_id: str | None = None

    @classmethod
    def of(cls, row: Row, outcome: Outcome, reason: str | None = None) -> Result:
        """The result of a row that was fit to be sent."""
        return cls(row.place, row.conversation_id, str(row), outcome, reason, row.write_back_id)


@dataclass
class WriteBackReport(RunReport):
    """Counts of one run over one agent's rows."""

    results: list[Result] = field(default_factory=list)

    @property
    def outcomes(self) -> Counter[Outcome]:
        """Rows by what came of them."""
        return Counter(result.outcome for result in self.results)

    @property
    def loaded(self) -> int:
        """Rows that PolyAI has now."""
        return sum(result.outcome in DONE for result in self.results)

    def counts(self, seconds: float) -> str:
        """What is told while it runs."""
        stated = [f"{count:,} {outcome}" for outcome, count in self.outcomes.most_common()]
        return " · ".join([*stated, f"{self.traffic.retries} retries"])

    def add(self, result: Result) -> None:
        """Takes over what came of a row."""
        self.results.append(result)
        self.read += 1
        self.failed += result.outcome not in DONE

    def as_row(self) -> dict[str, Any]:
        """The row of `sync_runs`."""
        self.rows = Counter({"write_backs": self.outcomes["sent"]})
        return super().as_row()


@dataclass(frozen=True)
class WriteBacks:
    """What came of all rows.

    Attributes:
        reports: One an agent that has rows which were fit to be sent.
        unfit: Rows that were not, for whatever agent.
        unused: Columns that PolyAI has no place for.
        dry_run: Nothing was sent.
    """

    reports: list[WriteBackReport]
    unfit: list[Result]
    unused: list[str]
    dry_run: bool

    @property
    def results(self) -> list[Result]:
        """What came of each row, in the order of the rows."""
        results = [*self.unfit, *(one for report in self.reports for one in report.results)]
        return sorted(results, key=lambda result: result.place)

    @property
    def outcomes(self) -> Counter[Outcome]:
        """Rows by what came of them."""
        return Counter(result.outcome for result in self.results)
