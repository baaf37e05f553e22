"""Rate limits: the pause that an answer asks for, and the one of a 429 that asks for none."""

from __future__ import annotations

import threading
import time as real_time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from requests.structures import CaseInsensitiveDict

from odd_server import Answer, OddServer, Request
from polyai.api.client import DataApi
from polyai.api.rate_limit import requested_pause
from polyai.api.throttle import Throttle
from polyai.config.agent import Agent
from polyai.errors import UnavailableError

NOW = datetime(2026, 11, 1, 12, 0, 20, tzinfo=UTC)
UNIX = int(NOW.timestamp())

HEADERS: dict[str, tuple[dict[str, str], float | None]] = {
    "none": ({}, None),
    "Retry-After": ({"Retry-After": "7", "RateLimit-Reset": "9"}, 7),
    "Retry-After of zero": ({"Retry-After": "0", "RateLimit-Reset": "9"}, 0),
    "RateLimit-Reset": ({"RateLimit-Reset": "41"}, 41),
    "any case": ({"ratelimit-reset": "41"}, 41),
    "X-RateLimit-Reset": ({"X-RateLimit-Reset": "41"}, 41),
    "Unix time": ({"X-RateLimit-Reset": str(UNIX + 30)}, 30),
    "Unix time with a fraction": ({"X-RateLimit-Reset": f"{UNIX + 30}.5"}, 30.5),
    "Unix time in milliseconds": ({"X-RateLimit-Reset": f"{UNIX + 30}000"}, 30),
    "Unix time in the past": ({"X-RateLimit-Reset": str(UNIX - 30)}, 0),
    "a date": ({"X-RateLimit-Reset": format_datetime(NOW + timedelta(seconds=30))}, 30),
    "draft 3 of RateLimit": ({"RateLimit": "limit=100, remaining=0, reset=12"}, 12),
    "draft 8 of RateLimit": ({"RateLimit": '"default";r=0;t=12'}, 12),
    "a minute of Kong": ({"X-RateLimit-Remaining-Minute": "0"}, 40),
    "an hour of Kong": (
        {"X-RateLimit-Remaining-Minute": "0", "X-RateLimit-Remaining-Hour": "0"},
        3580,
    ),
    "a minute of Kong's clock": (
        {
            "X-RateLimit-Remaining-Minute": "0",
            "X-RateLimit-Remaining-Hour": "7",
            "Date": format_datetime(NOW + timedelta(seconds=25), usegmt=True),
        },
        15,
    ),
    "nothing exhausted": ({"X-RateLimit-Remaining-Minute": "3"}, None),
    "nonsense": ({"RateLimit-Reset": "soon", "RateLimit": "?", "Date": "?"}, None),
}


@pytest.mark.unit
@pytest.mark.parametrize(("headers", "seconds"), HEADERS.values(), ids=HEADERS.keys())
def test_the_pause_that_an_answer_asks_for(headers: dict[str, str], seconds: float | None) -> None:
    given = CaseInsensitiveDict(headers)
    assert requested_pause(given, is_rate_limit=True, now=NOW) == seconds
    only_retry_after = seconds if "Retry-After" in headers else None
    assert requested_pause(given, is_rate_limit=False, now=NOW) == only_retry_after


class FakeTime:
    """Clock that only moves when a thread sleeps: to the end of its sleep, for all threads."""

    def __init__(self) -> None:
        self.seconds = 1_000_000.0
        self.slept = 0.0
        self._lock = threading.Lock()
        self._read = threading.local()

    def now(self) -> float:
        self._read.seconds = self.seconds
        return self.seconds

    def sleep(self, seconds: float) -> bool:
        # from what this thread has read: another one may have moved the clock since
        until: float = self._read.seconds + seconds
        # requests in flight are over long before a pause is
        real_time.sleep(0.02)
        with self._lock:
            self.slept += max(0.0, until - self.seconds)
            self.seconds = max(self.seconds, until)
        return False


class MinuteLimit:
    """Answers a number of requests per minute of a clock, and 429 without headers beyond it."""

    def __init__(self, time: FakeTime, per_minute: int) -> None:
        self._time = time
        self._per_minute = per_minute
        self._lock = threading.Lock()
        self._answered: dict[int, int] = {}

    def __call__(self, request: Request) -> Answer:
        with self._lock:
            minute = int(self._time.now() // 60)
            self._answered[minute] = self._answered.get(minute, 0) + 1
            if self._answered[minute] > self._per_minute:
                return Answer({"message": "API rate limit exceeded"}, 429)
        return Answer({"conversationId": request.target.rpartition("/")[2]})


def api_at(url: str, time: FakeTime) -> DataApi:
    throttle = Throttle(spread_seconds=0.5, clock=time.now, sleep=time.sleep)
    return DataApi(Agent("P", "k", "us", None, url, None), throttle=throttle)


@pytest.mark.server
@pytest.mark.parametrize("per_minute", [1, 3, 60])
def test_a_limit_per_minute_without_headers_costs_time_and_nothing_else(per_minute: int) -> None:
    time = FakeTime()
    wanted = [f"CA{number}" for number in range(3 * per_minute + 2)]
    with (
        OddServer(MinuteLimit(time, per_minute)) as server,
        api_at(server.url, time) as api,
        ThreadPoolExecutor(8) as pool,
    ):
        found = list(pool.map(api.conversation, wanted))
    assert [one["conversationId"] for one in found] == wanted
    assert time.slept >= 120


@pytest.mark.server
def test_a_limit_that_does_not_end_fails_after_more_than_a_minute() -> None:
    time = FakeTime()
    with OddServer(lambda _: Answer(b"", 429)) as server, api_at(server.url, time) as api:
        with pytest.raises(UnavailableError, match="limits the rate, after 5 attempts"):
            api.conversation("CA1")
        # 0.5, 1 and 2 s, and what a minute needs
        assert 75 <= time.slept < 90
        assert len(server.requests) == 5
        # the others need not wait as long to learn the same
        with pytest.raises(UnavailableError):
            api.conversation("CA2")
        assert time.slept < 90


@pytest.mark.server
@pytest.mark.parametrize("header", ["RateLimit-Reset", "X-RateLimit-Reset"])
def test_all_threads_wait_until_the_reset(header: str) -> None:
    time = FakeTime()
    began_at = time.now()
    lock = threading.Lock()

    def limited(request: Request) -> Answer:
        with lock:
            left = began_at + 40 - time.now()
        if left > 0:
            return Answer(b"", 429, {header: str(round(left + 0.5))})
        return Answer({"conversationId": request.target.rpartition("/")[2]})

    with (
        OddServer(limited) as server,
        api_at(server.url, time) as api,
        ThreadPoolExecutor(4) as pool,
    ):
        calls: Callable[[str], object] = api.conversation
        assert len(list(pool.map(calls, [f"CA{n}" for n in range(12)]))) == 12
        assert len(server.requests) <= 12 + 4
    assert 40 <= time.slept < 50
