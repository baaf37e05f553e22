"""Temporary PostgreSQL server for tests: a new cluster on a free port."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

_SERVER_USER = "postgres"
"""User created by Debian's package; PostgreSQL does not run as root."""


def binaries() -> Path | None:
    """Returns the folder of initdb and pg_ctl; None if no server is installed."""
    versions = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[4])
    )
    if versions:
        return versions[-1].parent
    found = shutil.which("initdb")
    return Path(found).resolve().parent if found else None


@contextmanager
def postgres() -> Iterator[str]:
    """Runs a server with an empty database `polyai`, and yields its connection string.

    Its folder is not inside pytest's, which other sessions of pytest make inaccessible to the
    server's user.
    """
    bin_ = binaries()
    if bin_ is None:
        raise FileNotFoundError("no PostgreSQL server is installed")
    with tempfile.TemporaryDirectory() as name:
        yield from _served(bin_, Path(name))


def _served(bin_: Path, folder: Path) -> Iterator[str]:
    as_user: list[str] = []
    if os.geteuid() == 0:
        shutil.chown(folder, _SERVER_USER)
        as_user = ["runuser", "-u", _SERVER_USER, "--"]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    data = folder / "data"

    def run(*command: str | Path) -> None:
        words: Sequence[str] = [*as_user, *map(str, command)]
        subprocess.run(words, check=True, cwd=folder, stdout=subprocess.DEVNULL)

    run(bin_ / "initdb", "-D", data, "-U", "loader", "--auth=trust", "-E", "UTF8", "--no-sync")
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c fsync=off -k {folder}"
    run(bin_ / "pg_ctl", "-D", data, "-w", "-l", folder / "log", "-o", options, "start")
    try:
        run(bin_ / "createdb", "-h", "127.0.0.1", "-p", str(port), "-U", "loader", "polyai")
        yield f"postgresql://loader:unused@127.0.0.1:{port}/polyai"
    finally:
        run(bin_ / "pg_ctl", "-D", data, "-m", "immediate", "stop")
