"""Temporary PostgreSQL server for tests: one cluster per process, one database per use."""

from __future__ import annotations

import atexit
import itertools
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path

import psycopg2
import pytest

_SERVER_USER = "postgres"
"""User created by Debian's package; PostgreSQL does not run as root."""


def binaries() -> Path | None:
    """The folder of initdb and pg_ctl; None where no server is installed."""
    versions = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[4])
    )
    if versions:
        return versions[-1].parent
    found = shutil.which("initdb")
    return Path(found).resolve().parent if found else None


needs_postgres = pytest.mark.skipif(
    binaries() is None and not os.environ.get("CI"),
    reason="needs a PostgreSQL server: install the package postgresql",
)


@contextmanager
def postgres() -> Iterator[str]:
    """Creates an empty database, yields its connection string, and drops it afterwards.

    Roles belong to the cluster, which all uses in a process share.
    """
    server = _server()
    name = f"polyai_{next(_numbers)}"
    _execute(server, f"CREATE DATABASE {name}")
    try:
        yield f"{server}/{name}"
    finally:
        _execute(server, f"DROP DATABASE {name} WITH (FORCE)")


_numbers = itertools.count(1)


@cache
def _server() -> str:
    """Starts a new cluster on a free port; returns the connection string without a database.

    Its folder is not inside pytest's, which other sessions of pytest make inaccessible to the
    server's user.
    """
    bin_ = binaries()
    if bin_ is None:
        raise FileNotFoundError("no PostgreSQL server is installed")
    folder = Path(tempfile.mkdtemp(prefix="polyai-postgres-"))
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

    def stop() -> None:
        run(bin_ / "pg_ctl", "-D", data, "-m", "immediate", "stop")
        shutil.rmtree(folder, ignore_errors=True)

    run(bin_ / "initdb", "-D", data, "-U", "loader", "--auth=trust", "-E", "UTF8", "--no-sync")
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c fsync=off -k {folder}"
    run(bin_ / "pg_ctl", "-D", data, "-w", "-l", folder / "log", "-o", options, "start")
    atexit.register(stop)
    return f"postgresql://loader:unused@127.0.0.1:{port}"


def _execute(server: str, statement: str) -> None:
    with closing(psycopg2.connect(f"{server}/postgres")) as connection:
        # a database is neither created nor dropped in a transaction
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement)
