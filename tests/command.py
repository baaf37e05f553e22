"""The command `polyai-warehouse` for tests: in this process, in another one, in a terminal.

`run` is fast. `run_process` starts an interpreter, which takes 1.4 s, for tests whose subject is
the process: locks, signals, the umask, imports.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pty
import re
import signal
import subprocess
import sys
import tempfile
import termios
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from unittest.mock import patch

import duckdb
from dlt.common.configuration.container import Container
from dlt.common.configuration.specs.pluggable_run_context import PluggableRunContext

import polyai
from polyai import __main__ as entry_point
from polyai.cli.app import main

AGENT = "PROJECT-BOOKINGS"
KEY = "sandbox-key"
TIME_LIMIT_SECONDS = 120
"""Time limit of a command; one that does not hang takes a few seconds."""

_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


def access(base_url: str, api_key: str = KEY, agent_id: str = AGENT) -> dict[str, str]:
    """Returns the environment variables that a user would export."""
    return {
        "POLYAI_BASE_URL": base_url,
        "POLYAI_API_KEY": api_key,
        "POLYAI_AGENT_ID": agent_id,
    }


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs the command to its end in this process, through the `main` that a process calls."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        with _writing_to(1, out.fileno()), _writing_to(2, err.fileno()):
            code = _exit_code(arguments, environment)
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(list(arguments), code, out.read(), err.read())


def run_process(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs the command to its end in a process of its own."""
    return subprocess.run(
        _line(arguments),
        env=_with(environment),
        capture_output=True,
        text=True,
        timeout=TIME_LIMIT_SECONDS,
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
    """Runs the command in a terminal; returns its exit code and all output, frame after frame."""
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
        # Linux raises an error when the other side is closed
        with contextlib.suppress(OSError):
            while part := os.read(terminal, 65536):
                shown += part
        os.close(terminal)
    return process.returncode, _ESCAPE.sub("", shown.decode())


def wait_until(condition: Callable[[], bool]) -> None:
    """Waits until the condition holds; fails after the time limit."""
    deadline = time.monotonic() + TIME_LIMIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "the condition was never true"
        time.sleep(0.02)


def error_of(result: subprocess.CompletedProcess[str]) -> str:
    """Returns the error line, before which there are only log lines."""
    assert "Traceback" not in result.stdout + result.stderr
    *before, last = result.stderr.splitlines()
    assert last.startswith("error: "), result.stderr
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d+ [A-Z]+ ", line) for line in before)
    return last


def query(sql: str, database: str = "polyai.duckdb") -> list[tuple[object, ...]]:
    """Returns the rows of a query on a warehouse."""
    with duckdb.connect(database, read_only=True) as connection:
        return connection.execute(sql).fetchall()


def _line(arguments: tuple[str, ...]) -> list[str]:
    return [sys.executable, "-m", "polyai", *arguments]


def _with(environment: dict[str, str]) -> dict[str, str]:
    # absolute, because tests change the working directory
    return os.environ | {"PYTHONPATH": str(Path(polyai.__file__).parents[1])} | environment


class _HungError(BaseException):
    """The command exceeded its time limit; not an `Exception`, so that it cannot catch it."""


def _exit_code(arguments: tuple[str, ...], environment: dict[str, str]) -> int:
    """Calls `main` as the interpreter does; prints an exception and returns 1 for it."""
    with (
        Path(os.devnull).open() as nothing,
        open(1, "w", encoding="utf-8", closefd=False) as stdout,
        open(2, "w", encoding="utf-8", closefd=False, buffering=1) as stderr,
        patch.multiple(
            sys,
            argv=["polyai-warehouse", *arguments],
            stdin=nothing,
            stdout=stdout,
            stderr=stderr,
        ),
        patch.dict(os.environ, environment),
        _without_traces(),
        _time_limit(),
    ):
        try:
            main()
        except SystemExit as exited:
            return exited.code if isinstance(exited.code, int) else int(exited.code is not None)
        except Exception:
            traceback.print_exc()
            return 1
    return 0


@contextlib.contextmanager
def files_read_again() -> Iterator[None]:
    """Makes dlt read the files of the working directory."""
    context = Container()[PluggableRunContext]
    providers = context.providers
    try:
        context.reload_providers()
        yield
    finally:
        context.providers = providers
        context.context.reset_config()


@contextlib.contextmanager
def _without_traces() -> Iterator[None]:
    """Restores what a command changes in its process."""
    loggers = [logging.getLogger(name) for name in ("polyai", "dlt")]
    before = [(one, one.handlers, one.level, one.propagate) for one in loggers]
    umask = os.umask(0o022)
    main_module = sys.modules["__main__"]
    # child processes look for it; notebooks and dashboards put a module of their own there
    sys.modules["__main__"] = entry_point
    try:
        with files_read_again():
            yield
    finally:
        sys.modules["__main__"] = main_module
        os.umask(umask)
        for one, handlers, level, propagate in before:
            one.handlers, one.propagate = handlers, propagate
            one.setLevel(level)


@contextlib.contextmanager
def _time_limit() -> Iterator[None]:
    def on_alarm(number: int, frame: FrameType | None) -> None:
        raise _HungError

    before = signal.signal(signal.SIGALRM, on_alarm)
    signal.alarm(TIME_LIMIT_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def _writing_to(number: int, file: int) -> Iterator[None]:
    """Redirects a file descriptor to a file, also for child processes."""
    kept = os.dup(number)
    os.dup2(file, number)
    try:
        yield
    finally:
        os.dup2(kept, number)
        os.close(kept)
