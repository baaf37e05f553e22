"""A whole sandbox, and how it is served on loopback."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from starlette.applications import Starlette

from .app import build_app
from .config import SandboxConfig
from .faults import Faults
from .request_log import RequestLog
from .state import State

_HOST = "127.0.0.1"
_DEFAULTS = SandboxConfig()


class Sandbox(State):
    """A stand-in PolyAI API: its data, its misbehaviour and what it was asked.

    Attributes:
        app: the ASGI application.
        requests: every request to the API, not those under `/_sandbox/`.
        faults: failures to order.
        server: what serves it at the moment.
    """

    def __init__(self, config: SandboxConfig = _DEFAULTS) -> None:
        super().__init__(config)
        self.requests = RequestLog()
        self.faults = Faults(config.seed)
        self.server: uvicorn.Server | None = None
        self.app: Starlette = build_app(self, self.faults, self.requests, self._hang_up)

    def _hang_up(self, client: Any) -> None:
        """Resets the connection of a client address; the server's thread calls it."""
        if self.server is None:
            raise RuntimeError("only a served sandbox has connections to reset")
        for connection in list(self.server.server_state.connections):
            transport = connection.transport
            if transport is not None and transport.get_extra_info("peername") == tuple(client):
                # without lingering, closing sends a reset instead of an orderly end
                linger = struct.pack("ii", 1, 0)
                peer = transport.get_extra_info("socket")
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                transport.abort()


@contextmanager
def serve(sandbox: Sandbox, port: int = 0) -> Iterator[str]:
    """Serves on 127.0.0.1 from a thread until the block ends.

    Args:
        sandbox: what to serve.
        port: 0 for a free one.

    Yields:
        The base URL, without a slash at its end.

    Raises:
        OSError: if the port is taken.
    """
    # it listens from here on: who connects before the thread is up waits a moment
    listener = socket.create_server((_HOST, port), backlog=1024)
    # headers and body go out one by one: unasked, the kernel would hold the second back for 40 ms
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    base_url = f"http://{_HOST}:{listener.getsockname()[1]}"
    config = uvicorn.Config(
        sandbox.app,
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="critical",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=1,
    )
    server = sandbox.server = uvicorn.Server(config)
    thread = threading.Thread(
        target=server.run, args=([listener],), name="polyai-sandbox", daemon=True
    )
    thread.start()
    try:
        yield base_url
    finally:
        # answers that are still delayed are not waited for
        server.should_exit = server.force_exit = True
        thread.join()
        listener.close()
        sandbox.server = None
