"""What is to be forgotten: conversations by id, and all of a caller, as far as they are held."""

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

LEAST_DIGITS = 5
"""A caller's number has as many; a shorter one, or a word such as `anonymous`, would be others'."""


class Request(NamedTuple):
    """What a row of `forgotten` tells of an earlier request."""

    requested_at: datetime
    reason: str | None
    is_by_caller: bool
    is_done: bool


@dataclass
class Selection:
    """What is to be forgotten of one agent.

    Attributes:
        agent_id: The agent.
        conversations: By id, the moments at which it may have begun; none where it is not held.
        of_callers: Those of them that were found by their caller.
        callers: Numbers whose conversations are not to come back.
        earlier: Requests of earlier runs, by conversation; not all of them are to be done again.
    """

    agent_id: str
    conversations: dict[str, set[datetime | None]] = field(default_factory=dict)
    of_callers: set[str] = field(default_factory=set)
    callers: tuple[str, ...] = ()
    earlier: Mapping[str, Request] = field(default_factory=dict)


def select(
    warehouse: Warehouse,
    conversation_ids: Sequence[str],
    callers: Sequence[str],
    *,
    agent_ids: Sequence[str] = (),
    pii_secret: str = "",
) -> list[Selection]:
    """Looks up what is held of these conversations and callers, and what a killed run has left.

    Args:
        warehouse: Where they are.
        conversation_ids: Conversations; also such as are not held, and are not to come.
        callers: Phone numbers, however they are written, or SIP addresses.
        agent_ids: Of these agents alone; none for all that the warehouse holds.
        pii_secret: With what numbers were hashed while they were loaded.

    Returns:
        A selection for each agent of which there is something to do.

    Raises:
        ConfigurationError: A number is none; or a conversation is not held, and it is not clear of
            which agent it is.
    """
    for caller in callers:
        if "@" not in caller and len(normalize_number(caller)) < LEAST_DIGITS:
            raise ConfigurationError(f"{caller!r} is neither a phone number nor a SIP address")
    agents = list(agent_ids) or _agents(warehouse)
    selections = {agent_id: Selection(agent_id, callers=tuple(callers)) for agent_id in agents}
    for agent_id, own in selections.items():
        own.earlier = _earlier(warehouse, agent_id)
        killed = {name for name, request in own.earlier.items() if not request.is_done}
        own.of_callers = set(_of_callers(warehouse, agent_id, callers, pii_secret))
        wanted = killed | own.of_callers | own.earlier.keys() & set(conversation_ids)
        own.conversations = _held(warehouse, agent_id, wanted | set(conversation_ids))
        own.conversations |= {name: set() for name in wanted - own.conversations.keys()}
    held = {name for own in selections.values() for name in own.conversations}
    if unknown := [name for name in dict.fromkeys(conversation_ids) if name not in held]:
        if len(selections) != 1:
            raise ConfigurationError(
                f"{', '.join(unknown)}: not in the warehouse. Where that is as it should be, and "
                "none of it is to come, name the agent with --agent"
            )
        (own,) = selections.values()
        own.conversations |= {name: set() for name in unknown}
    return [own for own in selections.values() if own.conversations or own.callers]


def _evidence() -> list[Table]:
    """Returns the tables that can have rows of a conversation without rows in other tables."""
    return [table for table in erased_tables() if not table.is_child]


def _agents(warehouse: Warehouse) -> list[str]:
    """The agents of which the warehouse has any rows."""
    found: set[str] = set()
    for table in (*_evidence(), FORGOTTEN):
        rows = warehouse.rows(f"SELECT DISTINCT agent_id FROM {{{table.name}}}")
        found.update(agent_id for (agent_id,) in rows)
    return sorted(found)


def _earlier(warehouse: Warehouse, agent_id: str) -> dict[str, Request]:
    return {
        name: Request(in_utc(requested_at), reason, bool(is_by_caller), bool(is_done))
        for name, requested_at, reason, is_by_caller, is_done in warehouse.rows(
            "SELECT conversation_id, requested_at, reason, is_by_caller, erased_at IS NOT NULL "
            "FROM {forgotten} WHERE agent_id = %s",
            agent_id,
        )
    }


def _of_callers(
    warehouse: Warehouse, agent_id: str, callers: Sequence[str], pii_secret: str
) -> list[str]:
    """Held conversations of these callers; their numbers may stand there hashed."""
    if not callers:
        return []
    wanted = {normalize_caller(caller) for caller in callers}
    if pii_secret:
        hashing = Redaction("hash", pii_secret, "keep")
        for caller in callers:
            hashed = hashing.apply({"fromNumber": caller})
            wanted.add(normalize_caller(hashed["fromNumber"]))
    every = (
        f"FROM (SELECT conversation_id, {caller_sql()} AS caller FROM {{conversations}} "
        "WHERE agent_id = %s) c "
    )
    numbers = [
        number
        for (number,) in warehouse.rows(
            f"SELECT DISTINCT caller {every} WHERE caller IS NOT NULL", agent_id
        )
        if normalize_caller(number) in wanted
    ]
    return [
        name
        for some, marks in id_batches(numbers)
        for (name,) in warehouse.rows(
            f"SELECT conversation_id {every} WHERE caller IN ({marks})", agent_id, *some
        )
    ]


def _held(
    warehouse: Warehouse, agent_id: str, conversation_ids: Iterable[str]
) -> dict[str, set[datetime | None]]:
    """Those of these conversations of which there are rows, and when each began."""
    found: dict[str, set[datetime | None]] = {}
    for ids, marks in id_batches(sorted(conversation_ids)):
        for table in _evidence():
            began = table.conversation_began_at
            for name, moment in warehouse.rows(
                f"SELECT DISTINCT conversation_id, {began or 'NULL'} FROM {{{table.name}}} "
                f"WHERE agent_id = %s AND conversation_id IN ({marks})",
                agent_id,
                *ids,
            ):
                found.setdefault(name, set())
                if began is not None:
                    found[name].add(in_utc(moment))
    return found
