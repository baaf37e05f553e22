"""Results of rows, and reports of runs over one agent's rows."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Literal

from ..console.exit_codes import ExitCode, reports_exit_code
from ..load.report import RunReport
from .rows import Row

Outcome = Literal["sent", "there", "to send", "rejected", "unknown", "not sent"]
"""`there`: PolyAI has it already; `to send`: in a dry run; `unknown`: PolyAI does not show whether
it has it; `not sent`: the run ended first."""

DONE: frozenset[Outcome] = frozenset({"sent", "there", "to send"})
"""Outcomes that need no further action."""


@dataclass(frozen=True)
class Result:
    """Result of one row; the names are keys of `--json`.

    Attributes:
        place: Line in the file, or number of the row, counted from 1.
        conversation_id: The conversation; None if the row has none.
        said: The row in one line of text.
        outcome: What happened to it.
        reason: Reason, if further action is needed.
        write_back_id: Its row in `write_backs`; None if it was invalid.
    """

    place: int
    conversation_id: str | None
    said: str
    outcome: Outcome
    reason: str | None = None
    write_back_id: str | None = None

    @classmethod
    def of(cls, row: Row, outcome: Outcome, reason: str | None = None) -> Result:
        """Result of a valid row."""
        return cls(row.place, row.conversation_id, str(row), outcome, reason, row.write_back_id)


@dataclass
class WriteBackReport(RunReport):
    """Counts of a run over one agent's rows."""

    results: list[Result] = field(default_factory=list)

    @property
    def outcomes(self) -> Counter[Outcome]:
        """Number of rows by outcome."""
        return Counter(result.outcome for result in self.results)

    @property
    def loaded(self) -> int:
        """Rows that PolyAI now has."""
        return sum(result.outcome in DONE for result in self.results)

    def counts(self, seconds: float) -> str:
        """Progress line."""
        stated = [f"{count:,} {outcome}" for outcome, count in self.outcomes.most_common()]
        return " · ".join([*stated, f"{self.traffic.retries} retries"])

    def add(self, result: Result) -> None:
        """Adds the result of a row."""
        self.results.append(result)
        self.read += 1
        self.failed += result.outcome not in DONE

    def as_row(self) -> dict[str, Any]:
        """Row of `sync_runs`."""
        self.rows = Counter({"write_backs": self.outcomes["sent"]})
        return super().as_row()


@dataclass(frozen=True)
class WriteBacks:
    """Results of all rows.

    Attributes:
        reports: One per agent with valid rows.
        invalid: Results of invalid rows.
        unused: Columns without a counterpart at PolyAI.
        dry_run: Nothing was sent.
        is_interrupted: `stop` was set before the end.
    """

    reports: list[WriteBackReport]
    invalid: list[Result]
    unused: list[str]
    dry_run: bool
    is_interrupted: bool = False

    @property
    def results(self) -> list[Result]:
        """Results in the order of the rows."""
        results = [*self.invalid, *(one for report in self.reports for one in report.results)]
        return sorted(results, key=lambda result: result.place)

    @property
    def outcomes(self) -> Counter[Outcome]:
        """Number of rows by outcome."""
        return Counter(result.outcome for result in self.results)

    @property
    def exit_code(self) -> ExitCode:
        """Exit code of the command."""
        code = reports_exit_code(self.reports, interrupted=self.is_interrupted)
        return ExitCode.SOME_FAILED if code == ExitCode.DONE and self.invalid else code
