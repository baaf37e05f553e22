"""Fault injection: failures of matching requests, as often as a test configures."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Literal, get_args

FaultKind = Literal[
    "status",
    "html",
    "reset",
    "truncated",
    "truncated_json",
    "envelope",
    "delay",
    "empty",
    "no_route",
]
DATA_LISTING = r"^/v1/agents/[^/]+/conversations$"
"""`path` of the Data API's listing: with `no_route`, it has been removed for all agents."""


@dataclass(frozen=True)
class Fault:
    """Injected failure of matching requests.

    Attributes:
        kind: `status` (error envelope), `html` (error page of a gateway), `reset` (connection reset
            without a response), `truncated` (fewer bytes than content-length), `truncated_json`
            (complete response with truncated JSON), `envelope` (HTTP 200 with an error envelope),
            `delay` (late response), `empty` (HTTP 200 without a body), `no_route` (HTTP 404 of the
            gateway, as for a route that was removed).
        path: Regular expression, searched in the path as sent, with and without the query.
        method: Only requests with this method; None for all.
        after: Number of matching requests that succeed first.
        times: Number of requests that fail; None for no limit.
        rate: Share of the matching requests that fail, 0 to 1; None for all.
        status: HTTP status of `status` and `html`.
        error_code: `error_code` of the envelope.
        retry_after: Value of the `Retry-After` header; None for no header.
        seconds: Delay of `delay`.
    """

    kind: FaultKind
    path: str = ""
    method: str | None = None
    after: int = 0
    times: int | None = None
    rate: float | None = None
    status: int = 503
    error_code: str = "SANDBOX_FAULT"
    retry_after: str | None = None
    seconds: float = 1.0


class _Rule:
    """Fault with counts of the requests that matched it and that it hit."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self.pattern = re.compile(fault.path)
        self.matched = 0
        self.hits = 0


class Faults:
    """Active faults, in the order in which they were added; thread-safe.

    The requests that a `rate` hits depend only on the seed and on their order.
    """

    def __init__(self, seed: int = 1) -> None:
        self._seed = seed
        self._rules: list[_Rule] = []
        self._lock = threading.Lock()

    def add(self, kind: FaultKind, **options: Any) -> None:
        """Adds a fault; `options` are the fields of `Fault`.

        Raises:
            ValueError: The kind is unknown.
            TypeError: An option is unknown.
        """
        if kind not in get_args(FaultKind):
            raise ValueError(f"unknown kind of fault: {kind}")
        with self._lock:
            self._rules.append(_Rule(Fault(kind, **options)))

    def clear(self) -> None:
        """Removes all faults."""
        with self._lock:
            self._rules.clear()

    @property
    def hits(self) -> int:
        """Number of requests that the active faults have hit."""
        with self._lock:
            return sum(rule.hits for rule in self._rules)

    def draw(self, method: str, path: str, query: str) -> Fault | None:
        """Returns the first active fault that applies to a request; None if there is none."""
        if not self._rules:
            return None
        with self._lock:
            for number, rule in enumerate(self._rules):
                if self._applies(number, rule, method, path, query):
                    rule.hits += 1
                    return rule.fault
        return None

    def _applies(self, number: int, rule: _Rule, method: str, path: str, query: str) -> bool:
        fault = rule.fault
        if fault.times is not None and rule.hits >= fault.times:
            return False
        if fault.method is not None and fault.method != method:
            return False
        if not (rule.pattern.search(path) or rule.pattern.search(f"{path}?{query}")):
            return False
        rule.matched += 1
        if rule.matched <= fault.after:
            return False
        if fault.rate is None:
            return True
        draw = blake2b(f"{self._seed}/{number}/{rule.matched}".encode(), digest_size=4).digest()
        return int.from_bytes(draw, "big") < fault.rate * 2**32
