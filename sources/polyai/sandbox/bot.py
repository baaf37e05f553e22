"""Agent of debug chats: deterministic, with a keyword for every kind of response."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

from . import texts
from .responses import RefusedError

KEPT_CHATS = 10_000
CLUMSY = "clumsy"
"""Variant without topics: a regression that tests can detect."""
_KEYWORDS = (
    ("table", "book_table", 0),
    ("book", "book_table", 0),
    ("move", "change_booking", 0),
    ("cancel", "cancel_booking", 2),
    ("room", "room_rates", 0),
    ("breakfast", "room_rates", 1),
    ("park", "room_rates", 2),
    ("jacket", "lost_property", 0),
    ("bill", "complaint", 0),
    ("charge", "complaint", 0),
)
_WORDS = {"name": "Emma Clarke", "date": "12.11.", "time": "19:30", "guests": "4"}
_TOPICS = {topic.name: topic for topic in texts.TOPICS}


@dataclass
class _Chat:
    environment: str
    language: str
    variant_id: str | None
    turns: int = 0
    has_ended: bool = False
    has_timed_out: bool = False
    state: dict[str, Any] = field(default_factory=dict)
    nodes: list[str] = field(default_factory=lambda: ["start"])


class Bot:
    """Debug chats of one agent; thread-safe.

    Keywords select topics and fill the state. `bye` ends a chat, `person` hands it off, `slow`
    returns `delayedResponse`, `timeout` lets the session time out, and `bell` returns a control
    character, as in texts that were pasted into an agent. The variant `clumsy` has no topics.
    Integration attributes and a message's metadata are added to the state. `echo` returns the
    fields of its metadata, so that tests can produce a response of any shape.
    """

    def __init__(self) -> None:
        self._chats: OrderedDict[str, _Chat] = OrderedDict()
        self._started = 0
        self._lock = threading.Lock()

    def start(self, options: dict[str, Any]) -> dict[str, Any]:
        """Starts a chat with a greeting.

        Raises:
            RefusedError: `clientEnv` is missing or `draft`.
        """
        environment = _environment(options)
        language = str(options.get("asrLangCode") or "en-US")
        book = texts.PHRASEBOOKS.get(language[:2], texts.ENGLISH)
        with self._lock:
            self._started += 1
            chat_id = str(options.get("conversationId") or f"AS_CHAT_debug-{self._started:08x}")
            chat = _Chat(environment, language, options.get("variantId"))
            chat.state |= _in_state(options, "integrationAttributes", "integration_attributes")
            self._chats[chat_id] = chat
            if len(self._chats) > KEPT_CHATS:
                self._chats.popitem(last=False)
            return _answer(chat_id, chat, "", book.greeting, [])

    def reply(self, chat_id: str, options: dict[str, Any]) -> dict[str, Any]:
        """Answers a message.

        Raises:
            RefusedError: The chat is unknown, has ended or timed out, or `clientEnv` is missing
                or `draft`.
        """
        _environment(options)
        message = str(options.get("message") or "")
        with self._lock:
            chat = self._open(chat_id)
            chat.has_timed_out |= "timeout" in message.lower()
            if chat.has_timed_out:
                message = "Chat session exceeded the timeout limit."
                raise RefusedError(400, "CHAT_TIMEOUT", message)
            if message == "echo":
                return _answer(chat_id, chat, message, "", []) | (options.get("metadata") or {})
            chat.state |= _in_state(options, "metadata", "message_metadata")
            return self._converse(chat_id, chat, message)

    def end(self, chat_id: str) -> None:
        """Ends a chat.

        Raises:
            RefusedError: The chat is unknown or has ended.
        """
        with self._lock:
            self._open(chat_id).has_ended = True

    def _open(self, chat_id: str) -> _Chat:
        chat = self._chats.get(chat_id)
        if chat is None:
            raise RefusedError(404, "CONVERSATIONS_NOT_FOUND", "Conversation ID does not exist.")
        if chat.has_ended:
            raise RefusedError(410, "CHAT_CONVERSATION_ENDED", "The conversation has ended.")
        return chat

    def _converse(self, chat_id: str, chat: _Chat, message: str) -> dict[str, Any]:
        book = texts.PHRASEBOOKS.get(chat.language[:2], texts.ENGLISH)
        text = message.lower()
        chat.turns += 1
        if "bye" in text:
            chat.has_ended = True
            chat.nodes.append("goodbye")
            return _answer(chat_id, chat, message, book.goodbye[1], [])
        if "person" in text:
            chat.has_ended = True
            chat.state["handoff_reason"] = "CALLER_ASKED_FOR_HUMAN"
            return _answer(chat_id, chat, message, book.transfer, [])
        for keyword, name, exchange in _KEYWORDS:
            if keyword in text and chat.variant_id != CLUMSY:
                chat.state |= {
                    "topic": name,
                    "booking": {**_WORDS, "guests": int(_WORDS["guests"])},
                }
                chat.nodes.append(name)
                response = book.topics[name][exchange][1].format(**_WORDS)
                return _answer(chat_id, chat, message, response, list(_TOPICS[name].retrieved))
        response = book.misheard[1] if message else book.silence
        if "bell" in text:
            response = f"\a{response}"
        return _answer(chat_id, chat, message, response, [])


def _in_state(options: dict[str, Any], name: str, as_: str) -> dict[str, Any]:
    """State entry for an option of a request; empty if the option is not set."""
    return {as_: options[name]} if options.get(name) else {}


def _environment(options: dict[str, Any]) -> str:
    environment = options.get("clientEnv")
    if not isinstance(environment, str) or not environment:
        raise RefusedError(400, "VALIDATION_ERROR", "clientEnv is required.")
    if environment == "draft":
        message = "The draft you are attempting to chat with does not exist."
        raise RefusedError(400, "CHAT_DRAFT_NOT_EXIST", message)
    return environment


def _answer(
    chat_id: str, chat: _Chat, message: str, response: str, topics: list[str]
) -> dict[str, Any]:
    node = chat.nodes[-1]
    events: list[dict[str, Any]] = []
    if topics:
        name = _TOPICS[node].function
        events = [{"name": name, "arguments": dict(_WORDS), "duration": 42, "error": None}]
    metadata: dict[str, Any] = {
        "state": dict(chat.state),
        "currentNode": node,
        "nodeTrace": list(chat.nodes),
        "metrics": {"TOTAL_AGENT_TURNS": str(chat.turns + 1)},
        "functionEvents": events,
        "retrievedTopics": topics,
        "llmRequests": [],
        "asrLangCode": chat.language,
        "ttsLangCode": chat.language,
    }
    if "handoff_reason" in chat.state:
        metadata["handoffDestination"] = texts.DESTINATIONS[0]
    return {
        "conversationId": chat_id,
        "userInput": message,
        "response": response,
        "metadata": metadata,
        "conversationEnded": chat.has_ended,
        "delayedResponse": "slow" in message.lower(),
    }
