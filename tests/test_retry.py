"""Retries: statuses, delays, attempts, idempotence, and stopping."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from polyai.api.retry import (
    BACKOFF_CAP_SECONDS,
    Retrier,
    RetryableError,
    RetryPolicy,
    is_retryable,
)
from polyai.api.throttle import Traffic
from polyai.errors import StoppedError, UnavailableError, UncertainError

QUICK = RetryPolicy(max_attempts=3, backoff_seconds=0.001)


def failure(
    status: int = 500, *, retry_after_seconds: float | None = None, is_done: bool = True
) -> RetryableError:
    return RetryableError(
        "the API has a problem.",
        {"status": status, "error_id": "corr-1"},
        retry_after_seconds=retry_after_seconds,
        may_have_taken_effect=is_done,
    )


def attempts_of(*outcomes: RetryableError | str) -> tuple[Callable[[], str], list[int]]:
    """An attempt with these outcomes, one per call, and the list of its calls."""
    calls: list[int] = []

    def attempt() -> str:
        outcome = outcomes[len(calls)]
        calls.append(len(calls))
        if isinstance(outcome, RetryableError):
            raise outcome
        return outcome

    return attempt, calls


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        *((status, True) for status in (408, 429, 500, 502, 503, 504, 520, 599)),
        *((status, False) for status in (301, 400, 401, 403, 404, 409, 410, 422)),
    ],
)
def test_status_classes(status: int, expected: bool) -> None:
    assert is_retryable(status) is expected


class TestDelay:
    def test_doubles_up_to_a_cap_with_full_jitter(self) -> None:
        policy = RetryPolicy(max_attempts=100, backoff_seconds=1)
        for attempts, ceiling in ((0, 1), (1, 1), (2, 2), (3, 4), (20, BACKOFF_CAP_SECONDS)):
            delays = [policy.delay_seconds(failure(), attempts) for _ in range(300)]
            assert 0 <= min(delays) < ceiling / 4
            assert ceiling * 3 / 4 < max(delays) <= ceiling

    def test_is_the_one_of_retry_after(self) -> None:
        limited = failure(429, retry_after_seconds=7)
        assert RetryPolicy().delay_seconds(limited, 1) == 7

    def test_longer_than_the_limit_is_not_waited_for(self) -> None:
        limited = failure(429, retry_after_seconds=601)
        with pytest.raises(UnavailableError, match="601 s") as caught:
            RetryPolicy(max_pause_seconds=600).delay_seconds(limited, 1)
        assert (caught.value.status, caught.value.error_id) == (429, "corr-1")
        assert caught.value.advice

    @pytest.mark.parametrize(("most", "shown"), [(1, "1 attempt "), (3, "3 attempts ")])
    def test_ends_with_the_attempts(self, most: int, shown: str) -> None:
        with pytest.raises(UnavailableError, match=shown) as caught:
            RetryPolicy(max_attempts=most).delay_seconds(failure(503), most)
        assert (caught.value.status, caught.value.error_id) == (503, "corr-1")


class TestRetrier:
    def test_repeats_until_an_attempt_succeeds(self) -> None:
        attempt, calls = attempts_of(failure(), failure(503), "done")
        traffic = Traffic()
        assert Retrier(QUICK, traffic).run(attempt, is_idempotent=True) == "done"
        assert (len(calls), traffic.retries) == (3, 2)

    def test_gives_up_after_all_attempts(self) -> None:
        attempt, calls = attempts_of(*[failure()] * 9)
        traffic = Traffic()
        with pytest.raises(UnavailableError):
            Retrier(QUICK, traffic).run(attempt, is_idempotent=True)
        assert (len(calls), traffic.retries) == (3, 2)

    def test_does_not_repeat_what_may_take_effect_twice(self) -> None:
        attempt, calls = attempts_of(failure(), "done")
        with pytest.raises(UncertainError) as caught:
            Retrier(QUICK, Traffic()).run(attempt, is_idempotent=False)
        assert (len(calls), caught.value.error_id) == (1, "corr-1")

    def test_repeats_what_cannot_have_taken_effect(self) -> None:
        attempt, calls = attempts_of(failure(429, is_done=False), "done")
        assert Retrier(QUICK, Traffic()).run(attempt, is_idempotent=False) == "done"
        assert len(calls) == 2

    def test_other_errors_end_the_loop(self) -> None:
        def attempt() -> str:
            raise KeyError("a fault in the code")

        with pytest.raises(KeyError):
            Retrier(QUICK, Traffic()).run(attempt, is_idempotent=True)

    def test_a_rate_limit_costs_no_attempt_while_other_requests_succeed(self) -> None:
        traffic, calls = Traffic(), []

        def attempt() -> str:
            calls.append(1)
            if len(calls) > 9:
                return "done"
            traffic.add(answers=1)
            raise failure(429, is_done=False)

        assert Retrier(QUICK, traffic).run(attempt, is_idempotent=True) == "done"
        assert len(calls) == 10

    def test_stop_ends_a_pause_and_all_later_requests(self) -> None:
        attempt, calls = attempts_of(*[failure(429, retry_after_seconds=300)] * 2)
        retrier = Retrier(QUICK, Traffic())
        timer = threading.Timer(0.1, retrier.stop)
        timer.start()
        with pytest.raises(StoppedError):
            retrier.run(attempt, is_idempotent=True)
        with pytest.raises(StoppedError):
            retrier.run(attempt, is_idempotent=True)
        timer.join()
        assert len(calls) == 1
