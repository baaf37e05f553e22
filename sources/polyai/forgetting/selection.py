"""Selection of the conversations to erase: by id and by caller."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from operator import ne
from typing import Literal, NamedTuple

from ..clock import in_utc
from ..errors import ConfigurationError
from ..shape.caller_identity import (
    MOST_DIGITS,
    has_country,
    keyed_hash,
    normalize_caller,
    normalize_number,
    spellings,
)
from ..tables.declaration import Table
from ..tables.erasure import FORGOTTEN
from ..tables.registry import erased_tables
from ..tables.rules import caller_sql
from ..warehouse.callers import forgotten_callers, region_of
from ..warehouse.holds import HoldKeys, Holds
from ..warehouse.queries import Warehouse, id_batches
from .ledger import Entry, Ledger
from .mentions import ENDING_DIGITS, find_mentions

MIN_CALLER_DIGITS = 5
"""Minimum length of a number: a shorter one, or a word such as `anonymous`, is not one caller's."""

Mentions = Literal["ignore", "list", "erase"]
"""Treatment of conversations of others in which a caller is mentioned."""

_MAX_NEAR = 3
"""Maximum number of callers that are named because they resemble one that was not found."""


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
        mentions: Other conversations in which a caller is mentioned, with the places; see
            `find_mentions`.
        callers: Callers whose conversations must not be loaded again.
        region: Country of numbers without country code; see `normalize_number`.
        not_found: Callers without a conversation, now or when they were erased before; by caller,
            those of the warehouse that come near.
        earlier: Requests of earlier runs by conversation id, including completed ones, and of the
            ledger.
        entries: Entries of the ledger to apply.
        on_hold: Conversations that are not erased because of a legal hold, with its reason.
        callers_on_hold: Callers that are not erased for that reason, likewise.
    """

    agent_id: str
    conversations: dict[str, set[datetime | None]] = field(default_factory=dict)
    of_callers: set[str] = field(default_factory=set)
    mentions: dict[str, list[str]] = field(default_factory=dict)
    callers: tuple[str, ...] = ()
    region: str = ""
    not_found: dict[str, list[str]] = field(default_factory=dict)
    earlier: Mapping[str, EarlierRequest] = field(default_factory=dict)
    entries: list[Entry] = field(default_factory=list)
    on_hold: dict[str, str | None] = field(default_factory=dict)
    callers_on_hold: dict[str, str | None] = field(default_factory=dict)


def select(
    warehouse: Warehouse,
    conversation_ids: Sequence[str],
    callers: Sequence[str],
    *,
    agent_ids: Sequence[str] = (),
    pii_secret: str = "",
    phone_region: str = "",
    mentions: Mentions = "ignore",
    ledger: Ledger | None = None,
) -> list[Selection]:
    """Finds conversations by id and by caller, and unfinished requests of killed runs.

    Args:
        warehouse: The warehouse.
        conversation_ids: Conversation ids; those not in the warehouse are not loaded later.
        callers: Phone numbers in any notation, or SIP addresses.
        agent_ids: Restricts the selection to these agents; empty for all in the warehouse.
        pii_secret: Secret that numbers were hashed with when they were loaded.
        phone_region: Country of numbers without country code. Default: that of the agent's own
            numbers.
        mentions: Whether to find mentions of the callers in other conversations, and to erase these
            too.
        ledger: Ledger whose erasures are to be applied too.

    Returns:
        One selection per agent with something to erase.

    Raises:
        ConfigurationError: A caller is not a phone number or SIP address; or a conversation is not
            in the warehouse and its agent is ambiguous.
        StoreError: The ledger cannot be read.
    """
    for caller in callers:
        if "@" not in caller and len(normalize_number(caller)) < MIN_CALLER_DIGITS:
            raise ConfigurationError(f"{caller!r} is not a phone number or SIP address")
    agents = list(agent_ids) or _agents(warehouse)
    selections = {agent_id: Selection(agent_id, callers=tuple(callers)) for agent_id in agents}
    pending = ledger.pending(warehouse, agents) if ledger else {}
    keys = HoldKeys(pii_secret, phone_region)
    for agent_id, own in selections.items():
        holds = Holds(warehouse, agent_id, keys)
        own.callers_on_hold = {
            caller: hold.reason for caller in callers if (hold := holds.of_caller(caller))
        }
        own.entries = pending.get(agent_id, [])
        own.earlier = _of_ledger(own.entries) | _earlier(warehouse, agent_id)
        unfinished = {name for name, request in own.earlier.items() if not request.is_done}
        if callers:
            own.region = region_of(warehouse, agent_id, phone_region)
            _find_callers(warehouse, own, pii_secret)
            # the hash of a number without country would never match
            own.callers = tuple(
                caller
                for caller in callers
                if caller not in own.not_found or has_country(caller, own.region)
            )
        wanted = unfinished | own.of_callers | own.earlier.keys() & set(conversation_ids)
        if callers and mentions != "ignore":
            own.mentions = find_mentions(
                warehouse,
                agent_id,
                [caller for caller in callers if caller not in own.callers_on_hold],
                region=own.region,
                pii_secret=pii_secret,
                besides=wanted | set(conversation_ids),
            )
        if mentions == "erase":
            wanted |= own.mentions.keys()
        own.conversations = start_times(warehouse, agent_id, wanted | set(conversation_ids))
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
    for own in selections.values():
        _leave_what_is_on_hold(warehouse, own, keys)
    return [
        own
        for own in selections.values()
        if own.conversations
        or own.callers
        or own.not_found
        or own.entries
        or own.on_hold
        or own.callers_on_hold
    ]


def _leave_what_is_on_hold(warehouse: Warehouse, selection: Selection, keys: HoldKeys) -> None:
    holds = Holds(warehouse, selection.agent_id, keys)
    for name, hold in holds.among(warehouse, selection.conversations).items():
        selection.on_hold[name] = hold.reason
        del selection.conversations[name]
    selection.callers = tuple(
        caller for caller in selection.callers if caller not in selection.callers_on_hold
    )


def _independent_tables() -> list[Table]:
    """Returns the tables that can have rows of a conversation that is in no other table."""
    return [table for table in erased_tables() if not table.is_child]


def _agents(warehouse: Warehouse) -> list[str]:
    """Returns the agents with rows in the warehouse."""
    found: set[str] = set()
    with warehouse.kept_open():
        for table in (*_independent_tables(), FORGOTTEN):
            rows = warehouse.rows(f"SELECT DISTINCT agent_id FROM {{{table.name}}}")
            found.update(agent_id for (agent_id,) in rows)
    return sorted(found)


def _of_ledger(entries: Iterable[Entry]) -> dict[str, EarlierRequest]:
    return {
        name: EarlierRequest(entry.at, None, is_by_caller=False, is_done=False)
        for entry in reversed(list(entries))
        for name in entry.conversations
    }


def _earlier(warehouse: Warehouse, agent_id: str) -> dict[str, EarlierRequest]:
    return {
        name: EarlierRequest(in_utc(requested_at), reason, bool(is_by_caller), bool(is_done))
        for name, requested_at, reason, is_by_caller, is_done in warehouse.rows(
            "SELECT conversation_id, requested_at, reason, is_by_caller, erased_at IS NOT NULL "
            "FROM {forgotten} WHERE agent_id = %s",
            agent_id,
        )
    }


def _find_callers(warehouse: Warehouse, selection: Selection, pii_secret: str) -> None:
    """Finds the conversations of the callers, whose numbers may be stored as hashes.

    Fills `of_callers` and `not_found`.
    """
    agent_id, region = selection.agent_id, selection.region
    calls = (
        f"FROM (SELECT conversation_id, {caller_sql()} AS caller FROM {{conversations}} "
        "WHERE agent_id = %s) c "
    )
    stored = [
        caller
        for (caller,) in warehouse.rows(
            f"SELECT DISTINCT caller {calls} WHERE caller IS NOT NULL", agent_id
        )
    ]
    erased = forgotten_callers(warehouse, agent_id, region, pii_secret)
    found: list[str] = []
    for caller in selection.callers:
        forms = spellings(caller, region)
        if pii_secret:
            forms |= {normalize_caller(keyed_hash(form, pii_secret)) for form in forms}
        endings = {form[-ENDING_DIGITS:] for form in forms}
        same = [
            other
            for other in stored
            # a number is parsed only if it can be the same one
            if any(ending in _digits(other) or ending in other.lower() for ending in endings)
            and not forms.isdisjoint(spellings(other, region))
        ]
        found += same
        if not same and not erased.includes(caller):
            selection.not_found[caller] = _near(caller, stored, region)
    selection.of_callers = {
        name
        for batch, marks in id_batches(found)
        for (name,) in warehouse.rows(
            f"SELECT conversation_id {calls} WHERE caller IN ({marks})", agent_id, *batch
        )
    }


def _digits(text: str) -> str:
    return "".join(filter(str.isdigit, text))


def _near(caller: str, stored: Iterable[str], region: str) -> list[str]:
    """Returns a few callers whose number ends alike, or differs in one digit."""
    wanted = normalize_caller(caller, region)

    def is_near(other: str) -> bool:
        digits = _digits(other)
        if len(digits) > MOST_DIGITS:  # a hash
            return False
        differing = sum(map(ne, digits, wanted)) if len(digits) == len(wanted) else 2
        return differing <= 1 or digits.endswith(wanted[-ENDING_DIGITS:])

    return list(islice(filter(is_near, stored), _MAX_NEAR))


def start_times(
    warehouse: Warehouse, agent_id: str, conversation_ids: Iterable[str]
) -> dict[str, set[datetime | None]]:
    """Returns the start times of those of these conversations that have rows."""
    found: dict[str, set[datetime | None]] = {}
    for ids, marks in id_batches(sorted(conversation_ids)):
        # readers of a DuckDB file wait no longer than for one batch
        with warehouse.kept_open():
            for table in _independent_tables():
                started_at = table.conversation_began_at
                for name, time in warehouse.rows(
                    f"SELECT DISTINCT conversation_id, {started_at or 'NULL'} FROM {{{table.name}}}"
                    f" WHERE agent_id = %s AND conversation_id IN ({marks})",
                    agent_id,
                    *ids,
                ):
                    found.setdefault(name, set())
                    if started_at is not None:
                        found[name].add(in_utc(time))
    return found
