"""Limits of the memory of answers: batches by number and bytes, and requests by waiting bytes."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pyarrow as pa
import pytest

from polyai.api.answers import Detail
from polyai.load import batching, source
from polyai.load.batching import Batcher
from polyai.load.byte_budget import ByteBudget
from polyai.load.chunk import Batch
from polyai.load.fetch import Fetched, Task

pytestmark = pytest.mark.unit


def answer(name: str, size: int = 10) -> Fetched:
    return Fetched(Task(name, "", "new"), datetime(2026, 11, 2, tzinfo=UTC), Detail({}, size))


class TestBatcher:
    def test_batches_end_by_number(self) -> None:
        batcher = Batcher(2)
        found = [len(batcher.add(answer(name))) for name in "abcde"]
        assert found == [0, 2, 0, 2, 0]
        assert len(batcher.rest()) == 1
        assert batcher.rest() == []
        assert (len(batcher), batcher.bytes) == (5, 50)

    def test_batches_end_by_bytes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(batching, "BATCH_BYTES", 100)
        batcher = Batcher(500)
        found = [len(batcher.add(answer(name, size))) for name, size in zip("abcd", (60, 60, 5, 1))]
        assert found == [0, 2, 0, 0]
        # a single answer can exceed the limit
        assert len(batcher.add(answer("e", 1_000))) == 3

    def test_a_conversation_is_only_once_in_a_package(self) -> None:
        batcher = Batcher(2)
        assert batcher.add(answer("a")) == batcher.add(answer("a")) == []
        assert len(batcher.add(answer("b"))) == 2
        assert batcher.add(answer("a")) == batcher.rest() == []


class TestJoinedBatches:
    def batch(self, day: int, *ids: str) -> Batch:
        rows = pa.table({"conversation_id": pa.array(ids, pa.string())})
        return Batch({"conversations": rows}, frozenset([day]))

    def test_have_all_rows_in_order_and_all_days(self, monkeypatch: pytest.MonkeyPatch) -> None:
        batches = [self.batch(1, "a", "b"), self.batch(2, "c"), self.batch(3, "d")]
        monkeypatch.setattr(source, "ITEM_BYTES", batches[0].bytes + batches[1].bytes)
        seen: list[Batch] = []
        joined = list(source._joined(iter(batches), seen.append))
        rows = [batch.tables["conversations"]["conversation_id"].to_pylist() for batch in joined]
        assert rows == [["a", "b", "c"], ["d"]]
        assert [batch.days for batch in joined] == [{1, 2}, {3}]
        assert seen == batches

    def test_are_none_without_a_batch(self) -> None:
        assert list(source._joined(iter(()), print)) == []


class TestByteBudget:
    def test_requests_wait_until_there_is_room_except_for_the_one_that_is_due(self) -> None:
        budget = ByteBudget(100)
        budget.wait(5)
        budget.add(150)
        budget.wait(0)
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(budget.wait, 2)
            with pytest.raises(TimeoutError):
                waiting.result(0.1)
            budget.take(0)
            with pytest.raises(TimeoutError):
                waiting.result(0.1)
            budget.take(0)
            waiting.result(10)
            another = pool.submit(budget.wait, 9)
            budget.take(150)
            another.result(10)

    def test_waiting_requests_begin_together_once_a_quarter_is_free(self) -> None:
        budget = ByteBudget(100)
        budget.add(120)
        with ThreadPoolExecutor(2) as pool:
            waiting = [pool.submit(budget.wait, number) for number in (7, 8)]
            budget.take(40)
            for one in waiting:
                with pytest.raises(TimeoutError):
                    one.result(0.05)
            budget.take(5)
            for one in waiting:
                one.result(10)

    def test_closing_ends_waits(self) -> None:
        budget = ByteBudget(1)
        budget.add(1)
        ended = threading.Event()

        def wait() -> None:
            budget.wait(7)
            ended.set()

        thread = threading.Thread(target=wait)
        thread.start()
        budget.close()
        thread.join(10)
        assert ended.is_set()
