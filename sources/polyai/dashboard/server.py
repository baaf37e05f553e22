"""Server of the app."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import marimo
import uvicorn

from ..config.regions import is_loopback
from .access import Access, Guard
from .dashboard import PAGES, PERIODS, Dashboard

PORT = 2718
"""Default port; a free port is used if it is taken."""

_APP = Path(__file__).with_name("app.py")

_HEAD = '<script>addEventListener("popstate", () => location.reload())</script>'
"""Makes the Back button work: marimo writes the address, but does not react to its changes."""


@dataclass(frozen=True)
class Served:
    """A dashboard that is served.

    Attributes:
        url: Its URL, without a trailing slash and without a token.
        access: Its tokens.
    """

    url: str
    access: Access

    @property
    def token_url(self) -> str:
        """URL with the token."""
        return f"{self.url}/?token={quote(self.access.token, safe='')}"

    @property
    def once_url(self) -> str:
        """URL with a new token that is accepted once: other users see the arguments of commands."""
        return f"{self.url}/?token={self.access.once()}"


@contextmanager
def serve(
    dashboard: Dashboard, host: str = "127.0.0.1", port: int | None = None, token: str | None = None
) -> Iterator[Served]:
    """Serves the dashboard from a thread until the block ends.

    Args:
        dashboard: The dashboard.
        host: Address to listen on.
        port: 0 for a free port; None for `PORT`, or a free port if it is taken.
        token: Token that browsers have to enter; None for a random one. With a chosen one, any
            host name is accepted, as behind a proxy.

    Yields:
        The URL and the token.

    Raises:
        ConfigurationError: The token is too short.
        OSError: The port is taken, or the host is not an address of this machine.
    """
    access = Access(token or None)
    listener = _listening(host, port)
    sessions = _Sessions(dashboard)
    app = (
        marimo.create_asgi_app(quiet=True, include_code=False, html_head=_HEAD)
        .with_app(path="/", root=str(_APP), middleware=[sessions.middleware])
        .build()
    )
    port = listener.getsockname()[1]
    # browsers send cookies to all ports of a host
    guard = Guard(
        app,
        access,
        f"polyai_dashboard_{port}",
        is_open=bool(token) or not is_loopback(host),
    )
    config = uvicorn.Config(
        sessions.ended_by(guard),
        ws="websockets-sansio",
        lifespan="on",
        log_config=None,
        log_level="critical",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(
        target=server.run, args=([listener],), name="polyai-dashboard", daemon=True
    )
    thread.start()
    try:
        name = f"[{host}]" if ":" in host else host
        yield Served(f"http://{name}:{port}", access)
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


def _listening(host: str, port: int | None) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    if port is None:
        with suppress(OSError):
            return socket.create_server((host, PORT), family=family)
    return socket.create_server((host, port or 0), family=family)


class _Sessions:
    """Sessions of browsers: passes the dashboard to each, and ends them on shutdown."""

    def __init__(self, dashboard: Dashboard) -> None:
        self._meta = {"dashboard": dashboard, "pages": PAGES, "periods": PERIODS}
        self._manager: Any = None

    def middleware(self, app: Any) -> Any:
        """Wraps the app: adds the `meta` that its cells read to each connection."""
        self._manager = app.state.session_manager

        async def with_meta(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
            await app({**scope, "meta": self._meta}, receive, send)

        return with_meta

    def ended_by(self, app: Any) -> Any:
        """Wraps the app: a shutdown ends the threads of the sessions, as marimo's servers do.

        They would keep the process alive.
        """

        async def with_lifespan(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
            if scope["type"] != "lifespan":
                await app(scope, receive, send)
                return
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await self._manager.shutdown()
            await send({"type": "lifespan.shutdown.complete"})

        return with_lifespan
