"""Routes under `/_sandbox/` for tests in other processes to control the sandbox, without a key."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from .faults import Faults
from .model import Annotation
from .request_log import RequestLog
from .responses import error, json_response
from .state import State
from .truth import APIS, DATA

_Endpoint = Callable[[Request], Awaitable[Response]]


def control_routes(state: State, faults: Faults, requests: RequestLog) -> list[Route]:
    """Builds the routes over a state."""
    control = _Control(state, faults, requests)
    return [
        _route("faults", "POST", control.add_fault),
        _route("faults", "DELETE", control.clear_faults),
        _route("advance", "POST", control.advance),
        _route("delete", "POST", control.delete),
        _route("edit", "POST", control.edit),
        _route("requests", "GET", control.read_requests),
        _route("requests", "DELETE", control.clear_requests),
        _route("truth", "GET", control.truth),
    ]


def _route(name: str, method: str, endpoint: _Endpoint) -> Route:
    async def guarded(request: Request) -> Response:
        try:
            return await endpoint(request)
        except (KeyError, TypeError, ValueError) as problem:
            return error(request.scope, 400, "SANDBOX_CONTROL", repr(problem))

    return Route(f"/_sandbox/{name}", guarded, methods=[method])


class _Control:
    """Endpoints; request bodies are JSON objects."""

    def __init__(self, state: State, faults: Faults, requests: RequestLog) -> None:
        self._state = state
        self._faults = faults
        self._requests = requests

    async def add_fault(self, request: Request) -> Response:
        """`{"kind", …}`: the fields of `Fault`."""
        self._faults.add(**orjson.loads(await request.body()))
        return json_response({"success": True}, 201)

    async def clear_faults(self, request: Request) -> Response:
        """Removes all faults."""
        self._faults.clear()
        return json_response({"success": True})

    async def advance(self, request: Request) -> Response:
        """`{"seconds", "arrivals"}`, both optional; returns the time of the clock."""
        options = orjson.loads(await request.body())
        by = timedelta(seconds=options.get("seconds", 0))
        self._state.advance(by, options.get("arrivals", 0))
        return json_response({"now": self._state.now})

    async def delete(self, request: Request) -> Response:
        """`{"agent_id", "conversation_id"}`."""
        self._state.delete(**orjson.loads(await request.body()))
        return json_response({"success": True})

    async def edit(self, request: Request) -> Response:
        """`{"agent_id", "conversation_id", …}`: the arguments of `State.edit`.

        `annotations` is a list of objects `{"turn_index", "role", "annotation_type", "comment",
        "annotated_by", "annotated_at", "reason"}`.
        """
        options: dict[str, Any] = orjson.loads(await request.body())
        if "annotations" in options:
            options["annotations"] = [_annotation(item) for item in options["annotations"]]
        self._state.edit(**options)
        return json_response({"success": True})

    async def read_requests(self, request: Request) -> Response:
        """Counts of requests by kind, or with `?paths=REGEX` the list of matching targets."""
        pattern = request.query_params.get("paths")
        if pattern is None:
            return json_response(self._requests.kinds)
        return json_response(self._requests.paths(pattern))

    async def clear_requests(self, request: Request) -> Response:
        """Clears the request log."""
        self._requests.clear()
        return json_response({"success": True})

    async def truth(self, request: Request) -> Response:
        """`?agent_id=`: one line of JSON per conversation, table → rows.

        `&apis=data,conversations_v3` are the APIs that it was fetched from, in order; `data` by
        default.
        """
        agent_id = request.query_params["agent_id"]
        apis = request.query_params.get("apis", DATA).split(",")
        if not self._state.has_agent(agent_id):
            raise KeyError(agent_id)
        if not set(apis) <= set(APIS):
            raise ValueError(f"apis: of {APIS}")
        lines = self._truth_lines(agent_id, apis)
        return StreamingResponse(lines, media_type="application/x-ndjson")

    def _truth_lines(self, agent_id: str, apis: Sequence[str]) -> Iterator[bytes]:
        for rows in self._state.truth(agent_id, apis):
            yield orjson.dumps(rows, option=orjson.OPT_APPEND_NEWLINE)


def _annotation(item: dict[str, Any]) -> tuple[int, Annotation]:
    moment = item.get("annotated_at")
    return item["turn_index"], Annotation(
        item.get("role"),
        item.get("annotation_type"),
        item.get("comment"),
        item.get("annotated_by"),
        None if moment is None else datetime.fromisoformat(moment),
        item.get("reason"),
    )
