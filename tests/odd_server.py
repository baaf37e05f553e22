"""HTTP server with scripted faults: errors, truncated bodies, resets, silence.

Uses raw sockets, because server libraries do not support most of these faults.
"""

from __future__ import annotations

import json
import re
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Self


@dataclass(frozen=True)
class Request:
    """Received request: the target as sent, header names in lower case, the time of arrival."""

    target: str
    headers: dict[str, str]
    at: float
    method: str = "GET"
    body: bytes = b""


@dataclass(frozen=True)
class Answer:
    """Complete or truncated response.

    Attributes:
        body: Bytes are sent unchanged, other values as JSON.
        cut: Number of bytes to omit from the end of the body, below content-length.
        then: Connection afterwards: `keep`, `close`, `reset`, or `hang` until the server ends.
        is_silent: Send nothing.
        raw: Bytes to send unchanged in place of status, headers and body.
        piece: Number of bytes to send at once; all of them where None.
        pause_seconds: Time between two pieces.
    """

    body: Any = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    cut: int = 0
    then: str = "keep"
    is_silent: bool = False
    is_chunked: bool = False
    raw: bytes | None = None
    piece: int | None = None
    pause_seconds: float = 0.0

    def pieces(self) -> Iterator[bytes]:
        """Renders the bytes to send, piece by piece."""
        whole = self.bytes()
        step = self.piece or max(len(whole), 1)
        for start in range(0, len(whole), step):
            if start:
                time.sleep(self.pause_seconds)
            yield whole[start : start + step]

    def bytes(self) -> bytes:
        """Renders the bytes to send."""
        if self.is_silent:
            return b""
        if self.raw is not None:
            return self.raw
        body = self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()
        length = "Transfer-Encoding: chunked" if self.is_chunked else f"Content-Length: {len(body)}"
        try:
            phrase = HTTPStatus(self.status).phrase
        except ValueError:
            phrase = "Odd"
        lines = [f"HTTP/1.1 {self.status} {phrase}", length]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        if "Content-Type" not in self.headers:
            lines.append("Content-Type: application/json")
        if self.is_chunked:
            body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
        head = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"
        return head + body[: len(body) - self.cut]


NO_ROUTE = Answer({"message": "no Route matched with those values"}, HTTPStatus.NOT_FOUND)
"""Answer of PolyAI's gateway to unknown paths."""

Script = Callable[[Request], Answer]

_NAMES = re.compile(r"/v1/(agents/[^/]+/(deployments|branches|telephony)|accounts/[^/]+/agents)\b")
"""Targets of the Agents API, which loads request once a day."""


def in_turn(*answers: Answer) -> Script:
    """Returns a script that sends the answers in order, and repeats the last one."""
    lock = threading.Lock()
    left = list(answers)

    def answer(_: Request) -> Answer:
        with lock:
            return left.pop(0) if len(left) > 1 else left[0]

    return answer


class OddServer:
    """Server of a script on the loopback interface, within a `with` block.

    Args:
        script: Answers the requests.
        tls: Context of a server with a certificate for `localhost`; without one, plain HTTP.
        has_names: Whether the script answers requests for names, too; else they have no route.
    """

    def __init__(
        self, script: Script, tls: ssl.SSLContext | None = None, *, has_names: bool = False
    ) -> None:
        self.script = script
        self._has_names = has_names
        self._tls = tls
        self.requests: list[Request] = []
        self.connections = 0
        self._ended = threading.Event()
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        origin = "https://localhost" if tls else "http://127.0.0.1"
        self.url = f"{origin}:{self._listener.getsockname()[1]}"

    @property
    def targets(self) -> list[str]:
        """Request targets in order of arrival."""
        return [request.target for request in self.requests]

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        # close alone does not wake the thread in accept
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._open:
            connection.close()

    def _accept(self) -> None:
        while not self._ended.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            if self._tls is not None:
                connection = self._tls.wrap_socket(connection, server_side=True)
            stream = connection.makefile("rb")
            while line := stream.readline():
                headers = {}
                while (header := stream.readline()) not in (b"\r\n", b""):
                    name, _, value = header.decode("latin-1").partition(":")
                    headers[name.strip().lower()] = value.strip()
                method, target, _ = line.decode("latin-1").split(" ")
                body = stream.read(int(headers.get("content-length", 0)))
                request = Request(target, headers, time.monotonic(), method, body)
                self.requests.append(request)
                if _NAMES.match(target) and not self._has_names:
                    answer = NO_ROUTE
                else:
                    answer = self.script(request)
                for piece in answer.pieces():
                    connection.sendall(piece)
                if answer.then == "hang":
                    self._ended.wait()
                if answer.then == "reset":
                    linger_for_no_time = struct.pack("ii", 1, 0)
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_for_no_time)
                if answer.then != "keep":
                    stream.close()
                    break
        except OSError:
            return
        finally:
            connection.close()
