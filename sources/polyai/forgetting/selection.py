"""Selection of the conversations to erase: by id and by caller."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from ..clock import in_utc
from ..errors import ConfigurationError
from ..shape.caller_identity import normalize_caller, normalize_number
from ..shape.redaction import Redaction
from ..tables.audit import FORGOTTEN
from ..tables.declaration import Table
from ..tables.registry import erased_tables
from ..tables.rules import caller_sql
from ..warehouse.queries import Warehouse, id_batches

MIN_CALLER_DIGITS = 5
"""Minimum length of a number: a shorter one, or a word such as `anonymous`, is not one caller's."""


class EarlierRequest(NamedTuple):
    """Row of `forgotten` from an earlier run."""

    requested_at: datetime
    reason: str | None
    is_by_caller: bool
    is_done: bool


@dataclass
class Selection:
    """Conversations and callers of one agent to erase.

    Attributes:
        agent_id: The agent.
        conversations: Possible start times by conversation id; empty if it is not in the warehouse.
        of_callers: The ids that were found by caller.
        callers: Callers whose conversations must not be loaded again.
        earlier: Requests of earlier runs by conversation id, including completed ones.
    """

    agent_id: str
    conversations: dict[str, set[datetime | None]] = field(default_factory=dict)
    of_callers: set[str] = field(default_factory=set)
    callers: tuple[str, ...] = ()
    earlier: Mapping[str, EarlierRequest] = field(default_factory=dict)


def select(
    warehouse: Warehouse,
    conversation_ids: Sequence[str],
    callers: Sequence[str],
    *,
    agent_ids: Sequence[str] = (),
    pii_secret: str = "",
) -> list[Selection]:
    """Finds conversations by id and by caller, and unfinished requests of killed runs.

    Args:
        warehouse: The warehouse.
        conversation_ids: Conversation ids; those not in the warehouse are not loaded later.
        callers: Phone numbers in any notation, or SIP addresses.
        agent_ids: Restricts the selection to these agents; empty for all in the warehouse.
        pii_secret: Secret that numbers were hashed with when they were loaded.

    Returns:
        One selection per agent with something to erase.

    Raises:
        ConfigurationError: A caller is not a phone number or SIP address; or a conversation is not
            in the warehouse and its agent is ambiguous.
    """
    for caller in callers:
        if "@" not in caller and len(normalize_number(caller)) < MIN_CALLER_DIGITS:
            raise ConfigurationError(f"{caller!r} is not a phone number or SIP address")
    agents = list(agent_ids) or _agents(warehouse)
    selections = {agent_id: Selection(agent_id, callers=tuple(callers)) for agent_id in agents}
    for agent_id, own in selections.items():
        own.earlier = _earlier(warehouse, agent_id)
        unfinished = {name for name, request in own.earlier.items() if not request.is_done}
        own.of_callers = set(_of_callers(warehouse, agent_id, callers, pii_secret))
        wanted = unfinished | own.of_callers | own.earlier.keys() & set(conversation_ids)
        own.conversations = _loaded(warehouse, agent_id, wanted | set(conversation_ids))
        own.conversations |= {name: set() for name in wanted - own.conversations.keys()}
    found = {name for own in selections.values() for name in own.conversations}
    if unknown := [name for name in dict.fromkeys(conversation_ids) if name not in found]:
        if len(selections) != 1:
            raise ConfigurationError(
                f"{', '.join(unknown)}: not in the warehouse. To keep it from being loaded later, "
                "name its agent with --agent"
            )
        (own,) = selections.values()
        own.conversations |= {name: set() for name in unknown}
    return [own for own in selections.values() if own.conversations or own.callers]


def _independent_tables() -> list[Table]:
    """Returns the tables that can have rows of a conversation that is in no other table."""
    return [table for table in erased_tables() if not table.is_child]


def _agents(warehouse: Warehouse) -> list[str]:
    """Returns the agents with rows in the warehouse."""
    found: set[str] = set()
    for table in (*_independent_tables(), FORGOTTEN):
        rows = warehouse.rows(f"SELECT DISTINCT agent_id FROM {{{table.name}}}")
        found.update(agent_id for (agent_id,) in rows)
    return sorted(found)


def _earlier(warehouse: Warehouse, agent_id: str) -> dict[str, EarlierRequest]:
    return {
        name: EarlierRequest(in_utc(requested_at), reason, bool(is_by_caller), bool(is_done))
        for name, requested_at, reason, is_by_caller, is_done in warehouse.rows(
            "SELECT conversation_id, requested_at, reason, is_by_caller, erased_at IS NOT NULL "
            "FROM {forgotten} WHERE agent_id = %s",
            agent_id,
        )
    }


def _of_callers(
    warehouse: Warehouse, agent_id: str, callers: Sequence[str], pii_secret: str
) -> list[str]:
    """Finds the conversations of these callers, whose numbers may be stored as hashes."""
    if not callers:
        return []
    wanted = {normalize_caller(caller) for caller in callers}
    if pii_secret:
        hashing = Redaction("hash", pii_secret, "keep")
        for caller in callers:
            hashed = hashing.apply({"fromNumber": caller})
            wanted.add(normalize_caller(hashed["fromNumber"]))
    calls = (
        f"FROM (SELECT conversation_id, {caller_sql()} AS caller FROM {{conversations}} "
        "WHERE agent_id = %s) c "
    )
    numbers = [
        number
        for (number,) in warehouse.rows(
            f"SELECT DISTINCT caller {calls} WHERE caller IS NOT NULL", agent_id
        )
        if normalize_caller(number) in wanted
    ]
    return [
        name
        for batch, marks in id_batches(numbers)
        for (name,) in warehouse.rows(
            f"SELECT conversation_id {calls} WHERE caller IN ({marks})", agent_id, *batch
        )
    ]


def _loaded(
    warehouse: Warehouse, agent_id: str, conversation_ids: Iterable[str]
) -> dict[str, set[datetime | None]]:
    """Returns the start times of those of these conversations that have rows."""
    found: dict[str, set[datetime | None]] = {}
    for ids, marks in id_batches(sorted(conversation_ids)):
        for table in _independent_tables():
            started_at = table.conversation_began_at
            for name, time in warehouse.rows(
                f"SELECT DISTINCT conversation_id, {started_at or 'NULL'} FROM {{{table.name}}} "
                f"WHERE agent_id = %s AND conversation_id IN ({marks})",
                agent_id,
                *ids,
            ):
                found.setdefault(name, set())
                if started_at is not None:
                    found[name].add(in_utc(time))
    return found
