"""The PolyAI APIs over HTTP: when a request is tried again, what is refused, what it says."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

import orjson
import requests
from requests.adapters import HTTPAdapter
from urllib3 import BaseHTTPResponse, HTTPConnectionPool, Timeout
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    NameResolutionError,
    NewConnectionError,
    ProxyError,
    ReadTimeoutError,
)

from ..config.settings import Agent
from ..errors import (
    ApiError,
    ConfigurationError,
    Subject,
    UnavailableError,
    UncertainError,
    refusal,
)
from .decoding import NotAcceptedError, decode
from .page_stream import READ_BYTES
from .throttle import Throttle, Traffic, parse_retry_after

logger = logging.getLogger("polyai")

CONNECT_TIMEOUT_SECONDS = 10
"""A host that takes longer to accept a connection is not there."""

BACKOFF_CAP_SECONDS = 30
"""No wait between two attempts is longer, unless the API asks for it."""

WARNING_INTERVAL_SECONDS = 60
"""One warning about retries in this time is enough; each attempt is logged at debug level."""

RATE_LIMITED = 429

_JSON = "application/json"

T = TypeVar("T")


class _RetryableError(Exception):
    """No usable answer, but the next attempt may bring one."""

    def __init__(
        self,
        message: str,
        facts: dict[str, Any],
        retry_after_seconds: float | None = None,
        *,
        may_be_done: bool = True,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.facts = facts
        self.retry_after_seconds = retry_after_seconds
        self.may_be_done = may_be_done
        """Whether the API may have carried out what it was asked."""

    def given_up(self, why: str, **facts: str) -> UnavailableError:
        """The error for the caller once there is no next attempt."""
        return UnavailableError(f"{self.message.rstrip('.')}, {why}", **{**self.facts, **facts})

    def uncertain(self) -> UncertainError:
        """The error for the caller where another attempt could do it a second time."""
        message = f"{self.message.rstrip('.')}: it may have been carried out, or not"
        return UncertainError(message, **self.facts)


@dataclass(frozen=True)
class _Request:
    """What is sent, however often.

    Attributes:
        path: Behind the base URL, encoded.
        subject: What a refusal is about.
        headers: All of them.
        method: GET or POST.
        body: JSON; None where there is none.
        is_streamed: Whether the body of the answer is read as it comes.
        is_repeatable: Whether to be carried out twice is as good as once.
    """

    path: str
    subject: Subject
    headers: Mapping[str, str]
    method: str = "GET"
    body: bytes | None = None
    is_streamed: bool = False
    is_repeatable: bool = True


class Transport:
    """Requests to one API with one key, retried; threads share it.

    The environment's proxies and CA bundle are read once, TLS is always verified, redirects are
    not followed (the key would travel along). No request is made before the first call.

    Args:
        agent: whose key is sent, and whose names stand in errors.
        base_url: where the API is, without a slash at its end; the agent's Data API where None.
        request_timeout: seconds to wait for the next bytes of an answer.
        max_attempts: how often a request is sent before it is given up.
        backoff_seconds: the first wait between attempts is at most this, each next one at most
            twice as long, none longer than `BACKOFF_CAP_SECONDS`.
        max_pause_seconds: a request is given up where the API asks to wait longer.
        connections: connections kept open, best as many as there are threads.
        api_key: the key to send; the agent's where None.
        traffic: what else the same run has moved; new where None.

    Attributes:
        traffic: what was moved so far.
    """

    def __init__(
        self,
        agent: Agent,
        *,
        base_url: str | None = None,
        request_timeout: float = 60,
        max_attempts: int = 5,
        backoff_seconds: float = 0.5,
        max_pause_seconds: float = 600,
        connections: int = 8,
        api_key: str | None = None,
        traffic: Traffic | None = None,
    ) -> None:
        self.traffic = traffic or Traffic()
        self._agent = agent
        self._api_key = api_key or agent.api_key
        self._base_url = base_url or agent.base_url
        self._max_attempts = max_attempts
        self._backoff_seconds = backoff_seconds
        self._max_pause_seconds = max_pause_seconds
        self._throttle = Throttle(spread_seconds=backoff_seconds)
        self._warning_lock = threading.Lock()
        self._next_warning_at = 0.0
        self._connections = connections
        self._timeout = Timeout(connect=CONNECT_TIMEOUT_SECONDS, read=request_timeout)
        self._headers: dict[str, str] = {
            **dict(requests.utils.default_headers()),
            "Accept": _JSON,
            "User-Agent": f"polyai-warehouse/{_version()}",
            "X-API-KEY": self._api_key,
        }
        self._adapter = HTTPAdapter(pool_connections=1, pool_maxsize=connections)

    def get(self, path: str, *, subject: Subject, accept: Callable[[Any, bytes], T]) -> T:
        """Asks for `path` until an answer is accepted or the attempts are spent.

        Args:
            path: path and query behind the base URL; sent as it stands, so it must be encoded.
            subject: what a refusal is about.
            accept: turns the decoded body, and the body itself, into the result, or raises
                `NotAcceptedError`.

        Raises:
            AccessError: for 401, 403, and 404 of the agent; at once.
            ConversationError: for another 4xx where the subject is a conversation; at once.
            ApiError: for another 4xx where the subject is the agent; at once.
            UnavailableError: for a redirect, a certificate that is not trusted or a pause that is
                too long at once; for all else after `max_attempts`.
            StoppedError: when `close` was called.
            ConfigurationError: when the CA bundle that the environment names is not there.
        """
        request = _Request(path, subject, self._headers)
        return self._asked(request, _whole_json(accept))

    def post(
        self,
        path: str,
        body: Mapping[str, Any],
        *,
        subject: Subject,
        accept: Callable[[Any, bytes], T],
        is_repeatable: bool,
    ) -> T:
        """Sends `body` as JSON until an answer is accepted or the attempts are spent.

        Args:
            path: as for `get`.
            body: what to send.
            subject: as for `get`.
            accept: as for `get`.
            is_repeatable: whether to be carried out twice is as good as once. Otherwise it is sent
                again only where the API cannot have carried it out: it limits the rate, or there
                was no connection.

        Raises:
            UncertainError: where it may have been carried out, and must not be twice.
            ApiError: as `get` does; then it was not carried out.
        """
        headers = {**self._headers, "Content-Type": _JSON}
        request = _Request(
            path,
            subject,
            headers,
            method="POST",
            body=orjson.dumps(body),
            is_repeatable=is_repeatable,
        )
        return self._asked(request, _whole_json(accept))

    def stream(
        self,
        path: str,
        *,
        subject: Subject,
        accept: Callable[[Iterator[bytes]], T],
        media_type: str = _JSON,
    ) -> T:
        """The same for an answer that is too large to be held.

        Args:
            path: as for `get`.
            subject: as for `get`.
            accept: turns the body, which arrives while it is asked for, into the result. Called
                anew for each attempt: a body that breaks off raises in its midst.
            media_type: what is asked for; errors are JSON all the same.

        Raises:
            ApiError: as `get` does.
        """

        def take(response: BaseHTTPResponse) -> T:
            # not its `stream`, which hands out chunks as they were compressed
            return accept(iter(lambda: response.read(READ_BYTES), b""))

        headers = {**self._headers, "Accept": media_type}
        return self._asked(_Request(path, subject, headers, is_streamed=True), take)

    def _asked(self, request: _Request, take: Callable[[BaseHTTPResponse], T]) -> T:
        attempts = 0
        while True:
            self._throttle.wait()
            answers = self.traffic.answers
            try:
                return self._attempt(request, take)
            except _RetryableError as error:
                if error.may_be_done and not request.is_repeatable:
                    raise error.uncertain() from error
                # held off while others are served: it was not this request's turn
                if error.facts.get("status") != RATE_LIMITED or answers == self.traffic.answers:
                    attempts += 1
                self._hold_back(error, attempts)

    def close(self) -> None:
        """Ends all waiting with `StoppedError` and closes the connections."""
        self._throttle.stop()
        self._adapter.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @cached_property
    def _pool(self) -> tuple[HTTPConnectionPool, str]:
        """Connections for all threads, and what stands before a path on their request lines.

        requests sets them up, with the environment's proxy and CA bundle; then they are asked
        directly, because its session and adapter cost as much again for each request.
        """
        with requests.Session() as session:
            environment = session.merge_environment_settings(self._base_url, {}, True, None, None)
        proxies, verify = environment["proxies"], environment["verify"]
        request = requests.Request("GET", self._base_url).prepare()
        try:
            pool: Any = self._adapter.get_connection_with_tls_context(request, verify, proxies)
            self._adapter.cert_verify(pool, request.url, verify, None)  # type: ignore[no-untyped-call]
        except OSError as error:
            raise ConfigurationError(f"REQUESTS_CA_BUNDLE or CURL_CA_BUNDLE: {error}") from error
        return pool, self._adapter.request_url(request, proxies).rstrip("/")

    def _attempt(self, request: _Request, take: Callable[[BaseHTTPResponse], T]) -> T:
        """One request."""
        url = self._base_url + request.path
        self.traffic.add(requests=1)
        pool, prefix = self._pool
        try:
            response = pool.urlopen(
                request.method,
                prefix + request.path,
                body=request.body,
                headers=request.headers,
                timeout=self._timeout,
                retries=False,
                redirect=False,
                assert_same_host=False,  # behind a proxy the path is a whole url
                preload_content=not request.is_streamed,
            )
        except HTTPError as error:
            raise self._unreachable(error, url) from error
        try:
            if not 200 <= response.status < 300:
                raise self._refusal(response, response.data, url, request.subject)
            accepted = take(response)
        except HTTPError as error:
            raise self._unreachable(error, url) from error
        except NotAcceptedError as error:
            facts = self._facts(response, b"" if request.is_streamed else response.data, url)
            kind = self._shown(response.headers.get("Content-Type")) or "unknown type"
            message = f"the answer {error} ({response.tell()} bytes of {kind})"
            raise _RetryableError(message, facts) from error
        finally:
            self.traffic.add(bytes_received=response.tell())
            if request.is_streamed:
                # one that was not read to its end cannot be used again
                response.close()
        self.traffic.add(answers=1)
        return accepted

    def _hold_back(self, error: _RetryableError, attempts: int) -> None:
        """Waits before the next attempt, or gives the request up."""
        asked_seconds = error.retry_after_seconds or 0
        if asked_seconds > self._max_pause_seconds:
            why = f"and it asks to wait {asked_seconds:.0f} s"
            raise error.given_up(why, advice="Run again when that time is over") from error
        if attempts >= self._max_attempts:
            raise error.given_up(f"{attempts} times" if attempts > 1 else "once") from error
        ceiling_seconds = self._backoff_seconds * 2 ** max(attempts - 1, 0)
        delay_seconds = random.uniform(0, min(ceiling_seconds, BACKOFF_CAP_SECONDS))  # noqa: S311
        self.traffic.add(retries=1)
        self._log_retry(error, attempts, asked_seconds or delay_seconds)
        if asked_seconds or error.facts.get("status") == RATE_LIMITED:
            self._throttle.pause(asked_seconds or delay_seconds)
        else:
            self._throttle.sleep(delay_seconds)

    def _log_retry(self, error: _RetryableError, attempts: int, seconds: float) -> None:
        """One warning a burst, every attempt at debug level."""
        what = UnavailableError(error.message, **error.facts)
        logger.debug("attempt %d/%d: %s", attempts, self._max_attempts, what)
        with self._warning_lock:
            is_due = time.monotonic() >= self._next_warning_at
            if is_due:
                self._next_warning_at = time.monotonic() + WARNING_INTERVAL_SECONDS
        if is_due:
            logger.warning("trying again in %.1f s: %s", seconds, what)

    def _refusal(
        self, response: BaseHTTPResponse, body: bytes, url: str, subject: Subject
    ) -> ApiError | _RetryableError:
        """The error for a status that is not 2xx."""
        status, facts, agent = response.status, self._facts(response, body, url), self._agent
        envelope = _envelope(body)
        said = self._shown(envelope.get("error_message") or envelope.get("error")) or ""
        if body.startswith(b"{") and not envelope and body.strip() != b"{}":
            # what it refuses, and why, is in the part that did not come
            return _RetryableError("an error that breaks off", facts, may_be_done=status >= 500)
        if status >= 500 or status in (408, RATE_LIMITED):
            what = "the API limits the rate" if status == RATE_LIMITED else "the API has a problem"
            wait_seconds = parse_retry_after(response.headers.get("Retry-After"))
            message = f"{what}: {said}" if said else what
            may_be_done = status != RATE_LIMITED
            return _RetryableError(message, facts, wait_seconds, may_be_done=may_be_done)
        if 300 <= status < 400:
            target = _without_query(response.headers.get("Location", "nowhere"))
            facts["advice"] = "Check the network's sign-in page or proxy, and POLYAI_BASE_URL"
            message = f"a redirect to {self._shown(target)} is not followed, for the key's sake"
            return UnavailableError(message, **facts)
        return refusal(subject, agent.agent_id, agent.region, said, **facts)

    def _unreachable(self, error: HTTPError, url: str) -> ApiError | _RetryableError:
        """The error where no complete answer came; its words hold nothing of the exception's."""
        parts = urlsplit(self._base_url)
        host = f"{parts.hostname}:{parts.port or {'http': 80}.get(parts.scheme, 443)}"
        facts = {"url": _without_query(url)}
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            return UnavailableError(
                f"the certificate of {host} is not trusted",
                url=facts["url"],
                advice="Where a proxy signs with its own, name that in REQUESTS_CA_BUNDLE",
            )
        may_be_done = False
        if isinstance(error, ProxyError):
            message = f"the proxy does not connect to {host}"
        elif isinstance(error, NameResolutionError):
            message = f"the name of {host} cannot be resolved"
        elif isinstance(error, NewConnectionError):
            message = f"{host} does not accept a connection"
        elif isinstance(error, ConnectTimeoutError):
            message = f"{host} does not accept a connection in time"
        else:
            may_be_done = True
            is_late = isinstance(error, ReadTimeoutError)
            message = (
                f"{host} does not answer in time" if is_late else f"the connection to {host} broke"
            )
        facts["advice"] = "Check the network and its proxy, POLYAI_REGION and POLYAI_BASE_URL"
        return _RetryableError(message, facts, may_be_done=may_be_done)

    def _facts(self, response: BaseHTTPResponse, body: bytes, url: str) -> dict[str, Any]:
        """What an error tells beside its words."""
        envelope = _envelope(body)
        error_id = envelope.get("error_id") or response.headers.get("X-PolyAI-Correlation-Id")
        return {
            "status": response.status,
            "error_code": self._shown(envelope.get("error_code")),
            "error_id": self._shown(error_id),
            "url": _without_query(url),
        }

    def _shown(self, words: object) -> str | None:
        """What a server says, fit for a line of an error: it may repeat the key."""
        if not words:
            return None
        return " ".join(str(words).replace(self._api_key, "***").split())[:300]


def _whole_json(accept: Callable[[Any, bytes], T]) -> Callable[[BaseHTTPResponse], T]:
    """Takes an answer that is one JSON document."""

    def take(response: BaseHTTPResponse) -> T:
        body = response.data
        payload = decode(body)
        if isinstance(payload, dict) and payload.get("success") is False:
            raise NotAcceptedError("says that the request failed")
        return accept(payload, body)

    return take


def _envelope(body: bytes) -> dict[str, Any]:
    """The API's error envelope; empty where a gateway answered in its place."""
    try:
        envelope = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return envelope if isinstance(envelope, dict) else {}


def _without_query(url: str) -> str:
    """`url` fit for an error."""
    return url.partition("?")[0]


def _version() -> str:
    """The installed version; `dlt init` copies the package, which then has none."""
    try:
        return version("polyai-warehouse")
    except PackageNotFoundError:
        return "source"
