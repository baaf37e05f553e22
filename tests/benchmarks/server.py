"""A Data API that costs next to no CPU, so that a benchmark measures the client.

The sandbox renders a pool of conversations once. Conversation i is the pool's i-th, round and
round, with an id and a time of creation of its own: so 100,000 of them take no more memory than
the pool.
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
from polyai.sandbox.payloads import DataPayloads

AGENT_ID = "PROJECT-BOOKINGS"
MAX_LIMIT = 100
MAX_POOL = 2_000
"""Within so many conversations every oddity of the sandbox occurs."""

_PREFIX = f"/v1/agents/{AGENT_ID}/conversations".encode()
_OWN_BYTES = 8
"""The sandbox's ids end with the conversation's number in so many hexadecimal digits."""
_CREATED_AT = b'"createdAt":"'
_SECOND = len("2026-11-01T00:00:00")
_SPAN = timedelta(days=120)


class Template(NamedTuple):
    """A rendered document, cut where the time of creation stands."""

    conversation_id: bytes
    before: bytes
    after: bytes

    @classmethod
    def of(cls, conversation_id: str, document: dict[str, object]) -> Template:
        """Renders the document."""
        before, mark, rest = orjson.dumps(document).partition(_CREATED_AT)
        return cls(conversation_id.encode(), before + mark, rest[_SECOND:])

    def numbered(self, index: int) -> bytes:
        """The id of conversation `index`; as long as the pool's, so that lengths stay."""
        return self.conversation_id[:-_OWN_BYTES] + b"%08x" % index

    def rendered(self, index: int, created_at: datetime) -> bytes:
        """The document of conversation `index`."""
        second = created_at.isoformat(timespec="seconds").encode()
        body = self.before + second + self.after
        return body.replace(self.conversation_id, self.numbered(index))


class Api:
    """Answers for a number of conversations.

    Args:
        conversations: How many there are.
        seed: Of the sandbox.
        oddities: Whether payloads deviate from their documentation.
        detail: The sandbox's size of a detail: about 15 KB, or one turn.
    """

    def __init__(
        self, conversations: int, seed: int, *, oddities: bool, detail: Literal["full", "small"]
    ) -> None:
        self._count = conversations
        config = SandboxConfig(
            conversations=min(conversations, MAX_POOL),
            seed=seed,
            oddities=oddities,
            detail=detail,
        )
        sandbox = Sandbox(config)
        payloads = DataPayloads(sandbox.oddities)
        calls = [sandbox.conversation(AGENT_ID, index) for index in range(config.conversations)]
        self._rows = [Template.of(call.conversation_id, payloads.row(call)) for call in calls]
        self._details = [Template.of(call.conversation_id, payloads.detail(call)) for call in calls]
        self._first = config.now.replace(tzinfo=None) - _SPAN
        self._pace = _SPAN / conversations
        self.requests = 0

    def answer(self, target: bytes) -> bytes | None:
        """The body for a request's target, None where there is nothing."""
        path, _, query = target.partition(b"?")
        if path == b"/cost":
            return orjson.dumps({"requests": self.requests, "cpu_seconds": time.process_time()})
        self.requests += 1
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
        api: What answers.
        delay_seconds: Time between a request and its answer.
    """

    def __init__(self, api: Api, delay_seconds: float) -> None:
        self._api = api
        self._delay_seconds = delay_seconds
        self._received = b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # that of tcp always is
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
    """Serves until it is terminated; the first line says where."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.server", description=__doc__)
    parser.add_argument("--conversations", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--delay-ms", type=float, default=0)
    parser.add_argument("--oddities", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--detail", choices=("full", "small"), default="full")
    options = parser.parse_args()
    api = Api(options.conversations, options.seed, oddities=options.oddities, detail=options.detail)
    asyncio.run(_serve(api, options.delay_ms / 1000))


if __name__ == "__main__":
    main()
