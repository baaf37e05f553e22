"""Time limits of a whole request, enforced at each read from its connection.

The read timeout of a socket starts again with every byte that arrives, so a server that sends one
byte or one header line per second would keep a request alive for ever. http.client reads status,
headers and body through one file of the socket: `LimitedConnection` replaces that file by one whose
reads end with the limits of the thread's current request.
"""

from __future__ import annotations

import io
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPResponse, IncompleteRead
from typing import Any

from urllib3.connection import HTTPConnection, HTTPSConnection

SLOWEST_STREAM_BYTES = 256 * 1024
"""Bytes that a stream has to bring within `STREAM_WINDOW_SECONDS`: half of what telephone audio
takes as it is spoken, 8 KB/s."""

STREAM_WINDOW_SECONDS = 60.0
"""Time over which the rate of a stream is measured; only time spent waiting for it counts."""

MAX_STREAM_BYTES = 4 * 2**30
"""Limit of a streamed body: no WAV file of the usual format can be longer."""


class TimeLimit:
    """Time limit of one request: a deadline at first, for a stream a lowest rate from `stream` on.

    Args:
        deadline_seconds: Seconds until the request has to be over.
        read_timeout: Longest wait for the next bytes.
    """

    def __init__(self, deadline_seconds: float, read_timeout: float) -> None:
        self._ends_at: float | None = time.monotonic() + deadline_seconds
        self._read_timeout = read_timeout
        self._waited = 0.0
        self._received = 0

    def stream(self) -> None:
        """Replaces the deadline by the lowest rate."""
        self._ends_at = None

    def read(self, sock: socket.socket, buffer: Any) -> int:
        """Receives bytes into a buffer within the limits.

        Raises:
            TimeoutError: The deadline has passed, or the stream is too slow.
        """
        began_at = time.monotonic()
        if self._ends_at is None:
            left = STREAM_WINDOW_SECONDS - self._waited
        else:
            left = self._ends_at - began_at
        if left <= 0:
            raise TimeoutError("the request takes too long")
        timeout = min(left, self._read_timeout)
        if sock.gettimeout() != timeout:
            # a system call
            sock.settimeout(timeout)
        count = sock.recv_into(buffer)
        if self._ends_at is None:
            self._waited += time.monotonic() - began_at
            self._received += count
            if self._received >= SLOWEST_STREAM_BYTES:
                self._waited, self._received = 0.0, 0
        return count


_CURRENT = threading.local()


@contextmanager
def time_limit(limit: TimeLimit) -> Iterator[None]:
    """Applies a limit to the request that this thread sends within the block."""
    _CURRENT.limit = limit
    try:
        yield
    finally:
        _CURRENT.limit = None


class _LimitedFile(io.RawIOBase):
    """Readable file of a socket, within a time limit, after bytes that were already received."""

    def __init__(self, sock: Any, limit: TimeLimit, received: bytes) -> None:
        # its end closes the socket, if the connection has already been closed
        self._file = sock.makefile("rb", buffering=0)
        self._sock = sock
        self._limit = limit
        self._received = received

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._received:
            count = min(len(buffer), len(self._received))
            buffer[:count], self._received = self._received[:count], self._received[count:]
            return count
        return self._limit.read(self._sock, buffer)

    def close(self) -> None:
        super().close()
        self._file.close()


class _Reader(io.BufferedReader):
    """Buffered reader that refuses to read without a limit, as a chunk of length -1 asks for."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:
            raise IncompleteRead(b"")
        return super().read(size)


class _LimitedSocket:
    """Part of a socket that http.client's response uses."""

    def __init__(self, sock: Any, limit: TimeLimit, received: bytes) -> None:
        self._sock = sock
        self._limit = limit
        self._received = received

    def makefile(self, mode: str) -> _Reader:
        return _Reader(
            _LimitedFile(self._sock, self._limit, self._received), io.DEFAULT_BUFFER_SIZE
        )


def _response(sock: Any, *args: Any, **options: Any) -> HTTPResponse:
    """Builds a response, also that of a proxy to CONNECT, within the current time limit."""
    return begun_response(sock, _CURRENT.limit, b"", *args, **options)


def begun_response(
    sock: Any, limit: TimeLimit, received: bytes, *args: Any, **options: Any
) -> HTTPResponse:
    """Builds a response within a time limit, some bytes of which were already received."""
    limited: Any = _LimitedSocket(sock, limit, received)
    return HTTPResponse(limited, *args, **options)


class LimitedConnection(HTTPConnection):
    """Connection whose requests are sent within `time_limit`."""

    response_class: Any = staticmethod(_response)


class LimitedTlsConnection(HTTPSConnection):
    """TLS connection whose requests are sent within `time_limit`."""

    response_class: Any = staticmethod(_response)
