"""Simulated PolyAI API: deterministic, with realistic data and the real API's deviations.

Serves the Data API and the reads of the Agents API (`/v1/…`), the listing of the Conversations API
v3 (`/v3/…`), chats and, under `/_sandbox/`, endpoints by which tests in other processes
control it. Requires the extra `sandbox`.
"""

from __future__ import annotations

from .config import SandboxConfig
from .faults import DATA_LISTING, Fault, Faults
from .keys import Key, Right
from .model import Annotation
from .request_log import Request, RequestLog
from .server import Sandbox, serve

__all__ = [
    "DATA_LISTING",
    "Annotation",
    "Fault",
    "Faults",
    "Key",
    "Request",
    "RequestLog",
    "Right",
    "Sandbox",
    "SandboxConfig",
    "serve",
]
