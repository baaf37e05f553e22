"""Endpoints of the PolyAI APIs: paths, parameters and validation of answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from functools import cached_property
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

from ..config.agent import DATA, V3, Agent
from ..errors import ConfigurationError
from .answers import Detail, Page, V3Page, V3Row
from .body import Body
from .decoding import NotAcceptedError, encode
from .failures import Subject
from .page_stream import Spool, read_page
from .row_hash import content_hash
from .transport import Transport

NEWEST_IDS = 100
"""Listed conversations from which a probe for an outage can choose."""

T = TypeVar("T")


_LONGEST_TOTAL = 13
"""Digits that a count of conversations never has."""


class DataApi(Transport):
    """Data API of one agent; see `Transport` for construction, threads and closing.

    Raises:
        ConfigurationError: The agent has no key of the Data API.
    """

    def __init__(self, agent: Agent, **options: Any) -> None:
        if problem := agent.problem_with(DATA):
            raise ConfigurationError(problem)
        super().__init__(agent, **options)

    @cached_property
    def _conversations_path(self) -> str:
        return f"/v1/agents/{encode_segment(self._agent.agent_id)}/conversations"

    def conversations(self, *, limit: int, offset: int) -> Page:
        """Fetches a page of the listing: `GET /v1/agents/{agentId}/conversations`.

        `limit` and `offset` default to the requested ones where the answer lacks them. An empty
        answer at offset 0 needs a `count`: nothing else shows that the agent has no conversation.

        Raises:
            ApiError: As for `Transport.get`.
        """

        def accept(payload: Any, body: bytes) -> Page:
            rows = payload.get("conversations") if isinstance(payload, dict) else None
            if not isinstance(rows, list):
                raise NotAcceptedError("has no list of conversations")
            count = _total(payload.get("count"))
            if count is None and not rows and offset == 0:
                raise NotAcceptedError("has no count of conversations")
            used_limit, skipped = _count(payload.get("limit")), _count(payload.get("offset"))
            return Page(
                [row if isinstance(row, dict) else {"": row} for row in rows],
                count or 0,
                limit if used_limit is None else used_limit,
                offset if skipped is None else skipped,
                has_count=count is not None,
            )

        path = f"{self._conversations_path}?limit={limit}&offset={offset}"
        return self.get(path, subject="agent", accept=accept)

    def newest_ids(self) -> list[str]:
        """Returns ids of the newest listed conversations, as far as their rows have one.

        Raises:
            ApiError: As for `Transport.get`.
        """
        rows = self.conversations(limit=NEWEST_IDS, offset=0).conversations
        return [str(row["conversationId"]) for row in rows if row.get("conversationId")]

    def detail(self, conversation_id: str) -> Detail:
        """Fetches a detail: `GET /v1/agents/{agentId}/conversations/{conversationId}`.

        Raises:
            ConversationError: This conversation cannot be read.
            ApiError: As for `Transport.get`.
        """

        def accept(payload: Any, body: bytes) -> Detail:
            if not isinstance(payload, dict) or payload.get("conversationId") != conversation_id:
                raise NotAcceptedError("is not the requested conversation")
            return Detail(payload, len(body))

        path = f"{self._conversations_path}/{encode_segment(conversation_id)}"
        return self.get(path, subject="conversation", accept=accept, exact=True)

    def conversation(self, conversation_id: str) -> dict[str, Any]:
        """Fetches the conversation of a detail: with turns, metrics and function events."""
        return self.detail(conversation_id).conversation

    def recording(
        self,
        conversation_id: str,
        direction: str,
        accept: Callable[[Body], T],
        *,
        redacted: bool,
    ) -> T:
        """Fetches a recording: `GET …/{conversationId}/audio?direction=…&redacted=…`.

        A key without access to personal data always gets the redacted recording, and the answer
        does not show which one it is.

        Args:
            conversation_id: The conversation.
            direction: combined, user or agent.
            accept: Reads the body as it arrives; raises `NotAcceptedError` for an incomplete one,
                `UnusableError` for another kind of file.
            redacted: Whether to request the redacted recording.

        Returns:
            The result of `accept`.

        Raises:
            ConversationError: The recording does not exist or cannot be read.
            ApiError: As for `Transport.get`.
        """
        query = urlencode({"direction": direction, "redacted": str(redacted).lower()})
        path = f"{self._conversations_path}/{encode_segment(conversation_id)}/audio?{query}"
        return self.stream(
            path,
            subject="conversation",
            accept=accept,
            media_type="audio/wav",
        )

    def annotate(
        self, conversation_id: str, turn_index: int, role: str, annotation_type: str
    ) -> None:
        """Adds an annotation: `POST …/{conversationId}/annotation`. Not idempotent.

        Args:
            conversation_id: The conversation.
            turn_index: Index of the turn, from 0.
            role: user or agent.
            annotation_type: missing_topic, wrong_transcript or wrong_info.

        Raises:
            UncertainError: The annotation may have been added.
            ConversationError: This conversation rejects it.
            ApiError: As for `Transport.post`.
        """
        item = {"turnId": turn_index, "role": role, "annotationType": annotation_type}
        self.post(
            f"{self._conversations_path}/{encode_segment(conversation_id)}/annotation",
            {"annotations": [item]},
            subject="conversation",
            accept=lambda payload, body: None,
            is_idempotent=False,
        )

    def set_note(self, conversation_id: str, note: str) -> None:
        """Replaces the note: `POST …/{conversationId}/note`. Idempotent.

        Raises:
            ConversationError: This conversation rejects it.
            ApiError: As for `Transport.post`.
        """
        self.post(
            f"{self._conversations_path}/{encode_segment(conversation_id)}/note",
            {"note": note},
            subject="conversation",
            accept=lambda payload, body: None,
            is_idempotent=True,
        )

    def start_debug_chat(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Starts a debug chat: `POST /v1/agents/{agentId}/debug-chat`.

        Args:
            options: Fields of the request as the API names them; `clientEnv` is required.

        Returns:
            The greeting: `conversationId`, `response`, `metadata`, `conversationEnded`, ….

        Raises:
            UncertainError: A chat may have started, which is then abandoned.
            ApiError: As for `Transport.post`, including `CHAT_DRAFT_NOT_EXIST`.
        """
        return self._chat("", options, "agent")

    def debug_chat_reply(self, chat_id: str, options: Mapping[str, Any]) -> dict[str, Any]:
        """Sends a message to a debug chat: `POST …/debug-chat/{conversationId}`.

        Args:
            chat_id: `conversationId` of the greeting.
            options: Fields of the request as the API names them; `clientEnv` and `message`.

        Returns:
            The reply, in the shape of the greeting.

        Raises:
            UncertainError: The agent may have received the message.
            ConversationError: The chat has ended or is unknown, including `CHAT_TIMEOUT`.
            ApiError: As for `Transport.post`.
        """
        return self._chat(f"/{encode_segment(chat_id)}", options, "conversation")

    def _chat(self, chat: str, options: Mapping[str, Any], subject: Subject) -> dict[str, Any]:
        def accept(payload: Any, body: bytes) -> dict[str, Any]:
            if not isinstance(payload, dict) or not isinstance(payload.get("conversationId"), str):
                raise NotAcceptedError("is not a debug chat reply")
            return payload

        path = f"/v1/agents/{encode_segment(self._agent.agent_id)}/debug-chat{chat}"
        return self.post(path, options, subject=subject, accept=accept, is_idempotent=False)


class ConversationsV3(Transport):
    """Conversations API v3 of one agent; see `Transport` for construction, threads and closing.

    Raises:
        ConfigurationError: The agent has no account id, or its region has no such API.
    """

    source_api = V3

    largest_page = 1_000
    """Largest page to request; a listing lowers it where the service fails with larger ones."""

    def __init__(self, agent: Agent, **options: Any) -> None:
        if (problem := agent.problem_with(V3)) or not agent.account_id:
            raise ConfigurationError(problem)
        super().__init__(
            agent, base_url=agent.v3_base_url, api_key=agent.v3_api_key or None, **options
        )
        account, project = encode_segment(agent.account_id), encode_segment(agent.agent_id)
        self._conversations_path = f"/v3/{account}/{project}/conversations"

    def conversations(
        self,
        *,
        environment: str,
        since: datetime | None,
        before: datetime | None,
        limit: int,
        cursor: str | None = None,
        offset: int | None = None,
        max_timeouts: int | None = None,
    ) -> V3Page:
        """Fetches a page: `GET /v3/{account_id}/{project_id}/conversations`, with latencies.

        Args:
            environment: live, sandbox or pre-release.
            since: Start of the window; None for no lower bound.
            before: End of the window; None for now.
            limit: Conversations to request, 1 to 1,000.
            cursor: `cursor` of the previous page; None for the first one.
            offset: Rows to skip, where the previous page has no cursor.
            max_timeouts: See `Retrier.run`.

        Raises:
            ApiError: As for `Transport.get`.
        """
        parameters = {
            "client_env": environment,
            "start_time": since.isoformat() if since else None,
            "end_time": before.isoformat() if before else None,
            "limit": limit,
            "include_latency": "true",
            "cursor": cursor,
            "offset": offset,
        }
        query = urlencode({name: value for name, value in parameters.items() if value is not None})
        path = f"{self._conversations_path}?{query}"
        return self.stream(path, subject="agent", accept=self._read_page, max_timeouts=max_timeouts)

    def _read_page(self, chunks: Iterator[bytes]) -> V3Page:
        spool, rows, malformed = Spool(), list[V3Row](), dict[str, str]()

        def take(row: dict[str, Any]) -> None:
            conversation_id, hashed = row.get("id"), content_hash(row)
            if not isinstance(conversation_id, str) or not conversation_id:
                malformed[hashed] = "has no id"
                return
            document = spool.put(encode(row))
            rows.append(V3Row(conversation_id, row.get("started_at"), hashed, document))

        rest = read_page(
            chunks, "conversations", take, malformed.__setitem__, max_item=self.max_body
        )
        cursor, next_offset = rest.get("cursor"), rest.get("next_offset")
        if not isinstance(cursor, str | None):
            raise NotAcceptedError("has a cursor that is not text")
        if next_offset is not None and _count(next_offset) is None:
            raise NotAcceptedError("has a next_offset that is not an integer")
        return V3Page(rows, spool, cursor or None, next_offset, malformed)


def encode_segment(name: str) -> str:
    """Encodes `name` as one segment of a URL path, slashes and dots included."""
    encoded = quote(name, safe="")
    return encoded.replace(".", "%2E") if name in (".", "..") else encoded


def _total(value: Any) -> int | None:
    """Returns a plausible number of rows, also from text; None for anything else."""
    if isinstance(value, str) and value.isascii() and value.isdecimal():
        value = int(value[:_LONGEST_TOTAL])
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    found = _count(value)
    return found if found is not None and len(str(found)) < _LONGEST_TOTAL else None


def _count(value: Any) -> int | None:
    """Returns an integer that is not negative; None for anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
