"""Temporary MariaDB server for tests: one server per process, empty databases per use."""

from __future__ import annotations

import atexit
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest

_SERVER_USER = "mysql"
"""User created by Debian's package; MariaDB does not run as root unless told to."""

_START_SECONDS = 30.0

_OWN_DATABASES = frozenset({"information_schema", "mysql", "performance_schema", "sys"})


def server_program() -> Path | None:
    """The path of mariadbd; None where no server is installed."""
    found = shutil.which("mariadbd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    return Path(found) if found else None


needs_mariadb = pytest.mark.skipif(
    server_program() is None and not os.environ.get("CI"),
    reason="needs a MariaDB server: install the package mariadb-server",
)


@contextmanager
def mariadb() -> Iterator[str]:
    """Yields the connection string of a server without databases, and drops those made in it."""
    url, port = _server()
    try:
        yield url
    finally:
        with closing(_connect(port)) as connection, connection.cursor() as cursor:
            cursor.execute("SHOW DATABASES")
            for (name,) in cursor.fetchall():
                if name not in _OWN_DATABASES and name != "start":
                    cursor.execute(f"DROP DATABASE `{name}`")


def _connect(port: int) -> Any:
    import pymysql  # only `test-extras` has it

    return pymysql.connect(host="127.0.0.1", port=port, user="loader", password="unused")


@cache
def _server() -> tuple[str, int]:
    """Starts a new server on a free port; returns the connection string and the port.

    Its folder is not inside pytest's, which other sessions of pytest make inaccessible to the
    server's user.
    """
    program = server_program()
    if program is None:
        raise FileNotFoundError("no MariaDB server is installed")
    folder = Path(tempfile.mkdtemp(prefix="polyai-mariadb-"))
    as_user: list[str] = []
    if os.geteuid() == 0:
        shutil.chown(folder, _SERVER_USER)
        as_user = [f"--user={_SERVER_USER}"]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    data = folder / "data"
    subprocess.run(
        [
            "mariadb-install-db",
            "--no-defaults",
            f"--datadir={data}",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
            *as_user,
        ],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    first = folder / "first.sql"
    first.write_text(
        "CREATE DATABASE start;\nCREATE USER loader@'127.0.0.1' IDENTIFIED BY 'unused';\n"
        "GRANT ALL ON *.* TO loader@'127.0.0.1';\n"
    )
    first.chmod(0o644)
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [
                program,
                "--no-defaults",
                f"--datadir={data}",
                f"--port={port}",
                "--bind-address=127.0.0.1",
                "--skip-name-resolve",
                f"--socket={folder / 'socket'}",
                f"--init-file={first}",
                "--innodb-flush-log-at-trx-commit=0",
                "--innodb-buffer-pool-size=64M",
                *as_user,
            ],
            stdout=log,
            stderr=log,
        )

    def stop() -> None:
        server.kill()
        server.wait()
        shutil.rmtree(folder, ignore_errors=True)

    atexit.register(stop)
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            _connect(port).close()
        except Exception:
            if server.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return f"mysql+pymysql://loader:unused@127.0.0.1:{port}/start", port
