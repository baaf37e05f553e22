"""Routes of chats: debug chats of the API, and the chats of PolyAI's command line, `poly chat`.

The command line sends and receives the same values in snake_case, under paths of its own.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import unquote

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from .bot import Bot
from .parameters import agent_of, json_object
from .responses import json_response
from .state import State

_CAPITAL = re.compile("(?<!^)([A-Z])")
_NAMES = {
    "client_env": "clientEnv",
    "variant_id": "variantId",
    "asr_lang_code": "asrLangCode",
    "tts_lang_code": "ttsLangCode",
}


def chat_routes(state: State) -> list[Route]:
    """Builds the routes over a state."""
    chats = _Chats(state)
    debug_chat = "/v1/agents/{agent_id}/debug-chat"
    chat = "/adk/v1/accounts/{account_id}/projects/{agent_id}/chat"
    return [
        Route(debug_chat, chats.start, methods=["POST"]),
        Route(f"{debug_chat}/{{conversation_id}}", chats.reply, methods=["POST"]),
        Route(chat, chats.start_snake, methods=["POST"]),
        Route(f"{chat}/{{conversation_id}}", chats.reply_snake, methods=["POST"]),
        Route(f"{chat}/{{conversation_id}}/end", chats.end_snake, methods=["POST"]),
    ]


class _Chats:
    """Endpoints: parse the request, ask the agent's bot and render its answer."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._bots = {agent_id: Bot() for agent_id in state.config.agents}

    async def start(self, request: Request) -> Response:
        """`POST /v1/agents/{agentId}/debug-chat`."""
        bot = self._bots[agent_of(request, self._state)]
        return json_response(bot.start(await json_object(request)), 201)

    async def reply(self, request: Request) -> Response:
        """`POST /v1/agents/{agentId}/debug-chat/{conversationId}`."""
        bot = self._bots[agent_of(request, self._state)]
        return json_response(bot.reply(_chat_id(request), await json_object(request)))

    async def start_snake(self, request: Request) -> Response:
        """`POST …/projects/{projectId}/chat`."""
        bot = self._bots[agent_of(request, self._state)]
        return json_response(_snake(bot.start(await _camel(request))), 201)

    async def reply_snake(self, request: Request) -> Response:
        """`POST …/projects/{projectId}/chat/{conversationId}`."""
        bot = self._bots[agent_of(request, self._state)]
        return json_response(_snake(bot.reply(_chat_id(request), await _camel(request))))

    async def end_snake(self, request: Request) -> Response:
        """`POST …/projects/{projectId}/chat/{conversationId}/end`."""
        self._bots[agent_of(request, self._state)].end(_chat_id(request))
        return json_response({"conversation_id": _chat_id(request), "conversation_ended": True})


def _chat_id(request: Request) -> str:
    return unquote(request.path_params["conversation_id"])


async def _camel(request: Request) -> dict[str, Any]:
    body = await json_object(request)
    return {_NAMES.get(name, name): value for name, value in body.items()}


def _snake(answer: dict[str, Any]) -> dict[str, Any]:
    """Renames the keys of an answer and of its metadata."""
    found = {_CAPITAL.sub(r"_\1", name).lower(): value for name, value in answer.items()}
    if "metadata" in found:
        found["metadata"] = _snake(found["metadata"])
    return found
