"""Failures that a test orders: what shall go wrong, where and how often."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Literal, get_args

FaultKind = Literal[
    "status", "html", "reset", "truncated", "truncated_json", "envelope", "delay", "empty"
]


@dataclass(frozen=True)
class Fault:
    """An order for failures.

    Attributes:
        kind: `status` (an error envelope), `html` (a gateway's page), `reset` (the connection
            breaks without an answer), `truncated` (fewer bytes than content-length says),
            `truncated_json` (a whole answer, its JSON cut), `envelope` (200 with an error
            envelope), `delay` (a late answer), `empty` (200 without a body).
        path: regular expression, searched in the path as sent, with and without its query.
        method: only requests of this method, None for all.
        times: how many requests fail, None for no end.
        rate: share of the matching requests that fail, None for all.
        status: HTTP status of `status` and `html`.
        error_code: of the envelope.
        retry_after: value of the `Retry-After` header, None for no header.
        seconds: how late a `delay` is.
    """

    kind: FaultKind
    path: str = ""
    method: str | None = None
    times: int | None = None
    rate: float | None = None
    status: int = 503
    error_code: str = "SANDBOX_FAULT"
    retry_after: str | None = None
    seconds: float = 1.0


class _Order:
    """A fault and how often it was met."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self.pattern = re.compile(fault.path)
        self.met = 0
        self.hits = 0


class Faults:
    """The orders in force, in the order of their making; thread-safe.

    Which requests a `rate` hits follows from the seed and their sequence alone.
    """

    def __init__(self, seed: int = 1) -> None:
        self._seed = seed
        self._orders: list[_Order] = []
        self._lock = threading.Lock()

    def add(self, kind: FaultKind, **options: Any) -> None:
        """Orders failures; `options` are the fields of `Fault`.

        Raises:
            ValueError: if the kind is unknown.
            TypeError: if an option is unknown.
        """
        if kind not in get_args(FaultKind):
            raise ValueError(f"unknown kind of fault: {kind}")
        with self._lock:
            self._orders.append(_Order(Fault(kind, **options)))

    def clear(self) -> None:
        """Withdraws all orders."""
        with self._lock:
            self._orders.clear()

    @property
    def hits(self) -> int:
        """How many requests the orders in force have hit."""
        with self._lock:
            return sum(order.hits for order in self._orders)

    def draw(self, method: str, path: str, query: str) -> Fault | None:
        """The fault that this request meets: the first in force that applies."""
        if not self._orders:
            return None
        with self._lock:
            for number, order in enumerate(self._orders):
                if self._applies(number, order, method, path, query):
                    order.hits += 1
                    return order.fault
        return None

    def _applies(self, number: int, order: _Order, method: str, path: str, query: str) -> bool:
        fault = order.fault
        if fault.times is not None and order.hits >= fault.times:
            return False
        if fault.method is not None and fault.method != method:
            return False
        if not (order.pattern.search(path) or order.pattern.search(f"{path}?{query}")):
            return False
        order.met += 1
        if fault.rate is None:
            return True
        draw = blake2b(f"{self._seed}/{number}/{order.met}".encode(), digest_size=4).digest()
        return int.from_bytes(draw, "big") < fault.rate * 2**32
