"""Retry helper of the warehouse, and the classification of errors that it is used with."""

from __future__ import annotations

import time

import pytest

from polyai.errors import first_line
from polyai.warehouse.errors import is_conflict, root_cause
from polyai.warehouse.retry import backoff, retry

pytestmark = pytest.mark.unit


class Step:
    """Action that fails a number of times before it succeeds."""

    def __init__(self, failures: int) -> None:
        self.attempts = 0
        self._failures = failures

    def __call__(self) -> int:
        self.attempts += 1
        if self.attempts <= self._failures:
            raise ValueError(f"attempt {self.attempts}")
        return self.attempts


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    made: list[float] = []
    monkeypatch.setattr(time, "sleep", made.append)
    return made


def test_a_step_is_retried_until_it_succeeds(pauses: list[float]) -> None:
    assert retry(Step(2), retry_if=lambda _: True, pause=lambda attempt: attempt * 10) == 3
    assert pauses == [10, 20]


def test_the_last_error_is_raised_after_the_last_attempt(pauses: list[float]) -> None:
    step, seen = Step(9), list[str]()

    def prepare(error: Exception) -> bool:
        seen.append(str(error))
        return True

    with pytest.raises(ValueError, match="attempt 3"):
        retry(step, retry_if=prepare, attempts=3)
    assert step.attempts == 3
    # not called where no attempt follows
    assert seen == ["attempt 1", "attempt 2"]
    assert len(pauses) == 2


def test_other_errors_are_not_retried(pauses: list[float]) -> None:
    step = Step(1)
    with pytest.raises(ValueError, match="attempt 1"):
        retry(step, retry_if=lambda _: False)
    assert (step.attempts, pauses) == (1, [])


def test_no_attempt_begins_after_the_deadline(
    monkeypatch: pytest.MonkeyPatch, pauses: list[float]
) -> None:
    clock = iter(range(100))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    step = Step(50)
    with pytest.raises(ValueError, match="attempt 5"):
        retry(step, retry_if=lambda _: True, attempts=None, within_seconds=4, pause=lambda _: 0)
    assert step.attempts == 5


@pytest.mark.parametrize("attempt", [0, 1, 5])
def test_backoff_is_at_most_the_number_of_the_attempt(attempt: int) -> None:
    assert all(0 <= backoff(attempt) <= attempt for _ in range(100))


def test_conflicts_are_found_in_the_cause_of_an_error() -> None:
    outer = RuntimeError("load failed")
    outer.__cause__ = ValueError("TransactionContext Error: Transaction conflict on commit")
    assert is_conflict(outer)
    assert not is_conflict(RuntimeError("load failed"))


def test_the_end_of_an_iterator_is_not_the_cause_of_an_error() -> None:
    refused = ValueError("no such column")
    outer = RuntimeError("query failed")
    outer.__cause__ = refused
    refused.__context__ = StopIteration()
    assert root_cause(outer) is refused


@pytest.mark.parametrize(
    ("message", "line"),
    [
        ("one", "one"),
        ("\n  first  \nsecond", "first"),
        ("", "ValueError('')"),
    ],
)
def test_first_line_of_an_error(message: str, line: str) -> None:
    assert first_line(ValueError(message)) == line
