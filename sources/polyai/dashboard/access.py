"""Access to the dashboard: token, session cookie, and headers against other sites."""

from __future__ import annotations

import html
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterable, MutableMapping
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

from ..config.regions import is_loopback
from ..errors import ConfigurationError

SHORTEST_TOKEN = 16
"""Characters of a chosen token."""

WRONG_PER_MINUTE = 10
"""Wrong tokens, from whomever, after which no token is looked at for the rest of the minute."""

_MINUTE_SECONDS = 60.0

_MAX_FORM_BYTES = 4_096

_LOGIN = "/login"

_PUBLIC = "/manifest.json"
"""File of the package that browsers request without cookies."""

_POLICY_VIOLATION = 1008
"""Status code for closing a web socket."""

_POLICY = (
    "default-src 'self'; script-src 'self' 'nonce-{nonce}'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; "
    "worker-src 'self' blob:; object-src 'none'; base-uri 'self'; form-action 'self'; "
    "frame-ancestors 'none'"
)

_HEADERS = (
    (b"x-frame-options", b"DENY"),
    (b"x-content-type-options", b"nosniff"),
    # not `no-referrer`, with which browsers send no origin
    (b"referrer-policy", b"same-origin"),
)

_REFUSED = "The dashboard does not accept requests with this Host or Origin."

_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>PolyAI warehouse</title>{head}
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>:root {{ color-scheme: light dark; font: 16px system-ui, sans-serif }}
body {{ max-width: 24rem; margin: 20vh auto; padding: 0 1rem }}
input, button {{ font: inherit; padding: .5rem }}</style></head><body>{body}</body></html>"""

_FORM = (
    '<p>{text}</p><form method="post" action="login"><input type="password" name="token" '
    'aria-label="Token" autocomplete="off" autofocus required> <button>Open</button></form>'
)

_ENTER = "Enter the token that the command <code>dashboard</code> printed."

Scope = MutableMapping[str, Any]
Headers = list[tuple[bytes, bytes]]


class Access:
    """Tokens that open the dashboard, and the session of the browsers that had one.

    Args:
        token: Chosen token; None for a random one.
        clock: Monotonic time in seconds.

    Attributes:
        token: The token.
        session: Value of the cookie.

    Raises:
        ConfigurationError: The chosen token is too short.
    """

    def __init__(
        self, token: str | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        if token is not None and len(token) < SHORTEST_TOKEN:
            raise ConfigurationError(
                f"the token has {len(token)} characters: choose at least {SHORTEST_TOKEN}, or none "
                "for a random one (POLYAI_DASHBOARD_TOKEN, --token)"
            )
        self.token = token or secrets.token_urlsafe(32)
        self.session = secrets.token_urlsafe(32)
        self._once: set[str] = set()
        self._wrong: deque[float] = deque()
        self._clock = clock

    def once(self) -> str:
        """Returns a token that is accepted once, for the arguments of a command."""
        token = secrets.token_urlsafe(32)
        self._once.add(token)
        return token

    @property
    def is_blocked(self) -> bool:
        """True if too many tokens were wrong in the last minute."""
        while self._wrong and self._wrong[0] <= self._clock() - _MINUTE_SECONDS:
            self._wrong.popleft()
        return len(self._wrong) >= WRONG_PER_MINUTE

    def accepts(self, token: str) -> bool:
        """Checks a token, in constant time; a wrong one counts."""
        if self.is_blocked:
            return False
        if _equal(token, self.token):
            return True
        for once in self._once:
            if _equal(token, once):
                self._once.remove(once)
                return True
        self._wrong.append(self._clock())
        return False


def _equal(given: str, expected: str) -> bool:
    return secrets.compare_digest(given.encode("utf-8", "replace"), expected.encode())


class Guard:
    """ASGI middleware that lets only browsers with the session cookie in.

    Rejects requests from other sites as well: pages in the same browser could request the dashboard
    directly (cross-origin), or through a host name of theirs that resolves to this machine (DNS
    rebinding).

    Args:
        app: The dashboard, for HTTP and web sockets.
        access: Tokens and session.
        cookie: Name of the cookie.
        is_open: Whether any host name is accepted, as behind a proxy.
    """

    def __init__(self, app: Any, access: Access, cookie: str, *, is_open: bool) -> None:
        self._app = app
        self._access = access
        self._cookie = cookie
        self._is_open = is_open

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        headers: dict[bytes, bytes] = dict(scope["headers"])
        is_known = self._is_own(headers) and self._has_session(headers)
        if scope["type"] == "websocket":
            if is_known:
                await self._app(scope, receive, send)
            else:
                await send({"type": "websocket.close", "code": _POLICY_VIOLATION})
        elif not self._is_own(headers):
            await _answer(send, HTTPStatus.FORBIDDEN, _REFUSED)
        elif scope["path"] == _LOGIN and scope["method"] == "POST":
            form = parse_qs((await _body(receive)).decode("latin-1"), encoding="utf-8")
            await self._log_in(scope, send, next(iter(form.get("token", ())), ""), "")
        elif token := _query(scope).get("token"):
            others = {name: value for name, value in _query(scope).items() if name != "token"}
            await self._log_in(scope, send, token, urlencode(others))
        elif is_known or scope["path"] == _PUBLIC:
            await self._app(scope, receive, _with_policy(send))
        else:
            await self._ask(send)

    async def _log_in(self, scope: Scope, send: Any, token: str, query: str) -> None:
        if not self._access.accepts(token):
            await self._ask(send)
            return
        secure = "; Secure" if scope["scheme"] == "https" else ""
        cookie = f"{self._cookie}={self._access.session}; Path=/; HttpOnly; SameSite=Strict{secure}"
        # not a redirect: after a click on another site, browsers would not send the cookie with it
        target = html.escape(f"./?{query}" if query else "./")
        head = f'<meta http-equiv="refresh" content="0;url={target}">'
        page = _PAGE.format(head=head, body=f'<a href="{target}">Open the dashboard</a>')
        await _answer(send, HTTPStatus.OK, page, [(b"set-cookie", cookie.encode())])

    async def _ask(self, send: Any) -> None:
        """Asks for the token, or for a pause."""
        if self._access.is_blocked:
            page = _PAGE.format(
                head="", body="<p>Too many wrong tokens. Try again in a minute.</p>"
            )
            await _answer(send, HTTPStatus.TOO_MANY_REQUESTS, page, [(b"retry-after", b"60")])
        else:
            page = _PAGE.format(head="", body=_FORM.format(text=_ENTER))
            await _answer(send, HTTPStatus.UNAUTHORIZED, page)

    def _has_session(self, headers: dict[bytes, bytes]) -> bool:
        # not by http.cookies, which reads no more after an invalid cookie of another server here
        cookies = headers.get(b"cookie", b"").decode("latin-1").split(";")
        pairs = [cookie.strip().partition("=") for cookie in cookies]
        return any(
            name == self._cookie and _equal(value, self._access.session) for name, _, value in pairs
        )

    def _is_own(self, headers: dict[bytes, bytes]) -> bool:
        host = headers.get(b"host", b"").decode("latin-1")
        origin = headers.get(b"origin")
        if origin is not None and urlsplit(origin.decode("latin-1")).netloc != host:
            return False
        return self._is_open or is_loopback(urlsplit(f"//{host}").hostname or "")


def _query(scope: Scope) -> dict[str, str]:
    return dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))


async def _body(receive: Any) -> bytes:
    """Returns the body of a form; the beginning of one that is too long."""
    content = b""
    while len(content) < _MAX_FORM_BYTES:
        message = await receive()
        content += message.get("body", b"")
        if not message.get("more_body"):
            break
    return content[:_MAX_FORM_BYTES]


async def _answer(
    send: Any, status: HTTPStatus, page: str, more: Iterable[tuple[bytes, bytes]] = ()
) -> None:
    content = page.encode()
    headers = [
        *_HEADERS,
        (b"content-security-policy", _policy("none")),
        (b"cache-control", b"no-store"),
        (b"content-type", b"text/html; charset=utf-8"),
        (b"content-length", str(len(content)).encode()),
        *more,
    ]
    await send({"type": "http.response.start", "status": int(status), "headers": headers})
    await send({"type": "http.response.body", "body": content})


def _policy(nonce: str) -> bytes:
    return _POLICY.format(nonce=nonce).encode()


def _with_policy(send: Any) -> Any:
    """Wraps `send`: adds a policy to each answer, and its nonce to the scripts of a page.

    The pages are files of marimo, without data: that arrives through the web socket.
    """
    nonce = secrets.token_urlsafe(16)
    start: dict[str, Any] = {}
    content = b""

    async def send_with_policy(message: dict[str, Any]) -> None:
        nonlocal start, content
        if message["type"] == "http.response.start":
            kept = [
                (name, value)
                for name, value in message["headers"]
                if name.lower() not in {one for one, _ in _HEADERS}
            ]
            policy = (b"content-security-policy", _policy(nonce))
            message = {**message, "headers": [*kept, *_HEADERS, policy]}
            if not dict(kept).get(b"content-type", b"").startswith(b"text/html"):
                await send(message)
                return
            start = message
        elif not start:
            await send(message)
        else:
            content += message.get("body", b"")
            if not message.get("more_body"):
                page = content.replace(b"<script", f'<script nonce="{nonce}"'.encode())
                await send({**start, "headers": _for_page(start["headers"], len(page))})
                await send({"type": "http.response.body", "body": page})

    return send_with_policy


def _for_page(headers: Headers, length: int) -> Headers:
    """Returns the headers of a page of this length that is never cached: it has a nonce."""
    replaced = (b"content-length", b"etag", b"cache-control")
    return [
        *((name, value) for name, value in headers if name.lower() not in replaced),
        (b"content-length", str(length).encode()),
        (b"cache-control", b"no-store"),
    ]
