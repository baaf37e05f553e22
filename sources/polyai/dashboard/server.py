"""Server of the app; addresses other than loopback need a token."""

from __future__ import annotations

import ipaddress
import socket
import threading
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import marimo
import uvicorn

from ..errors import ConfigurationError
from .dashboard import PAGES, PERIODS, Dashboard

PORT = 2718
"""Default port; a free port is used if it is taken."""

_APP = Path(__file__).with_name("app.py")

_HEAD = '<script>addEventListener("popstate", () => location.reload())</script>'
"""Makes the Back button work: marimo writes the address, but does not react to its changes."""

_REFUSED = b"The dashboard does not accept requests with this Host or Origin."

_LOCALHOST = "localhost"

_POLICY_VIOLATION = 1008
"""Status code for closing a web socket."""


def is_loopback(host: str) -> bool:
    """Returns True if a server on this address is reachable from this machine only."""
    if host == _LOCALHOST:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@contextmanager
def serve(
    dashboard: Dashboard, host: str = "127.0.0.1", port: int | None = None, token: str | None = None
) -> Iterator[str]:
    """Serves the dashboard from a thread until the block ends.

    Args:
        dashboard: The dashboard.
        host: Address to listen on.
        port: 0 for a free port; None for `PORT`, or a free port if it is taken.
        token: Token that browsers have to enter; None is allowed on loopback addresses only.

    Yields:
        The URL, without a trailing slash and without the token.

    Raises:
        ConfigurationError: The address is not a loopback address, and there is no token.
        OSError: The port is taken, or the host is not an address of this machine.
    """
    if not token and not is_loopback(host):
        raise ConfigurationError(
            f"--host {host} lets other machines read all conversations: set a token with --token"
        )
    listener = _listening(host, port)
    sessions = _Sessions(dashboard)
    app = (
        marimo.create_asgi_app(quiet=True, include_code=False, token=token, html_head=_HEAD)
        .with_app(path="/", root=str(_APP), middleware=[sessions.middleware])
        .build()
    )
    config = uvicorn.Config(
        _Guard(app, sessions, is_open=token is not None),
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
        yield f"http://{name}:{listener.getsockname()[1]}"
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

    async def end(self) -> None:
        """Ends their threads, which would keep the process alive, as marimo's own servers do."""
        await self._manager.shutdown()


class _Guard:
    """Rejects requests from other sites, and, without a token, for other host names.

    Other pages in the same browser could request the dashboard too: directly (cross-origin), or
    through a host name of theirs that resolves to this machine (DNS rebinding).
    """

    def __init__(self, app: Any, sessions: _Sessions, *, is_open: bool) -> None:
        self._app = app
        self._sessions = sessions
        self._is_open = is_open

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await self._sessions.end()
            await send({"type": "lifespan.shutdown.complete"})
        elif self._is_own(dict(scope["headers"])):
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": _POLICY_VIOLATION})
        else:
            await send({"type": "http.response.start", "status": 403, "headers": []})
            await send({"type": "http.response.body", "body": _REFUSED})

    def _is_own(self, headers: dict[bytes, bytes]) -> bool:
        host = headers.get(b"host", b"").decode("latin-1")
        origin = headers.get(b"origin")
        if origin is not None and urlsplit(origin.decode("latin-1")).netloc != host:
            return False
        return self._is_open or is_loopback(urlsplit(f"//{host}").hostname or "")
