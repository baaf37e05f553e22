"""Server of both APIs that uses almost no CPU, so that a benchmark measures the client.

The sandbox renders a pool of conversations once. Conversation i is number i, modulo the size of the
pool, with its own id and creation time, so a million of them need no more memory than the pool. The
Data API and the Conversations API v3 serve them; through v3, all are live and finished.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import time
from datetime import datetime, timedelta
from typing import Literal, NamedTuple
from urllib.parse import parse_qs, unquote_to_bytes

import orjson

from polyai.sandbox import Sandbox, SandboxConfig
from polyai.sandbox.payloads import DataPayloads, v3_row

AGENT_ID = "PROJECT-BOOKINGS"
ACCOUNT_ID = "ws-sandbox"
MAX_LIMIT = 100
MAX_V3_LIMIT = 1_000
MAX_POOL = 2_000
"""Number of conversations in which every oddity of the sandbox occurs."""

_PREFIX = f"/v1/agents/{AGENT_ID}/conversations".encode()
_V3_PATH = f"/v3/{ACCOUNT_ID}/{AGENT_ID}/conversations".encode()
_OWN_BYTES = 8
"""Hexadecimal digits at the end of the sandbox's ids: the number of the conversation."""
_CREATED_AT = b'"createdAt":"'
_STARTED_AT = b'"started_at":"'
_SECOND = len("2026-11-01T00:00:00")
_SPAN = timedelta(days=120)
SINCE, BEFORE = SandboxConfig.now - _SPAN, SandboxConfig.now
"""Range of the creation times of all conversations."""


class Template(NamedTuple):
    """A rendered document, split at the time of creation."""

    conversation_id: bytes
    before: bytes
    after: bytes

    @classmethod
    def of(cls, conversation_id: str, document: dict[str, object]) -> Template:
        """Renders the document."""
        before, mark, rest = orjson.dumps(document).partition(_CREATED_AT)
        return cls(conversation_id.encode(), before + mark, rest[_SECOND:])

    @classmethod
    def of_v3(cls, conversation_id: str, document: dict[str, object]) -> Template:
        """Renders a row of the Conversations API v3, whose times are whole seconds."""
        before, mark, rest = orjson.dumps(document).partition(_STARTED_AT)
        return cls(conversation_id.encode(), before + mark, b"Z" + rest[rest.index(b'"') :])

    def numbered(self, index: int) -> bytes:
        """Returns the id of conversation `index`, as long as the one in the pool."""
        return self.conversation_id[:-_OWN_BYTES] + b"%08x" % index

    def rendered(self, index: int, created_at: datetime) -> bytes:
        """Returns the document of conversation `index`."""
        second = created_at.isoformat(timespec="seconds").encode()
        body = self.before + second + self.after
        return body.replace(self.conversation_id, self.numbered(index))


class Api:
    """Responses for a number of conversations.

    Args:
        conversations: Number of conversations.
        seed: Seed of the sandbox.
        oddities: Whether payloads deviate from their documentation.
        detail: Size of the sandbox's details: about 15 KB, or one turn.
        pool: Maximum number of different conversations.
    """

    def __init__(
        self,
        conversations: int,
        seed: int,
        *,
        oddities: bool,
        detail: Literal["full", "small"],
        pool: int = MAX_POOL,
    ) -> None:
        self._count = conversations
        config = SandboxConfig(
            conversations=min(conversations, pool),
            seed=seed,
            oddities=oddities,
            detail=detail,
        )
        sandbox = Sandbox(config)
        payloads = DataPayloads(sandbox.oddities)
        calls = [sandbox.conversation(AGENT_ID, index) for index in range(config.conversations)]
        self._rows = [Template.of(call.conversation_id, payloads.row(call)) for call in calls]
        self._details = [Template.of(call.conversation_id, payloads.detail(call)) for call in calls]
        self._v3_rows = [
            Template.of_v3(call.conversation_id, v3_row(call, include_latency=True))
            for call in calls
            if call.environment == "live" and call.finished_at is not None
        ]
        self._first = SINCE.replace(tzinfo=None)
        self._pace = _SPAN / conversations
        self.requests = 0
        self._v3_cost = {"pages": 0, "probes": 0, "empty": 0, "rows": 0, "bytes": 0}

    def answer(self, target: bytes) -> bytes | None:
        """Returns the body for the target of a request; None for an unknown target."""
        path, _, query = target.partition(b"?")
        if path == b"/cost":
            cost = {"requests": self.requests, "cpu_seconds": time.process_time()}
            return orjson.dumps(cost | {"v3": self._v3_cost})
        self.requests += 1
        if path == _V3_PATH:
            return self._v3_page(parse_qs(query.decode()))
        if path == _PREFIX:
            options = parse_qs(query.decode())
            limit = min(int(options.get("limit", ["50"])[0]), MAX_LIMIT)
            return self._page(limit, int(options.get("offset", ["0"])[0]))
        if path.startswith(_PREFIX + b"/"):
            return self._detail(unquote_to_bytes(path[len(_PREFIX) + 1 :]))
        return None

    def _page(self, limit: int, offset: int) -> bytes:
        newest = self._count - 1 - offset
        rows = b",".join(
            self._rows[index % len(self._rows)].rendered(index, self._first + index * self._pace)
            for index in range(newest, max(newest - limit, -1), -1)
        )
        numbers = b'"count":%d,"limit":%d,"offset":%d' % (self._count, limit, offset)
        return b'{"conversations":[%b],%b}' % (rows, numbers)

    def _v3_page(self, options: dict[str, list[str]]) -> bytes:
        """Returns a page of [start_time, end_time), newest first; cursors are indexes of rows."""
        limit = min(int(options.get("limit", ["1000"])[0]), MAX_V3_LIMIT)
        oldest, newest = self._index_at(options, "start_time", 0), self._count - 1
        newest = min(newest, self._index_at(options, "end_time", self._count) - 1)
        if cursor := options.get("cursor"):
            newest = min(newest, int(cursor[0]))
        if options.get("client_env", ["live"]) != ["live"]:
            newest = -1
        last = max(newest - limit, oldest - 1)
        rows = self._v3_rows
        found = [
            rows[index % len(rows)].rendered(index, self._first + index * self._pace)
            for index in range(newest, last, -1)
        ]
        following = b'"%d"' % last if last >= oldest and found else b"null"
        body = b'{"conversations":[%b],"cursor":%b}' % (b",".join(found), following)
        cost = self._v3_cost
        cost["probes" if limit == 1 else "pages" if found else "empty"] += 1
        cost["rows"] += len(found)
        cost["bytes"] += len(body)
        return body

    def _index_at(self, options: dict[str, list[str]], name: str, otherwise: int) -> int:
        """Returns the first conversation that began at the time of an option, or later."""
        if name not in options:
            return otherwise
        since = datetime.fromisoformat(options[name][0]).replace(tzinfo=None) - self._first
        return max(0, -(-since // self._pace))

    def _detail(self, conversation_id: bytes) -> bytes | None:
        try:
            index = int(conversation_id[-_OWN_BYTES:], 16)
        except ValueError:
            return None
        template = self._details[index % len(self._details)]
        if index >= self._count or template.numbered(index) != conversation_id:
            return None
        return template.rendered(index, self._first + index * self._pace)


class Connection(asyncio.Protocol):
    """Keep-alive HTTP/1.1 for GET requests, one after the other.

    Args:
        api: The responses.
        delay_seconds: Time between a request and its response.
    """

    def __init__(self, api: Api, delay_seconds: float) -> None:
        self._api = api
        self._delay_seconds = delay_seconds
        self._received = b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # always, for TCP
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        *requests, self._received = (self._received + data).split(b"\r\n\r\n")
        for request in requests:
            answer = self._answer(request.split(b" ", 2)[1])
            if self._delay_seconds:
                loop = asyncio.get_running_loop()
                loop.call_later(self._delay_seconds, self._transport.write, answer)
            else:
                self._transport.write(answer)

    def _answer(self, target: bytes) -> bytes:
        body = self._api.answer(target)
        status = b"404 Not Found" if body is None else b"200 OK"
        head = b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        body = body or b"{}"
        return head % (status, len(body)) + body


async def _serve(api: Api, delay_seconds: float) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(api, delay_seconds), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    sys.stdout.write(f"http://127.0.0.1:{port}\n")
    sys.stdout.flush()
    stopped = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stopped.set)
    loop.add_signal_handler(signal.SIGINT, stopped.set)
    await stopped.wait()
    server.close()


def main() -> None:
    """Serves until terminated; the first line of output is the base URL."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.server", description=__doc__)
    parser.add_argument("--conversations", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--delay-ms", type=float, default=0)
    parser.add_argument("--oddities", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--detail", choices=("full", "small"), default="full")
    parser.add_argument("--pool", type=int, default=MAX_POOL, help="different conversations")
    options = parser.parse_args()
    api = Api(
        options.conversations,
        options.seed,
        oddities=options.oddities,
        detail=options.detail,
        pool=options.pool,
    )
    asyncio.run(_serve(api, options.delay_ms / 1000))


if __name__ == "__main__":
    main()
