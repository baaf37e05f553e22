"""Endpoints of the Agents API that read the names behind ids."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode

from ..errors import ApiError
from .client import encode_segment
from .decoding import NotAcceptedError
from .transport import Transport

Json = dict[str, Any]

_ENVIRONMENTS = ("live", "sandbox", "pre-release")

_MOST_DEPLOYMENTS = 1_000
"""Deployments to request per environment, newest first; the API has no pages."""


class AgentsApi(Transport):
    """Reads of the Agents API, on the hosts of the Data API; see `Transport`.

    All methods raise `ApiError` as `Transport.get` does for the subject `agent`.
    """

    def agents(self, account_id: str) -> list[Json]:
        """Fetches the agents of an account: `GET /v1/accounts/{accountId}/agents`."""
        return self._list(f"/v1/accounts/{encode_segment(account_id)}/agents", None)

    def deployments(self) -> list[Json]:
        """Fetches the deployments: `GET /v1/agents/{agentId}/deployments?environment&limit`."""
        return [one for name in _ENVIRONMENTS for one in self._deployments(name, _MOST_DEPLOYMENTS)]

    def check_access(self) -> None:
        """Requests one deployment, which fails if the key may not read names."""
        self._deployments(_ENVIRONMENTS[0], 1)

    def variants(self) -> list[Json]:
        """Fetches the variants of all branches: `GET …/branches`, `…/branches/{id}/variants`."""
        found = []
        for branch in self._list(self._path("branches"), "branches"):
            # branches have no schema
            branch_id = branch.get("branchId") or branch.get("id")
            if isinstance(branch_id, str) and branch_id:
                path = self._path(f"branches/{encode_segment(branch_id)}/variants")
                try:
                    found += self._list(path, "variants")
                except ApiError as error:
                    # a branch may have been deleted meanwhile, or be another user's
                    if error.status not in (HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND):
                        raise
        return found

    def phone_numbers(self) -> list[Json]:
        """Fetches the phone numbers: `GET /v1/agents/{agentId}/telephony/phone-numbers`."""
        return self._list(self._path("telephony/phone-numbers"), "phoneNumbers")

    def _deployments(self, environment: str, limit: int) -> list[Json]:
        def of(parameters: dict[str, Any]) -> list[Json]:
            return self._list(self._path(f"deployments?{urlencode(parameters)}"), "deployments")

        try:
            return of({"environment": environment, "limit": limit})
        except ApiError as error:
            if error.status != HTTPStatus.BAD_REQUEST:
                raise
            # no maximum is documented
            return of({"environment": environment})

    def _path(self, resource: str) -> str:
        return f"/v1/agents/{encode_segment(self._agent.agent_id)}/{resource}"

    def _list(self, path: str, name: str | None) -> list[Json]:
        accept: Callable[[Any, bytes], list[Json]] = partial(_items, name)
        return self.get(path, subject="agent", accept=accept)


def _items(name: str | None, payload: Any, body: bytes) -> list[Json]:
    """Returns the objects of a list, which is the answer or one of its fields."""
    if name is not None:
        payload = payload.get(name) if isinstance(payload, dict) else None
    if not isinstance(payload, list):
        raise NotAcceptedError(f"has no list of {name or 'agents'}")
    return [item for item in payload if isinstance(item, dict)]
