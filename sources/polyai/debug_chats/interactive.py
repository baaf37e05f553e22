"""A chat by hand: what the agent says, and in one line what it did meanwhile."""

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

HELP = "/state shows the state, /restart begins anew, /quit leaves; an empty line is silence"

_PROMPT = "you: "

_SHOWN_CHARACTERS = 60
"""Of a value of the state, in the line under an answer."""

Ask = Callable[[], str | None]
"""Gives the next line of input; None at its end."""


@dataclass
class Transcript:
    """What was said in all chats of a session.

    Attributes:
        agent_id: The agent.
        environment: Where it answered.
        turns: As they came, each with the chat that it belongs to.
    """

    agent_id: str
    environment: str
    turns: list[dict[str, Any]] = field(default_factory=list)

    def add(self, turn_index: int, said: str | None, reply: Reply) -> None:
        """Adds a turn."""
        self.turns.append(
            {
                "conversation_id": reply.chat_id,
                "turn_index": turn_index,
                "user_input": said,
                "response": reply.response,
                "latency_ms": round(reply.latency_seconds * 1000),
                "delayed_response": reply.is_delayed,
                "ended": reply.has_ended,
                "metadata": reply.metadata,
            }
        )


class InteractiveChat:
    """Chats with an agent, one after the other, until the input ends.

    Args:
        api: The agent's API.
        setup: What each chat is begun with.
        console: Where to show what is said.
        ask: Where what is said comes from.
        transcript: Takes every turn.
        is_live: A person is at the other end: errors are told, and the chat goes on.
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

    def hold(self) -> None:
        """Chats until the input ends, or the agent ends the chat and no other is wanted.

        Raises:
            ApiError: The key is refused, no chat can be begun, or, where nobody is at the other
                end, an answer did not come.
        """
        if self._is_live:
            self._note(HELP)
        self._begin()
        while (said := self._ask()) is not None:
            match said.strip():
                case "/quit" | "/exit":
                    return
                case "/restart":
                    self._begin()
                case "/state":
                    state = orjson.dumps(self._state, option=orjson.OPT_INDENT_2).decode()
                    self._console.print(Text(state))
                case command if command.startswith("/"):
                    self._note(f"{command} is not known: {HELP}")
                case "" if self._is_over and self._is_live:
                    self._begin()
                case _ if self._is_over:
                    self._note(f"the chat is over: nothing was said of {said!r} and what follows")
                    if not self._is_live:
                        return
                case _:
                    self._say(said)

    def _begin(self) -> None:
        self._chat = DebugChat(self._api, self._setup)
        self._turn_index, self._state, self._is_over = 0, {}, False
        reply = self._chat.begin()
        self._note(f"chat {self._chat.chat_id} in {self._setup.environment}")
        self._take(None, reply)

    def _say(self, said: str) -> None:
        try:
            reply = self._chat.say(said)
        except AccessError:
            raise
        except ApiError as error:
            if isinstance(error, ConversationError) and error.error_code == TIMED_OUT:
                self._warn("the chat's session ran out at PolyAI; this is a new one, say it again")
                self._begin()
                return
            if not self._is_live:
                raise
            self._warn(str(error))
            if isinstance(error, UncertainError):
                self._warn("the agent may have heard it: say it again only if it does not matter")
            elif isinstance(error, ConversationError):
                self._end("the chat cannot go on")
            return
        self._turn_index += 1
        self._take(said, reply)

    def _take(self, said: str | None, reply: Reply) -> None:
        self._transcript.add(self._turn_index, said, reply)
        self._console.print(Text.assemble(("agent: ", "bold cyan"), reply.response or "(silence)"))
        self._note("  " + " · ".join(self._facts(reply)))
        self._state = reply.state
        if reply.is_delayed:
            self._note("  the agent says that its real answer is still to come")
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
        """What is new, other or gone in the state."""
        for name, value in state.items():
            if name not in self._state or self._state[name] != value:
                yield f"{name} = {_short(value)}"
        yield from (f"{name} is gone" for name in self._state if name not in state)

    def _end(self, why: str) -> None:
        self._is_over = True
        self._note(f"{why}: Enter begins a new one, /quit leaves" if self._is_live else why)

    def _note(self, text: str) -> None:
        self._console.print(Text(text, style="dim"))

    def _warn(self, text: str) -> None:
        self._console.print(Text(text, style="yellow"))


def ask_person(console: Console) -> Ask:
    """Lines that a person types, with editing and history where the terminal has them."""
    # the prompt that input() is given is what line editing redraws, but it goes to stdout
    is_stdout = console.file is sys.stdout
    with contextlib.suppress(ImportError):  # not on every platform
        import readline  # noqa: F401  # input() edits lines once it is there

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
    """Lines of a file or pipe, which are shown as they are said."""

    def ask() -> str | None:
        line = lines.readline()
        if not line:
            return None
        said = line.rstrip("\r\n")
        console.print(Text.assemble((_PROMPT, "bold"), said))
        return said

    return ask


def _short(value: Any) -> str:
    text = orjson.dumps(value).decode()
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"
