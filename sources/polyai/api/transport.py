"""HTTP transport of the PolyAI APIs: connections, JSON and streamed bodies.

Retries are in `retry`, errors in `failures`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Self, TypeVar

import orjson
import requests
from requests.adapters import HTTPAdapter
from urllib3 import BaseHTTPResponse, HTTPConnectionPool, Timeout
from urllib3.exceptions import HTTPError

from ..config.settings import Agent
from ..errors import ConfigurationError
from .decoding import NotAcceptedError, decode
from .failures import RequestErrors, Subject
from .page_stream import READ_BYTES
from .retry import Retrier, RetryPolicy
from .throttle import Traffic

CONNECT_TIMEOUT_SECONDS = 10
"""Time limit for a host to accept a connection."""

_JSON = "application/json"

T = TypeVar("T")


@dataclass(frozen=True)
class _Request:
    """A request, sent once or several times.

    Attributes:
        path: Path and query behind the base URL, encoded.
        subject: Resource that a refusal concerns.
        headers: All headers.
        method: GET or POST.
        body: JSON; None for no body.
        is_streamed: Whether the body of the answer is read as it arrives.
        is_idempotent: Whether the request may safely take effect twice.
    """

    path: str
    subject: Subject
    headers: Mapping[str, str]
    method: str = "GET"
    body: bytes | None = None
    is_streamed: bool = False
    is_idempotent: bool = True


class Transport:
    """Requests to one API with one key, with retries; thread-safe.

    Proxies and CA bundle of the environment are read once, TLS is always verified, and redirects
    are not followed, because the key would be sent along. No request is made before the first call.

    Args:
        agent: Agent whose key is sent, and whose id is shown in errors.
        base_url: URL of the API without a trailing slash; the agent's Data API where None.
        request_timeout: Seconds to wait for the next bytes of an answer.
        max_attempts: See `RetryPolicy`.
        backoff_seconds: See `RetryPolicy`.
        max_pause_seconds: See `RetryPolicy`.
        connections: Connections to keep open, best as many as there are threads.
        api_key: Key to send; the agent's where None.
        traffic: Counters to add to; new ones where None.

    Attributes:
        traffic: Counters of the requests so far.
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
        key = api_key or agent.api_key
        self._base_url = base_url or agent.base_url
        self._retrier = Retrier(
            RetryPolicy(max_attempts, backoff_seconds, max_pause_seconds), self.traffic
        )
        self._errors = RequestErrors(agent, self._base_url, key)
        self._timeout = Timeout(connect=CONNECT_TIMEOUT_SECONDS, read=request_timeout)
        self._headers: dict[str, str] = {
            **dict(requests.utils.default_headers()),
            "Accept": _JSON,
            "User-Agent": f"polyai-warehouse/{_version()}",
            "X-API-KEY": key,
        }
        self._adapter = HTTPAdapter(pool_connections=1, pool_maxsize=connections)

    def get(self, path: str, *, subject: Subject, accept: Callable[[Any, bytes], T]) -> T:
        """Sends a GET request for a JSON document.

        Args:
            path: Path and query behind the base URL, encoded; sent unchanged.
            subject: Resource that a refusal concerns.
            accept: Converts the decoded body, and the body itself, into the result, or raises
                `NotAcceptedError`, after which the request is sent again.

        Raises:
            AccessError: 401, 403, or 404 of the agent; at once.
            ConversationError: Another 4xx where the subject is a conversation; at once.
            ApiError: Another 4xx where the subject is the agent; at once.
            UnavailableError: A redirect, an untrusted certificate or too long a pause, at once;
                everything else after `max_attempts`.
            StoppedError: `close` was called.
            ConfigurationError: The CA bundle that the environment names does not exist.
        """
        return self._send(_Request(path, subject, self._headers), _json_reader(accept))

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
        request = _Request(
            path,
            subject,
            headers,
            method="POST",
            body=orjson.dumps(body),
            is_idempotent=is_idempotent,
        )
        return self._send(request, _json_reader(accept))

    def stream(
        self,
        path: str,
        *,
        subject: Subject,
        accept: Callable[[Iterator[bytes]], T],
        media_type: str = _JSON,
    ) -> T:
        """Sends a GET request for a body that is too large for memory.

        Args:
            path: As for `get`.
            subject: As for `get`.
            accept: Converts the body, read as it arrives, into the result. Called once per attempt;
                an incomplete body raises within it.
            media_type: Media type to request; errors are JSON in any case.

        Raises:
            ApiError: As for `get`.
        """

        def read(response: BaseHTTPResponse) -> T:
            # not `response.stream`, whose chunks are those of the compressed body
            return accept(iter(lambda: response.read(READ_BYTES), b""))

        headers = {**self._headers, "Accept": media_type}
        return self._send(_Request(path, subject, headers, is_streamed=True), read)

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
        request = requests.Request("GET", self._base_url).prepare()
        try:
            pool: Any = self._adapter.get_connection_with_tls_context(request, verify, proxies)
            self._adapter.cert_verify(pool, request.url, verify, None)  # type: ignore[no-untyped-call]
        except OSError as error:
            raise ConfigurationError(f"REQUESTS_CA_BUNDLE or CURL_CA_BUNDLE: {error}") from error
        return pool, self._adapter.request_url(request, proxies).rstrip("/")

    def _send(self, request: _Request, read: Callable[[BaseHTTPResponse], T]) -> T:
        attempt = partial(self._attempt, request, read)
        return self._retrier.run(attempt, is_idempotent=request.is_idempotent)

    def _attempt(self, request: _Request, read: Callable[[BaseHTTPResponse], T]) -> T:
        """Sends the request once."""
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
                assert_same_host=False,  # behind a proxy the path is a full URL
                preload_content=not request.is_streamed,
            )
        except HTTPError as error:
            raise self._errors.from_network(error, url) from error
        try:
            if not 200 <= response.status < 300:
                raise self._errors.from_status(response, response.data, url, request.subject)
            result = read(response)
        except HTTPError as error:
            raise self._errors.from_network(error, url) from error
        except NotAcceptedError as error:
            body = b"" if request.is_streamed else response.data
            raise self._errors.from_invalid_answer(error, response, body, url) from error
        finally:
            self.traffic.add(bytes_received=response.tell())
            if request.is_streamed:
                # a connection whose body was not read to its end cannot be reused
                response.close()
        self.traffic.add(answers=1)
        return result


def _json_reader(accept: Callable[[Any, bytes], T]) -> Callable[[BaseHTTPResponse], T]:
    """Returns a reader of answers that are one JSON document."""

    def read(response: BaseHTTPResponse) -> T:
        body = response.data
        payload = decode(body)
        if isinstance(payload, dict) and payload.get("success") is False:
            raise NotAcceptedError("reports that the request failed")
        return accept(payload, body)

    return read


def _version() -> str:
    """Returns the installed version; a package copied by `dlt init` has none."""
    try:
        return version("polyai-warehouse")
    except PackageNotFoundError:
        return "source"
