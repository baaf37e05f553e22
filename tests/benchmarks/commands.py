"""CPU seconds and memory of whole commands, as child processes in new interpreters."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

from .measuring import Server, environment, serve

AGENT_ID = "PROJECT-BOOKINGS"
EMPTY_SINCE = date(2020, 1, 1)
"""Day before all conversations of the server."""


@dataclass(frozen=True)
class CommandCost:
    """CPU seconds of a command with its children, and the peak memory of the command alone."""

    cpu_seconds: float
    peak_rss_bytes: int


_MEASURED = """
import atexit, runpy, sys
report = sys.argv.pop(1)
def write():
    from benchmarks.sides import peak_rss_bytes
    with open(report, "w") as file:
        file.write(str(peak_rss_bytes()))
atexit.register(write)
runpy.run_module("polyai", run_name="__main__", alter_sys=True)
"""
"""Runs the command, and then writes its peak memory; that of `wait4` begins with the parent's."""


def run(folder: Path, *arguments: str, variables: Mapping[str, str] | None = None) -> CommandCost:
    """Runs a command of the package in a folder.

    Raises:
        CalledProcessError: It could not do its work; 1 of `status` means inconsistent rows.
    """
    with tempfile.NamedTemporaryFile() as report:
        command = [sys.executable, "-c", _MEASURED, report.name, *arguments]
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment() | dict(variables or {}),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode > (arguments[0] == "status"):
            raise subprocess.CalledProcessError(process.returncode, command)
        peak = int(Path(report.name).read_text())
    return CommandCost(used.ru_utime + used.ru_stime, peak)


@dataclass(frozen=True)
class Site:
    """Folder with a loaded warehouse, and the server that it was loaded from.

    Attributes:
        server: The server.
        folder: The folder.
        first: Cost of the first load.
    """

    server: Server
    folder: Path
    first: CommandCost

    def run(self, *arguments: str) -> CommandCost:
        """Runs a command on the warehouse."""
        return run(self.folder, *arguments, variables=access(self.server))


@contextmanager
def loaded_site(conversations: int) -> Iterator[Site]:
    """Serves conversations, and loads them into a new folder."""
    with serve(conversations) as server, tempfile.TemporaryDirectory() as folder:
        first = run(Path(folder), "load", variables=access(server))
        yield Site(server, Path(folder), first)


def access(server: Server) -> dict[str, str]:
    """Returns the environment variables by which a command reads from a server."""
    return {
        "POLYAI_AGENT_ID": AGENT_ID,
        "POLYAI_API_KEY": "key",
        "POLYAI_BASE_URL": server.base_url,
    }


def backfill(server: Server, days: int, slice_days: int, *, since: date) -> CommandCost:
    """Loads a range into a new folder, by one worker."""
    with tempfile.TemporaryDirectory() as folder:
        return run(
            Path(folder),
            "backfill",
            "--from",
            since.isoformat(),
            "--to",
            (since + timedelta(days=days)).isoformat(),
            "--slice",
            f"{slice_days}d",
            "--workers",
            "1",
            variables=access(server),
        )
