"""The server of the app: loopback without a token, anything else with one."""

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
"""Tried where no port is given; where it is taken, a free one is."""

_APP = Path(__file__).with_name("app.py")

_HEAD = '<script>addEventListener("popstate", () => location.reload())</script>'
"""marimo writes the address but does not follow it: with this the browser's Back does go back."""

_REFUSED = b"The dashboard does not answer to this address."

_LOCALHOST = "localhost"

_POLICY_VIOLATION = 1008
"""What a web socket is closed with."""


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server that listens there."""
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
    """Serves from a thread until the block ends.

    Args:
        dashboard: What is shown.
        host: Where to listen.
        port: 0 for a free one; None for `PORT` if it is.
        token: What a browser has to know; None for none, on loopback alone.

    Yields:
        The URL, without a slash at its end and without the token.

    Raises:
        ConfigurationError: Others would reach it without a token.
        OSError: The port is taken, or the host is not of this machine.
    """
    if not token and not is_loopback(host):
        raise ConfigurationError(
            f"--host {host} lets others read every conversation: it needs a token too"
        )
    listener = _listening(host, port)
    sessions = _Sessions(dashboard)
    app = (
        marimo.create_asgi_app(quiet=True, include_code=False, token=token, html_head=_HEAD)
        .with_app(path="/", root=str(_APP), middleware=[sessions.over])
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
    """The readers' sessions with the app: each is handed the dashboard, and is ended at the end."""

    def __init__(self, dashboard: Dashboard) -> None:
        self._meta = {"dashboard": dashboard, "pages": PAGES, "periods": PERIODS}
        self._manager: Any = None

    def over(self, app: Any) -> Any:
        """The app, with what its cells find in each connection's `meta`."""
        self._manager = app.state.session_manager

        async def handing(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
            await app({**scope, "meta": self._meta}, receive, send)

        return handing

    async def end(self) -> None:
        """Ends their threads, which would keep the process: marimo does so in its own servers."""
        await self._manager.shutdown()


class _Guard:
    """Answers its own pages alone, and without a token only who asks for this machine by its name.

    Any other page in the reader's browser could ask for the dashboard too, directly or by a name
    that it lets lead to this machine.
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
