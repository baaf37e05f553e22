"""Runs the command as its users do: in a process of its own, in a pipe or in a terminal."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path

import duckdb

import polyai

AGENT = "PROJECT-BOOKINGS"
KEY = "sandbox-key"
PATIENCE_SECONDS = 60
"""What takes longer has gone wrong; a test that waits for nothing takes a few seconds."""

_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


def access(base_url: str, api_key: str = KEY, agent_id: str = AGENT) -> dict[str, str]:
    """The environment that a user would export."""
    return {
        "POLYAI_BASE_URL": base_url,
        "POLYAI_API_KEY": api_key,
        "POLYAI_AGENT_ID": agent_id,
    }


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs the command to its end in the working directory."""
    return subprocess.run(
        _line(arguments),
        env=_with(environment),
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )


def start(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    """Starts the command; leave it with `communicate`."""
    return subprocess.Popen(
        _line(arguments),
        env=_with(environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run_in_terminal(columns: int, *arguments: str, **environment: str) -> tuple[int, str]:
    """Runs the command in a terminal; its exit code, and what stood there, frame after frame."""
    terminal, process_side = pty.openpty()
    termios.tcsetwinsize(process_side, (40, columns))
    with subprocess.Popen(
        _line(arguments),
        env=_with(environment) | {"TERM": "xterm-256color"},
        stdin=process_side,
        stdout=process_side,
        stderr=process_side,
        start_new_session=True,
    ) as process:
        os.close(process_side)
        shown = bytearray()
        # linux tells by an error that the other side is closed
        with contextlib.suppress(OSError):
            while part := os.read(terminal, 65536):
                shown += part
        os.close(terminal)
    return process.returncode, _ESCAPE.sub("", shown.decode())


def wait_until(is_so: Callable[[], bool]) -> None:
    """Returns as soon as it is so."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not is_so():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def error_of(result: subprocess.CompletedProcess[str]) -> str:
    """The one line that says what is wrong; nothing but log lines stands before it."""
    assert "Traceback" not in result.stdout + result.stderr
    *before, last = result.stderr.splitlines()
    assert last.startswith("error: "), result.stderr
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d+ [A-Z]+ ", line) for line in before)
    return last


def query(sql: str, database: str = "polyai.duckdb") -> list[tuple[object, ...]]:
    """Rows of a warehouse."""
    with duckdb.connect(database, read_only=True) as connection:
        return connection.execute(sql).fetchall()


def _line(arguments: tuple[str, ...]) -> list[str]:
    return [sys.executable, "-m", "polyai", *arguments]


def _with(environment: dict[str, str]) -> dict[str, str]:
    # the tests leave the folder that a relative path would start from
    return os.environ | {"PYTHONPATH": str(Path(polyai.__file__).parents[1])} | environment
