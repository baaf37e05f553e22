"""An S3 server of the tests' own: moto in a thread on a free port, gone afterwards."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import fsspec
import requests

_KEY, _SECRET, _REGION = "loader", "unused", "us-east-1"

_SECONDS = 30
"""A server in the same process that takes longer for anything hangs."""


def is_installed() -> bool:
    """Whether both the server and a driver for it are there."""
    return find_spec("moto") is not None and find_spec("s3fs") is not None


@dataclass(frozen=True)
class S3Server:
    """A server that is running.

    Attributes:
        url: Its endpoint.
        bucket: A bucket that it has.
    """

    url: str
    bucket: str = "recordings"

    def environment(self, section: str = "SOURCES__POLYAI__RECORDINGS") -> dict[str, str]:
        """The environment variables in which dlt finds the way to it."""
        return {
            f"{section}__CREDENTIALS__{name}": value
            for name, value in {
                "AWS_ACCESS_KEY_ID": _KEY,
                "AWS_SECRET_ACCESS_KEY": _SECRET,
                "ENDPOINT_URL": self.url,
                "REGION_NAME": _REGION,
            }.items()
        }

    def files(self) -> Any:
        """Its files, as another machine sees them: fsspec's file system, with nothing cached."""
        return fsspec.filesystem(
            "s3",
            key=_KEY,
            secret=_SECRET,
            endpoint_url=self.url,
            client_kwargs={"region_name": _REGION},
            use_listings_cache=False,
            skip_instance_cache=True,
        )

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """Takes no key meanwhile."""
        self._authenticate_after("0")
        try:
            yield
        finally:
            self._authenticate_after("inf")

    def _authenticate_after(self, actions: str) -> None:
        address = f"{self.url}/moto-api/reset-auth"
        requests.post(address, data=actions.encode(), timeout=_SECONDS).raise_for_status()


@contextmanager
def s3() -> Iterator[S3Server]:
    """Runs a server with an empty bucket."""
    from moto.server import ThreadedMotoServer

    # it logs each request
    log = logging.getLogger("werkzeug")
    level = log.level
    log.setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        running = S3Server(f"http://{host}:{port}")
        address = f"{running.url}/{running.bucket}"
        requests.put(address, timeout=_SECONDS).raise_for_status()
        yield running
        # what it holds is the process's, not the server's
        requests.post(f"{running.url}/moto-api/reset", timeout=_SECONDS).raise_for_status()
    finally:
        server.stop()
        log.setLevel(level)
