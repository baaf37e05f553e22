"""Temporary S3 server for tests: moto in a thread on a free port."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import fsspec
import requests

_KEY, _SECRET, _REGION = "loader", "unused", "us-east-1"

_SECONDS = 30
"""Time-out of requests to the server, which is in the same process."""


@dataclass(frozen=True)
class S3Server:
    """Running server.

    Attributes:
        url: Endpoint of the server.
        bucket: Name of an existing bucket.
    """

    url: str
    bucket: str = "recordings"

    def environment(self, section: str = "SOURCES__POLYAI__RECORDINGS") -> dict[str, str]:
        """Returns environment variables that configure dlt for the server."""
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
        """Returns a file system of fsspec without caches, equivalent to another machine's."""
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
        """Makes the server reject all credentials within the block."""
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
    """Runs a server with an empty bucket, and yields it."""
    from moto.server import ThreadedMotoServer

    # it logs every request
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
        # moto keeps its data per process, not per server
        requests.post(f"{running.url}/moto-api/reset", timeout=_SECONDS).raise_for_status()
    finally:
        server.stop()
        log.setLevel(level)
