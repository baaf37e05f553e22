"""A debug chat as it goes: begun with a greeting, then one reply to each message."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from urllib3 import BaseHTTPResponse

from ..api.client import DataApi
from ..errors import AccessError, ApiError, ConversationError

T = TypeVar("T")

Json = dict[str, Any]

_KNOWN = frozenset(
    {
        "conversationId", "userInput", "response", "metadata", "conversationEnded",
        "delayedResponse",
    }
)  # fmt: skip
"""Fields of an answer that are taken."""


class ChatApi(DataApi):
    """The Data API of one agent, which also tells how long an answer took."""

    _measured = threading.local()

    @property
    def latency_seconds(self) -> float:
        """Time from this thread's last request to the end of its answer.

        What was held off before, and attempts that were made in vain, are not the agent's time.
        """
        return float(self._measured.seconds)

    def _attempt(self, request: Any, take: Callable[[BaseHTTPResponse], T]) -> T:
        begun = time.perf_counter()
        try:
            return super()._attempt(request, take)
        finally:
            self._measured.seconds = time.perf_counter() - begun


@dataclass(frozen=True)
class ChatSetup:
    """What a chat is begun with; None leaves it to the agent.

    Attributes:
        environment: sandbox, pre-release or live.
        variant_id: The variant to talk to.
        asr_lang_code: Language that is listened for, such as en-US.
        tts_lang_code: Language that is spoken.
        channel: Kind of channel, such as chat.polyai.
        integration_attributes: What the agent's functions find under that name.
    """

    environment: str = "sandbox"
    variant_id: str | None = None
    asr_lang_code: str | None = None
    tts_lang_code: str | None = None
    channel: str | None = None
    integration_attributes: Mapping[str, Any] | None = None

    @property
    def first(self) -> Json:
        """What the API is told at the begin."""
        return self.each | _given(
            variantId=self.variant_id,
            channel=self.channel,
            integrationAttributes=self.integration_attributes,
        )

    @property
    def each(self) -> Json:
        """What it is told with each message."""
        return _given(
            clientEnv=self.environment,
            asrLangCode=self.asr_lang_code,
            ttsLangCode=self.tts_lang_code,
        )


def _given(**options: Any) -> Json:
    return {name: value for name, value in options.items() if value is not None}


@dataclass(frozen=True)
class Reply:
    """What the agent said.

    Attributes:
        chat_id: PolyAI's id of the conversation.
        response: Its words, maybe none.
        metadata: State, nodes, metrics, functions, topics, as the API sends them.
        has_ended: Whether the agent ended the conversation.
        is_delayed: Whether it said that its real answer is still to come.
        latency_seconds: Time from the request to the end of the answer.
        extra: Fields of the answer that have no place here.
    """

    chat_id: str
    response: str
    metadata: Json
    has_ended: bool
    is_delayed: bool
    latency_seconds: float
    extra: Json

    @property
    def state(self) -> Json:
        """The conversation's state."""
        state = self.metadata.get("state")
        return state if isinstance(state, dict) else {}

    @property
    def node(self) -> str | None:
        """The node that the conversation is in."""
        return self.metadata.get("currentNode") or None

    @property
    def functions(self) -> list[str]:
        """Functions that were called; PolyAI does not document what tells their names."""
        return [name for event in self._listed("functionEvents") if (name := _name_of(event))]

    @property
    def topics(self) -> list[str]:
        """Topics that were retrieved; a text can hold several."""
        texts = [text for text in self._listed("retrievedTopics") if isinstance(text, str)]
        return [topic for text in texts for part in text.split(",") if (topic := part.strip())]

    @property
    def handoff_destination(self) -> str | None:
        """Where the conversation is handed over to."""
        return self.metadata.get("handoffDestination") or None

    def _listed(self, name: str) -> list[Any]:
        values = self.metadata.get(name)
        return values if isinstance(values, list) else []


def _name_of(event: Any) -> str | None:
    if isinstance(event, dict):
        event = event.get("name") or event.get("function_name")
    return event if isinstance(event, str) else None


class DebugChat:
    """One chat with an agent.

    Args:
        api: The agent's API.
        setup: What it is begun with.

    Attributes:
        chat_id: PolyAI's id of the conversation, once it has begun.
    """

    def __init__(self, api: ChatApi, setup: ChatSetup) -> None:
        self._api = api
        self._setup = setup
        self.chat_id: str | None = None

    def begin(self) -> Reply:
        """The greeting: `POST /v1/agents/{agentId}/debug-chat`.

        Raises:
            UncertainError: The answer was lost; the chat that may have begun is nobody's.
            ApiError: As `DataApi.start_debug_chat` does, in words that fit a chat.
        """
        try:
            answer = self._api.start_debug_chat(self._setup.first)
        except ApiError as error:
            raise _reworded(error, self._setup.environment) from error
        self.chat_id = answer["conversationId"]
        return self._reply(answer, "")

    def say(self, message: str, metadata: Mapping[str, Any] | None = None) -> Reply:
        """The reply to a message: `POST …/debug-chat/{conversationId}`.

        Args:
            message: What is said; empty for silence.
            metadata: What goes with it.

        Raises:
            UncertainError: The answer was lost, and the agent may have heard the message.
            ApiError: As `DataApi.debug_chat_reply` does, in words that fit a chat.
        """
        if self.chat_id is None:
            raise ValueError("a chat begins with its greeting")
        options = {**self._setup.each, "message": message, **_given(metadata=metadata)}
        try:
            answer = self._api.debug_chat_reply(self.chat_id, options)
        except ApiError as error:
            raise _reworded(error, self._setup.environment) from error
        return self._reply(answer, message)

    def _reply(self, answer: Json, message: str) -> Reply:
        extra = {name: value for name, value in answer.items() if name not in _KNOWN}
        if answer.get("userInput") not in (message, None):
            # the agent heard something else
            extra["userInput"] = answer["userInput"]
        metadata = answer.get("metadata")
        if not isinstance(metadata, dict):
            extra |= _given(metadata=metadata)
            metadata = {}
        return Reply(
            chat_id=answer["conversationId"],
            response=str(answer.get("response") or ""),
            metadata=metadata,
            has_ended=answer.get("conversationEnded") is True,
            is_delayed=answer.get("delayedResponse") is True,
            latency_seconds=self._api.latency_seconds,
            extra=extra,
        )


TIMED_OUT = "CHAT_TIMEOUT"
"""PolyAI's code where a chat's session has run out."""

_NO_DRAFT = "CHAT_DRAFT_NOT_EXIST"


def _reworded(error: ApiError, environment: str) -> ApiError:
    """The same error, told of a chat instead of a conversation that is read."""
    message = str(error.args[0])
    advice = error.advice
    if error.error_code == TIMED_OUT:
        message = "the chat's session ran out at PolyAI before this was answered"
        advice = "A chat cannot be left alone for long: begin a new one"
    elif error.error_code == _NO_DRAFT:
        message = f"the agent has no draft to chat with in environment {environment}"
        advice = (
            "Save a draft in Agent Studio, or set environment to sandbox, pre-release or live, "
            "whichever the agent is deployed to"
        )
    elif isinstance(error, AccessError) and error.status == 403:
        advice = "Ask an administrator of the workspace for a key that may hold debug chats"
    elif isinstance(error, ConversationError):
        message = message.replace("the conversation cannot be read", "the chat cannot go on")
    return type(error)(
        message,
        status=error.status,
        error_code=error.error_code,
        error_id=error.error_id,
        url=error.url,
        advice=advice,
    )
