"""Errors for failed requests: refused statuses, network failures, invalid answers.

No error contains the API key: what a server sends may repeat it, so its text is masked, and of a
network exception only the type is used.
"""

from __future__ import annotations

from typing import Any, Literal
from urllib.parse import urlsplit

import orjson
from urllib3 import BaseHTTPResponse
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    NameResolutionError,
    NewConnectionError,
    ProxyError,
    ReadTimeoutError,
)

from ..config.settings import Agent
from ..errors import AccessError, ApiError, ConversationError, ErrorDetails, UnavailableError
from .decoding import NotAcceptedError
from .retry import RetryableError, is_retryable, parse_retry_after

Subject = Literal["agent", "conversation"]
"""Resource of a path: a rejected agent stops the run, a rejected conversation does not."""


class RequestErrors:
    """Maps failures of requests to errors, with advice for the reader.

    Args:
        agent: Agent whose id and region are shown.
        base_url: Base URL of the API.
        api_key: Key to mask.
    """

    def __init__(self, agent: Agent, base_url: str, api_key: str) -> None:
        self._agent = agent
        self._base_url = base_url
        self._api_key = api_key

    def from_status(
        self, response: BaseHTTPResponse, body: bytes, url: str, subject: Subject
    ) -> ApiError | RetryableError:
        """Returns the error for a status that is not 2xx."""
        status, details = response.status, self._details(response, body, url)
        envelope = _envelope(body)
        reason = self._masked(envelope.get("error_message") or envelope.get("error")) or ""
        if body.startswith(b"{") and not envelope and body.strip() != b"{}":
            # the part that is missing would say which request is refused, and why
            return RetryableError(
                "an incomplete error answer", details, may_have_taken_effect=status >= 500
            )
        if is_retryable(status):
            is_rate_limit = status == 429
            what = "the API limits the rate" if is_rate_limit else "the API has a problem"
            return RetryableError(
                f"{what}: {reason}" if reason else what,
                details,
                retry_after_seconds=parse_retry_after(response.headers.get("Retry-After")),
                may_have_taken_effect=not is_rate_limit,
            )
        if 300 <= status < 400:
            target = self._masked(_without_query(response.headers.get("Location", "")))
            details["advice"] = (
                "Check the network for a sign-in page or proxy that redirects, and POLYAI_BASE_URL"
            )
            return UnavailableError(
                f"redirect to {target or 'an unknown address'} is not followed, because the API "
                "key would be sent there",
                **details,
            )
        return self._refused(subject, reason, details)

    def from_network(self, error: HTTPError, url: str) -> ApiError | RetryableError:
        """Returns the error for a request without a complete answer."""
        parts = urlsplit(self._base_url)
        host = f"{parts.hostname}:{parts.port or {'http': 80}.get(parts.scheme, 443)}"
        details: ErrorDetails = {"url": _without_query(url)}
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            return UnavailableError(
                f"the TLS certificate of {host} is not trusted",
                url=details["url"],
                advice=(
                    "If a proxy signs with its own certificate authority, set REQUESTS_CA_BUNDLE "
                    "to the authority's certificate file"
                ),
            )
        may_have_taken_effect = False
        if isinstance(error, ProxyError):
            message = f"the proxy cannot connect to {host}"
        elif isinstance(error, NameResolutionError):
            message = f"the host name of {host} cannot be resolved"
        elif isinstance(error, NewConnectionError):
            message = f"cannot connect to {host}"
        elif isinstance(error, ConnectTimeoutError):
            message = f"connecting to {host} timed out"
        else:
            may_have_taken_effect = True
            is_timeout = isinstance(error, ReadTimeoutError)
            message = (
                f"no answer from {host} in time"
                if is_timeout
                else f"the connection to {host} broke"
            )
        details["advice"] = "Check the network and its proxy, POLYAI_REGION and POLYAI_BASE_URL"
        return RetryableError(message, details, may_have_taken_effect=may_have_taken_effect)

    def from_invalid_answer(
        self, error: NotAcceptedError, response: BaseHTTPResponse, body: bytes, url: str
    ) -> RetryableError:
        """Returns the error for a 2xx answer that is not what was requested."""
        media_type = self._masked(response.headers.get("Content-Type")) or "unknown type"
        message = f"the answer {error} ({response.tell()} bytes of {media_type})"
        return RetryableError(message, self._details(response, body, url))

    def _refused(self, subject: Subject, reason: str, details: ErrorDetails) -> ApiError:
        """Returns the error for a 4xx that a retry cannot change."""
        status, region = details["status"], self._agent.region
        code = (details["error_code"] or "").upper()
        kind, what = ApiError, "the API rejects the request"
        if status == 401:
            kind, what = AccessError, "the API key is not accepted"
            details["advice"] = (
                f"A key is valid for one account, agent and region; most likely this one belongs "
                f"to another region than {region}. Set POLYAI_REGION to one of us, eu, uk, studio"
            )
        elif status == 403 and subject == "conversation":
            # single conversations can be refused; see `Probe` for a key that is
            kind, what = ConversationError, "the API key has no permission for the conversation"
        elif status == 403:
            kind, what = AccessError, "the API key has no permission"
            details["advice"] = (
                "Ask an administrator of the workspace for a key that can read conversations"
            )
        elif status == 404 and (subject == "agent" or "AGENT" in code or "PROJECT" in code):
            kind, what = (
                AccessError,
                f"agent {self._agent.agent_id} is not known in region {region}",
            )
            details["advice"] = (
                "Set POLYAI_AGENT_ID to the agent's id or its URL in Agent Studio, "
                f"studio.{region}.poly.ai/ACCOUNT/AGENT"
            )
        elif subject == "conversation":
            kind, what = ConversationError, "the conversation cannot be read"
        return kind(f"{what}: {reason}" if reason else what, **details)

    def _details(self, response: BaseHTTPResponse, body: bytes, url: str) -> ErrorDetails:
        """Returns the details of an answer for `ApiError`."""
        envelope = _envelope(body)
        error_id = envelope.get("error_id") or response.headers.get("X-PolyAI-Correlation-Id")
        return {
            "status": response.status,
            "error_code": self._masked(envelope.get("error_code")),
            "error_id": self._masked(error_id),
            "url": _without_query(url),
        }

    def _masked(self, text: object) -> str | None:
        """Returns a server's text as one short line without the key; None for none."""
        if not text:
            return None
        return " ".join(str(text).replace(self._api_key, "***").split())[:300]


def _envelope(body: bytes) -> dict[str, Any]:
    """Returns the API's error envelope; an empty one for the answer of a gateway."""
    try:
        envelope = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return envelope if isinstance(envelope, dict) else {}


def _without_query(url: str) -> str:
    return url.partition("?")[0]
