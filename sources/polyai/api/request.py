"""Requests to PolyAI, as they are sent once or several times."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

from .failures import Subject


@dataclass(frozen=True)
class Request:
    """A request, sent once or several times.

    Attributes:
        path: Path and query behind the base URL, encoded.
        subject: Resource that a refusal concerns.
        headers: All headers except for the correlation id.
        method: GET or POST.
        body: JSON; None for no body.
        is_streamed: Whether the body of the answer is read as it arrives.
        is_idempotent: Whether the request may safely take effect twice.
        max_timeouts: See `Retrier.run`.
    """

    path: str
    subject: Subject
    headers: Mapping[str, str]
    method: str = "GET"
    body: bytes | None = None
    is_streamed: bool = False
    is_idempotent: bool = True
    max_timeouts: int | None = None


def new_correlation_id() -> str:
    """Returns a random UUID (version 4), at a fifth of the CPU time of `uuid.uuid4`."""
    digits = f"{random.getrandbits(128):032x}"
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"
