"""Debug chat client: the agent's greeting, then one reply per message."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from ..api.body import Body
from ..api.client import DataApi
from ..errors import ApiError, ConfigurationError, ConversationError

T = TypeVar("T")

Json = dict[str, Any]

_KNOWN = frozenset(
    {
        "conversationId", "userInput", "response", "metadata", "conversationEnded",
        "delayedResponse",
    }
)  # fmt: skip
"""Fields of an answer with an attribute in `Reply`."""


class ChatApi(DataApi):
    """Data API client of one agent that also measures the latency of answers."""

    _measured = threading.local()

    @property
    def latency_seconds(self) -> float:
        """Time from this thread's last request to the end of its answer.

        Excludes rate limiting and failed attempts, which are not the agent's time.
        """
        return float(self._measured.seconds)

    def _attempt(self, request: Any, take: Callable[[Body], T]) -> T:
        started = time.perf_counter()
        try:
            return super()._attempt(request, take)
        finally:
            self._measured.seconds = time.perf_counter() - started


ENVIRONMENTS = ("sandbox", "pre-release", "live", "draft")
"""Environments in which PolyAI opens debug chats."""


def check_environment(environment: str) -> None:
    """Checks the name of an environment: PolyAI would open a chat nowhere, or refuse each.

    Raises:
        ConfigurationError: There is no such environment.
    """
    if environment not in ENVIRONMENTS:
        *names, last = ENVIRONMENTS
        raise ConfigurationError(
            f"environment {environment!r} is unknown: expected {', '.join(names)} or {last}"
        )


@dataclass(frozen=True)
class ChatSetup:
    """Options of a chat; None leaves an option to the agent.

    Attributes:
        environment: One of `ENVIRONMENTS`.
        variant_id: The variant to chat with.
        asr_lang_code: Language of speech recognition, such as en-US.
        tts_lang_code: Language of speech synthesis.
        channel: Channel to simulate, such as chat.polyai.
        integration_attributes: Values for the agent's functions (`conv.integration_attributes`).
    """

    environment: str = "sandbox"
    variant_id: str | None = None
    asr_lang_code: str | None = None
    tts_lang_code: str | None = None
    channel: str | None = None
    integration_attributes: Mapping[str, Any] | None = None

    @property
    def start_options(self) -> Json:
        """Body of the request that starts a chat."""
        return self.message_options | _without_none(
            variantId=self.variant_id,
            channel=self.channel,
            integrationAttributes=self.integration_attributes,
        )

    @property
    def message_options(self) -> Json:
        """Options that are sent with every message."""
        return _without_none(
            clientEnv=self.environment,
            asrLangCode=self.asr_lang_code,
            ttsLangCode=self.tts_lang_code,
        )


def _without_none(**options: Any) -> Json:
    return {name: value for name, value in options.items() if value is not None}


@dataclass(frozen=True)
class Reply:
    """An answer of the agent.

    Attributes:
        chat_id: PolyAI's id of the conversation.
        response: Text of the answer, possibly empty.
        metadata: State, nodes, metrics, functions and topics, as sent by the API.
        has_ended: True if the agent ended the conversation (`conversationEnded`).
        is_delayed: True if the agent announced a delayed answer (`delayedResponse`).
        latency_seconds: Time from the request to the end of the answer.
        extra: All other fields of the answer.
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
        """State of the conversation (`metadata.state`)."""
        state = self.metadata.get("state")
        return state if isinstance(state, dict) else {}

    @property
    def node(self) -> str | None:
        """Current node (`metadata.currentNode`)."""
        return self.metadata.get("currentNode") or None

    @property
    def functions(self) -> list[str]:
        """Names of called functions (`metadata.functionEvents`, whose form is not documented)."""
        return [name for event in self._list("functionEvents") if (name := _name_of(event))]

    @property
    def topics(self) -> list[str]:
        """Retrieved topics (`metadata.retrievedTopics`); one text can contain several."""
        texts = [text for text in self._list("retrievedTopics") if isinstance(text, str)]
        return [topic for text in texts for part in text.split(",") if (topic := part.strip())]

    @property
    def handoff_destination(self) -> str | None:
        """Destination of a handoff (`metadata.handoffDestination`)."""
        return self.metadata.get("handoffDestination") or None

    def _list(self, name: str) -> list[Any]:
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
        setup: Options of the chat.

    Attributes:
        chat_id: PolyAI's id of the conversation; None before `start`.
    """

    def __init__(self, api: ChatApi, setup: ChatSetup) -> None:
        self._api = api
        self._setup = setup
        self.chat_id: str | None = None

    def start(self) -> Reply:
        """Starts the chat and returns the greeting: `POST /v1/agents/{agentId}/debug-chat`.

        Raises:
            UncertainError: The answer was lost; the chat may have been started, its id is unknown.
            ApiError: As `DataApi.start_debug_chat` does, with a message about the chat.
        """
        try:
            answer = self._api.start_debug_chat(self._setup.start_options)
        except ApiError as error:
            raise _chat_error(error, self._setup.environment) from error
        self.chat_id = answer["conversationId"]
        return self._reply(answer, "")

    def say(self, message: str, metadata: Mapping[str, Any] | None = None) -> Reply:
        """Sends a message and returns the answer: `POST …/debug-chat/{conversationId}`.

        Args:
            message: The message; empty for silence.
            metadata: Metadata of the message.

        Raises:
            UncertainError: The answer was lost; the agent may have received the message.
            ApiError: As `DataApi.debug_chat_reply` does, with a message about the chat.
        """
        if self.chat_id is None:
            raise ValueError("start() has not been called")
        options = {
            **self._setup.message_options,
            "message": message,
            **_without_none(metadata=metadata),
        }
        try:
            answer = self._api.debug_chat_reply(self.chat_id, options)
        except ApiError as error:
            raise _chat_error(error, self._setup.environment) from error
        return self._reply(answer, message)

    def _reply(self, answer: Json, message: str) -> Reply:
        extra = {name: value for name, value in answer.items() if name not in _KNOWN}
        if answer.get("userInput") not in (message, None):
            # the API echoes the message: anything else is a difference worth keeping
            extra["userInput"] = answer["userInput"]
        metadata = answer.get("metadata")
        if not isinstance(metadata, dict):
            extra |= _without_none(metadata=metadata)
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
"""PolyAI's error code for an expired chat session."""

_NO_DRAFT = "CHAT_DRAFT_NOT_EXIST"


def _chat_error(error: ApiError, environment: str) -> ApiError:
    """Returns the same error with message and advice about a chat instead of a conversation."""
    message = str(error.args[0])
    advice = error.advice
    if error.error_code == TIMED_OUT:
        message = "the chat session expired at PolyAI before this message was answered"
        advice = "PolyAI closes idle chats: start a new one"
    elif error.error_code == _NO_DRAFT:
        message = f"the agent has no draft in environment {environment}"
        advice = (
            "Save a draft in Agent Studio, or set environment to one that the agent is deployed "
            "to: sandbox, pre-release or live"
        )
    elif error.status == 403:
        advice = "Ask an administrator of the workspace for a key with permission for debug chats"
    elif isinstance(error, ConversationError):
        message = message.replace("the conversation cannot be read", "the chat cannot go on")
    return type(error)(
        message,
        status=error.status,
        error_code=error.error_code,
        error_id=error.error_id,
        sent_id=error.sent_id,
        url=error.url,
        advice=advice,
    )
