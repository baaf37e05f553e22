"""GET requests over open connections: equal to those that urllib3 sends and reads."""

from __future__ import annotations

import gzip
import json
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from odd_server import Answer, OddServer, Script, in_turn
from optional import needs_certificates
from polyai.api import direct_get
from polyai.api.client import DataApi
from polyai.config.agent import Agent
from polyai.errors import ApiError, ConversationError, StoppedError, UnavailableError

pytestmark = pytest.mark.server

DETAIL = {"conversationId": "CA1", "note": "é" * 200}
BODY = json.dumps(DETAIL).encode()
USUAL = Answer(DETAIL)
LENGTH = b"Content-Length: %d\r\n" % len(BODY)


@contextmanager
def api_with(
    script: Script, tls: ssl.SSLContext | None = None, **options: Any
) -> Iterator[tuple[DataApi, OddServer]]:
    quick = {"backoff_seconds": 0.01, "max_attempts": 2, "request_timeout": 5}
    with OddServer(script, tls) as server:
        agent = Agent("PROJECT-1", "a-key", "us", "ws-1", server.url, server.url)
        with DataApi(agent, **{**quick, **options}) as api:
            yield api, server


def raw(*lines: bytes, body: bytes = BODY) -> Answer:
    return Answer(raw=b"".join(line + b"\r\n" for line in lines) + b"\r\n" + body)


OK = b"HTTP/1.1 200 OK"
FRAMED = LENGTH.strip()

OTHER_FORMS = {
    "chunked": Answer(DETAIL, is_chunked=True),
    "gzip": Answer(gzip.compress(BODY), headers={"Content-Encoding": "gzip"}),
    "chunked gzip": Answer(
        gzip.compress(BODY), headers={"Content-Encoding": "gzip"}, is_chunked=True
    ),
    "without a length": raw(OK, b"Connection: close"),
    "HTTP/1.0": raw(b"HTTP/1.0 200 OK", FRAMED),
    "a length twice": raw(OK, FRAMED, FRAMED),
    "a continued header": raw(OK, b"X-Folded: one", b"  two", FRAMED),
    "100 first": Answer(raw=b"HTTP/1.1 100 Continue\r\n\r\n" + USUAL.bytes()),
    "another success": Answer(DETAIL, status=203),
    "a long body": Answer({**DETAIL, "summary": "x" * direct_get.MOST_BYTES}),
}

USUAL_FORMS = {
    "as documented": USUAL,
    "names in capitals": raw(OK, b"CONTENT-LENGTH: %d" % len(BODY), b"CONNECTION: Keep-Alive"),
    "no reason": raw(b"HTTP/1.1 200 ", FRAMED),
    "in pieces": Answer(DETAIL, piece=50, pause_seconds=0.001),
    "the head byte by byte": Answer(
        raw=OK + b"\r\n" + LENGTH + b"\r\n" + BODY, piece=1, pause_seconds=0.0001
    ),
    "longer than one read": Answer({**DETAIL, "summary": "x" * 300_000}, piece=70_000),
}

BROKEN = {
    "reset before the answer": Answer(is_silent=True, then="reset"),
    "closed before the answer": Answer(is_silent=True, then="close"),
    "closed within the head": Answer(raw=b"HTTP/1.1 200 OK\r\nContent-Le", then="close"),
    "not HTTP": Answer(raw=b"SSH-2.0-OpenSSH_9.6\r\n\r\n", then="close"),
    "reset within the body": Answer(DETAIL, cut=5, then="reset"),
    "closed within the body": Answer(DETAIL, cut=5, then="close"),
    "closed within a long body": Answer({"": "x" * 300_000}, cut=5, then="close"),
    "no JSON": Answer(b"<html>"),
    "truncated JSON": Answer(BODY[:-2]),
    "empty": Answer(b""),
    "another conversation": Answer({"conversationId": "CA2"}),
    "a failure with status 200": Answer({"success": False, "error_message": "an odd reason"}),
    "503": Answer({"error_message": "down"}, 503),
    "503 that closes": Answer({"error_message": "down"}, 503, then="close"),
}


def after_a_usual_answer(answer: Answer) -> Script:
    return in_turn(USUAL, answer)


class TestRequest:
    def test_has_the_same_headers_as_the_first_one(self) -> None:
        with api_with(in_turn(USUAL)) as (api, server):
            assert [api.conversation(id_) for id_ in ("CA1", "CA1")] == [DETAIL, DETAIL]
        first, second = server.requests
        assert list(second.headers) == list(first.headers)
        different = {name for name in first.headers if first.headers[name] != second.headers[name]}
        assert different == {"x-polyai-correlation-id"}
        assert (second.target, second.method) == (first.target, first.method)
        assert server.connections == 1

    @pytest.mark.parametrize("id_", ["a b", "é", "..", "a/b?c#d", "%41", "\x7f\r\n", "😀"])
    def test_has_the_same_target_as_the_first_one(self, id_: str) -> None:
        with api_with(lambda _: Answer({"conversationId": id_})) as (api, server):
            for _ in range(2):
                api.conversation(id_)
        first, second = server.targets
        assert second == first
        assert server.connections == 1

    def test_opens_another_connection_if_the_server_has_closed_the_last_one(self) -> None:
        with api_with(in_turn(Answer(DETAIL, then="close"), USUAL)) as (api, server):
            api.conversation("CA1")
            time.sleep(0.05)
            api.conversation("CA1")
        assert (len(server.requests), server.connections) == (2, 2)

    def test_is_not_sent_after_the_end(self) -> None:
        with api_with(in_turn(USUAL)) as (api, server):
            api.conversation("CA1")
            api.close()
            with pytest.raises(StoppedError):
                api.conversation("CA1")
        assert len(server.requests) == 1


class TestAnswer:
    @pytest.mark.parametrize("answer", USUAL_FORMS.values(), ids=USUAL_FORMS.keys())
    def test_in_the_usual_form_is_read(self, answer: Answer) -> None:
        with api_with(in_turn(USUAL, answer, USUAL)) as (api, server):
            for _ in range(3):
                assert api.conversation("CA1")["note"] == DETAIL["note"]
        assert (len(server.requests), server.connections) == (3, 1)
        received = len(USUAL.bytes()) * 2 + len(answer.bytes())
        assert 0 < received - api.traffic.bytes_received < 3 * 200
        assert api.traffic.answers == 3

    @pytest.mark.parametrize("answer", OTHER_FORMS.values(), ids=OTHER_FORMS.keys())
    def test_in_another_form_is_read_by_urllib3(self, answer: Answer) -> None:
        closes = answer.raw is not None and b"Connection: close" in answer.raw
        answer = Answer(**{**vars(answer), "then": "close"}) if closes else answer
        with api_with(in_turn(USUAL, answer, USUAL)) as (api, server):
            for _ in range(3):
                assert api.conversation("CA1")["note"] == DETAIL["note"]
        assert len(server.requests) == 3

    def test_in_another_form_leaves_the_connection_open(self) -> None:
        with api_with(in_turn(USUAL, OTHER_FORMS["chunked gzip"], USUAL)) as (api, server):
            for _ in range(3):
                api.conversation("CA1")
        assert server.connections == 1

    def test_longer_than_announced_is_not_read_as_the_next_one(self) -> None:
        longer = Answer(raw=USUAL.bytes() + Answer({"conversationId": "CA1", "x": 1}).bytes())
        with api_with(in_turn(USUAL, longer, USUAL)) as (api, server):
            for _ in range(3):
                assert api.conversation("CA1") == DETAIL
        assert (len(server.requests), server.connections) == (3, 2)

    @pytest.mark.slow
    @needs_certificates
    def test_longer_than_announced_is_not_read_as_the_next_one_over_tls(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The rest of a decrypted TLS record does not make the socket readable."""
        import trustme

        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "authority.pem"))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("localhost").configure_cert(context)
        # the last record of TLS holds the end of the first answer and all of the second
        long = Answer({**DETAIL, "summary": "x" * 40_000})
        longer = Answer(raw=long.bytes() + Answer({"conversationId": "CA1", "x": 1}).bytes())
        with api_with(in_turn(USUAL, longer, USUAL), context) as (api, server):
            assert api.conversation("CA1") == DETAIL
            assert api.conversation("CA1") == long.body
            assert api.conversation("CA1") == DETAIL
        assert (len(server.requests), server.connections) == (3, 2)

    def test_beyond_the_limit_is_refused(self) -> None:
        answer = Answer({**DETAIL, "summary": "x" * 2_000})
        with api_with(after_a_usual_answer(answer), max_body=1_500) as (api, server):
            api.conversation("CA1")
            with pytest.raises(ConversationError, match="longer than 1,500 bytes"):
                api.conversation("CA1")
        assert len(server.requests) == 2


class TestFault:
    @pytest.mark.parametrize("answer", BROKEN.values(), ids=BROKEN.keys())
    def test_is_the_same_as_on_a_new_connection(self, answer: Answer) -> None:
        with api_with(in_turn(answer)) as (api, _), pytest.raises(ApiError) as first:
            api.conversation("CA1")
        with api_with(after_a_usual_answer(answer)) as (api, server):
            api.conversation("CA1")
            with pytest.raises(UnavailableError) as caught:
                api.conversation("CA1")
        assert len(server.requests) == 3
        assert _lasting_words(caught.value) == _lasting_words(first.value)

    @pytest.mark.parametrize("answer", BROKEN.values(), ids=BROKEN.keys())
    def test_does_not_disturb_the_next_attempt(self, answer: Answer) -> None:
        with api_with(in_turn(USUAL, answer, USUAL)) as (api, server):
            assert [api.conversation("CA1") for _ in range(3)] == [DETAIL] * 3
        assert len(server.requests) == 4

    def test_of_a_slow_server_ends_with_the_deadline(self) -> None:
        slow = Answer(DETAIL, piece=1, pause_seconds=0.02)
        with api_with(after_a_usual_answer(slow), request_deadline=0.3) as (api, server):
            api.conversation("CA1")
            began_at = time.monotonic()
            with pytest.raises(UnavailableError, match="in time, after 2 attempts"):
                api.conversation("CA1")
        assert 0.6 <= time.monotonic() - began_at < 4
        assert len(server.requests) == 3

    def test_of_a_silent_server_ends_with_the_read_timeout(self) -> None:
        silent = Answer(is_silent=True, then="hang")
        with api_with(after_a_usual_answer(silent), request_timeout=0.1) as (api, _):
            api.conversation("CA1")
            with pytest.raises(UnavailableError, match="in time, after 2 attempts"):
                api.conversation("CA1")

    def test_does_not_show_the_key(self) -> None:
        answer = Answer({"success": False, "error_message": "of a-key"}, headers={"X-1": "a-key"})
        with api_with(after_a_usual_answer(answer)) as (api, _):
            api.conversation("CA1")
            with pytest.raises(UnavailableError) as caught:
                api.conversation("CA1")
        assert "a-key" not in str(caught.value)


def _lasting_words(error: ApiError) -> str:
    """Returns the message without what differs in each run: port and correlation id."""
    text = str(error).replace(f"error_id {error.error_id}", "error_id")
    return " ".join(word for word in text.split() if "127.0.0.1" not in word)
