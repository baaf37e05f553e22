"""Middleware: correlation ids, API keys, rate limit, faults and the request log."""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

from starlette.responses import HTMLResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .config import SandboxConfig
from .faults import Fault, Faults
from .keys import right_of
from .request_log import Request, RequestLog
from .responses import error, no_route

ResetConnection = Callable[[Any], None]
"""Resets the connection of a client address."""
CONTROL = "/_sandbox/"
KEY = "polyai.key"
"""Scope key of the rights of the request's API key."""
_CORRELATION_ID = b"x-polyai-correlation-id"
_HTML = "<html><head><title>{0}</title></head><body><h1>{0} Bad Gateway</h1></body></html>"


class Edge:
    """ASGI middleware; sets `scope["path"]` to the path as sent, percent-encoded.

    Ids may contain a slash, and only the encoded path distinguishes `%2F` from a separator.
    """

    def __init__(
        self,
        app: ASGIApp,
        config: SandboxConfig,
        faults: Faults,
        requests: RequestLog,
        reset_connection: ResetConnection,
    ) -> None:
        self._app = app
        self._config = config
        self._faults = faults
        self._requests = requests
        self._reset_connection = reset_connection
        self._numbers = itertools.count(1)
        self._tokens = math.inf if config.rate_limit is None else max(1.0, config.rate_limit)
        self._refilled_at = time.monotonic()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"] = scope["raw_path"].decode("latin-1")
        query = scope["query_string"].decode("latin-1")
        given = _header(scope, _CORRELATION_ID).decode("latin-1")
        correlation_id = given or f"00000000-0000-4000-8000-{next(self._numbers):012x}"
        scope["correlation_id"] = correlation_id
        is_control = path.startswith(CONTROL)

        def log(status: int) -> None:
            self._requests.add(Request(scope["method"], path, query, status))

        async def tagged(message: Message) -> None:
            if message["type"] == "http.response.start":
                if not is_control:
                    # before sending, so that a client that has the response finds it logged
                    log(message["status"])
                header = (_CORRELATION_ID, correlation_id.encode("latin-1"))
                message["headers"] = [*message["headers"], header]
            await send(message)

        if is_control:
            await self._app(scope, receive, tagged)
        elif not await self._respond(scope, path, query, receive, tagged):
            log(0)
            self._reset_connection(scope["client"])

    async def _respond(
        self, scope: Scope, path: str, query: str, receive: Receive, send: Send
    ) -> bool:
        """Sends a response; returns False if the connection is to be reset instead."""
        if self._config.delay_seconds:
            await asyncio.sleep(self._config.delay_seconds)
        if not self._has_token():
            busy = error(scope, 429, "RATE_LIMITED", "Too many requests.")
            busy.headers["retry-after"] = "1"
            await busy(scope, receive, send)
            return True
        fault = self._faults.draw(scope["method"], path, query)
        if fault is not None and fault.kind == "delay":
            await asyncio.sleep(fault.seconds)
            fault = None
        if fault is not None and fault.kind == "reset":
            return False
        app = self._refusal(scope) or self._app
        if fault is not None:
            await self._fail(fault, app, scope, receive, send)
        else:
            await app(scope, receive, send)
        return True

    def _has_token(self) -> bool:
        rate = self._config.rate_limit
        if rate is None:
            return True
        now = time.monotonic()
        self._tokens = min(max(1.0, rate), self._tokens + (now - self._refilled_at) * rate)
        self._refilled_at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def _refusal(self, scope: Scope) -> Response | None:
        key = _header(scope, b"x-api-key")
        right, agent_id = right_of([unquote(part) for part in scope["path"].split("/")[1:]])
        if right is None:
            # the gateway finds a route before it looks at the key
            return None
        rights = self._config.key(key.decode("latin-1"))
        scope[KEY] = rights
        refusal = rights.refusal(right, agent_id and self._config.id_of(agent_id))
        return None if refusal is None else error(scope, *refusal)

    async def _fail(
        self, fault: Fault, app: ASGIApp, scope: Scope, receive: Receive, send: Send
    ) -> None:
        response: Response
        if fault.kind in ("truncated", "truncated_json"):
            await app(scope, receive, _Truncated(send, fits_length=fault.kind == "truncated_json"))
            return
        if fault.kind == "html":
            response = HTMLResponse(_HTML.format(fault.status), fault.status)
        elif fault.kind == "no_route":
            response = no_route()
        elif fault.kind == "empty":
            response = Response(b"", media_type="application/json")
        else:
            status = 200 if fault.kind == "envelope" else fault.status
            response = error(scope, status, fault.error_code, "Failure injected by the sandbox.")
        if fault.retry_after is not None:
            response.headers["retry-after"] = fault.retry_after
        await response(scope, receive, send)


def _header(scope: Scope, wanted: bytes) -> bytes:
    return next((value for name, value in scope["headers"] if name == wanted), b"")


class _Truncated:
    """ASGI `send` that passes on only half of the body.

    Args:
        send: Next `send`.
        fits_length: Set content-length to the length of the half.
    """

    def __init__(self, send: Send, *, fits_length: bool) -> None:
        self._send = send
        self._fits_length = fits_length
        self._start: Message = {}

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._start = message
            return
        half = message["body"][: len(message["body"]) // 2]
        if self._fits_length:
            others = [pair for pair in self._start["headers"] if pair[0] != b"content-length"]
            self._start["headers"] = [*others, (b"content-length", str(len(half)).encode())]
        await self._send(self._start)
        # the server closes the connection after an incomplete response
        await self._send({**message, "body": half, "more_body": not self._fits_length})
