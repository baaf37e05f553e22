"""HTTP transport of the PolyAI APIs: connections, JSON and streamed bodies.

Retries are in `retry`, errors in `failures`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property, partial
from http.client import HTTPException
from typing import Any, ClassVar, Self, TypeVar
from urllib.parse import urlsplit

import orjson
import requests
from requests.adapters import HTTPAdapter
from urllib3 import BaseHTTPResponse, HTTPConnectionPool, Timeout
from urllib3.exceptions import HTTPError

from ..config.agent import DATA, Agent
from ..config.regions import is_loopback
from ..config.version import installed_version
from ..errors import ConfigurationError, RouteGoneError, UncertainError
from .body import Body
from .deadline import (
    MAX_STREAM_BYTES,
    LimitedConnection,
    LimitedTlsConnection,
    TimeLimit,
    time_limit,
)
from .decoding import NotAcceptedError, OversizeError, UnusableError, decode, join_limited
from .direct_get import CORRELATION_ID, DirectGet, Response
from .failures import RequestErrors, Subject
from .page_stream import READ_BYTES
from .request import Request, new_correlation_id
from .retry import RATE_LIMIT_SECONDS, Retrier, RetryPolicy
from .throttle import Throttle, Traffic

CONNECT_TIMEOUT_SECONDS = 10
"""Time limit for a host to accept a connection."""

MAX_ERROR_BYTES = 64 * 1024
"""Limit of the body of an error answer; the API's envelope has some hundred bytes."""

_BROKEN_ANSWERS = (HTTPError, HTTPException, OSError, ValueError, OverflowError, MemoryError)
"""Exceptions of urllib3 and http.client for answers that are not HTTP, such as odd lengths."""

_JSON = "application/json"

T = TypeVar("T")


class Transport:
    """Requests to one API with one key, with retries; thread-safe.

    Proxies and CA bundle of the environment are read once, no proxy is used for a loopback address,
    TLS is always verified, and redirects are not followed, because the key would be sent along. No
    request is made before the first call.

    Args:
        agent: Agent whose key is sent, and whose id is shown in errors.
        base_url: URL of the API without a trailing slash; the agent's Data API where None.
        request_timeout: Seconds to wait for the next bytes of an answer.
        request_deadline: Seconds until a whole answer has to have arrived; streams have a lowest
            rate instead, once their headers have arrived.
        max_body: Limit of a body in memory, in bytes after decompression.
        max_attempts: See `RetryPolicy`.
        backoff_seconds: See `RetryPolicy`.
        max_pause_seconds: See `RetryPolicy`.
        rate_limit_seconds: See `RetryPolicy`.
        connections: Connections to keep open, best as many as there are threads.
        api_key: Key to send; the agent's where None.
        traffic: Counters to add to; new ones where None.
        throttle: Pause of all threads; a new one where None.
        redact: Removes personal data from messages.

    Attributes:
        traffic: Counters of the requests so far.
        max_body: As given.
        confirms_gone: Whether a route that seems to be gone is requested a second time.
    """

    source_api: ClassVar[str] = DATA
    """The API, as in the setting `api`."""

    def __init__(
        self,
        agent: Agent,
        *,
        base_url: str | None = None,
        request_timeout: float = 60,
        request_deadline: float = 300,
        max_body: int = 64 * 2**20,
        max_attempts: int = 5,
        backoff_seconds: float = 0.5,
        max_pause_seconds: float = 600,
        rate_limit_seconds: float = RATE_LIMIT_SECONDS,
        connections: int = 8,
        api_key: str | None = None,
        traffic: Traffic | None = None,
        throttle: Throttle | None = None,
        redact: Callable[[str], str] = str,
    ) -> None:
        agent.check_usable()
        self.traffic = traffic or Traffic()
        self.max_body = max_body
        self.confirms_gone = False
        self._agent = agent
        key = api_key or agent.api_key
        self._base_url = base_url or agent.base_url
        policy = RetryPolicy(max_attempts, backoff_seconds, max_pause_seconds, rate_limit_seconds)
        self._retrier = Retrier(policy, self.traffic, throttle)
        self._errors = RequestErrors(agent, self._base_url, key, self.source_api, redact)
        self._request_timeout = request_timeout
        self._request_deadline = request_deadline
        self._timeout = Timeout(connect=CONNECT_TIMEOUT_SECONDS, read=request_timeout)
        self._headers: dict[str, str] = {
            **dict(requests.utils.default_headers()),
            "Accept": _JSON,
            "User-Agent": f"polyai-warehouse/{installed_version()}",
            "X-API-KEY": key,
        }
        self._adapter = HTTPAdapter(pool_connections=1, pool_maxsize=connections)

    def get(
        self,
        path: str,
        *,
        subject: Subject,
        accept: Callable[[Any, bytes], T],
        exact: bool = False,
    ) -> T:
        """Sends a GET request for a JSON document.

        Args:
            path: Path and query behind the base URL, encoded; sent unchanged.
            subject: Resource that a refusal concerns.
            accept: Converts the decoded body, and the body itself, into the result, or raises
                `NotAcceptedError`, after which the request is sent again.
            exact: See `decode`.

        Raises:
            RouteGoneError: 404 of the gateway, or 410 of the agent; at once.
            AccessError: 401, or 403 or 404 of the agent; at once.
            ConversationError: Another 4xx, or an answer that is too large, where the subject is a
                conversation; at once.
            ApiError: The same where the subject is the agent; at once.
            UnavailableError: A redirect, an untrusted certificate or too long a pause, at once;
                everything else after `max_attempts`.
            StoppedError: `close` was called.
            ConfigurationError: The CA bundle that the environment names does not exist.
        """
        request = Request(path, subject, self._headers)
        return self._send(request, self._json_reader(accept, exact=exact))

    def post(
        self,
        path: str,
        body: Mapping[str, Any],
        *,
        subject: Subject,
        accept: Callable[[Any, bytes], T],
        is_idempotent: bool,
    ) -> T:
        """Sends a POST request with a JSON body.

        Args:
            path: As for `get`.
            body: JSON object to send.
            subject: As for `get`.
            accept: As for `get`.
            is_idempotent: Whether the request may safely take effect twice. Otherwise it is sent
                again only where the API cannot have carried it out: it limited the rate, or there
                was no connection.

        Raises:
            UncertainError: It may have taken effect, and is not idempotent.
            ApiError: As for `get`; the request has not taken effect.
        """
        headers = {**self._headers, "Content-Type": _JSON}
        request = Request(
            path,
            subject,
            headers,
            method="POST",
            body=orjson.dumps(body),
            is_idempotent=is_idempotent,
        )
        return self._send(request, self._json_reader(accept))

    def stream(
        self,
        path: str,
        *,
        subject: Subject,
        accept: Callable[[Body], T],
        media_type: str = _JSON,
        max_timeouts: int | None = None,
    ) -> T:
        """Sends a GET request for a body that is too large for memory.

        Args:
            path: As for `get`.
            subject: As for `get`.
            accept: Converts the body, read as it arrives, into the result. Called once per attempt;
                an incomplete body raises within it. May raise `NotAcceptedError`, after which the
                request is sent again, or `UnusableError`, after which it is not.
            media_type: Media type to request; errors are JSON in any case.
            max_timeouts: See `Retrier.run`.

        Raises:
            ApiError: As for `get`.
        """
        headers = {**self._headers, "Accept": media_type}
        request = Request(path, subject, headers, is_streamed=True, max_timeouts=max_timeouts)
        return self._send(request, accept)

    def close(self) -> None:
        """Ends all waits with `StoppedError` and closes the connections."""
        self._retrier.stop()
        self._adapter.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @cached_property
    def _pool(self) -> tuple[HTTPConnectionPool, str]:
        """Connection pool of all threads, and the prefix of paths on request lines.

        requests sets it up with the environment's proxy and CA bundle. Requests are then sent
        through urllib3 directly, because requests doubles the CPU time of each.
        """
        with requests.Session() as session:
            environment = session.merge_environment_settings(self._base_url, {}, True, None, None)
        proxies, verify = environment["proxies"], environment["verify"]
        if is_loopback(urlsplit(self._base_url).hostname or ""):
            # a proxy would receive the key, over plain http
            proxies = {}
        request = requests.Request("GET", self._base_url).prepare()
        try:
            pool: Any = self._adapter.get_connection_with_tls_context(request, verify, proxies)
            self._adapter.cert_verify(pool, request.url, verify, None)  # type: ignore[no-untyped-call]
        except OSError as error:
            raise ConfigurationError(f"REQUESTS_CA_BUNDLE or CURL_CA_BUNDLE: {error}") from error
        pool.ConnectionCls = LimitedTlsConnection if pool.scheme == "https" else LimitedConnection
        return pool, self._adapter.request_url(request, proxies).rstrip("/")

    @cached_property
    def _direct_get(self) -> DirectGet:
        return DirectGet(self._pool[0], self._headers)

    def _send(self, request: Request, accept: Callable[[Body], T]) -> T:
        send = partial(
            self._retrier.run,
            partial(self._attempt, request, accept),
            is_idempotent=request.is_idempotent,
            max_timeouts=request.max_timeouts,
        )
        try:
            return send()
        except RouteGoneError:
            if not self.confirms_gone:
                raise
        # a gateway also answers so for a moment while it is deployed
        self._retrier.pause()
        return send()

    def _attempt(self, request: Request, accept: Callable[[Body], T]) -> T:
        """Sends the request once."""
        url = self._base_url + request.path
        self.traffic.add(requests=1)
        # one per attempt: of several attempts, support has to find the one that failed
        correlation_id = new_correlation_id()
        limit = TimeLimit(self._request_deadline, self._request_timeout)
        try:
            response = self._response(request, limit, correlation_id)
        except _BROKEN_ANSWERS as error:
            raise self._errors.from_network(error, url, correlation_id) from error
        try:
            return self._read(request, response, limit, accept, url, correlation_id)
        finally:
            self.traffic.add(bytes_received=response.tell())
            # a connection whose body was not read to its end cannot be reused
            response.close()

    def _response(self, request: Request, limit: TimeLimit, correlation_id: str) -> Response:
        """Sends the request; the body of the answer is still to be read."""
        pool, prefix = self._pool
        if request.method == "GET" and not request.is_streamed:
            response = self._direct_get.send(prefix + request.path, limit, correlation_id)
            if response is not None:
                return response
        with time_limit(limit):
            return pool.urlopen(
                request.method,
                prefix + request.path,
                body=request.body,
                headers={**request.headers, CORRELATION_ID: correlation_id},
                timeout=self._timeout,
                retries=False,
                redirect=False,
                assert_same_host=False,  # behind a proxy the path is a full URL
                preload_content=False,
            )

    def _read(
        self,
        request: Request,
        response: Response,
        limit: TimeLimit,
        accept: Callable[[Body], T],
        url: str,
        correlation_id: str,
    ) -> T:
        """Reads an answer, and raises what it means where it is not what was requested."""
        start = b""

        def chunks() -> Iterator[bytes]:
            nonlocal start
            for chunk in self._chunks(response, url, correlation_id):
                start = start or chunk
                yield chunk

        if isinstance(response, BaseHTTPResponse) and not 200 <= response.status < 300:
            try:
                body = join_limited(chunks(), MAX_ERROR_BYTES)
            except OversizeError:
                body = b""
            raise self._errors.from_status(response, body, url, correlation_id, request.subject)
        if request.is_streamed:
            limit.stream()
        try:
            result = accept(Body(response, chunks(), url, correlation_id))
        except UnusableError as error:
            if not request.is_idempotent:
                # it has been carried out: only its answer cannot be read
                raise UncertainError(
                    f"the answer {error}", error_id=correlation_id, url=url.partition("?")[0]
                ) from error
            raise self._errors.from_unusable_answer(
                error, response, url, correlation_id, request.subject
            ) from error
        except NotAcceptedError as error:
            body = b"" if request.is_streamed else start
            raise self._errors.from_invalid_answer(
                error, response, body, url, correlation_id
            ) from error
        self.traffic.add(answers=1)
        return result

    def _chunks(self, response: Response, url: str, correlation_id: str) -> Iterator[bytes]:
        """Yields the decompressed body, never decompressing much more than the next chunk."""
        size = 0
        while True:
            try:
                # not `response.stream`, whose chunks are those of the compressed body
                chunk = response.read(READ_BYTES)
            except _BROKEN_ANSWERS as error:
                raise self._errors.from_network(error, url, correlation_id) from error
            if not chunk:
                return
            size += len(chunk)
            if size > MAX_STREAM_BYTES:
                raise OversizeError(f"is longer than {MAX_STREAM_BYTES:,} bytes")
            yield chunk

    def _json_reader(
        self, accept: Callable[[Any, bytes], T], *, exact: bool = False
    ) -> Callable[[Iterator[bytes]], T]:
        """Returns a reader of answers that are one JSON document."""

        def read(chunks: Iterator[bytes]) -> T:
            body = join_limited(chunks, self.max_body)
            payload = decode(body, exact=exact)
            if isinstance(payload, dict) and payload.get("success") is False:
                raise NotAcceptedError("reports that the request failed")
            return accept(payload, body)

        return read
