"""Simulated PolyAI API: deterministic, with realistic data and the real API's deviations.

Serves the Data API (`/v1/agents/…`), the listing of the Conversations API v3 (`/v3/…`), debug chats
and, under `/_sandbox/`, endpoints by which tests in other processes control it. Requires the extra
`sandbox`.
"""

from __future__ import annotations

from .config import SandboxConfig
from .faults import Fault, Faults
from .model import Annotation
from .request_log import Request, RequestLog
from .server import Sandbox, serve

__all__ = [
    "Annotation",
    "Fault",
    "Faults",
    "Request",
    "RequestLog",
    "Sandbox",
    "SandboxConfig",
    "serve",
]
