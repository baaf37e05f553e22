"""Loads from an API that fails in every known way, temporarily or permanently.

A temporary fault costs time only. A permanent fault of some conversations fails these alone: they
are recorded, and read as soon as the fault is over.
"""

from __future__ import annotations

import gzip
import json
import re
import threading
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any, cast
from urllib.parse import quote, unquote

import pytest

import command
from command import access, query
from command import run as run_command
from odd_server import NO_ROUTE, Answer, OddServer, Request
from polyai import open_pipeline, resolve
from polyai.load import plan
from polyai.load.report import RunReport
from polyai.load.run import load
from polyai.sandbox import Sandbox, SandboxConfig, serve
from warehouse_rows import assert_equals_truth, from_duckdb

pytestmark = pytest.mark.load

Distortion = Callable[[Answer], Answer]

AGENT = "PROJECT-BOOKINGS"
LIST_PAGE = rf"/v1/agents/{AGENT}/conversations\?"
DETAIL = rf"/v1/agents/{AGENT}/conversations/[^?/]+$"

REQUEST_TIMEOUT = 2.0
LATE_SECONDS = 2.6
"""Delay beyond the time-out of the client."""

TOO_LONG_SECONDS = "100000"
"""Value of a `Retry-After` header beyond the longest wait of the client."""


def in_a_second() -> str:
    """Formats an HTTP date, which has whole seconds only."""
    return format_datetime(datetime.now(UTC) + timedelta(seconds=1), usegmt=True)


@dataclass(frozen=True)
class Fault:
    """Fault of the sandbox, and the failure that the client records if it is permanent.

    Attributes:
        options: Options of `Faults.add`.
        status: Status of the recorded failure; None without a complete answer.
        code: Error code of the recorded failure.
        message: Pattern of the recorded message.
        retry_after: Returns the `Retry-After` header; called when the fault is added.
    """

    options: dict[str, Any]
    status: int | None
    message: str
    code: str | None = None
    retry_after: Callable[[], str] | None = None

    def add_to(self, sandbox: Sandbox, path: str, times: int | None = None) -> None:
        """Adds the fault for matching requests, a number of times or permanently."""
        header = None if self.retry_after is None else self.retry_after()
        sandbox.faults.add(**self.options, retry_after=header, path=path, times=times)


def _status(status: int, retry_after: Callable[[], str] | None = None) -> Fault:
    what = "limits the rate" if status == 429 else "has a problem"
    options = {"kind": "status", "status": status}
    return Fault(options, status, what, "SANDBOX_FAULT", retry_after)


FAULTS = {
    "429 that asks for a second": _status(429, lambda: "1"),
    "429 until a date": _status(429, in_a_second),
    "429 that asks for no time": _status(429, lambda: "0"),
    "429 without a header": _status(429),
    "500": _status(500),
    "502": _status(502),
    "503": _status(503),
    "503 that asks for a second": _status(503, lambda: "1"),
    "504": _status(504),
    "reset connection": Fault({"kind": "reset"}, None, "connection to .* broke"),
    "time-out": Fault({"kind": "delay", "seconds": LATE_SECONDS}, None, "in time"),
    "body cut short": Fault({"kind": "truncated"}, None, "connection to .* broke"),
    "JSON cut short": Fault({"kind": "truncated_json"}, 200, "the answer is not"),
    "HTML with 200": Fault({"kind": "html", "status": 200}, 200, "text/html"),
    "HTML with 502": Fault({"kind": "html", "status": 502}, 502, "has a problem"),
    "error envelope with 200": Fault(
        {"kind": "envelope"}, 200, "the request failed", "SANDBOX_FAULT"
    ),
    "nothing with 200": Fault({"kind": "empty"}, 200, r"the answer .* \(0 bytes"),
}
"""Faults that the client retries."""

TOO_LONG = _status(429, lambda: TOO_LONG_SECONDS)
"""Fault that the client does not retry."""


def sandbox_of(conversations: int) -> Sandbox:
    """Makes a sandbox whose calls have all ended, so that a run reads nothing twice."""
    sandbox = Sandbox(SandboxConfig(conversations=conversations, inventions=True, seed=4))
    sandbox.advance(timedelta(days=30))
    return sandbox


def run(base_url: str, **options: object) -> RunReport:
    """Loads with short time-outs and few attempts."""
    settings = resolve(
        agent_id=AGENT,
        api_key="sandbox-key",
        base_url=base_url,
        request_timeout=REQUEST_TIMEOUT,
        **{"max_attempts": 4, "page_size": 7} | options,
    )
    (report,) = load(settings, open_pipeline())
    return report


def detail_of(conversation_id: str) -> str:
    """Returns a pattern for the path of one detail."""
    return re.escape(quote(conversation_id, safe="")) + "$"


@dataclass
class Without:
    """Truth of a sandbox without some conversations."""

    sandbox: Sandbox
    conversation_ids: frozenset[str]

    def truth(self, agent_id: str) -> Iterator[dict[str, list[dict[str, Any]]]]:
        """Yields rows like `Sandbox.truth`."""
        for rows in self.sandbox.truth(agent_id):
            if rows["conversations"][0]["conversation_id"] not in self.conversation_ids:
                yield rows


def assert_loaded_except(sandbox: Sandbox, conversation_ids: list[str]) -> None:
    """Asserts that all other conversations are loaded, row by row."""
    others = Without(sandbox, frozenset(conversation_ids))
    assert_equals_truth(cast(Sandbox, others), AGENT, from_duckdb())


KINDS = {
    "rate limits": ("429",),
    "server errors": ("500", "502", "503", "504"),
    "lost connections": ("reset", "time-out", "body"),
    "invalid answers": ("JSON", "HTML", "error", "nothing"),
}
"""Prefixes of the names of faults by kind; each kind is tested in one load."""


class TestTemporaryFaults:
    @pytest.mark.slow
    @pytest.mark.parametrize("kind", KINDS)
    def test_the_load_is_complete(self, kind: str) -> None:
        sandbox = sandbox_of(12)
        faults = [FAULTS[name] for name in FAULTS if name.startswith(KINDS[kind])]
        for fault in faults:
            fault.add_to(sandbox, LIST_PAGE, times=1)
            fault.add_to(sandbox, DETAIL, times=2)
        with serve(sandbox) as base_url:
            # one request can meet all of them in succession
            report = run(base_url, max_attempts=11)
        assert len(faults) > 2
        assert sandbox.faults.hits == 3 * len(faults) <= report.traffic.retries
        assert (report.status, report.fetched, report.failed) == ("complete", 12, 0)
        assert_equals_truth(sandbox, AGENT, from_duckdb())

    def test_every_fault_has_a_kind(self) -> None:
        kinds = tuple(start for kind in KINDS.values() for start in kind)
        assert [name for name in FAULTS if not name.startswith(kinds)] == []


class TestPermanentFaultsOfConversations:
    @pytest.mark.slow
    def test_they_are_recorded_and_the_others_are_loaded(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Each fault affects one conversation; run by the command."""
        # a last attempt after a 429 without a header is a minute later, in several rounds
        monkeypatch.setattr(command, "TIME_LIMIT_SECONDS", 400)
        sandbox = sandbox_of(50)
        faults = {**FAULTS, "429 that asks for too long": TOO_LONG}
        # never two in succession, which could count as an outage
        bad = dict(zip(list(sandbox.conversation_ids(AGENT))[::2], faults.values()))
        assert len(bad) == len(faults)
        for conversation_id, fault in bad.items():
            fault.add_to(sandbox, detail_of(conversation_id))
        with serve(sandbox) as base_url:
            environment = access(base_url) | {
                "POLYAI_MAX_ATTEMPTS": "2",
                "POLYAI_REQUEST_TIMEOUT": str(REQUEST_TIMEOUT),
                "POLYAI_WORKERS": "16",
            }
            result = run_command("load", **environment)
            assert result.returncode == 3, result.stderr
            recorded = {str(row[0]): row[1:] for row in query(_OPEN_FAILURES)}
            assert recorded.keys() == bad.keys()
            for conversation_id, fault in bad.items():
                status, code, error_id, message, attempts = recorded[conversation_id]
                assert (status, code, attempts) == (fault.status, fault.code, 1), message
                assert re.search(fault.message, str(message))
                # PolyAI's support asks for it, also where no answer arrived
                assert str(error_id) in str(message)
            assert query("SELECT status, failed, fetched FROM polyai.sync_runs") == [
                ("partial", len(bad), 50 - len(bad))
            ]
            assert_loaded_except(sandbox, list(bad))

            sandbox.faults.clear()
            result = run_command("load", **environment)
            assert result.returncode == 0, result.stderr
        assert query(_OPEN_FAILURES) == []
        resolved = "SELECT count(*) FROM polyai.fetch_failures WHERE resolved_at IS NOT NULL"
        assert query(resolved) == [(len(bad),)]
        assert_equals_truth(sandbox, AGENT, from_duckdb())

    @pytest.mark.slow
    def test_a_refusal_is_not_retried_within_the_run(self) -> None:
        sandbox = sandbox_of(12)
        bad = dict(zip(sorted(sandbox.conversation_ids(AGENT)), (404, 410, 422)))
        for conversation_id, status in bad.items():
            path = detail_of(conversation_id)
            sandbox.faults.add("status", path=path, status=status, error_code="NO_SUCH_CALL")
        with serve(sandbox) as base_url:
            report = run(base_url)
            assert (report.status, report.failed) == ("partial", 3)
            assert sandbox.faults.hits == 3
            recorded = [row[:3] for row in query(f"{_OPEN_FAILURES} ORDER BY 1")]
            assert recorded == [(name, status, "NO_SUCH_CALL") for name, status in bad.items()]
            assert_loaded_except(sandbox, list(bad))
            sandbox.faults.clear()
            assert run(base_url).status == "complete"
        assert_equals_truth(sandbox, AGENT, from_duckdb())


_OPEN_FAILURES = (
    "SELECT conversation_id, http_status, error_code, error_id, message, attempts "
    "FROM polyai.fetch_failures WHERE resolved_at IS NULL"
)


ONE_OF_EACH_KIND = (
    "429 without a header",
    "503",
    "reset connection",
    "time-out",
    "body cut short",
    "JSON cut short",
    "HTML with 200",
    "error envelope with 200",
    "nothing with 200",
)


class TestPermanentFaultsOfTheListing:
    @pytest.mark.slow
    def test_a_run_fails_with_the_cause_and_the_next_one_is_complete(self) -> None:
        """Faults in succession: none leaves a state that breaks later runs."""
        sandbox = sandbox_of(12)
        faults = {name: FAULTS[name] for name in ONE_OF_EACH_KIND}
        with serve(sandbox) as base_url:
            for name, fault in {**faults, "429 that asks for too long": TOO_LONG}.items():
                fault.add_to(sandbox, LIST_PAGE)
                report = run(base_url, max_attempts=1)
                assert report.status == "failed", name
                assert re.search(fault.message, str(report.error)), name
                assert report.traffic.requests == 1, name
                sandbox.faults.clear()
            assert run(base_url).status == "complete"
        assert_equals_truth(sandbox, AGENT, from_duckdb())

    def test_the_command_reports_it_in_one_line(self) -> None:
        sandbox = sandbox_of(12)
        FAULTS["HTML with 200"].add_to(sandbox, LIST_PAGE)
        with serve(sandbox) as base_url:
            result = run_command("load", **access(base_url), POLYAI_MAX_ATTEMPTS="2")
        assert result.returncode == 1
        assert "Traceback" not in result.stderr
        assert "text/html" in result.stderr

    @pytest.mark.slow
    def test_conversations_read_before_the_failure_are_kept(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # otherwise all of so few conversations are listed before the first one is read
        monkeypatch.setattr(plan, "ROWS_PER_COMPARISON", 7)
        sandbox = sandbox_of(40)
        FAULTS["503"].add_to(sandbox, LIST_PAGE + "limit=7&offset=1[0-9]$")
        with serve(sandbox) as base_url:
            report = run(base_url, max_attempts=2)
            assert report.status == "failed"
            assert 0 < report.fetched < 40
            loaded = query("SELECT count(*) FROM polyai.conversations")
            assert loaded == [(report.fetched,)]
            sandbox.faults.clear()
            assert run(base_url).status == "complete"
        assert_equals_truth(sandbox, AGENT, from_duckdb())


def forwarded(base_url: str, request: Request) -> Answer:
    """The sandbox's answer to a request."""
    headers = {"X-API-KEY": request.headers["x-api-key"]}
    onward = urllib.request.Request(base_url + request.target, headers=headers)  # noqa: S310
    with urllib.request.urlopen(onward) as response:  # noqa: S310
        return Answer(response.read(), response.status)


class Gateway:
    """Proxy for a sandbox that distorts the first answers to each kind of request.

    Args:
        base_url: URL of the sandbox.
        distortions: Functions that each distort one answer.
    """

    def __init__(self, base_url: str, distortions: Sequence[Distortion]) -> None:
        self._base_url = base_url
        self._lock = threading.Lock()
        self.left = {LIST_PAGE: list(distortions), DETAIL: list(distortions)}
        self._seen: set[str] = set()

    def __call__(self, request: Request) -> Answer:
        answer = forwarded(self._base_url, request)
        distort = self._next_for(request.target)
        return distort(answer) if distort else answer

    def _next_for(self, target: str) -> Distortion | None:
        (kind,) = (pattern for pattern in self.left if re.search(pattern, target))
        with self._lock:
            # a request is distorted once
            if target in self._seen or not self.left[kind]:
                return None
            self._seen.add(target)
            return self.left[kind].pop()


DISTORTIONS: dict[str, Distortion] = {
    "silence instead of an answer": lambda answer: Answer(is_silent=True, then="hang"),
    "silence in the middle of a body": lambda answer: Answer(
        answer.body, cut=len(answer.body) // 2, then="hang"
    ),
    "reset in the middle of a body": lambda answer: Answer(
        answer.body, cut=len(answer.body) // 2, then="reset"
    ),
    "end in the middle of chunks": lambda answer: Answer(
        answer.body, is_chunked=True, cut=len(answer.body) // 2, then="close"
    ),
    "end instead of an answer": lambda answer: Answer(is_silent=True, then="close"),
    "JSON of another kind": lambda answer: Answer([1, 2, 3]),
    "an object without the requested fields": lambda answer: Answer({}),
    "text that is not JSON": lambda answer: Answer(b"upstream connect error"),
    "bytes that are not text": lambda answer: Answer(b"\xff\xfe\x00" + answer.body),
}
"""Answers that no well-behaved server sends, made from a good one."""


@pytest.mark.slow
def test_malformed_answers_cost_no_row() -> None:
    sandbox = sandbox_of(24)
    with serve(sandbox) as base_url:
        gateway = Gateway(base_url, list(DISTORTIONS.values()))
        with OddServer(gateway) as server:
            report = run(server.url, page_size=3)
    assert gateway.left == {LIST_PAGE: [], DETAIL: []}
    assert (report.status, report.fetched) == ("complete", 24)
    assert report.traffic.retries >= 2 * len(DISTORTIONS)
    assert_equals_truth(sandbox, AGENT, from_duckdb())


def numbered(answer: Answer) -> Answer:
    """Adds numbers that a double does not hold to a detail."""
    detail = json.loads(answer.body)
    body = json.dumps({**detail, "sim": {"iccid": 89441234567890123456, "price": "#"}})
    return Answer(body.replace('"#"', "1.10").encode())


ODD_DETAILS: dict[str, tuple[Distortion, str]] = {
    "a chunk of 2^64 - 1 bytes": (
        lambda answer: Answer(
            raw=b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFF\r\n{",
            then="close",
        ),
        "connection to .* broke",
    ),
    "a body byte by byte": (
        lambda answer: Answer(answer.body, piece=1, pause_seconds=0.02),
        "in time",
    ),
    "headers line by line": (
        lambda answer: Answer(
            raw=b"HTTP/1.1 200 OK\r\n" + b"X-Line: 1\r\n" * 90, piece=11, pause_seconds=0.05
        ),
        "in time",
    ),
    "a gzip bomb": (
        lambda answer: Answer(
            gzip.compress(answer.body + b" " * 20_000_000), headers={"Content-Encoding": "gzip"}
        ),
        "longer than 1,048,576 bytes",
    ),
    "3,000 levels": (
        lambda answer: Answer(answer.body[:-1] + b',"x":' + b"[" * 3_000 + b"]" * 3_000 + b"}"),
        "nested too deeply",
    ),
}
"""Details that cannot be read, and the recorded message."""


@pytest.mark.slow
def test_details_that_cannot_be_read_cost_only_themselves() -> None:
    sandbox = sandbox_of(24)
    ids = list(sandbox.conversation_ids(AGENT))
    bad = dict(zip(ids[::4], ODD_DETAILS.values()))
    assert len(bad) == len(ODD_DETAILS)
    with serve(sandbox) as base_url:

        def answer(request: Request) -> Answer:
            whole = forwarded(base_url, request)
            conversation_id = unquote(request.target.rpartition("/")[2])
            if conversation_id in bad:
                return bad[conversation_id][0](whole)
            return numbered(whole) if conversation_id == ids[1] else whole

        with OddServer(answer) as server:
            limits = {"request_deadline": "1s", "max_body": "1MB", "max_attempts": 2}
            report = run(server.url, **limits)
        assert (report.status, report.fetched, report.failed) == ("partial", 19, 5)
        recorded = {str(row[0]): str(row[4]) for row in query(_OPEN_FAILURES)}
        assert recorded.keys() == bad.keys()
        for conversation_id, (_, message) in bad.items():
            assert re.search(message, recorded[conversation_id])
        (row,) = query("SELECT extra FROM polyai.conversations WHERE extra LIKE '%iccid%'")
        assert '"sim":{"iccid":89441234567890123456,"price":1.10}' in str(row[0])

        report = run(base_url)
        assert (report.status, report.fetched) == ("complete", 5)
    assert query(_OPEN_FAILURES) == []
    assert query("SELECT count(*) FROM polyai.conversations") == [(24,)]


@pytest.mark.parametrize(
    ("api", "other"), [("data", "conversations_v3"), ("conversations_v3", "data")]
)
def test_a_listing_that_is_gone_names_the_other_one(api: str, other: str) -> None:
    with OddServer(lambda _: NO_ROUTE) as server:
        report = run(server.url, api=api, account_id="ws-sandbox")
    error = str(report.error)
    assert report.status == "failed"
    assert "no Route matched with those values" in error
    assert f'api = "{other}"' in error
    assert "is not known" not in error
    # asked a second time, because a gateway may answer so for a moment
    assert len(server.requests) == 2
