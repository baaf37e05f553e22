"""Limits of a request: its whole time, the rate of a stream, the size of an answer, odd lengths."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from odd_server import Answer, OddServer, Script, in_turn
from peak_memory import needs_peak_memory
from polyai.api import deadline
from polyai.api.client import ConversationsV3, DataApi
from polyai.config.agent import Agent
from polyai.errors import ApiError, ConversationError, UnavailableError, UncertainError

pytestmark = pytest.mark.server

WHOLE = {"conversationId": "CA1", "note": "x" * 200}


def agent_at(url: str) -> Agent:
    return Agent("PROJECT-1", "a-key", "us", "ws-1", url, url)


@contextmanager
def api_with(script: Script, **options: Any) -> Iterator[tuple[DataApi, OddServer]]:
    quick = {"backoff_seconds": 0.01, "max_attempts": 2, "request_timeout": 5}
    with OddServer(script) as server, DataApi(agent_at(server.url), **{**quick, **options}) as api:
        yield api, server


@contextmanager
def v3_with(script: Script, **options: Any) -> Iterator[tuple[ConversationsV3, OddServer]]:
    quick = {"backoff_seconds": 0.01, "max_attempts": 2, "request_timeout": 5}
    with (
        OddServer(script) as server,
        ConversationsV3(agent_at(server.url), **{**quick, **options}) as api,
    ):
        yield api, server


def audio(api: DataApi) -> bytes:
    return api.recording("CA1", "combined", b"".join, redacted=True)


def page(api: ConversationsV3) -> object:
    return api.conversations(environment="live", since=None, before=None, limit=10)


SLOWLY: dict[str, Any] = {"piece": 1, "pause_seconds": 0.02}
HEADERS = b"".join(b"X-Line-%d: more\r\n" % number for number in range(90))

TRICKLES = {
    "status line": Answer(raw=b"HTTP/1.1 200 " + b"O" * 500, **SLOWLY),
    "one header line at a time": Answer(
        raw=b"HTTP/1.1 200 OK\r\n" + HEADERS, piece=16, pause_seconds=0.02
    ),
    "a header without end": Answer(raw=b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 500, **SLOWLY),
    "continue again and again": Answer(
        raw=b"HTTP/1.1 100 Continue\r\n\r\n" * 100, piece=25, pause_seconds=0.02
    ),
    "body": Answer(WHOLE, **SLOWLY),
    "chunked body": Answer(WHOLE, is_chunked=True, **SLOWLY),
    "body of an error": Answer(WHOLE, status=500, **SLOWLY),
}


class TestDeadline:
    @pytest.mark.parametrize("answer", TRICKLES.values(), ids=TRICKLES.keys())
    def test_a_trickle_ends_with_the_deadline(self, answer: Answer) -> None:
        """Each byte comes well within the read timeout."""
        started = time.monotonic()
        with (
            api_with(in_turn(answer), request_deadline=0.3) as (api, server),
            pytest.raises(UnavailableError, match="in time, after 2 attempts"),
        ):
            api.conversation("CA1")
        assert 0.6 <= time.monotonic() - started < 4
        assert len(server.requests) == 2

    @pytest.mark.slow
    @pytest.mark.parametrize("answer", TRICKLES.values(), ids=TRICKLES.keys())
    def test_the_next_attempt_is_not_disturbed(self, answer: Answer) -> None:
        script = in_turn(answer, Answer(WHOLE))
        with api_with(script, request_deadline=0.3) as (api, server):
            assert api.conversation("CA1") == WHOLE
            assert api.conversation("CA1") == WHOLE
        assert (len(server.requests), server.connections) == (3, 2)

    def test_an_answer_within_the_deadline_may_be_slow(self) -> None:
        with api_with(in_turn(Answer(WHOLE, piece=40, pause_seconds=0.02))) as (api, server):
            assert api.conversation("CA1") == WHOLE
        assert len(server.requests) == 1

    def test_a_request_that_is_not_idempotent_is_uncertain_after_it(self) -> None:
        with (
            api_with(in_turn(TRICKLES["body"]), request_deadline=0.3) as (api, server),
            pytest.raises(UncertainError),
        ):
            api.annotate("CA1", 0, "user", "wrong_info")
        assert len(server.requests) == 1

    def test_the_headers_of_a_stream_have_the_deadline_too(self) -> None:
        answer = TRICKLES["one header line at a time"]
        with (
            api_with(in_turn(answer), request_deadline=0.3) as (api, _),
            pytest.raises(UnavailableError, match="in time"),
        ):
            audio(api)


class TestLowestRate:
    @pytest.fixture(autouse=True)
    def quick(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(deadline, "STREAM_WINDOW_SECONDS", 0.3)
        monkeypatch.setattr(deadline, "SLOWEST_STREAM_BYTES", 2_000)

    @pytest.mark.slow
    @pytest.mark.parametrize("is_chunked", [False, True])
    def test_a_stream_may_take_longer_than_the_deadline(self, is_chunked: bool) -> None:
        body = bytes(40_000)
        answer = Answer(body, is_chunked=is_chunked, piece=1_000, pause_seconds=0.02)
        started = time.monotonic()
        with api_with(in_turn(answer), request_deadline=0.3) as (api, server):
            assert audio(api) == body
        assert time.monotonic() - started > 0.6
        assert len(server.requests) == 1

    def test_a_stream_below_the_lowest_rate_is_a_time_out(self) -> None:
        answer = Answer(bytes(40_000), piece=20, pause_seconds=0.02)
        started = time.monotonic()
        with (
            api_with(in_turn(answer)) as (api, server),
            pytest.raises(UnavailableError, match="in time, after 2 attempts"),
        ):
            audio(api)
        assert time.monotonic() - started < 4
        assert len(server.requests) == 2

    @pytest.mark.slow
    def test_a_page_that_never_ends_is_a_time_out(self) -> None:
        body = b'{"conversations": [' + b" " * 5_000
        answer = Answer(body, is_chunked=True, **SLOWLY)
        with v3_with(in_turn(answer)) as (api, _), pytest.raises(UnavailableError, match="in time"):
            page(api)

    def test_the_time_of_the_reader_does_not_count(self) -> None:
        def slow_reader(parts: Any) -> int:
            count = 0
            for part in parts:
                time.sleep(0.2)
                count += len(part)
            return count

        body = bytes(600_000)
        with api_with(in_turn(Answer(body))) as (api, _):
            assert api.recording("CA1", "combined", slow_reader, redacted=True) == len(body)

    def test_a_stream_has_a_limit_of_its_length(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("polyai.api.transport.MAX_STREAM_BYTES", 300_000)
        with (
            api_with(in_turn(Answer(bytes(900_000)))) as (api, server),
            pytest.raises(ConversationError, match="300,000 bytes"),
        ):
            audio(api)
        assert len(server.requests) == 1


def zipped(body: bytes, encoding: str = "gzip", **options: Any) -> Answer:
    compressed = gzip.compress(body) if encoding == "gzip" else zlib.compress(body)
    return Answer(compressed, headers={"Content-Encoding": encoding}, **options)


LARGE = json.dumps({"conversationId": "CA1", "note": "x" * 300_000}).encode()
TOO_LARGE = {
    "plain": Answer(LARGE),
    "chunked": Answer(LARGE, is_chunked=True),
    "until the connection ends": Answer(raw=b"HTTP/1.1 200 OK\r\n\r\n" + LARGE, then="close"),
    "gzip": zipped(LARGE),
    "gzip, chunked": zipped(LARGE, is_chunked=True),
    "deflate": zipped(LARGE, "deflate"),
    "gzip in gzip": Answer(
        gzip.compress(gzip.compress(LARGE)), headers={"Content-Encoding": "gzip, gzip"}
    ),
}


class TestMaxBody:
    @pytest.mark.parametrize("answer", TOO_LARGE.values(), ids=TOO_LARGE.keys())
    def test_a_detail_beyond_it_concerns_its_conversation(self, answer: Answer) -> None:
        with (
            api_with(in_turn(answer), max_body=100_000) as (api, server),
            pytest.raises(ConversationError, match=r"100,000 bytes.*POLYAI_MAX_BODY"),
        ):
            api.conversation("CA1")
        # another attempt would bring the same
        assert len(server.requests) == 1

    @pytest.mark.parametrize("answer", TOO_LARGE.values(), ids=TOO_LARGE.keys())
    def test_a_detail_within_it_is_read(self, answer: Answer) -> None:
        with api_with(in_turn(answer)) as (api, _):
            assert len(api.conversation("CA1")["note"]) == 300_000

    def test_a_list_page_beyond_it_says_what_to_do(self) -> None:
        body = {"conversations": [{"conversationId": "x" * 200_000}], "count": 1}
        with (
            api_with(in_turn(Answer(body)), max_body=100_000) as (api, server),
            pytest.raises(ApiError, match=r"Lower page_size.*POLYAI_MAX_BODY") as caught,
        ):
            api.conversations(limit=1, offset=0)
        assert not isinstance(caught.value, UnavailableError | ConversationError)
        assert len(server.requests) == 1

    def test_an_answer_that_is_nested_too_deeply_concerns_its_conversation(self) -> None:
        body = b'{"conversationId": "CA1", "x": ' + b"[" * 3_000 + b"]" * 3_000 + b"}"
        with (
            api_with(in_turn(Answer(body))) as (api, server),
            pytest.raises(ConversationError, match="nested too deeply"),
        ):
            api.conversation("CA1")
        assert len(server.requests) == 1

    def test_a_note_whose_answer_is_too_large_was_set(self) -> None:
        with (
            api_with(in_turn(Answer(LARGE, 201)), max_body=100_000) as (api, server),
            pytest.raises(UncertainError),
        ):
            api.annotate("CA1", 0, "user", "wrong_info")
        assert len(server.requests) == 1

    @pytest.mark.parametrize("status", [404, 500])
    def test_an_error_of_any_size_has_its_status(self, status: int) -> None:
        endless = {"error_code": "LONG", "error_message": "x" * 5_000_000}
        with api_with(in_turn(Answer(endless, status))) as (api, _), pytest.raises(ApiError) as e:
            api.conversation("CA1")
        assert (e.value.status, e.value.error_code) == (status, None)
        assert api.traffic.bytes_received < 2_000_000


def _raw(*lines: bytes, body: bytes = b"") -> bytes:
    return b"HTTP/1.1 200 OK\r\n" + b"".join(line + b"\r\n" for line in lines) + b"\r\n" + body


JSON = json.dumps(WHOLE).encode()
CHUNKED = b"Transfer-Encoding: chunked"
ODD = {
    "a chunk of 2^64 - 1 bytes": _raw(CHUNKED, body=b"FFFFFFFFFFFFFFFF\r\n" + JSON),
    "a chunk of 2^400 bytes": _raw(CHUNKED, body=b"F" * 100 + b"\r\n" + JSON),
    "a chunk of -1 bytes": _raw(CHUNKED, body=b"-1\r\n" + JSON),
    "a chunk of -5 bytes": _raw(CHUNKED, body=b"-5\r\n" + JSON),
    "a chunk of no number": _raw(CHUNKED, body=b"zz\r\n" + JSON),
    "a chunk without a length": _raw(CHUNKED, body=JSON),
    "a chunk whose length never ends": _raw(CHUNKED, body=b"0" * 100_000),
    "a longer Content-Length": _raw(b"Content-Length: 99999999999999999999", body=JSON),
    "a shorter Content-Length": _raw(b"Content-Length: 7", body=JSON),
    "a negative Content-Length, cut short": _raw(b"Content-Length: -7", body=JSON[:-9]),
    "two lengths": _raw(b"Content-Length: 7", b"Content-Length: 9", body=JSON),
    "gzip cut short": _raw(
        b"Content-Encoding: gzip", b"Content-Length: 60", body=gzip.compress(JSON * 9)[:60]
    ),
    "gzip with wrong bytes": _raw(
        b"Content-Encoding: gzip",
        body=gzip.compress(bytes(range(256)) * 9)[:40] + b"\0" * 200,
    ),
    "an unknown encoding": _raw(b"Content-Encoding: zstd", body=b"\x28\xb5\x2f\xfd\x04\x00"),
    "too many encodings": _raw(b"Content-Encoding: " + b"gzip, " * 9 + b"gzip", body=JSON),
    "no HTTP": b"SSH-2.0-OpenSSH_9.6\r\n",
    "no status": b"HTTP/1.1\r\n\r\n",
    "an odd status": b"HTTP/1.1 99999 What\r\n\r\n",
    "a header of 100,000 bytes": _raw(b"X-Long: " + b"x" * 100_000, body=JSON),
    "300 headers": _raw(*[b"X-More: 1"] * 300, body=JSON),
}


class TestOddLengths:
    CALLS: tuple[Callable[[DataApi], object], ...] = (
        lambda api: api.conversation("CA1"),
        lambda api: api.conversations(limit=1, offset=0),
    )

    @pytest.mark.parametrize("raw", ODD.values(), ids=ODD.keys())
    def test_an_odd_answer_is_retried_and_then_unavailable(self, raw: bytes) -> None:
        for call in self.CALLS:
            with (
                api_with(in_turn(Answer(raw=raw, then="close"))) as (api, server),
                pytest.raises(UnavailableError, match="after 2 attempts"),
            ):
                call(api)
            assert len(server.requests) == 2

    @pytest.mark.parametrize("raw", ODD.values(), ids=ODD.keys())
    def test_the_next_attempt_is_not_disturbed(self, raw: bytes) -> None:
        script = in_turn(Answer(raw=raw, then="close"), Answer(WHOLE))
        with api_with(script) as (api, _):
            assert api.conversation("CA1") == WHOLE

    @pytest.mark.parametrize(
        "name", ["a chunk of 2^64 - 1 bytes", "a chunk of -1 bytes", "a longer Content-Length"]
    )
    def test_it_ends_for_streams_too(self, name: str) -> None:
        with (
            v3_with(in_turn(Answer(raw=ODD[name], then="close"))) as (api, _),
            pytest.raises(UnavailableError, match="after 2 attempts"),
        ):
            page(api)


PEAK = """
import sys, threading
sys.path[:0] = {path!r}
from peak_memory import peak_megabytes
from polyai.api.client import DataApi
from polyai.config.agent import Agent
from polyai.errors import ConversationError
api = DataApi(Agent("PROJECT-1", "a-key", "us", None, {url!r}, None), request_timeout=30)
before = peak_megabytes()
try:
    api.conversation("CA1")
except ConversationError as error:
    print(error, file=sys.stderr)
    print(peak_megabytes() - before)
"""


@needs_peak_memory
@pytest.mark.process
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["256 MB", "a gzip bomb of 1 GB"])
def test_memory_is_bounded_by_max_body(kind: str) -> None:
    if kind == "256 MB":
        answer = Answer(b'{"conversationId": "CA1", "note": "' + b"x" * (256 * 2**20) + b'"}')
    else:
        packer = zlib.compressobj(9, wbits=31)
        bomb = packer.compress(b'{"conversationId": "CA1", "note": "')
        bomb += b"".join(packer.compress(b"x" * 2**20) for _ in range(1024)) + packer.flush()
        answer = Answer(bomb, headers={"Content-Encoding": "gzip"})
    with OddServer(in_turn(answer)) as server:
        script = PEAK.format(url=server.url, path=sys.path)
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True
        )
        assert len(server.requests) == 1
    assert "67,108,864 bytes" in done.stderr
    # max_body, and what is received at once
    assert int(done.stdout) < 64 + 24
