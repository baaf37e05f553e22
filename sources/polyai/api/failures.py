"""Errors for failed requests: refused statuses, network failures, invalid answers.

No error contains an API key: what a server sends may repeat it, so its text is masked (`key_mask`),
and of a network exception only the type is used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, Literal
from urllib.parse import urlsplit

import orjson
from urllib3 import BaseHTTPResponse
from urllib3.exceptions import (
    ConnectTimeoutError,
    NameResolutionError,
    NewConnectionError,
    ProxyError,
    ReadTimeoutError,
)

from ..config.agent import DATA, V3, Agent
from ..errors import (
    AccessError,
    ApiError,
    ConversationError,
    ErrorDetails,
    RouteGoneError,
    UnavailableError,
)
from .decoding import NotAcceptedError, OversizeError, UnusableError
from .direct_get import CORRELATION_ID, Response
from .key_mask import KeyMask
from .rate_limit import requested_pause
from .refusals import advice
from .retry import RetryableError, is_retryable

_OTHER = {DATA: V3, V3: DATA}

_READ_CHARACTERS = 2_000
"""Length of a server's text in which keys are looked for; the rest is left out."""

Subject = Literal["agent", "conversation"]
"""Resource of a path: a rejected agent stops the run, a rejected conversation does not."""


class RequestErrors:
    """Maps failures of requests to errors, with advice for the reader.

    Args:
        agent: Agent whose id and region are shown.
        base_url: Base URL of the API.
        api_key: Key that is sent.
        source_api: The API.
        redact: Removes personal data from what a server sends, and from URLs.
    """

    def __init__(
        self,
        agent: Agent,
        base_url: str,
        api_key: str,
        source_api: str,
        redact: Callable[[str], str] = str,
    ) -> None:
        self._redact = redact
        self._agent = agent
        self._source_api = source_api
        self._base_url = base_url
        self._api_key = api_key
        self._mask = KeyMask(api_key, agent.api_key, agent.v3_api_key)

    def from_status(
        self,
        response: BaseHTTPResponse,
        body: bytes,
        url: str,
        correlation_id: str,
        subject: Subject,
    ) -> ApiError | RetryableError:
        """Returns the error for a status that is not 2xx."""
        status = response.status
        details = self._details(response, body, url, correlation_id)
        envelope = _envelope(body)
        reason = self._reason(envelope)
        if body.startswith(b"{") and not envelope and body.strip() != b"{}":
            # the missing part would contain the refused request and the reason
            return RetryableError(
                "an incomplete error answer", details, may_have_taken_effect=status >= 500
            )
        if is_retryable(status):
            is_rate_limit = status == 429
            what = "the API limits the rate" if is_rate_limit else "the API has a problem"
            return RetryableError(
                f"{what}: {reason}" if reason else what,
                details,
                retry_after_seconds=requested_pause(response.headers, is_rate_limit=is_rate_limit),
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
        if _is_route_gone(status, subject, envelope):
            details["advice"] = (
                f'If PolyAI has shut this API down, set api = "{_OTHER[self._source_api]}" '
                "(POLYAI_API); "
                "otherwise check POLYAI_REGION and POLYAI_BASE_URL"
            )
            what = "the API no longer offers this route"
            return RouteGoneError(f"{what}: {reason}" if reason else what, **details)
        return self._refused(subject, reason, details)

    def from_network(
        self, error: Exception, url: str, correlation_id: str
    ) -> ApiError | RetryableError:
        """Returns the error for a request without a complete answer."""
        parts = urlsplit(self._base_url)
        host = f"{parts.hostname}:{parts.port or {'http': 80}.get(parts.scheme, 443)}"
        details: ErrorDetails = {"url": self._redact(_without_query(url))}
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            return UnavailableError(
                f"the TLS certificate of {host} is not trusted",
                url=details["url"],
                advice=(
                    "If a proxy signs with its own certificate authority, set REQUESTS_CA_BUNDLE "
                    "to the authority's certificate file"
                ),
            )
        may_have_taken_effect = is_timeout = False
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
            # of no use above, where the request was not sent
            details["error_id"] = correlation_id
            is_timeout = isinstance(error, ReadTimeoutError)
            message = (
                f"no answer from {host} in time"
                if is_timeout
                else f"the connection to {host} broke"
            )
        details["advice"] = "Check the network and its proxy, POLYAI_REGION and POLYAI_BASE_URL"
        return RetryableError(
            message,
            details,
            may_have_taken_effect=may_have_taken_effect,
            is_timeout=is_timeout,
        )

    def from_invalid_answer(
        self,
        error: NotAcceptedError,
        response: Response,
        body: bytes,
        url: str,
        correlation_id: str,
    ) -> RetryableError:
        """Returns the error for a 2xx answer that is not what was requested."""
        media_type = self._masked(response.headers.get("Content-Type")) or "unknown type"
        reason = self._reason(_envelope(body))
        message = f"the answer {error} ({response.tell()} bytes of {media_type})"
        message += f": {reason}" if reason else ""
        return RetryableError(message, self._details(response, body, url, correlation_id))

    def from_unusable_answer(
        self,
        error: UnusableError,
        response: Response,
        url: str,
        correlation_id: str,
        subject: Subject,
    ) -> ApiError:
        """Returns the error for a 2xx answer that another attempt would not change."""
        details = self._details(response, b"", url, correlation_id)
        details["error_code"] = error.code
        is_conversation = subject == "conversation"
        if isinstance(error, OversizeError) and error.is_too_large:
            smaller = "" if is_conversation else "Lower page_size (POLYAI_PAGE_SIZE), or "
            advice = f"{smaller}raise max_body (POLYAI_MAX_BODY) to accept larger answers"
            details["advice"] = advice[0].upper() + advice[1:]
        kind = ConversationError if is_conversation else ApiError
        return kind(f"the answer {error}", **details)

    def _refused(self, subject: Subject, reason: str, details: ErrorDetails) -> ApiError:
        """Returns the error for a 4xx that a retry cannot change."""
        status, region = details["status"], self._agent.region
        code = (details["error_code"] or "").upper()
        kind, what = ApiError, "the API rejects the request"
        if status == 401:
            kind, what = AccessError, "the API key is not accepted"
            details["advice"] = self._causes(status)
        elif status == 403 and subject == "conversation":
            # single conversations can be refused; see `Probe` for a key that is
            kind, what = ConversationError, "the API key has no permission for the conversation"
            details["advice"] = (
                "If it may read none, ask an administrator of the workspace for another key"
            )
        elif status == 403:
            kind, what = AccessError, "the API key has no permission"
            details["advice"] = self._causes(status)
        elif status == 404 and (subject == "agent" or "AGENT" in code or "PROJECT" in code):
            kind, what = (
                AccessError,
                f"agent {self._agent.agent_id} is not known in region {region}",
            )
            details["advice"] = self._causes(status)
        elif subject == "conversation":
            kind, what = ConversationError, "the conversation cannot be read"
        return kind(f"{what}: {reason}" if reason else what, **details)

    def _causes(self, status: int) -> str:
        return advice(status, self._agent, self._source_api, self._base_url, self._api_key)

    def _details(
        self, response: Response, body: bytes, url: str, correlation_id: str
    ) -> ErrorDetails:
        """Returns the details of an answer for `ApiError`."""
        envelope = _envelope(body)
        error_id = self._masked(envelope.get("error_id") or response.headers.get(CORRELATION_ID))
        is_echoed = not error_id or error_id.lower() == correlation_id
        return {
            "status": response.status,
            "error_code": self._masked(envelope.get("error_code")),
            "error_id": error_id or correlation_id,
            "sent_id": None if is_echoed else correlation_id,
            "url": self._redact(_without_query(url)),
        }

    def _reason(self, envelope: Mapping[str, Any]) -> str:
        """Returns the explanation in an error: of the API's envelope, else of its gateway, Kong."""
        found = (envelope.get(name) for name in ("error_message", "error", "message"))
        return self._masked(next(filter(None, found), None)) or ""

    def _masked(self, text: object) -> str | None:
        """Returns a server's text as one short line without keys or numbers; None for none."""
        if not text:
            return None
        masked = self._mask.masked(str(text)[:_READ_CHARACTERS])
        return " ".join(self._redact(masked).split())[:300]


def _is_route_gone(status: int, subject: Subject, envelope: Mapping[str, Any]) -> bool:
    """Returns whether the gateway no longer knows the route, rather than the API a resource."""
    if status == HTTPStatus.GONE and subject == "agent":
        return True
    message = envelope.get("message")
    if status not in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE) or not message:
        return False
    if envelope.get("error_code") or envelope.get("error_message"):
        return False
    # of one conversation, a gateway's answer may also mean that the conversation is gone
    return subject == "agent" or "no route matched" in str(message).lower()


def _envelope(body: bytes) -> dict[str, Any]:
    """Returns the API's error envelope; an empty one for the answer of a gateway."""
    try:
        envelope = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return envelope if isinstance(envelope, dict) else {}


def _without_query(url: str) -> str:
    return url.partition("?")[0]
