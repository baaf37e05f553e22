"""Log of the requests that the sandbox has received."""

from __future__ import annotations

import re
import threading
from collections import Counter, deque
from typing import NamedTuple

KEPT_REQUESTS = 200_000
"""Maximum number of logged requests; the counts by kind are not limited."""


class Request(NamedTuple):
    """Request as sent; status 0 if the connection was reset without a response."""

    method: str
    path: str
    query: str
    status: int

    @property
    def target(self) -> str:
        """Path and query, percent-encoded as sent."""
        return f"{self.path}?{self.query}" if self.query else self.path


class RequestLog:
    """Log of bounded length; thread-safe."""

    def __init__(self) -> None:
        self._requests: deque[Request] = deque(maxlen=KEPT_REQUESTS)
        self._kinds: Counter[str] = Counter()
        self._lock = threading.Lock()

    def add(self, request: Request) -> None:
        """Logs a request."""
        with self._lock:
            self._requests.append(request)
            self._kinds[kind_of(request.path)] += 1

    def clear(self) -> None:
        """Clears the log and the counts."""
        with self._lock:
            self._requests.clear()
            self._kinds.clear()

    def matching(self, pattern: str = "") -> list[Request]:
        """Logged requests whose `METHOD target` matches the regular expression, oldest first."""
        search = re.compile(pattern).search
        with self._lock:
            requests = list(self._requests)
        return [r for r in requests if search(f"{r.method} {r.target}")]

    def count(self, pattern: str = "") -> int:
        """Number of matching logged requests."""
        return len(self.matching(pattern))

    def paths(self, pattern: str = "") -> list[str]:
        """Targets of the matching requests, oldest first."""
        return [request.target for request in self.matching(pattern)]

    @property
    def kinds(self) -> dict[str, int]:
        """Counts by kind: list, detail, audio, annotation, note, debug_chat, v3, agents, other."""
        with self._lock:
            return dict(self._kinds)


def kind_of(path: str) -> str:
    """Returns the kind of a request from its percent-encoded path."""
    parts = path.split("/")
    if parts[1] == "v3":
        return "v3"
    if parts[1] != "v1" or len(parts) < 5:
        return "other"
    if parts[2] == "accounts" or parts[4] in ("deployments", "branches", "telephony"):
        return "agents"
    if parts[4] == "debug-chat":
        return "debug_chat"
    if parts[4] != "conversations":
        return "other"
    if len(parts) == 7:
        return parts[6] if parts[6] in ("audio", "annotation", "note") else "other"
    return {5: "list", 6: "detail"}.get(len(parts), "other")
