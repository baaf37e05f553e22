"""Routes of the Data API and the Conversations API v3."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, cast, get_args
from urllib.parse import unquote

import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from .agents_api import agents_routes
from .audio import Direction
from .chats import chat_routes
from .control import control_routes
from .deployments import ENVIRONMENTS
from .edge import KEY, Edge, ResetConnection
from .faults import Faults
from .keys import Key
from .parameters import agent_of, integer, json_object
from .payloads import DataPayloads, v3_row
from .request_log import RequestLog
from .responses import RefusedError, error, gateway_timeout, json_response, no_route
from .state import State
from .visibility import visible

_ROLES = ("user", "agent")
_ANNOTATION_TYPES = ("missing_topic", "wrong_transcript", "wrong_info")
_BOOLEANS = {"true": True, "false": False}


def build_app(
    state: State, faults: Faults, requests: RequestLog, reset_connection: ResetConnection
) -> Starlette:
    """Builds the ASGI application over a state."""
    api = _Api(state)
    agent = "/v1/agents/{agent_id}"
    conversation = f"{agent}/conversations/{{conversation_id}}"
    routes = [
        Route(conversation, api.detail),
        Route(f"{agent}/conversations", api.listing),
        Route(f"{conversation}/audio", api.audio),
        Route(f"{conversation}/annotation", api.annotation, methods=["POST"]),
        Route(f"{conversation}/note", api.note, methods=["POST"]),
        Route("/v3/{account_id}/{agent_id}/conversations", api.v3_listing),
        *agents_routes(state),
        *chat_routes(state),
        *control_routes(state, faults, requests),
    ]
    return Starlette(
        routes=routes,
        middleware=[
            Middleware(
                Edge,
                config=state.config,
                faults=faults,
                requests=requests,
                reset_connection=reset_connection,
            )
        ],
        exception_handlers={
            RefusedError: _on_refusal,
            HTTPException: _on_http_exception,
        },
    )


async def _on_refusal(request: Request, problem: Exception) -> Response:
    refused = cast(RefusedError, problem)
    return error(request.scope, refused.status, refused.code, str(refused))


async def _on_http_exception(request: Request, problem: Exception) -> Response:
    http = cast(HTTPException, problem)
    if http.status_code == 404:
        return no_route()
    return error(request.scope, http.status_code, "METHOD_NOT_ALLOWED", http.detail)


class _Api:
    """Endpoints: parse the request, query the state and render the response."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._payloads = DataPayloads(state.oddities)
        self._rendered = lru_cache(maxsize=state.config.kept_answers)(self._render)

    async def listing(self, request: Request) -> Response:
        """`GET /v1/agents/{agentId}/conversations`."""
        agent_id = self._agent_id(request)
        limit = min(integer(request, "limit", 50, least=1), self._state.config.max_limit)
        offset = integer(request, "offset", 0, least=0)
        key: Key = request.scope[KEY]
        disorder = self._state.disorder
        if disorder.is_active:
            indices, count = disorder.page(list(self._state.listed(agent_id)), limit, offset)
        else:
            listed = self._state.listed(agent_id, offset)
            indices = [index for index, _ in zip(listed, range(limit), strict=False)]
            count = self._state.count(agent_id)
        page = []
        for index in indices:
            row = self._payloads.row(visible(self._state.head(agent_id, index), key))
            if not disorder.has_id(index):
                del row["conversationId"]
            page.append(row)
        self._state.drift(agent_id)
        return json_response(
            {"conversations": page, "count": count, "limit": limit, "offset": offset}
        )

    async def detail(self, request: Request) -> Response:
        """`GET /v1/agents/{agentId}/conversations/{conversationId}`."""
        agent_id, index = self._conversation(request)
        key: Key = request.scope[KEY]
        stale = self._state.stale_conversation(agent_id, index)
        if stale is not None:
            return json_response(self._payloads.detail(visible(stale, key)))
        body = self._rendered(agent_id, index, key, self._state.revision)
        return Response(body, media_type="application/json")

    def _render(self, agent_id: str, index: int, key: Key, _revision: int) -> bytes:
        call = visible(self._state.conversation(agent_id, index), key)
        return orjson.dumps(self._payloads.detail(call))

    async def audio(self, request: Request) -> Response:
        """`GET /v1/agents/{agentId}/conversations/{conversationId}/audio`."""
        agent_id, index = self._conversation(request)
        direction: Direction | None = _DIRECTIONS.get(
            request.query_params.get("direction", "combined")
        )
        redacted = _boolean(request, "redacted")
        if direction is None:
            raise RefusedError(400, "VALIDATION_ERROR", "direction: combined, user or agent.")
        recording = self._state.recording(
            agent_id,
            self._state.traits(agent_id, index).conversation_id,
            direction,
            redacted=bool(redacted) or not request.scope[KEY].has_pii_access,
        )
        if recording is None:
            message = "Audio recording not found for this conversation."
            raise RefusedError(404, "CONVERSATIONS_RECORDING_NOT_FOUND", message)
        return Response(recording, media_type="audio/wav")

    async def annotation(self, request: Request) -> Response:
        """`POST …/annotation`: adds annotations. Not idempotent."""
        agent_id, index = self._conversation(request)
        items = (await json_object(request)).get("annotations")
        if not isinstance(items, list) or not items:
            raise RefusedError(400, "VALIDATION_ERROR", "annotations: at least one.")
        turns = self._state.conversation(agent_id, index).turn_count
        made = [_annotation(item, turns) for item in items]
        conversation_id = self._state.traits(agent_id, index).conversation_id
        self._state.annotate(agent_id, conversation_id, made)
        return json_response({"success": True}, 201)

    async def note(self, request: Request) -> Response:
        """`POST …/note`: replaces the note. Idempotent."""
        agent_id, index = self._conversation(request)
        note = (await json_object(request)).get("note")
        if not isinstance(note, str):
            raise RefusedError(400, "VALIDATION_ERROR", "note: a string.")
        conversation_id = self._state.traits(agent_id, index).conversation_id
        self._state.edit(agent_id, conversation_id, note=note or None)
        return json_response({"success": True}, 201)

    async def v3_listing(self, request: Request) -> Response:
        """`GET /v3/{account_id}/{project_id}/conversations`, created in [start_time, end_time)."""
        state, config, query = self._state, self._state.config, request.query_params
        agent_id = config.id_of(unquote(request.path_params["agent_id"]))
        account_id = config.id_of(unquote(request.path_params["account_id"]))
        if account_id != config.account_id or not state.has_agent(agent_id):
            raise RefusedError(404, "PROJECT_NOT_FOUND", "Project ID does not exist.")
        limit = integer(
            request, "limit", config.v3_default_limit, least=1, most=config.v3_max_limit
        )
        skipped = integer(request, "offset", 0, least=0)
        cursor = query.get("cursor")
        newest = None if cursor is None else _index_of(cursor)
        environment = query.get("client_env", "live")
        if environment not in ENVIRONMENTS:
            raise RefusedError(400, "VALIDATION_ERROR", f"client_env: one of {ENVIRONMENTS}.")
        channels, variant_id = query.getlist("channel"), query.get("variant_id")
        in_progress = _boolean(request, "in_progress")
        window = _time(request, "start_time"), _time(request, "end_time")
        matching = (
            index
            for index in state.listed_between(agent_id, *window, newest)
            if (traits := state.traits(agent_id, index)).environment == environment
            and (not channels or traits.channel in channels)
            and (variant_id is None or traits.variant_id == variant_id)
            and (in_progress is None or state.is_in_progress(agent_id, index) == in_progress)
        )
        for _ in zip(range(0 if cursor else skipped), matching, strict=False):
            pass
        indices = [index for _, index in zip(range(limit), matching, strict=False)]
        following = next(matching, None)
        if config.v3_stable_limit is not None and len(indices) > config.v3_stable_limit:
            return gateway_timeout()
        latency = bool(_boolean(request, "include_latency"))
        key: Key = request.scope[KEY]
        answer: dict[str, Any] = {
            "conversations": [
                v3_row(visible(state.conversation(agent_id, index), key), include_latency=latency)
                for index in indices
            ],
        }
        if config.v3_cursors:
            answer["cursor"] = None if following is None else _cursor_to(following)
        if following is not None:
            answer["next_offset"] = skipped + len(indices)
        state.drift(agent_id)
        return json_response(answer)

    def _agent_id(self, request: Request) -> str:
        return agent_of(request, self._state)

    def _conversation(self, request: Request) -> tuple[str, int]:
        agent_id = self._agent_id(request)
        index = self._state.find(agent_id, unquote(request.path_params["conversation_id"]))
        if index is None:
            raise RefusedError(404, "CONVERSATIONS_NOT_FOUND", "Conversation ID does not exist.")
        return agent_id, index


_DIRECTIONS: dict[str, Direction] = {name: name for name in get_args(Direction)}


def _boolean(request: Request, name: str) -> bool | None:
    given = request.query_params.get(name)
    if given is None:
        return None
    if given.lower() not in _BOOLEANS:
        raise RefusedError(400, "VALIDATION_ERROR", f"{name}: true or false.")
    return _BOOLEANS[given.lower()]


def _time(request: Request, name: str) -> datetime | None:
    given = request.query_params.get(name)
    if given is None:
        return None
    try:
        moment = datetime.fromisoformat(given)
    except ValueError:
        raise RefusedError(400, "VALIDATION_ERROR", f"{name}: a time in ISO 8601.") from None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def _cursor_to(index: int) -> str:
    return base64.urlsafe_b64encode(f"before:{index + 1}".encode()).decode().rstrip("=")


def _index_of(cursor: str) -> int:
    """Decodes a cursor to the newest index of its page."""
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        name, _, number = base64.b64decode(padded, b"-_", validate=True).decode().partition(":")
        if name == "before" and number.isdecimal():
            return int(number) - 1
    except ValueError:
        pass  # neither base64 nor ASCII
    raise RefusedError(400, "INVALID_CURSOR", "The cursor is malformed.")


def _annotation(item: Any, turns: int) -> tuple[int, str, str]:
    if isinstance(item, dict):
        turn: Any = item.get("turnId")
        role, kind = item.get("role"), item.get("annotationType")
        is_turn = isinstance(turn, int) and not isinstance(turn, bool) and 0 <= turn < turns
        if is_turn and role in _ROLES and kind in _ANNOTATION_TYPES:
            return turn, str(role), str(kind)
    raise RefusedError(400, "VALIDATION_ERROR", "annotations: turnId, role, annotationType.")
