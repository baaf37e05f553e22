"""The endpoints of the PolyAI APIs: which path, and what an answer has to hold."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from http import HTTPStatus
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

from ..config.settings import Agent, how_to_set
from ..errors import AccessError, ConfigurationError, Subject
from .decoding import NotAcceptedError, decode
from .page_stream import Document, Spool, packed, read_page, row_hash
from .transport import Transport

T = TypeVar("T")


@dataclass(frozen=True)
class Page:
    """One page of the listing, newest conversation first.

    Attributes:
        conversations: rows as the API sends them; without turns, metrics and function events.
        count: conversations that the agent has in all.
        limit: page size that the server used, maybe smaller than asked.
        offset: rows that it skipped.
    """

    conversations: list[dict[str, Any]]
    count: int
    limit: int
    offset: int


@dataclass(frozen=True)
class V3Page:
    """One page of the Conversations API v3, in the API's order.

    Attributes:
        rows: conversations.
        spool: where the rows are.
        cursor: of the next page; None at the end.
    """

    rows: list[V3Row]
    spool: Spool
    cursor: str | None


@dataclass(frozen=True, slots=True)
class V3Row:
    """One conversation of a page, as far as it stays in memory.

    Attributes:
        conversation_id: its id.
        started_at: as sent.
        row_hash: tells a change of the row.
        document: the row.
    """

    conversation_id: str
    started_at: Any
    row_hash: str
    document: Document


class DataApi(Transport):
    """The Data API of one agent; constructed, shared and closed as any `Transport`."""

    @cached_property
    def _conversations_path(self) -> str:
        return f"/v1/agents/{encode_segment(self._agent.agent_id)}/conversations"

    def conversations(self, *, limit: int, offset: int) -> Page:
        """One page of the listing: `GET /v1/agents/{agentId}/conversations`.

        Where the answer does not tell its `limit` and `offset`, those that were asked for stand
        in; without a `count` it is not accepted, for nothing else tells when the listing ends.

        Raises:
            ApiError: as `Transport.get` does; other than `UnavailableError` it is for good.
        """

        def accept(payload: Any, body: bytes) -> Page:
            rows = payload.get("conversations") if isinstance(payload, dict) else None
            if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
                raise NotAcceptedError("has no list of conversations")
            count = _whole(payload.get("count"))
            if count is None:
                raise NotAcceptedError("does not tell the count of conversations")
            used_limit, skipped = _whole(payload.get("limit")), _whole(payload.get("offset"))
            return Page(
                rows,
                count,
                limit if used_limit is None else used_limit,
                offset if skipped is None else skipped,
            )

        path = f"{self._conversations_path}?limit={limit}&offset={offset}"
        return self.get(path, subject="agent", accept=accept)

    def conversation_body(self, conversation_id: str) -> bytes:
        """One conversation's detail: `GET /v1/agents/{agentId}/conversations/{conversationId}`.

        Returns:
            The document's JSON as it came, known to be whole; `decode` reads it. Parsed, it would
            take five times the memory while it waits to be shaped.

        Raises:
            ConversationError: where this conversation cannot be read, but others may.
            ApiError: as `Transport.get` does.
        """

        def accept(payload: Any, body: bytes) -> bytes:
            if not isinstance(payload, dict) or payload.get("conversationId") != conversation_id:
                raise NotAcceptedError("is not the conversation that was asked for")
            return body

        path = f"{self._conversations_path}/{encode_segment(conversation_id)}"
        return self.get(path, subject="conversation", accept=accept)

    def conversation(self, conversation_id: str) -> dict[str, Any]:
        """The same, read: with turns, metrics and function events."""
        detail: dict[str, Any] = decode(self.conversation_body(conversation_id))
        return detail

    def recording(
        self,
        conversation_id: str,
        direction: str,
        accept: Callable[[Iterable[bytes]], T],
        *,
        redacted: bool,
    ) -> T:
        """One recording: `GET …/{conversationId}/audio?direction=…&redacted=…`.

        Without access to personal data, a key is given the redacted one whatever it asks for, and
        nothing in the answer tells.

        Args:
            conversation_id: The conversation.
            direction: combined, user or agent.
            accept: Takes the body as it arrives; raises NotAcceptedError for one that is not whole.
            redacted: Which of the two to ask for.

        Returns:
            What `accept` returns.

        Raises:
            ConversationError: where there is no such recording, or it cannot be had.
            ApiError: as `Transport.get` does.
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
        """Adds an annotation: `POST …/{conversationId}/annotation`; twice leaves two.

        Args:
            conversation_id: The conversation.
            turn_index: The turn, counted from 0.
            role: user or agent.
            annotation_type: missing_topic, wrong_transcript or wrong_info.

        Raises:
            UncertainError: where it may have been added.
            ConversationError: where this conversation does not take it.
            ApiError: as `Transport.post` does.
        """
        item = {"turnId": turn_index, "role": role, "annotationType": annotation_type}
        self.post(
            f"{self._conversations_path}/{encode_segment(conversation_id)}/annotation",
            {"annotations": [item]},
            subject="conversation",
            accept=lambda payload, body: None,
            is_repeatable=False,
        )

    def set_note(self, conversation_id: str, note: str) -> None:
        """Replaces the note: `POST …/{conversationId}/note`; twice is as good as once.

        Raises:
            ConversationError: where this conversation does not take it.
            ApiError: as `Transport.post` does.
        """
        self.post(
            f"{self._conversations_path}/{encode_segment(conversation_id)}/note",
            {"note": note},
            subject="conversation",
            accept=lambda payload, body: None,
            is_repeatable=True,
        )

    def start_debug_chat(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Begins a debug chat: `POST /v1/agents/{agentId}/debug-chat`.

        Args:
            options: As the API names them; `clientEnv` at least.

        Returns:
            The greeting: `conversationId`, `response`, `metadata`, `conversationEnded`, ….

        Raises:
            UncertainError: where a chat may have begun; nobody will go on with it.
            ApiError: as `Transport.post` does; `CHAT_DRAFT_NOT_EXIST` among them.
        """
        return self._chatted("", options, "agent")

    def debug_chat_reply(self, chat_id: str, options: Mapping[str, Any]) -> dict[str, Any]:
        """Says something in a debug chat: `POST …/debug-chat/{conversationId}`.

        Args:
            chat_id: `conversationId` of its greeting.
            options: As the API names them; `clientEnv` and `message`.

        Returns:
            The reply, in the shape of the greeting.

        Raises:
            UncertainError: where the agent may have heard it.
            ConversationError: where the chat is over or unknown; `CHAT_TIMEOUT` among them.
            ApiError: as `Transport.post` does.
        """
        return self._chatted(f"/{encode_segment(chat_id)}", options, "conversation")

    def _chatted(self, chat: str, options: Mapping[str, Any], subject: Subject) -> dict[str, Any]:
        def accept(payload: Any, body: bytes) -> dict[str, Any]:
            if not isinstance(payload, dict) or not isinstance(payload.get("conversationId"), str):
                raise NotAcceptedError("is not a reply of a debug chat")
            return payload

        path = f"/v1/agents/{encode_segment(self._agent.agent_id)}/debug-chat{chat}"
        return self.post(path, options, subject=subject, accept=accept, is_repeatable=False)


class ConversationsV3(Transport):
    """The Conversations API v3 of one agent; constructed, shared and closed as any `Transport`.

    Raises:
        ConfigurationError: where the agent's account is not known, or its region has no such API.
    """

    def __init__(self, agent: Agent, **options: Any) -> None:
        if not agent.v3_base_url:
            raise ConfigurationError(
                f"the Conversations API v3 has no host in region {agent.region}: use api = 'data'"
            )
        if not agent.account_id:
            raise ConfigurationError(
                f"account_id of agent {agent.agent_id} is missing, which the Conversations API v3 "
                f"needs. {how_to_set('account_id')}"
            )
        super().__init__(
            agent, base_url=agent.v3_base_url, api_key=agent.v3_api_key or None, **options
        )
        self._account_id = agent.account_id
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
    ) -> V3Page:
        """One page: `GET /v3/{account_id}/{project_id}/conversations`, with latencies.

        Args:
            environment: live, sandbox or pre-release.
            since: begin of the window; None for all that is older than its end.
            before: end of the window; None for now.
            limit: conversations to ask for, 1 to 1,000.
            cursor: of the page before; None for the first one.

        Raises:
            ApiError: as `Transport.get` does; other than `UnavailableError` it is for good.
        """
        query = {
            "client_env": environment,
            "start_time": since.isoformat() if since else None,
            "end_time": before.isoformat() if before else None,
            "limit": limit,
            "include_latency": "true",
            "cursor": cursor,
        }
        given = urlencode({name: value for name, value in query.items() if value is not None})
        path = f"{self._conversations_path}?{given}"
        try:
            return self.stream(path, subject="agent", accept=_v3_page)
        except AccessError as error:
            if error.status == HTTPStatus.NOT_FOUND:
                error.advice = (
                    f"Check account_id, {self._account_id} here, and agent_id: both stand in Agent "
                    "Studio's address, studio.REGION.poly.ai/ACCOUNT/AGENT. Set POLYAI_ACCOUNT_ID "
                    "and POLYAI_AGENT_ID"
                )
            raise


def _v3_page(chunks: Iterator[bytes]) -> V3Page:
    spool, rows = Spool(), list[V3Row]()

    def take(row: dict[str, Any]) -> None:
        conversation_id = row.get("id")
        if not isinstance(conversation_id, str) or not conversation_id:
            raise NotAcceptedError("has a conversation without an id")
        document = spool.put(packed(row))
        rows.append(V3Row(conversation_id, row.get("started_at"), row_hash(row), document))

    rest = read_page(chunks, "conversations", take)
    cursor = rest.get("cursor")
    if not isinstance(cursor, str | None):
        raise NotAcceptedError("has a cursor that is no text")
    return V3Page(rows, spool, cursor or None)


def encode_segment(name: str) -> str:
    """`name` as one segment of a URL's path, however many slashes and dots it has."""
    encoded = quote(name, safe="")
    return encoded.replace(".", "%2E") if name in (".", "..") else encoded


def _whole(value: Any) -> int | None:
    """A whole number that is not negative, or None."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
