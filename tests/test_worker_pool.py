"""Bounded worker pool, and detection of an outage among single failures."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from polyai.api.outage import OUTAGE_AFTER, OutageBreaker, Probe
from polyai.api.worker_pool import WorkerPool
from polyai.errors import (
    AccessError,
    ApiError,
    ConversationError,
    StoppedError,
    UnavailableError,
    UncertainError,
)

pytestmark = pytest.mark.unit


@pytest.fixture
def pool() -> Iterator[WorkerPool]:
    with WorkerPool(4, "polyai-test") as pool:
        yield pool


def double(number: int) -> int:
    return 2 * number


def noting(read: list[int], count: int) -> Iterator[int]:
    """Tasks that note in `read` how far they have been read."""
    for number in range(count):
        read.append(number)
        yield number


class TestInOrder:
    def test_results_come_in_the_order_of_the_tasks(self, pool: WorkerPool) -> None:
        def slow_at_first(number: int) -> int:
            time.sleep(0.02 if number < 4 else 0)
            return number

        assert list(pool.in_order(slow_at_first, range(50))) == list(range(50))

    @pytest.mark.parametrize("count", [0, 1, 2, 7])
    def test_any_number_of_tasks_can_be_given(self, pool: WorkerPool, count: int) -> None:
        assert list(pool.in_order(double, range(count))) == [2 * one for one in range(count)]

    def test_tasks_are_read_at_most_the_limit_ahead(self, pool: WorkerPool) -> None:
        read: list[int] = []
        for number in pool.in_order(lambda number: number, noting(read, 100), limit=5):
            assert len(read) - number <= 5

    def test_the_limit_grows_with_the_results(self, pool: WorkerPool) -> None:
        let_go = threading.Event()
        read: list[int] = []

        def wait_for_the_hundredth(number: int) -> int:
            if number >= 100:
                let_go.wait(5)
            return number

        results = pool.in_order(wait_for_the_hundredth, noting(read, 200), limit=30, first_limit=10)
        assert next(results) == 0
        assert len(read) <= 10
        for number in results:
            if number == 99:
                break
        # the hundredth is waited for with a queue that is full
        threading.Timer(0.05, let_go.set).start()
        assert next(results) == 100
        assert len(read) == 100 + 30

    def test_an_exception_is_raised_in_its_place(self, pool: WorkerPool) -> None:
        results = pool.in_order(lambda number: 1 // (3 - number), range(9))
        assert [next(results) for _ in range(3)] == [0, 0, 1]
        with pytest.raises(ZeroDivisionError):
            next(results)

    def test_a_stop_ends_it_with_the_results_of_what_has_begun(self) -> None:
        stop = threading.Event()
        with WorkerPool(2, "polyai-test", stop=stop) as pool:

            def tasks() -> Iterator[int]:
                for number in range(100):
                    if number == 10:
                        stop.set()
                    yield number

            assert list(pool.in_order(double, tasks())) == [2 * one for one in range(10)]


class TestAsCompleted:
    def test_results_come_as_they_arrive(self, pool: WorkerPool) -> None:
        first = threading.Event()

        def first_last(number: int) -> int:
            if number == 0:
                first.wait(5)
            elif number == 9:
                first.set()
            return number

        results = list(pool.as_completed(first_last, range(10)))
        assert results.index(0) >= 9
        assert sorted(one for one in results if one is not None) == list(range(10))

    def test_at_most_the_limit_is_in_flight(self, pool: WorkerPool) -> None:
        read: list[int] = []
        received = 0
        for _ in pool.as_completed(double, noting(read, 100), limit=3):
            received += 1
            assert len(read) - received <= 3
        assert received == 100

    def test_a_tick_comes_while_nothing_arrives(self, pool: WorkerPool) -> None:
        let_go = threading.Event()
        results = pool.as_completed(lambda _: let_go.wait(5), [0], tick_seconds=0.01)
        assert next(results) is None
        let_go.set()
        assert [one for one in results if one is not None] == [True]

    def test_a_tick_comes_while_the_pool_is_full_too(self, pool: WorkerPool) -> None:
        let_go = threading.Event()
        results = pool.as_completed(lambda _: let_go.wait(5), [0, 1], limit=1, tick_seconds=0.01)
        assert next(results) is None
        let_go.set()
        assert [one for one in results if one is not None] == [True, True]

    def test_an_exception_is_raised_at_once(self, pool: WorkerPool) -> None:
        with pytest.raises(ZeroDivisionError):
            list(pool.as_completed(lambda number: 1 // number, [1, 0]))

    def test_a_stop_ends_it_with_the_results_of_what_has_begun(self) -> None:
        stop = threading.Event()
        with WorkerPool(2, "polyai-test", stop=stop) as pool:

            def tasks() -> Iterator[int]:
                for number in range(100):
                    if number == 10:
                        stop.set()
                    yield number

            results = list(pool.as_completed(double, tasks()))
        assert sorted(one for one in results if one is not None) == [2 * one for one in range(10)]


def test_leaving_the_pool_cancels_what_has_not_begun() -> None:
    begun: list[int] = []

    def begin(number: int) -> int:
        begun.append(number)
        time.sleep(0.02)
        return number

    with WorkerPool(1, "polyai-test") as pool:
        next(pool.in_order(begin, range(100), limit=50))
    assert len(begun) < 10


class TestTheBreaker:
    def test_opens_after_consecutive_unanswered_requests(self) -> None:
        breaker = OutageBreaker()
        errors = [UnavailableError(str(number)) for number in range(OUTAGE_AFTER)]
        for error in errors:
            assert not breaker.is_open
            breaker.record(error)
        assert breaker.is_open
        assert breaker.opened_by is errors[-1]

    @pytest.mark.parametrize(
        "answer",
        [None, ConversationError("404"), AccessError("401"), ApiError("400")],
        ids=["success", "conversation refused", "key refused", "request refused"],
    )
    def test_an_answer_of_any_kind_resets_the_count(self, answer: ApiError | None) -> None:
        breaker = OutageBreaker(3)
        for error in [UnavailableError("503"), UnavailableError("503"), answer] * 5:
            breaker.record(error)
        assert not breaker.is_open

    @pytest.mark.parametrize("error", [UncertainError("lost"), StoppedError("closed")])
    def test_what_proves_nothing_leaves_the_count_as_it_is(self, error: ApiError) -> None:
        breaker = OutageBreaker(2)
        for _ in range(5):
            breaker.record(error)
        breaker.record(UnavailableError("503"))
        breaker.record(error)
        assert not breaker.is_open
        breaker.record(UnavailableError("503"))
        assert breaker.is_open

    def test_stays_open(self) -> None:
        breaker = OutageBreaker(1)
        first = UnavailableError("503")
        for error in [first, None, UnavailableError("504")]:
            breaker.record(error)
        assert breaker.opened_by is first

    def test_counts_what_many_threads_record(self) -> None:
        breaker = OutageBreaker(4 * 500)
        with WorkerPool(4, "polyai-test") as pool:
            for _ in pool.in_order(
                lambda _: breaker.record(UnavailableError("503")), range(4 * 500 - 1)
            ):
                pass
        assert not breaker.is_open
        breaker.record(UnavailableError("503"))
        assert breaker.is_open


class TestTheProbe:
    def test_an_answer_of_another_conversation_keeps_the_breaker_closed(self) -> None:
        asked: list[str] = []
        breaker = OutageBreaker(2, Probe(asked.append, lambda: ["CA1", "CA2", "CA3"]))
        for number in range(2):
            breaker.record(UnavailableError("500"), f"CA{number}")
        assert (asked, breaker.is_open) == (["CA2"], False)

    def test_the_last_answered_conversation_is_asked_for_first(self) -> None:
        asked: list[str] = []
        breaker = OutageBreaker(1, Probe(asked.append))
        breaker.record(None, "CA1")
        breaker.record(UnavailableError("500"), "CA2")
        assert (asked, breaker.is_open) == (["CA1"], False)

    def test_it_opens_if_nothing_else_is_answered(self) -> None:
        def ask(_: str) -> None:
            raise UnavailableError("503")

        breaker = OutageBreaker(1, Probe(ask, lambda: ["CA1", "CA2"]))
        error = UnavailableError("500")
        breaker.record(error, "CA1")
        assert (breaker.opened_by, breaker.opened_at) == (error, error)

    def test_it_opens_if_the_list_is_not_answered(self) -> None:
        def listed() -> list[str]:
            raise UnavailableError("503")

        breaker = OutageBreaker(1, Probe(lambda _: None, listed))
        breaker.record(UnavailableError("500"), "CA1")
        assert breaker.is_open

    def test_a_refusal_is_probed_at_once_and_opens_if_everything_is_refused(self) -> None:
        def ask(_: str) -> None:
            raise ConversationError("refused", status=403)

        breaker = OutageBreaker(probe=Probe(ask, lambda: ["CA1", "CA2"]))
        breaker.record(ConversationError("refused", status=403), "CA1")
        assert isinstance(breaker.opened_by, AccessError)
        assert breaker.opened_by.status == 403

    def test_a_closed_client_proves_nothing(self) -> None:
        def ask(_: str) -> None:
            raise StoppedError("closed")

        breaker = OutageBreaker(1, Probe(ask, lambda: ["CA2"]))
        breaker.record(UnavailableError("500"), "CA1")
        assert not breaker.is_open

    def test_listed_conversations_are_sampled_over_the_whole_page(self) -> None:
        asked: list[str] = []

        def ask(name: str) -> None:
            asked.append(name)
            raise UnavailableError("503")

        with pytest.raises(UnavailableError):
            Probe(ask, lambda: [str(number) for number in range(100)])()
        assert asked == ["0", "25", "50", "74", "99"]
