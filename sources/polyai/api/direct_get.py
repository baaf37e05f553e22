"""GET over a connection that is already open, for answers in the usual form.

urllib3 and http.client take several times as much CPU for a request as the request itself. They
open every connection, with the TLS settings and proxies of requests, and they read every answer
that is not in the usual form: another status than 200, a chunked or compressed body, a body of more
than `MOST_BYTES`, or a head that is unusual in any way.
"""

from __future__ import annotations

import queue
import re
import threading
from collections.abc import Mapping
from contextlib import suppress
from http.client import HTTPMessage, IncompleteRead, parse_headers
from io import BytesIO
from typing import Any

from urllib3 import BaseHTTPResponse, HTTPConnectionPool, HTTPResponse
from urllib3._collections import HTTPHeaderDict
from urllib3.connection import HTTPConnection
from urllib3.exceptions import ReadTimeoutError

from .deadline import TimeLimit, begun_response

CORRELATION_ID = "X-PolyAI-Correlation-Id"
"""Header that names a request in PolyAI's logs; the API sends it back."""

MOST_BYTES = 2**20
"""Length of the longest body that is read here."""

_BUFFER_BYTES = 64 * 1024

_CORRELATION_ID = f"{CORRELATION_ID}: ".encode("ascii")

_END = b"\r\n\r\n"

_HEAD = re.compile(rb"HTTP/1\.1 200 [^\r\n\0]*(?:\r\n[\w!#$%&'*+.^`|~-]+:[^\r\n\0]*)+", re.ASCII)
"""Status line of a success, and well-formed header lines."""

_FRAMING = re.compile(
    rb"(?i)\r\n(content-length|transfer-encoding|content-encoding|connection|upgrade|trailer):"
    rb"[ \t]*([^\r\n]*)"
)
"""Headers that say how the body is sent."""

_LENGTH = re.compile(rb"\d{1,7}")

_TARGET = re.compile(r"/[\w.~%/?&=-]*", re.ASCII)
"""Targets of requests that urllib3 sends unchanged."""

_PER_THREAD = threading.local()


class UsualAnswer:
    """Answer whose whole body has arrived, with what is used of urllib3's answers.

    Attributes:
        status: 200.
        length_remaining: 0.
    """

    status = 200
    length_remaining = 0

    def __init__(self, head: bytes, body: bytes) -> None:
        self._head = head
        self._unread = body
        self._length = len(body)

    @property
    def headers(self) -> HTTPMessage:
        """Headers by name in any case, parsed where an error reports them."""
        return parse_headers(BytesIO(self._head.partition(b"\r\n")[2] + _END))

    def read(self, _size: int) -> bytes:
        """Returns the whole body at once, then nothing."""
        body, self._unread = self._unread, b""
        return body

    def tell(self) -> int:
        """Returns the length of the body."""
        return self._length

    def close(self) -> None:
        """Does nothing: the connection is already in the pool again."""


Response = UsualAnswer | BaseHTTPResponse


class DirectGet:
    """GET requests with the same headers over the open connections of a pool; thread-safe.

    Args:
        pool: The pool, with connections of `deadline`.
        headers: All headers except for `Host` and the correlation id.
    """

    def __init__(self, pool: HTTPConnectionPool, headers: Mapping[str, str]) -> None:
        self._pool = pool
        unsent = _Unsent(pool.host, pool.port)
        unsent.default_port = pool.ConnectionCls.default_port  # type: ignore[misc]
        unsent.request("GET", "/", headers=headers)
        self._after_target = (
            unsent.head.removeprefix(b"GET /").removesuffix(b"\r\n") + _CORRELATION_ID
        )

    def send(self, target: str, limit: TimeLimit, correlation_id: str) -> Response | None:
        """Sends a request and reads its answer, unless it is in another form than the usual one.

        Args:
            target: Path and query.
            limit: Time limit of the request.
            correlation_id: Correlation id of the request.

        Returns:
            The answer; None if no connection is open, so that nothing was sent.

        Raises:
            ReadTimeoutError: There was no answer in time.
            HTTPException: The connection broke.
            OSError: The same.
        """
        connection = self._take() if _TARGET.fullmatch(target) else None
        if connection is None:
            return None
        try:
            head = b"GET " + target.encode("ascii") + self._after_target
            request = head + correlation_id.encode("ascii") + _END
            # what the server sent before it closed the connection can still be read
            with suppress(BrokenPipeError, ConnectionResetError):
                connection.sock.sendall(request)
            answer = self._answer(connection, target, limit)
        except TimeoutError as error:
            connection.close()
            raise ReadTimeoutError(self._pool, target, "no answer in time") from error
        except BaseException:
            connection.close()
            raise
        return answer

    def _take(self) -> HTTPConnection | None:
        """Removes an open connection from the pool; None if there is none."""
        idle = self._pool.pool
        if idle is None:
            return None
        try:
            connection: HTTPConnection | None = idle.get(block=False)
        except queue.Empty:
            return None
        if connection is not None and connection.is_connected:
            return connection
        # urllib3 will take it, and open it
        self._put(connection)
        return None

    def _put(self, connection: HTTPConnection | None) -> None:
        """Returns a connection, or the place of one, to the pool."""
        try:
            # None if the pool was closed
            if (idle := self._pool.pool) is not None:
                idle.put(connection, block=False)
                return
        except queue.Full:
            pass
        if connection is not None:
            connection.close()

    def _answer(self, connection: HTTPConnection, target: str, limit: TimeLimit) -> Response:
        sock = connection.sock
        buffer = _buffer()
        size = limit.read(sock, buffer)
        received = bytes(buffer[:size])
        head, end, body = received.partition(_END)
        length = _usual_length(head) if end else None
        if length is None:
            return self._handed_over(connection, target, limit, received)
        if len(body) < length:
            whole = bytearray(length)
            whole[: len(body)] = body
            rest = memoryview(whole)[len(body) :]
            while rest:
                size = limit.read(sock, rest)
                if not size:
                    raise IncompleteRead(bytes(whole[: length - len(rest)]), len(rest))
                rest = rest[size:]
            body = bytes(whole)
        is_surplus = len(body) > length
        # TLS decrypts whole records, and its rest is not seen by `is_connected`
        if is_surplus or (hasattr(sock, "pending") and sock.pending()):
            # not to be mistaken for the next answer
            connection.close()
            body = body[:length]
        self._put(connection)
        return UsualAnswer(head, body)

    def _handed_over(
        self, connection: HTTPConnection, target: str, limit: TimeLimit, received: bytes
    ) -> BaseHTTPResponse:
        """Lets http.client and urllib3 read an answer of which some bytes have arrived."""
        raw = begun_response(connection.sock, limit, received, method="GET")
        try:
            raw.begin()
        except BaseException:
            raw.close()
            raise
        if raw.will_close:
            # the response keeps the socket until it is read
            connection.close()
        return HTTPResponse(
            body=raw,
            headers=HTTPHeaderDict(raw.headers.items()),
            status=raw.status,
            version=raw.version,
            reason=raw.reason,
            preload_content=False,
            original_response=raw,
            pool=self._pool,
            connection=connection,
            request_method="GET",
            request_url=target,
        )


class _Unsent(HTTPConnection):
    """Connection that keeps the head of a request instead of sending it."""

    head: bytes

    def send(self, data: Any) -> None:
        """Keeps what is to be sent."""
        self.head = data


def _usual_length(head: bytes) -> int | None:
    """Returns the length of the body of an answer in the usual form; None for another form."""
    if not _HEAD.fullmatch(head):
        return None
    length = None
    for name, value in _FRAMING.findall(head):
        name, value = name.lower(), value.strip().lower()
        if name == b"content-length" and length is None and _LENGTH.fullmatch(value):
            length = int(value)
        elif (name, value) != (b"connection", b"keep-alive"):
            return None
    return length if length is not None and length <= MOST_BYTES else None


def _buffer() -> memoryview:
    """Returns the buffer of this thread."""
    try:
        buffer: memoryview = _PER_THREAD.buffer
    except AttributeError:
        buffer = _PER_THREAD.buffer = memoryview(bytearray(_BUFFER_BYTES))
    return buffer
