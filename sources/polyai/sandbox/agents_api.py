"""Routes of the Agents API that read: agents, deployments, branches, variants, phone numbers."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from urllib.parse import unquote

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from . import texts
from .deployments import ENVIRONMENTS, Deployment, Deployments
from .numbers import connector_id, own_number
from .parameters import agent_of, integer
from .responses import RefusedError, json_response
from .state import State
from .traits import variant_id

_BRANCHES = (("main", "main"), ("BRANCH-winter", "winter-menu"))
"""Ids and names of branches; all have the same variants."""
_DEFAULT_LIMIT = 100


def agents_routes(state: State) -> list[Route]:
    """Builds the routes over a state."""
    api = _AgentsApi(state)
    agent = "/v1/agents/{agent_id}"
    return [
        Route("/v1/accounts/{account_id}/agents", api.agents),
        Route(f"{agent}/deployments", api.deployments),
        Route(f"{agent}/deployments/active", api.active_deployments),
        Route(f"{agent}/branches", api.branches),
        Route(f"{agent}/branches/{{branch_id}}/variants", api.variants),
        Route(f"{agent}/telephony/phone-numbers", api.phone_numbers),
    ]


class _AgentsApi:
    """Endpoints: parse the request, query the state and render the response."""

    def __init__(self, state: State) -> None:
        self._state = state
        config = state.config
        self._deployments = {name: Deployments(config, name) for name in config.agents}

    async def agents(self, request: Request) -> Response:
        """`GET /v1/accounts/{accountId}/agents`."""
        config = self._state.config
        account_id = config.id_of(unquote(request.path_params["account_id"]))
        if account_id != config.account_id:
            raise RefusedError(404, "ACCOUNT_NOT_FOUND", "Account ID does not exist.")
        created_at = config.now - config.span - timedelta(days=90)
        return json_response(
            [
                {
                    "accountId": config.account_id,
                    "agentId": agent_id,
                    "agentName": _agent_name(number),
                    "createdAt": created_at.isoformat(),
                    "updatedAt": self._newest(agent_id, "sandbox").created_at.isoformat(),
                    "branchCount": len(_BRANCHES),
                }
                for number, agent_id in enumerate(config.agents)
            ]
        )

    async def deployments(self, request: Request) -> Response:
        """`GET /v1/agents/{agentId}/deployments`: newest first."""
        agent_id = agent_of(request, self._state)
        environment = request.query_params.get("environment")
        if environment not in ENVIRONMENTS:
            raise RefusedError(400, "VALIDATION_ERROR", f"environment: one of {ENVIRONMENTS}.")
        limit = integer(request, "limit", _DEFAULT_LIMIT, least=1)
        listed = self._deployments[agent_id].listed(environment, self._state.now)
        return json_response(
            {"deployments": [self._deployment(agent_id, one) for one in listed[:limit]]}
        )

    async def active_deployments(self, request: Request) -> Response:
        """`GET /v1/agents/{agentId}/deployments/active`: the newest by environment."""
        agent_id = agent_of(request, self._state)
        active = {
            environment: self._deployment(agent_id, self._newest(agent_id, environment))
            for environment in ENVIRONMENTS
        }
        return json_response({"activeDeployments": active})

    async def branches(self, request: Request) -> Response:
        """`GET /v1/agents/{agentId}/branches`."""
        agent_of(request, self._state)
        found = [{"branchId": branch_id, "name": name} for branch_id, name in _BRANCHES]
        return json_response({"branches": found})

    async def variants(self, request: Request) -> Response:
        """`GET /v1/agents/{agentId}/branches/{branchId}/variants`."""
        agent_of(request, self._state)
        if unquote(request.path_params["branch_id"]) not in dict(_BRANCHES):
            raise RefusedError(404, "BRANCH_NOT_FOUND", "Branch ID does not exist.")
        found = [
            {
                "id": variant_id(number),
                "name": name,
                "isDefault": number == 0,
                "attributeValues": {"values": {"hotel": texts.HOTELS[number]}},
            }
            for number, name in enumerate(texts.VARIANTS)
        ]
        return json_response({"variants": found})

    async def phone_numbers(self, request: Request) -> Response:
        """`GET /v1/agents/{agentId}/telephony/phone-numbers`."""
        agent_id = agent_of(request, self._state)
        config = self._state.config
        wanted = request.query_params.get("connectorId")
        found: list[dict[str, Any]] = [
            {
                "number": own_number(config, agent_id, environment),
                "projectId": agent_id,
                "accountId": config.account_id,
                "clientEnv": environment,
                "connectorId": connector_id(environment),
            }
            for environment in ENVIRONMENTS
            if wanted in (None, connector_id(environment))
        ]
        return json_response({"phoneNumbers": found})

    def _newest(self, agent_id: str, environment: str) -> Deployment:
        return self._deployments[agent_id].listed(environment, self._state.now)[0]

    def _deployment(self, agent_id: str, deployment: Deployment) -> dict[str, Any]:
        return {
            "id": deployment.deployment_id,
            "accountId": self._state.config.account_id,
            "agentId": agent_id,
            "environment": deployment.environment,
            "artifactVersion": str(deployment.number + 1),
            "version": deployment.version,
            "createdBy": deployment.created_by,
            "createdAt": deployment.created_at.isoformat(),
            "metadata": {"deployment_message": deployment.message},
        }


def _agent_name(number: int) -> str:
    names = texts.AGENT_NAMES
    again = number // len(names)
    return f"{names[number % len(names)]}{f' {again + 1}' if again else ''}"
