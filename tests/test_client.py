"""Data API client against a server with irregular answers."""

from __future__ import annotations

import gzip
import json
import logging
import math
import socket
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any
from urllib.parse import unquote

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from odd_server import Answer, OddServer, Request, Script, in_turn
from polyai.api.client import ConversationsV3, DataApi
from polyai.api.decoding import NotAcceptedError, decode, encode
from polyai.api.rate_limit import parse_retry_after
from polyai.config.agent import Agent
from polyai.errors import (
    AccessError,
    ApiError,
    ConfigurationError,
    ConversationError,
    PolyAIError,
    RouteGoneError,
    StoppedError,
    UnavailableError,
    UncertainError,
)

pytestmark = pytest.mark.server

KEY = "secret-key-0123456789"
CORRELATION = {"X-PolyAI-Correlation-Id": "corr-header"}


def agent_at(url: str, **changes: Any) -> Agent:
    facts = {"agent_id": "PROJECT-1", "api_key": KEY, "region": "us", "account_id": None}
    return Agent(**{**facts, "base_url": url, "v3_base_url": None, **changes})


@contextmanager
def api_with(script: Script, **options: Any) -> Iterator[tuple[DataApi, OddServer]]:
    quick = {
        "backoff_seconds": 0.01,
        "max_attempts": 3,
        "request_timeout": 5,
        "rate_limit_seconds": 0.05,
    }
    with OddServer(script) as server, DataApi(agent_at(server.url), **{**quick, **options}) as api:
        yield api, server


def detail(conversation_id: str = "CA1", **fields: Any) -> Answer:
    return Answer({"conversationId": conversation_id, **fields})


def listing(*rows: dict[str, Any], **fields: Any) -> Answer:
    page = {"conversations": list(rows), "count": len(rows), "limit": 50, "offset": 0}
    return Answer({**page, **fields})


def refused(status: int, error_code: str = "SOME_CODE", **headers: str) -> Answer:
    envelope = {
        "success": False,
        "error": "Something",
        "error_id": "corr-body",
        "error_code": error_code,
        "error_message": f"no way with {KEY}",
        "data": None,
    }
    return Answer(envelope, status, {**CORRELATION, **headers})


HTML = Answer(b"<html>Bad gateway</html>", 200, {"Content-Type": "text/html", **CORRELATION})

BROKEN = {
    "408": refused(408),
    "429": refused(429, **{"Retry-After": "0"}),
    "500": refused(500),
    "502 html": Answer(b"<html>", 502, {"Content-Type": "text/html"}),
    "503": refused(503),
    "504": refused(504),
    "520 of a gateway": Answer(b"", 520),
    "reset before the answer": Answer(is_silent=True, then="reset"),
    "closed before the answer": Answer(is_silent=True, then="close"),
    "reset within the body": Answer({"conversationId": "CA1"}, cut=5, then="reset"),
    "short body": Answer({"conversationId": "CA1"}, cut=5, then="close"),
    "short chunked body": Answer({"conversationId": "CA1"}, cut=12, then="close", is_chunked=True),
    "bad gzip": Answer(b"not gzip", headers={"Content-Encoding": "gzip"}),
    "html though 200": HTML,
    "truncated json": Answer(b'{"conversationId": "CA'),
    "empty body": Answer(b""),
    "no content": Answer(b"", 204),
    "envelope though 200": refused(200),
    "another conversation": detail("CA2"),
    "no id": Answer({}),
    "a list": Answer([{"conversationId": "CA1"}]),
    "json null": Answer(None),
    "an invalid number": Answer(b'{"conversationId": 1e}'),
}


def test_listing_requests_a_page_and_reads_it() -> None:
    row = {"conversationId": "CA1", "tags": []}
    with api_with(in_turn(listing(row, count=3, limit=1, offset=2))) as (api, server):
        page = api.conversations(limit=100, offset=2)
    assert server.targets == ["/v1/agents/PROJECT-1/conversations?limit=100&offset=2"]
    assert (page.conversations, page.count, page.limit, page.offset) == ([row], 3, 1, 2)
    headers = server.requests[0].headers
    assert headers["x-api-key"] == KEY
    assert headers["user-agent"].startswith("polyai-warehouse/")
    assert "gzip" in headers["accept-encoding"]


def test_construction_sends_no_request() -> None:
    with api_with(in_turn(detail())) as (api, server):
        assert server.connections == 0
        assert vars(api.traffic).items() >= {"requests": 0, "retries": 0}.items()
    assert server.requests == []


def test_listing_without_limit_and_offset_assumes_the_requested_ones() -> None:
    with api_with(in_turn(Answer({"conversations": [], "count": 0}))) as (api, _):
        page = api.conversations(limit=7, offset=9)
    assert (page.count, page.limit, page.offset) == (0, 7, 9)


@pytest.mark.parametrize(
    "body",
    [
        {"conversations": []},
        {"conversations": [], "count": None},
        {"conversations": [], "count": True},
        {"conversations": [], "count": -1},
        {"conversations": {"CA1": {}}, "count": 1},
        {"conversations": None, "count": 0},
        {},
        [],
    ],
    ids=str,
)
def test_listing_of_another_shape_is_retried_until_the_attempts_are_used_up(body: Any) -> None:
    with api_with(in_turn(Answer(body))) as (api, server), pytest.raises(UnavailableError):
        api.conversations(limit=1, offset=0)
    assert len(server.requests) == 3


def test_a_detail_is_decoded_once_with_all_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[bytes] = []

    def counted(body: bytes, **options: Any) -> Any:
        decoded.append(body)
        return decode(body, **options)

    monkeypatch.setattr("polyai.api.transport.decode", counted)
    body = b'{"conversationId": "CA1", "score": 1.10, "digits": 123456789012345678901234567890}'
    with api_with(in_turn(Answer(body))) as (api, _):
        found = api.detail("CA1")
    assert encode(found.conversation) == body.replace(b" ", b"")
    assert (found.size, decoded) == (len(body), [body])


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_answer_is_retried(broken: Answer) -> None:
    with api_with(in_turn(broken, broken, detail(note="x"))) as (api, server):
        assert api.conversation("CA1") == {"conversationId": "CA1", "note": "x"}
    assert len(server.requests) == 3
    assert (api.traffic.requests, api.traffic.retries, api.traffic.answers) == (3, 2, 1)


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_answer_fails_after_all_attempts(broken: Answer) -> None:
    with api_with(in_turn(broken)) as (api, server), pytest.raises(UnavailableError) as caught:
        api.conversation("CA1")
    assert len(server.requests) == 3
    assert "3 attempts" in str(caught.value)
    assert caught.value.url == f"{server.url}/v1/agents/PROJECT-1/conversations/CA1"


def test_a_timeout_is_retried() -> None:
    script = in_turn(Answer(is_silent=True, then="hang"), detail())
    with api_with(script, request_timeout=0.2) as (api, server):
        assert api.conversation("CA1")
    assert len(server.requests) == 2


def test_a_timeout_within_the_body_fails_after_all_attempts() -> None:
    script = in_turn(Answer({"conversationId": "CA1"}, cut=5, then="hang"))
    with (
        api_with(script, request_timeout=0.1, max_attempts=2) as (api, server),
        pytest.raises(UnavailableError, match=r"in time, after 2 attempts"),
    ):
        api.conversation("CA1")
    assert len(server.requests) == 2


@pytest.mark.parametrize("status", [400, 404, 409, 422])
def test_a_conversation_that_cannot_be_read_has_its_own_error(status: int) -> None:
    script = in_turn(refused(status, "CONVERSATIONS_NOT_FOUND"))
    with api_with(script) as (api, server), pytest.raises(ConversationError) as caught:
        api.conversation("CA1")
    assert len(server.requests) == 1
    assert caught.value.status == status
    assert caught.value.error_code == "CONVERSATIONS_NOT_FOUND"
    assert caught.value.error_id == "corr-body"


@pytest.mark.parametrize("code", ["AGENT_NOT_FOUND", "PROJECT_NOT_FOUND"])
def test_a_detail_whose_agent_is_unknown_stops_the_run(code: str) -> None:
    with api_with(in_turn(refused(404, code))) as (api, _), pytest.raises(AccessError):
        api.conversation("CA1")


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (401, "another region than us"),
        (401, "one of eu, uk, studio"),
        (401, "one account, agent and region"),
        (403, "no permission"),
        (404, "studio.REGION.poly.ai/ACCOUNT/AGENT"),
    ],
)
def test_refused_access_stops_at_once_with_advice(status: int, words: str) -> None:
    script = in_turn(refused(status))
    with api_with(script) as (api, server), pytest.raises(AccessError, match=words) as caught:
        api.conversations(limit=1, offset=0)
    assert len(server.requests) == 1
    assert caught.value.advice
    assert str(caught.value).count("\n") == 0


def test_an_invalid_key_stops_at_once_at_a_detail() -> None:
    with api_with(in_turn(refused(401))) as (api, server), pytest.raises(AccessError):
        api.conversation("CA1")
    assert len(server.requests) == 1


def test_a_forbidden_conversation_is_not_a_bad_key() -> None:
    with (
        api_with(in_turn(refused(403))) as (api, server),
        pytest.raises(ConversationError) as error,
    ):
        api.conversation("CA1")
    assert len(server.requests) == 1
    assert (error.value.status, error.value.error_code) == (403, "SOME_CODE")


def test_a_list_item_that_is_no_object_costs_only_itself() -> None:
    answer = Answer({"conversations": [{"conversationId": "CA1"}, 7, None], "count": 3})
    with api_with(in_turn(answer)) as (api, _):
        page = api.conversations(limit=10, offset=0)
    # positions are kept, because the listing advances by the rows received
    assert page.conversations == [{"conversationId": "CA1"}, {"": 7}, {"": None}]


NO_ROUTE = {"message": "no Route matched with those values"}
GONE = {
    "no route": (404, NO_ROUTE),
    "gone": (410, NO_ROUTE),
    "gone, of the API": (410, {"error_code": "DEPRECATED", "error_message": "use v3"}),
    "another gateway": (404, {"message": "Not Found"}),
    "gone without a body": (410, b""),
}


@pytest.mark.parametrize(("status", "body"), GONE.values(), ids=GONE.keys())
def test_a_listing_that_is_gone_is_not_a_wrong_agent(status: int, body: Any) -> None:
    with api_with(in_turn(Answer(body, status))) as (api, server):
        with pytest.raises(RouteGoneError) as caught:
            api.conversations(limit=1, offset=0)
        v3 = agent_at(server.url, v3_base_url=server.url, account_id="ws-1")
        with ConversationsV3(v3) as other, pytest.raises(RouteGoneError) as caught_v3:
            other.conversations(environment="live", since=None, before=None, limit=1)
    for error, listing in ((caught, "conversations_v3"), (caught_v3, "data")):
        message = str(error.value)
        assert "no longer offers" in message
        assert f'api = "{listing}"' in message
        assert "PROJECT-1 is not known" not in message
        if isinstance(body, dict):
            assert str(body.get("message") or body["error_message"]) in message
    assert len(server.requests) == 2


def test_a_detail_route_that_is_gone_is_not_one_conversation() -> None:
    with api_with(in_turn(Answer(NO_ROUTE, 404))) as (api, _), pytest.raises(RouteGoneError):
        api.conversation("CA1")


@pytest.mark.parametrize(("status", "body"), [(404, {"message": "Not Found"}), (410, b"")])
def test_another_missing_detail_is_one_conversation(status: int, body: Any) -> None:
    with api_with(in_turn(Answer(body, status))) as (api, _), pytest.raises(ConversationError):
        api.conversation("CA1")


@pytest.mark.parametrize("status", [200, 400, 401, 403, 404, 409, 410, 429, 500, 502, 503])
def test_the_message_of_the_gateway_is_shown(status: int) -> None:
    body = {"message": f"what Kong says of {KEY}", "success": False}
    for call in FAILURES.values():
        with (
            api_with(in_turn(Answer(body, status))) as (api, _),
            pytest.raises(ApiError, match=r"what Kong says of \*\*\*"),
        ):
            call(api)


def test_another_refusal_of_the_listing_stops_the_run() -> None:
    with api_with(in_turn(refused(400))) as (api, server), pytest.raises(ApiError) as caught:
        api.conversations(limit=1, offset=0)
    assert type(caught.value) is ApiError
    assert len(server.requests) == 1


def test_without_an_envelope_the_correlation_id_is_read_from_the_header() -> None:
    script = in_turn(Answer(b"<html>", 400, CORRELATION))
    with api_with(script) as (api, _), pytest.raises(ConversationError) as caught:
        api.conversation("CA1")
    assert (caught.value.error_id, caught.value.error_code) == ("corr-header", None)


class TestCorrelationId:
    def test_is_another_one_in_each_attempt(self) -> None:
        script = in_turn(refused(500), detail(), detail())
        with api_with(script) as (api, server):
            api.conversation("CA1")
            api.conversation("CA1")
        sent = [request.headers["x-polyai-correlation-id"] for request in server.requests]
        assert [str(uuid.UUID(one)) for one in sent] == sent
        assert len(set(sent)) == 3

    @pytest.mark.parametrize("lost", [Answer(b"<html>", 400), Answer(is_silent=True, then="close")])
    @pytest.mark.parametrize("earlier", [[], [detail()]], ids=["new", "open connection"])
    def test_that_was_sent_is_in_the_error_where_none_came_back(
        self, lost: Answer, earlier: list[Answer]
    ) -> None:
        with api_with(in_turn(*earlier, lost), max_attempts=1) as (api, server):
            for _ in earlier:
                api.conversation("CA1")
            with pytest.raises(ApiError) as caught:
                api.conversation("CA1")
        assert caught.value.error_id == server.requests[-1].headers["x-polyai-correlation-id"]
        assert str(caught.value.error_id) in str(caught.value)
        assert caught.value.sent_id is None

    def test_that_was_sent_is_also_in_the_message_where_another_came_back(self) -> None:
        script = in_turn(Answer(b"", 400, CORRELATION))
        with api_with(script) as (api, server), pytest.raises(ConversationError) as caught:
            api.conversation("CA1")
        sent = server.requests[0].headers["x-polyai-correlation-id"]
        assert caught.value.sent_id == sent
        assert f"error_id corr-header, sent as {sent}" in str(caught.value)

    def test_of_a_request_that_was_never_sent_is_left_out(self) -> None:
        with api_with(in_turn(detail())) as (_, server):
            pass
        closed = Agent("PROJECT-1", KEY, "us", None, server.url, None)
        with DataApi(closed, max_attempts=1) as api, pytest.raises(UnavailableError) as caught:
            api.conversation("CA1")
        assert caught.value.error_id is None

    def test_that_comes_back_is_not_repeated(self) -> None:
        def echo(request: Request) -> Answer:
            sent = request.headers["x-polyai-correlation-id"]
            return Answer(b"", 400, {"X-PolyAI-Correlation-Id": sent.upper()})

        with api_with(echo) as (api, _), pytest.raises(ConversationError) as caught:
            api.conversation("CA1")
        assert caught.value.sent_id is None


def test_a_redirect_is_not_followed() -> None:
    with OddServer(in_turn(detail())) as elsewhere:
        away = Answer(b"", 302, {"Location": f"{elsewhere.url}/login?key={KEY}"})
        with api_with(in_turn(away)) as (api, server), pytest.raises(UnavailableError) as caught:
            api.conversation("CA1")
    assert f"redirect to {elsewhere.url}/login " in str(caught.value)
    assert (len(server.requests), elsewhere.connections) == (1, 0)


IDS = ["a/b", "100%", "a%2Fb", "..", ".", "...", "x?y#z", "ü ñ", "+", "a;b=c&d", "😀", "//x", "\\"]


@pytest.mark.parametrize("conversation_id", IDS)
def test_an_id_arrives_unchanged(conversation_id: str) -> None:
    with api_with(in_turn(detail(conversation_id))) as (api, server):
        assert api.conversation(conversation_id)["conversationId"] == conversation_id
    prefix, _, last = server.targets[0].rpartition("/")
    assert prefix == "/v1/agents/PROJECT-1/conversations"
    assert last not in (".", "..")
    assert "?" not in last
    assert unquote(last) == conversation_id


def test_connections_are_reused() -> None:
    with api_with(in_turn(detail())) as (api, server):
        for _ in range(5):
            api.conversation("CA1")
    assert server.connections == 1


def test_threads_share_a_client() -> None:
    def own(request: Request) -> Answer:
        return detail(request.target.rpartition("/")[2])

    with api_with(own, connections=8) as (api, server), ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(api.conversation, [f"CA{n}" for n in range(200)]))
    assert [answer["conversationId"] for answer in answers] == [f"CA{n}" for n in range(200)]
    assert server.connections <= 8
    assert (api.traffic.requests, api.traffic.answers) == (200, 200)


def test_bytes_are_counted_before_decompression() -> None:
    body = gzip.compress(json.dumps({"conversationId": "CA1", "note": "x" * 10_000}).encode())
    with api_with(in_turn(Answer(body, headers={"Content-Encoding": "gzip"}))) as (api, _):
        assert len(api.conversation("CA1")["note"]) == 10_000
    assert api.traffic.bytes_received == len(body)


def test_retry_after_pauses_all_threads() -> None:
    first = threading.Event()

    def once_limited(_: Request) -> Answer:
        if first.is_set():
            return detail()
        first.set()
        return refused(429, **{"Retry-After": "0.5"})

    with api_with(once_limited) as (api, server), ThreadPoolExecutor(8) as pool:
        waiting = pool.submit(api.conversation, "CA1")
        assert first.wait(2)
        time.sleep(0.1)
        list(pool.map(api.conversation, ["CA1"] * 8))
        waiting.result()
    limited_at = server.requests[0].at
    assert len(server.requests) == 10
    assert all(request.at - limited_at >= 0.5 for request in server.requests[1:])


def test_retry_after_of_a_503_is_respected() -> None:
    script = in_turn(refused(503, **{"Retry-After": "0.5"}), detail())
    with api_with(script) as (api, server):
        api.conversation("CA1")
    assert server.requests[1].at - server.requests[0].at >= 0.5


def test_a_rate_limit_costs_no_attempt_while_other_requests_succeed() -> None:
    arrivals: list[str] = []

    def limit_one_while_others_succeed(request: Request) -> Answer:
        conversation_id = request.target.rpartition("/")[2]
        arrivals.append(conversation_id)
        if conversation_id == "CA-other" or arrivals.count("CA-limited") > 8:
            return detail(conversation_id)
        others_expected = arrivals.count("CA-other") + 2
        while arrivals.count("CA-other") < others_expected:
            time.sleep(0.001)
        return refused(429)

    with api_with(limit_one_while_others_succeed) as (api, _), ThreadPoolExecutor(1) as pool:
        limited = pool.submit(api.conversation, "CA-limited")
        while not limited.done():
            api.conversation("CA-other")
        assert limited.result()["conversationId"] == "CA-limited"


def test_a_pause_beyond_the_limit_is_not_waited_for() -> None:
    script = in_turn(refused(429, **{"Retry-After": "3600"}))
    started = time.monotonic()
    with (
        api_with(script, max_pause_seconds=600) as (api, server),
        pytest.raises(UnavailableError, match="3600 s"),
    ):
        api.conversation("CA1")
    assert len(server.requests) == 1
    assert time.monotonic() - started < 2


def test_close_ends_a_pause() -> None:
    script = in_turn(refused(429, **{"Retry-After": "300"}))
    with api_with(script) as (api, server), ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(api.conversation, "CA1") for _ in range(4)]
        while not server.requests:
            time.sleep(0.01)
        time.sleep(0.1)
        started = time.monotonic()
        api.close()
        for future in waiting:
            with pytest.raises(StoppedError):
                future.result(timeout=2)
        assert time.monotonic() - started < 1
        with pytest.raises(StoppedError):
            api.conversation("CA1")


NOW = datetime(2026, 8, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("", None),
        ("0", 0),
        (" 7 ", 7),
        ("1.5", 1.5),
        ("-3", None),
        ("soon", None),
        ("nan", None),
        ("inf", None),
        ("9" * 400, None),
        ("٣", None),
        (format_datetime(NOW + timedelta(seconds=90), usegmt=True), 90),
        (format_datetime(NOW - timedelta(seconds=90), usegmt=True), 0),
        ("Sat, 01 Aug 2026 12:00:05 -0000", 5),
        ("Sat, 99 Aug 2026 12:00:05 GMT", None),
    ],
)
def test_retry_after_is_parsed(header: str | None, seconds: float | None) -> None:
    assert parse_retry_after(header, NOW) == seconds


@pytest.mark.parametrize("header", ["soon", "-1", "Sat, 99 Aug 2026"])
def test_an_invalid_retry_after_is_an_ordinary_retry(header: str) -> None:
    with api_with(in_turn(refused(429, **{"Retry-After": header}), detail())) as (api, server):
        assert api.conversation("CA1")
    assert len(server.requests) == 2


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.mark.parametrize("host", ["127.0.0.1", "no-such-host.invalid"])
def test_an_unreachable_host_is_named(host: str) -> None:
    port = closed_port()
    with (
        DataApi(agent_at(f"http://{host}:{port}"), max_attempts=2, backoff_seconds=0.01) as api,
        pytest.raises(UnavailableError) as caught,
    ):
        api.conversations(limit=1, offset=0)
    message = str(caught.value)
    assert f"{host}:{port}" in message
    assert "POLYAI_BASE_URL" in message
    assert "\n" not in message


def test_a_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with OddServer(in_turn(detail("a/../b"))) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.setenv("no_proxy", "")
        with DataApi(agent_at("http://localhost.invalid")) as api:
            api.conversation("a/../b")
    base = "http://localhost.invalid/v1/agents/PROJECT-1/conversations"
    assert proxy.targets == [f"{base}/a%2F..%2Fb"]


@pytest.mark.parametrize("variable", ["http_proxy", "HTTP_PROXY", "all_proxy"])
def test_no_proxy_receives_the_key_for_a_loopback_address(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with OddServer(in_turn(detail("other"))) as proxy, api_with(in_turn(detail())) as (api, server):
        monkeypatch.setenv(variable, proxy.url)
        monkeypatch.setenv("no_proxy", "")
        assert api.conversation("CA1")["conversationId"] == "CA1"
    assert (len(proxy.targets), len(server.requests)) == (0, 1)


def test_an_unreachable_proxy_is_distinguished_from_the_host(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("http_proxy", f"http://user:password@127.0.0.1:{closed_port()}")
    monkeypatch.setenv("no_proxy", "")
    with (
        DataApi(agent_at("http://localhost.invalid"), max_attempts=1) as api,
        pytest.raises(UnavailableError, match="proxy") as caught,
    ):
        api.conversation("CA1")
    assert "password" not in "".join(traceback.format_exception(caught.value))


def test_a_missing_ca_bundle_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "no-such-bundle.pem")
    with (
        DataApi(agent_at(f"https://127.0.0.1:{closed_port()}")) as api,
        pytest.raises(ConfigurationError, match=r"no-such-bundle\.pem"),
    ):
        api.conversation("CA1")


def json_texts() -> st.SearchStrategy[str]:
    """JSON of lenient servers: NaN, lone surrogates, U+0000, numbers of any size."""
    texts = st.text(st.characters(), max_size=5) | st.sampled_from(
        ["\0", "\ud800", "a\0", "\udc00"]
    )
    leaves = st.none() | st.booleans() | st.integers() | st.floats() | texts
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=4),
        max_leaves=8,
    ).map(json.dumps)


FAILURES: dict[str, Callable[[DataApi], object]] = {
    "detail": lambda api: api.conversation("CA1"),
    "listing": lambda api: api.conversations(limit=1, offset=0),
}

ECHOES = {
    **BROKEN,
    **{f"refused {status}": refused(status, KEY) for status in (400, 401, 403, 404)},
    "redirect": Answer(b"", 301, {"Location": f"http://{KEY}.example/{KEY}"}),
    "ids": Answer(b"", 400, {"X-PolyAI-Correlation-Id": KEY}),
    "content type": Answer(b"", 200, {"Content-Type": KEY}),
}


@pytest.mark.parametrize("call", FAILURES.values(), ids=FAILURES.keys())
@pytest.mark.parametrize("echo", ECHOES.values(), ids=ECHOES.keys())
def test_no_error_and_no_log_contains_the_key(
    echo: Answer, call: Callable[[DataApi], object], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with api_with(in_turn(echo)) as (api, _), pytest.raises(PolyAIError) as caught:
        call(api)
    error = caught.value
    texts = [str(error), repr(error), repr(vars(error)), caplog.text, repr(api)]
    texts += traceback.format_exception(error)
    assert not [text for text in texts if KEY in text]
    assert "\n" not in str(error)


def test_a_burst_of_retries_logs_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="polyai")
    script = in_turn(*[refused(500)] * 8, detail())
    with api_with(script, max_attempts=9) as (api, _), ThreadPoolExecutor(4) as pool:
        list(pool.map(api.conversation, ["CA1"] * 4))
    levels = [record.levelname for record in caplog.records if record.name == "polyai"]
    assert (levels.count("WARNING"), levels.count("DEBUG")) == (1, 8)


@given(st.binary() | st.text().map(json.dumps).map(str.encode) | json_texts().map(str.encode))
def test_decoded_values_can_be_stored(body: bytes) -> None:
    try:
        value = decode(body)
    except NotAcceptedError:
        return
    assert b"\\u0000" not in encode(value).replace(rb"\\", b"")


@given(st.text())
def test_any_retry_after_is_a_delay_or_ignored(header: str) -> None:
    seconds = parse_retry_after(header)
    assert seconds is None or seconds >= 0


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (rb'"a\ud800b"', "a\ufffdb"),
        (rb'"\ud83d\ude00"', "😀"),
        (b'"\xed\xa0\x80"', "\ufffd"),
        (b"[NaN, Infinity, -Infinity, 1]", [None, None, None, 1]),
        (b"\xef\xbb\xbf{}", {}),
        (rb'["a\u0000b", "c\\u0000d"]', ["ab", "c\\u0000d"]),
        (rb'{"a\u0000": {"\u0000b": "\u0000"}}', {"a": {"b": ""}}),
        (
            rb'{"a\u0000": 1, "a": 2, "\u0000a": 3, "a_2": 4}',
            {"a": 2, "a_2": 4, "a_3": 1, "a_4": 3},
        ),
        (rb'{"\ud800": 1, "\ud801": 2}', {"\ufffd": 1, "\ufffd_2": 2}),
        (b"[18446744073709551615, -9223372036854775808, 1]", [2**64 - 1, -(2**63), 1]),
        (b"[18446744073709551615, -9223372036854775808, NaN]", [2**64 - 1, -(2**63), None]),
        (b"[1000000000000000000000000, 1]", [10**24, 1]),
        (b"[1000000000000000000000001, NaN]", [10**24 + 1, None]),
        (b"[" + b"9" * 5000 + b", 1e999, -1e999, 1.5]", [math.inf, math.inf, -math.inf, 1.5]),
    ],
)
def test_json_is_decoded_into_values_that_a_warehouse_accepts(body: bytes, value: Any) -> None:
    assert decode(body) == value


NOT_CARRIED_OUT = ("429",)
"""Refusals before the request takes effect: safe to retry."""

DONE = ("another conversation", "no id", "a list", "json null")
"""JSON with 200: the request took effect."""

LOST = [name for name in BROKEN if name not in DONE]


@pytest.mark.parametrize("name", LOST)
def test_a_request_that_is_not_idempotent_is_not_retried(name: str) -> None:
    done = Answer({"success": True}, 201)
    with api_with(in_turn(BROKEN[name], done)) as (api, server):
        if name in NOT_CARRIED_OUT:
            api.annotate("CA/1", 3, "agent", "wrong_info")
            assert len(server.requests) == 2
        else:
            with pytest.raises(UncertainError):
                api.annotate("CA/1", 3, "agent", "wrong_info")
            assert len(server.requests) == 1


@pytest.mark.parametrize("name", LOST)
def test_an_idempotent_request_is_retried(name: str) -> None:
    done = Answer({"success": True}, 201)
    with api_with(in_turn(BROKEN[name], done)) as (api, server):
        api.set_note("CA/1", "seen")
        assert len(server.requests) == 2


def test_a_request_to_an_unreachable_host_has_not_taken_effect() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
        with (
            DataApi(agent_at(url), backoff_seconds=0.01, max_attempts=3) as api,
            pytest.raises(UnavailableError, match=r"127\.0\.0\.1.*3 attempts"),
        ):
            api.annotate("CA1", 0, "user", "wrong_info")
        assert api.traffic.requests == 3


def test_requests_send_json_to_the_documented_paths() -> None:
    chat = Answer({"conversationId": "DC 1", "response": "Hello"}, 201)
    with api_with(lambda request: chat) as (api, server):
        api.annotate("CA/1", 3, "agent", "wrong_info")
        api.set_note("CA1", "seen")
        api.start_debug_chat({"clientEnv": "sandbox"})
        assert api.debug_chat_reply("DC 1", {"clientEnv": "sandbox", "message": "hi"})
    sent = [
        (request.method, request.target, orjson.loads(request.body)) for request in server.requests
    ]
    agent = "/v1/agents/PROJECT-1"
    flag = {"turnId": 3, "role": "agent", "annotationType": "wrong_info"}
    assert sent == [
        ("POST", f"{agent}/conversations/CA%2F1/annotation", {"annotations": [flag]}),
        ("POST", f"{agent}/conversations/CA1/note", {"note": "seen"}),
        ("POST", f"{agent}/debug-chat", {"clientEnv": "sandbox"}),
        ("POST", f"{agent}/debug-chat/DC%201", {"clientEnv": "sandbox", "message": "hi"}),
    ]
    assert {request.headers["content-type"] for request in server.requests} == {"application/json"}
