"""Names behind ids, which a load reads from the Agents API once a day at most.

They never fail a load. A key that may not read them is not tried again for a day; an API that does
not answer is tried again by the next load.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Any

from ..api.names import AgentsApi, Json
from ..config.agent import Agent
from ..config.settings import Settings
from ..errors import ApiError, PolyAIError, StoppedError, UnavailableError, unexpected_error
from ..shape.names import changed_rows, name_rows
from ..shape.redaction import Redaction
from ..tables.declaration import Table
from ..tables.names import AGENTS, DEPLOYMENTS, PHONE_NUMBERS, VARIANTS
from ..warehouse.held import LoadState

logger = logging.getLogger("polyai")

INTERVAL = timedelta(days=1)
"""Time after which names are read again."""

_ATTEMPTS = 2
_LONGEST_PAUSE_SECONDS = 2.0
_TIMEOUT_SECONDS = 10.0


def client_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the options of the client that reads names, from those of the other clients.

    The load does not wait for names after errors, at a rate limit or where nothing answers, because
    the next load reads them.
    """
    return {
        **options,
        "connections": 1,
        "request_timeout": min(options["request_timeout"], _TIMEOUT_SECONDS),
        "max_attempts": _ATTEMPTS,
        "max_pause_seconds": _LONGEST_PAUSE_SECONDS,
        "rate_limit_seconds": _LONGEST_PAUSE_SECONDS,
    }


Names = Mapping[Table, list[Json]]
"""Rows by table, as the API has them."""


def are_due(warehouse: LoadState, agent_id: str, now: datetime) -> bool:
    """Returns whether the names of an agent have not been requested for a day."""
    read_at = warehouse.names_read_at(agent_id, now)
    return read_at is None or now - read_at >= INTERVAL


def read_names(api: AgentsApi, agent: Agent, settings: Settings) -> Names | None:
    """Requests the names of an agent; what the key may not read is left out.

    Returns:
        The rows; None if the API does not answer.
    """
    try:
        found, refused = _request(api, agent)
        redaction = Redaction(settings.pii, settings.pii_secret, settings.transcripts)
        rows = {
            table: name_rows(table, agent.agent_id, map(redaction.apply, items))
            for table, items in found.items()
        }
    except StoppedError:
        return None
    except PolyAIError as error:
        logger.warning(
            "%s: names were not read, the next load tries again: %s", agent.agent_id, error
        )
        return None
    except Exception as error:
        # an odd answer must not stop the load of conversations
        problem = unexpected_error("the answer cannot be read", error)
        logger.warning("%s: names were not read: %s", agent.agent_id, problem)
        return {}
    if refused:
        name, refusal = next(iter(refused.items()))
        logger.info(
            "%s: the key may not read the names in %s: HTTP %s of %s. Conversations are loaded "
            "without them",
            agent.agent_id,
            ", ".join(refused),
            refusal.status,
            refusal.url or name,
        )
    return rows


def changed_names(
    warehouse: LoadState, agent_id: str, names: Names, now: datetime
) -> dict[Table, list[Json]]:
    """Returns the rows to write: those that are new or differ from the loaded ones."""
    changed = {
        table: changed_rows(table, rows, _loaded(warehouse, table, agent_id), now)
        for table, rows in names.items()
    }
    return {table: rows for table, rows in changed.items() if rows}


def _request(
    api: AgentsApi, agent: Agent
) -> tuple[Mapping[Table, list[Json]], Mapping[str, ApiError]]:
    """Requests each table; returns what was read, and the refusals by table."""
    found: dict[Table, list[Json]] = {}
    refused: dict[str, ApiError] = {}

    def read(table: Table, request: Callable[[], list[Json]]) -> None:
        if any(error.status == HTTPStatus.UNAUTHORIZED for error in refused.values()):
            return
        try:
            found[table] = request()
        except UnavailableError:
            raise
        except ApiError as error:
            refused[table.name] = error

    read(DEPLOYMENTS, api.deployments)
    read(VARIANTS, api.variants)
    read(PHONE_NUMBERS, api.phone_numbers)
    owned = [*found.get(DEPLOYMENTS, ()), *found.get(PHONE_NUMBERS, ())]
    if account_id := agent.account_id or _first(owned, "accountId"):
        # the agent may be configured by its slug
        ids = {agent.agent_id, _first(owned, "agentId"), _first(owned, "projectId")} - {None}
        read(
            AGENTS, lambda: [it for it in api.agents(account_id) if _first([it], "agentId") in ids]
        )
    return found, refused


def _first(items: Iterable[Json], field: str) -> str | None:
    """Returns the first text in a field; None without one."""
    return next((found for item in items if isinstance(found := item.get(field), str)), None)


def _loaded(warehouse: LoadState, table: Table, agent_id: str) -> list[dict[str, Any]]:
    columns = ", ".join(
        warehouse.json_text(column.name) if column.type == "json" else warehouse.name(column.name)
        for column in table.columns
    )
    return warehouse.rows_by_column(
        f"SELECT {columns} FROM {{{table.name}}} WHERE agent_id = %s", agent_id
    )
