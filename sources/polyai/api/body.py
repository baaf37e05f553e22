"""Body of an answer that is read as it arrives."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

from .direct_get import Response


class Body(Iterator[bytes]):
    """Body of an answer, read as it arrives.

    Args:
        response: The answer, of which nothing was read yet.
        chunks: Its bytes.
    """

    def __init__(self, response: Response, chunks: Iterator[bytes]) -> None:
        self._response = response
        self._chunks = chunks

    def __next__(self) -> bytes:
        return next(self._chunks)

    @cached_property
    def is_framed(self) -> bool:
        """True if `Content-Length` or chunked encoding marks its end.

        An early end then raises, and a regular one proves that all of it arrived.
        """
        is_chunked = "chunked" in self._response.headers.get("Transfer-Encoding", "").lower()
        return is_chunked or self._response.length_remaining is not None
