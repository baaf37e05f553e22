"""Interactive chats: in a real terminal, and through a pipe."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import select
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest
import typer

import polyai
from command import AGENT, TIME_LIMIT_SECONDS, access
from polyai.debug_chats.cli import chat
from polyai.debug_chats.interactive import HELP
from polyai.errors import ConfigurationError
from polyai.sandbox import Sandbox, SandboxConfig, serve

pytestmark = pytest.mark.process

GREETING = "agent: Thank you for calling the Harbour Hotel."
_COMMAND = [sys.executable, "-m", "polyai", "chat"]
_OWN_TERMINAL = (
    "import fcntl, os, signal, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
    "signal.signal(signal.SIGINT, signal.SIG_DFL); os.execv(sys.argv[1], sys.argv[1:])"
)
"""Makes the terminal the controlling one, so that its keys send signals, and runs the command.

SIGINT is reset because background processes of a shell, and their children, ignore Ctrl-C.
"""

_ESCAPE = re.compile(r"\x1b(\[[0-9;?]*[a-zA-Z]?)?")


@pytest.fixture
def sandbox() -> Sandbox:
    return Sandbox(SandboxConfig(conversations=10, agents=(AGENT, "PROJECT-OTHER")))


@pytest.fixture
def environment(sandbox: Sandbox) -> Iterator[dict[str, str]]:
    with serve(sandbox) as url:
        path = str(Path(polyai.__file__).parents[1])
        given = os.environ | access(url) | {"PYTHONPATH": path, "TERM": "xterm-256color"}
        # pytest's workers set the width of their own terminal
        yield {name: value for name, value in given.items() if name not in ("COLUMNS", "LINES")}


def pipe(text: str, environment: dict[str, str], *options: str) -> subprocess.CompletedProcess[str]:
    """Runs the command with these lines as its input."""
    return subprocess.run(
        [*_COMMAND, *options],
        input=text,
        env=environment,
        capture_output=True,
        text=True,
        timeout=TIME_LIMIT_SECONDS,
        check=False,
    )


class Terminal:
    """The command in its own terminal, with simulated key presses."""

    def __init__(self, environment: dict[str, str], *options: str) -> None:
        self._side, process_side = pty.openpty()
        termios.tcsetwinsize(process_side, (40, 120))
        self._process = subprocess.Popen(
            [sys.executable, "-c", _OWN_TERMINAL, *_COMMAND, *options],
            env=environment,
            stdin=process_side,
            stdout=process_side,
            stderr=process_side,
            start_new_session=True,
        )
        os.close(process_side)
        self.shown = ""
        self._raw = b""
        self._read_up_to = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._side)

    def type(self, keys: str) -> None:
        """Types at the next prompt: earlier keys can be lost."""
        self.expect("you: ")
        self.press(keys)

    def press(self, keys: str) -> None:
        """Types immediately."""
        os.write(self._side, keys.encode())

    def interrupt(self) -> None:
        """Presses Ctrl-C until the command exits: the first can arrive before readline waits."""
        # with time to exit in between: a second Ctrl-C would kill the interpreter as it shuts down
        for _ in range(TIME_LIMIT_SECONDS // 10):
            self.press("\x03")
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(10)
                return

    def expect(self, text: str) -> None:
        """Reads until this text appears, after that of the last call."""
        deadline = time.monotonic() + TIME_LIMIT_SECONDS
        while (found := self.shown.find(text, self._read_up_to)) < 0:
            self._read(deadline - time.monotonic())
        self._read_up_to = found + len(text)

    def exit_code(self) -> int:
        """Reads to the end and returns the exit code."""
        # on Linux, reading from a closed terminal raises OSError
        with contextlib.suppress(OSError):
            while self._read(TIME_LIMIT_SECONDS):
                pass
        return self._process.wait(TIME_LIMIT_SECONDS)

    def _read(self, seconds: float) -> bytes:
        """Reads the next output; fails if there is none in this time."""
        ready, _, _ = select.select([self._side], [], [], max(seconds, 0))
        assert ready, f"no more output: {self.shown!r}"
        part = os.read(self._side, 65536)
        # a part can end within a character or an escape sequence
        self._raw += part
        self.shown = _ESCAPE.sub("", self._raw.decode(errors="ignore"))
        return part


def test_a_person_chats_in_a_terminal(environment: dict[str, str]) -> None:
    with Terminal(
        environment, "--attributes", "caller=Ada", "--attributes", "note=a=b"
    ) as terminal:
        terminal.expect(HELP)
        terminal.expect("chat AS_CHAT_debug-00000001 in sandbox")
        terminal.expect(GREETING)
        terminal.expect('integration_attributes = {"caller":"Ada","note":"a=b"}')
        terminal.type("a slow table\r")
        terminal.expect("agent: With pleasure. What time would suit you?")
        terminal.expect(
            " s · node book_table · topics restaurant_booking, opening_hours · functions "
            "create_booking"
        )
        terminal.expect('topic = "book_table"')
        terminal.expect("delayed")
        terminal.type("/state\r")
        terminal.expect('"guests": 4')
        terminal.type("/nonsense\r")
        terminal.expect("unknown command /nonsense")
        terminal.type("\r")
        terminal.expect("Are you still there?")
        terminal.type("/restart\r")
        terminal.expect("chat AS_CHAT_debug-00000002 in sandbox")
        terminal.type("a table\r")
        terminal.expect("node book_table")
        terminal.type("timeout\r")
        terminal.expect("session expired")
        terminal.expect("chat AS_CHAT_debug-00000003 in sandbox")
        terminal.type("a person\r")
        terminal.expect("handoff to Front desk")
        terminal.expect("the agent ended the chat")
        terminal.expect("/quit")
        terminal.type("hello?\r")
        terminal.expect("'hello?' was not sent")
        terminal.type("\r")
        terminal.expect("chat AS_CHAT_debug-00000004 in sandbox")
        terminal.type("/quit\r")
        assert terminal.exit_code() == 0


@pytest.mark.slow
def test_ctrl_c_ends_a_chat_in_a_terminal(environment: dict[str, str]) -> None:
    with Terminal(environment) as terminal:
        terminal.type("a tab")
        # a key that the terminal discards at Ctrl-C leaves readline waiting for it
        terminal.expect("a tab")
        terminal.interrupt()
        assert terminal.exit_code() == 130
        assert "Traceback" not in terminal.shown


@pytest.mark.slow
def test_a_chat_in_a_terminal_continues_after_a_lost_answer_and_ends_at_ctrl_d(
    sandbox: Sandbox, environment: dict[str, str]
) -> None:
    with Terminal(environment) as terminal:
        terminal.expect(GREETING)
        sandbox.faults.add("reset", times=1)
        terminal.type("a table\r")
        terminal.expect("repeat it only if")
        terminal.type("a table\r")
        terminal.expect("node book_table")
        terminal.type("\x04")
        assert terminal.exit_code() == 0
        assert "Traceback" not in terminal.shown


@pytest.mark.slow
def test_lines_of_a_pipe_are_sent(environment: dict[str, str]) -> None:
    result = pipe("a table\n\nbye\na room\nand more\n", environment)
    lines = result.stdout.splitlines()
    assert (result.returncode, result.stderr) == (3, "")
    assert [line for line in lines if line.startswith(("you", "agent"))] == [
        f"{GREETING} This call may be recorded. How may I help you?",
        "you: a table",
        "agent: With pleasure. What time would suit you?",
        "you: ",
        "agent: Sorry, I didn't hear anything. Are you still there?",
        "you: bye",
        "agent: Thank you for calling the Harbour Hotel. Goodbye!",
        "you: a room",
    ]
    assert "'a room' was not sent, nor were the lines after it" in lines[-1]
    assert HELP not in result.stdout


@pytest.mark.slow
def test_empty_lines_after_the_end_of_a_chat_are_no_messages(environment: dict[str, str]) -> None:
    assert pipe("bye\n\n\n", environment).returncode == 0


@pytest.mark.matrix
def test_json_output_is_one_transcript_object(environment: dict[str, str]) -> None:
    result = pipe(
        "a table\n/restart\nbye\n", environment, "--json", "--environment", "pre-release",
        "--language", "de-DE", "--variant", "clumsy",
    )  # fmt: skip
    transcript: dict[str, Any] = json.loads(result.stdout)
    assert (result.returncode, transcript["agent_id"]) == (0, AGENT)
    assert transcript["environment"] == "pre-release"
    ids = ["AS_CHAT_debug-00000001"] * 2 + ["AS_CHAT_debug-00000002"] * 2
    assert [
        (turn["conversation_id"], turn["turn_index"], turn["user_input"], turn["ended"])
        for turn in transcript["turns"]
    ] == [
        (chat, index, message, message == "bye")
        for chat, index, message in zip(ids, (0, 1, 0, 1), (None, "a table", None, "bye"))
    ]
    assert "Hafenhotel" in transcript["turns"][0]["response"]
    assert transcript["turns"][1]["metadata"]["currentNode"] == "start"
    assert "you: a table" in result.stderr


@pytest.mark.matrix
def test_errors_end_a_chat_in_a_pipe(sandbox: Sandbox, environment: dict[str, str]) -> None:
    refused = pipe("hello\n", environment | {"POLYAI_API_KEY": "wrong"})
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "error: " in refused.stderr
    assert "HTTP 401" in refused.stderr
    sandbox.faults.add("reset", path="/debug-chat/", times=1)
    lost = pipe("hello\n", environment, "--json")
    assert lost.returncode == 1
    assert "error: " in lost.stderr
    # the transcript so far is printed nevertheless
    assert len(json.loads(lost.stdout)["turns"]) == 1


@pytest.mark.parametrize(
    ("options", "fact"),
    [
        (["--attributes", "caller"], "KEY=VALUE, not 'caller'"),
        (["--agent", "nobody"], "nobody is not configured"),
        ([], f"--agent: {AGENT}, PROJECT-OTHER"),
    ],
    ids=["attribute", "agent", "agents"],
)
def test_invalid_options_are_rejected(
    monkeypatch: pytest.MonkeyPatch, options: list[str], fact: str
) -> None:
    monkeypatch.setenv("POLYAI_API_KEY", "none-is-needed")
    monkeypatch.setenv("POLYAI_AGENT_ID", f"{AGENT},PROJECT-OTHER")
    app = typer.Typer()
    app.command()(chat)
    with pytest.raises((ConfigurationError, typer.BadParameter)) as caught:
        app(options, standalone_mode=False)
    assert fact in str(caught.value)
