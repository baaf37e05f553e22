"""Body of an answer that is read as it arrives."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import NamedTuple

from .direct_get import CORRELATION_ID, Response


class Origin(NamedTuple):
    """Request and answer that a body came with.

    Attributes:
        url: URL of the request, which contains no secret.
        correlation_id: Id that was sent with it.
        polyai_correlation_id: Id that the answer has; None if it has none.
        http_status: Status of the answer.
        content_length: Its `Content-Length`, as sent.
        etag: Its `ETag`.
    """

    url: str
    correlation_id: str
    polyai_correlation_id: str | None
    http_status: int
    content_length: str | None
    etag: str | None


class Body(Iterator[bytes]):
    """Body of an answer, read as it arrives.

    Args:
        response: The answer, of which nothing was read yet.
        chunks: Its bytes.
        url: URL of the request.
        correlation_id: Id that was sent with it.
    """

    def __init__(
        self, response: Response, chunks: Iterator[bytes], url: str, correlation_id: str
    ) -> None:
        self._response = response
        self._chunks = chunks
        self._url = url
        self._correlation_id = correlation_id

    def __next__(self) -> bytes:
        return next(self._chunks)

    @cached_property
    def is_framed(self) -> bool:
        """True if `Content-Length` or chunked encoding marks its end.

        An early end then raises, and a regular one proves that all of it arrived.
        """
        is_chunked = "chunked" in self._response.headers.get("Transfer-Encoding", "").lower()
        return is_chunked or self._response.length_remaining is not None

    @property
    def origin(self) -> Origin:
        """Request and answer that it came with."""
        headers = self._response.headers
        return Origin(
            self._url,
            self._correlation_id,
            headers.get(CORRELATION_ID),
            self._response.status,
            headers.get("Content-Length"),
            headers.get("ETag"),
        )
