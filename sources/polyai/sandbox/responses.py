"""Responses: JSON documents and PolyAI's error envelope."""

from __future__ import annotations

from typing import Any

import orjson
from starlette.responses import Response
from starlette.types import Scope


class RefusedError(Exception):
    """Rejected request; `status`, `code` and the message are those of the response."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


def json_response(content: Any, status: int = 200) -> Response:
    """Response with a JSON document."""
    return Response(orjson.dumps(content), status, media_type="application/json")


def error(scope: Scope, status: int, code: str, message: str) -> Response:
    """Response with the error envelope."""
    envelope = {
        "success": False,
        "error": message,
        "error_id": scope["correlation_id"],
        "error_code": code,
        "error_message": message,
        "data": None,
    }
    return json_response(envelope, status)


def gateway_timeout() -> Response:
    """Response of the gateway, Kong, to a request that takes the service too long."""
    return json_response({"message": "The upstream server is timing out"}, 504)


def no_route() -> Response:
    """Response of the gateway, Kong, to a path that it has no route for."""
    return json_response({"message": "no Route matched with those values"}, 404)
