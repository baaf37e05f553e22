"""Interactive chat: answers of the agent, each with one line of facts about it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TextIO

import orjson
from rich.console import Console
from rich.text import Text

from ..errors import AccessError, ApiError, ConversationError, UncertainError
from .chat import TIMED_OUT, ChatApi, ChatSetup, DebugChat, Reply

HELP = "/state shows the state, /restart starts a new chat, /quit leaves; an empty line is silence"

_PROMPT = "you: "

_MAX_SHOWN_CHARACTERS = 60
"""Longest value of the state in the line below an answer."""

Ask = Callable[[], str | None]
"""Returns the next line of input; None at its end."""


@dataclass
class Transcript:
    """Transcript of all chats of a session.

    Attributes:
        agent_id: The agent.
        environment: Its environment.
        turns: In order, each with the id of its chat.
    """

    agent_id: str
    environment: str
    turns: list[dict[str, Any]] = field(default_factory=list)

    def add(self, turn_index: int, message: str | None, reply: Reply) -> None:
        """Adds a turn."""
        self.turns.append(
            {
                "conversation_id": reply.chat_id,
                "turn_index": turn_index,
                "user_input": message,
                "response": reply.response,
                "latency_ms": round(reply.latency_seconds * 1000),
                "delayed_response": reply.is_delayed,
                "ended": reply.has_ended,
                "metadata": reply.metadata,
            }
        )


class InteractiveChat:
    """Sequential chats with an agent, until the input ends.

    Args:
        api: The agent's API.
        setup: Options of each chat.
        console: Shows messages and answers.
        ask: Source of messages and commands.
        transcript: Receives every turn.
        is_live: True for input from a person: errors are shown, and the chat continues.
    """

    def __init__(
        self,
        api: ChatApi,
        setup: ChatSetup,
        console: Console,
        ask: Ask,
        transcript: Transcript,
        *,
        is_live: bool,
    ) -> None:
        self._api = api
        self._setup = setup
        self._console = console
        self._ask = ask
        self._transcript = transcript
        self._is_live = is_live
        self._chat = DebugChat(api, setup)
        self._turn_index = 0
        self._state: dict[str, Any] = {}
        self._is_over = False

    def run(self) -> bool:
        """Chats until the input ends, or the agent ends the chat and no new one is started.

        Returns:
            False if lines of the input were not sent, because the chat had ended.

        Raises:
            ApiError: The key is refused, or a chat cannot be started; without a person, also any
                other lost answer.
        """
        if self._is_live:
            self._note(HELP)
        self._start()
        while (line := self._ask()) is not None:
            match line.strip():
                case "/quit" | "/exit":
                    return True
                case "/restart":
                    self._start()
                case "/state":
                    state = orjson.dumps(self._state, option=orjson.OPT_INDENT_2).decode()
                    self._console.print(Text(state))
                case command if command.startswith("/"):
                    self._note(f"unknown command {command}: {HELP}")
                case "" if self._is_over and self._is_live:
                    self._start()
                case "" if self._is_over:
                    pass  # the end of a file is no message
                case _ if self._is_over:
                    more = "" if self._is_live else ", nor were the lines after it"
                    self._note(f"the chat is over: {line!r} was not sent{more}")
                    if not self._is_live:
                        return False
                case _:
                    self._send(line)
        return True

    def _start(self) -> None:
        self._chat = DebugChat(self._api, self._setup)
        self._turn_index, self._state, self._is_over = 0, {}, False
        reply = self._chat.start()
        self._note(f"chat {self._chat.chat_id} in {self._setup.environment}")
        self._record(None, reply)

    def _send(self, message: str) -> None:
        try:
            reply = self._chat.say(message)
        except AccessError:
            raise
        except ApiError as error:
            if isinstance(error, ConversationError) and error.error_code == TIMED_OUT:
                self._warn(
                    "the chat session expired at PolyAI; this is a new chat, repeat your message"
                )
                self._start()
                return
            if not self._is_live:
                raise
            self._warn(str(error))
            if isinstance(error, UncertainError):
                self._warn(
                    "the agent may have received it: repeat it only if it is safe to send twice"
                )
            elif isinstance(error, ConversationError):
                self._end("the chat cannot continue")
            return
        self._turn_index += 1
        self._record(message, reply)

    def _record(self, message: str | None, reply: Reply) -> None:
        self._transcript.add(self._turn_index, message, reply)
        self._console.print(Text.assemble(("agent: ", "bold cyan"), reply.response or "(silence)"))
        self._note("  " + " · ".join(self._facts(reply)))
        self._state = reply.state
        if reply.is_delayed:
            self._note("  the agent announced a delayed answer")
        if reply.has_ended:
            self._end("the agent ended the chat")

    def _facts(self, reply: Reply) -> Iterator[str]:
        yield f"{reply.latency_seconds:.2f} s"
        if reply.node:
            yield f"node {reply.node}"
        if reply.topics:
            yield f"topics {', '.join(reply.topics)}"
        if reply.functions:
            yield f"functions {', '.join(reply.functions)}"
        if reply.handoff_destination:
            yield f"handoff to {reply.handoff_destination}"
        yield from self._changes(reply.state)

    def _changes(self, state: dict[str, Any]) -> Iterator[str]:
        """Added, changed and removed values of the state."""
        for name, value in state.items():
            if name not in self._state or self._state[name] != value:
                yield f"{name} = {_short(value)}"
        yield from (f"{name} removed" for name in self._state if name not in state)

    def _end(self, why: str) -> None:
        self._is_over = True
        self._note(f"{why}: Enter starts a new one, /quit leaves" if self._is_live else why)

    def _note(self, text: str) -> None:
        self._console.print(Text(text, style="dim"))

    def _warn(self, text: str) -> None:
        self._console.print(Text(text, style="yellow"))


def ask_person(console: Console) -> Ask:
    """Reads lines typed by a person, with editing and history if the terminal supports them."""
    # line editing redraws the prompt passed to input(), which always goes to stdout
    is_stdout = console.file is sys.stdout
    with contextlib.suppress(ImportError):  # not on every platform
        import readline  # noqa: F401  # importing it enables line editing in input()

    def ask() -> str | None:
        try:
            if is_stdout:
                return input(_PROMPT)
            console.print(_PROMPT, end="")
            return input()
        except EOFError:
            console.print()
            return None

    return ask


def ask_stream(console: Console, lines: TextIO) -> Ask:
    """Reads lines of a file or pipe, and shows each one."""

    def ask() -> str | None:
        line = lines.readline()
        if not line:
            return None
        message = line.rstrip("\r\n")
        console.print(Text.assemble((_PROMPT, "bold"), message))
        return message

    return ask


def _short(value: Any) -> str:
    text = orjson.dumps(value).decode()
    return text if len(text) <= _MAX_SHOWN_CHARACTERS else f"{text[:_MAX_SHOWN_CHARACTERS]}…"
