"""Parameters of requests, as endpoints of several APIs read them."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

import orjson
from starlette.requests import Request

from .responses import RefusedError
from .state import State


def agent_of(request: Request, state: State) -> str:
    """Returns the id of the agent in the path.

    Raises:
        RefusedError: There is no such agent.
    """
    agent_id = state.config.id_of(unquote(request.path_params["agent_id"]))
    if not state.has_agent(agent_id):
        raise RefusedError(404, "AGENT_NOT_FOUND", "Agent ID does not exist.")
    return agent_id


def integer(
    request: Request, name: str, default: int, *, least: int, most: int | None = None
) -> int:
    """Returns an integer of the query.

    Raises:
        RefusedError: It is not an integer within the bounds.
    """
    given = request.query_params.get(name)
    if given is None:
        return default
    if given.isdecimal() and least <= int(given) and (most is None or int(given) <= most):
        return int(given)
    bound = f"at least {least}" if most is None else f"{least} to {most}"
    raise RefusedError(400, "VALIDATION_ERROR", f"{name}: an integer, {bound}.")


async def json_object(request: Request) -> dict[str, Any]:
    """Returns the body.

    Raises:
        RefusedError: It is not a JSON object.
    """
    try:
        body = orjson.loads(await request.body())
    except orjson.JSONDecodeError:
        body = None
    if not isinstance(body, dict):
        raise RefusedError(400, "VALIDATION_ERROR", "The body is not a JSON object.")
    return body
