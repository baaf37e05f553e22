"""Names behind ids, which a load reads from the Agents API once a day at most.

They never fail a load. A key that may not read them is not tried again for a day; an API that does
not answer is tried again by the next load.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Any

from ..api.names import AgentsApi, Json
from ..config.agent import Agent
from ..config.settings import Settings
from ..errors import ApiError, PolyAIError, StoppedError, UnavailableError, unexpected_error
from ..shape.column_rules import ColumnRules
from ..shape.names import changed_rows, name_rows, with_given_names
from ..shape.redaction import Redaction
from ..tables.declaration import Table
from ..tables.names import AGENTS, DEPLOYMENTS, PHONE_NUMBERS, VARIANTS
from ..tables.registry import key_of, name_tables
from ..tables.rules import PLACED_AT
from ..warehouse.held import LoadState
from ..warehouse.queries import id_batches

logger = logging.getLogger("polyai")

INTERVAL = timedelta(days=1)
"""Time after which names are read again."""

_ATTEMPTS = 2
_LONGEST_PAUSE_SECONDS = 2.0
_TIMEOUT_SECONDS = 5.0


def client_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the options of the client that reads names, from those of the other clients.

    The load waits for names no longer than some seconds, because the next load reads them.
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


@dataclass(frozen=True)
class ReadNames:
    """Names that a run has read.

    Attributes:
        rows: Rows by table.
        is_whole: Whether all was read, or refused: the next load need not try again.
    """

    rows: Names
    is_whole: bool


def are_due(warehouse: LoadState, agent_id: str, now: datetime) -> bool:
    """Returns whether the names of an agent have not been requested for a day."""
    read_at = warehouse.names_read_at(agent_id, now)
    return read_at is None or now - read_at >= INTERVAL


def read_names(api: AgentsApi, agent: Agent, settings: Settings) -> ReadNames:
    """Requests the names of an agent; what the key may not read is left out.

    An error of one table does not prevent the reading of the others, unless nothing answers or the
    API limits the rate of requests.
    """
    reading = _Reading(agent.agent_id, Redaction.of(settings), ColumnRules.of(settings))
    try:
        reading.read(DEPLOYMENTS, api.deployments)
        reading.read(VARIANTS, api.variants)
        reading.read(PHONE_NUMBERS, api.phone_numbers)
        owned = [*reading.sent.get(DEPLOYMENTS, ()), *reading.sent.get(PHONE_NUMBERS, ())]
        if account_id := agent.account_id or _first(owned, "accountId"):
            # the agent may be configured by its slug
            ids = {agent.agent_id, _first(owned, "agentId"), _first(owned, "projectId")} - {None}
            reading.read(
                AGENTS,
                lambda: [it for it in api.agents(account_id) if _first([it], "agentId") in ids],
            )
    except StoppedError:
        return ReadNames(reading.rows, is_whole=False)
    except PolyAIError as error:
        reading.failed.append(error)
    if reading.refused:
        name, refusal = next(iter(reading.refused.items()))
        logger.info(
            "%s: the key may not read the names in %s: HTTP %s of %s. Conversations are loaded "
            "without them",
            agent.agent_id,
            ", ".join(reading.refused),
            refusal.status,
            refusal.url or name,
        )
    if reading.failed:
        logger.warning(
            "%s: names were not all read, the next load tries again: %s",
            agent.agent_id,
            reading.failed[0],
        )
    return ReadNames(reading.rows, is_whole=not reading.failed)


class _Reading:
    """Names that were read so far, and errors.

    Attributes:
        sent: Objects as sent, by table.
        rows: Their rows.
        refused: Errors that remain tomorrow, by name of the table.
        failed: Errors that may be over with the next load.
    """

    def __init__(self, agent_id: str, redaction: Redaction, rules: ColumnRules) -> None:
        self._agent_id = agent_id
        self._redaction = redaction
        self._rules = rules
        self.sent: dict[Table, list[Json]] = {}
        self.rows: dict[Table, list[Json]] = {}
        self.refused: dict[str, ApiError] = {}
        self.failed: list[PolyAIError] = []

    def read(self, table: Table, request: Callable[[], list[Json]]) -> None:
        """Requests a table.

        Raises:
            UnavailableError: Further requests would fail too, or would take long.
        """
        if any(error.status == HTTPStatus.UNAUTHORIZED for error in self.refused.values()):
            return
        try:
            self.sent[table] = sent = request()
        except UnavailableError as error:
            if error.status in (None, HTTPStatus.TOO_MANY_REQUESTS):
                raise
            self.failed.append(error)
        except ApiError as error:
            self.refused[table.name] = error
        else:
            self._shape(table, sent)

    def _shape(self, table: Table, sent: list[Json]) -> None:
        try:
            items = [self._redaction.value(item, table) for item in sent]
            rows = name_rows(table, self._agent_id, items)
            for row in rows:
                self._rules.empty_dropped(table, row)
            self.rows[table] = rows
        except Exception as error:
            # an odd answer must not stop the load of conversations
            problem = unexpected_error("the answer cannot be read", error)
            logger.warning("%s: %s were not read: %s", self._agent_id, table.name, problem)


def changed_names(
    warehouse: LoadState,
    agent_id: str,
    read: Names,
    by_hand: Mapping[str, Mapping[str, str]],
    now: datetime,
    *,
    has_news: bool,
) -> dict[Table, list[Json]]:
    """Returns the rows to write: those that are new or differ from the loaded ones.

    Args:
        warehouse: The warehouse, with all conversations of the run.
        agent_id: The agent.
        read: Rows that were read from the API.
        by_hand: Names by id, by name of the table, as in `Settings.names`. They take the place of
            those that were read. One of a variant or deployment without a row is added if
            conversations of the agent have its id.
        now: Time of the load.
        has_news: Conversations may have brought names of variants that are not loaded.
    """
    changed = {}
    own = _names_in_conversations(warehouse, agent_id) if has_news else {}
    for table in name_tables():
        names = by_hand.get(table.name, {})
        found = own if table is VARIANTS else {}
        if table not in read and not names and not found:
            continue
        loaded = _loaded(warehouse, table, agent_id)
        rows = read.get(table, [])
        if found:
            found = _without_listed(found, [*loaded, *rows])
            rows = with_given_names(table, agent_id, rows, loaded, found)
        if names:
            names = _names_in_use(warehouse, table, agent_id, names, [*rows, *loaded])
            rows = with_given_names(table, agent_id, rows, loaded, names)
        changed[table] = changed_rows(table, rows, loaded, now)
    return {table: rows for table, rows in changed.items() if rows}


def agent_name(warehouse: LoadState, agent_id: str, changed: Names) -> str | None:
    """Returns the name of an agent as it is with changed rows; None if it is unknown."""
    rows = [row["agent_name"] for row in changed.get(AGENTS, ())] or [
        name
        for (name,) in warehouse.rows(
            "SELECT agent_name FROM {agents} WHERE agent_id = %s", agent_id
        )
    ]
    return rows[0] if rows else None


def _names_in_use(
    warehouse: LoadState,
    table: Table,
    agent_id: str,
    names: Mapping[str, str],
    known: Iterable[Mapping[str, Any]],
) -> dict[str, str]:
    """Returns the names of ids that the agent has: its own, with a row, or of conversations."""
    key = key_of(table)[-1]
    if table is AGENTS:
        found = {agent_id}
    else:
        found = {row[key] for row in known}
        for ids, marks in id_batches(sorted(names.keys() - found)):
            rows = warehouse.rows(
                f"SELECT DISTINCT {key} FROM {{conversations}} "
                f"WHERE agent_id = %s AND {key} IN ({marks})",
                agent_id,
                *ids,
            )
            found |= {id_ for (id_,) in rows}
    if table is not AGENTS and (unknown := sorted(names.keys() - found)):
        logger.info("%s: no conversation has the %s %s", agent_id, table.name, ", ".join(unknown))
    return {id_: name for id_, name in names.items() if id_ in found}


def _names_in_conversations(warehouse: LoadState, agent_id: str) -> dict[str, str]:
    """Returns the names that conversations of v3 have of their variants, by id; the newest ones."""
    return dict(
        warehouse.rows(
            "SELECT variant_id, variant_name FROM {conversations} "
            "WHERE agent_id = %s AND variant_id IS NOT NULL AND variant_name IS NOT NULL "
            "GROUP BY variant_id, variant_name "
            f"ORDER BY max({PLACED_AT.sql()}), variant_name",
            agent_id,
        )
    )


def _without_listed(names: Mapping[str, str], known: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Leaves out the variants that the Agents API named: a row of another origin has no values.

    Args:
        names: Names by id.
        known: Rows of `variants`; the last one of an id counts.
    """
    listed = {
        id_
        for id_, row in {row["variant_id"]: row for row in known}.items()
        if row["variant_name"] is not None
        and (row["is_default"] is not None or row["extra"] is not None)
    }
    return {id_: name for id_, name in names.items() if id_ not in listed}


def _first(items: Iterable[Json], field: str) -> str | None:
    """Returns the first text in a field; None without one."""
    return next((found for item in items if isinstance(found := item.get(field), str)), None)


def _loaded(warehouse: LoadState, table: Table, agent_id: str) -> list[dict[str, Any]]:
    return warehouse.rows_by_column(
        f"SELECT {warehouse.columns_of(table)} FROM {{{table.name}}} WHERE agent_id = %s", agent_id
    )
