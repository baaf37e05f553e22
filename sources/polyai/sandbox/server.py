"""Sandbox, and its server on the loopback interface."""

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
    """Simulated PolyAI API: its data, its faults and the requests it received.

    Attributes:
        app: The ASGI application.
        requests: Log of the requests to the API, without those under `/_sandbox/`.
        faults: Injected failures.
        server: The server while it is served; None otherwise.
    """

    def __init__(self, config: SandboxConfig = _DEFAULTS) -> None:
        super().__init__(config)
        self.requests = RequestLog()
        self.faults = Faults(config.seed)
        self.server: uvicorn.Server | None = None
        self.app: Starlette = build_app(self, self.faults, self.requests, self._reset_connection)

    def _reset_connection(self, client: Any) -> None:
        """Resets the connection of a client address. To be called in the server's thread."""
        if self.server is None:
            raise RuntimeError("only a served sandbox has connections to reset")
        for connection in list(self.server.server_state.connections):
            transport = connection.transport
            if transport is not None and transport.get_extra_info("peername") == tuple(client):
                # with a linger time of zero, closing sends a reset
                linger = struct.pack("ii", 1, 0)
                peer = transport.get_extra_info("socket")
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                transport.abort()


@contextmanager
def serve(sandbox: Sandbox, port: int = 0) -> Iterator[str]:
    """Serves a sandbox on 127.0.0.1, in a thread, within the block.

    Args:
        sandbox: The sandbox.
        port: Port to listen on; 0 for any free port.

    Yields:
        The base URL, without a trailing slash.

    Raises:
        OSError: The port is in use.
    """
    # listening before the thread starts, so that early connections wait
    listener = socket.create_server((_HOST, port), backlog=1024)
    # headers and body are sent separately: otherwise the kernel delays the body by 40 ms
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
        # do not wait for delayed responses
        server.should_exit = server.force_exit = True
        thread.join()
        listener.close()
        sandbox.server = None
