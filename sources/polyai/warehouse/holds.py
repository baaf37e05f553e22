"""Legal holds: conversations that no command deletes, by id or by caller."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, NamedTuple

from ..clock import in_utc
from ..shape.callers_on_hold import CallerOnHold, CallersOnHold
from ..shape.forgotten_callers import Method
from ..tables.rules import caller_sql
from .callers import region_of
from .queries import Warehouse, id_batches


class HoldKeys(NamedTuple):
    """Settings by which callers on hold are recognized.

    Attributes:
        pii_secret: The setting.
        phone_region: The setting.
    """

    pii_secret: str = ""
    phone_region: str = ""


NO_KEYS = HoldKeys()


@dataclass(frozen=True)
class Hold:
    """Row of `holds`."""

    agent_id: str
    hold_id: str
    conversation_id: str | None
    caller_hash: str | None
    caller_group: str | None
    method: Method | None
    salt: str | None
    key_id: str | None
    reason: str | None
    placed_at: datetime
    placed_by: str | None
    released_at: datetime | None = None
    released_by: str | None = None

    @property
    def caller(self) -> CallerOnHold | None:
        """The caller on hold; None for a conversation."""
        if self.caller_hash is None or self.salt is None or self.method is None:
            return None
        return CallerOnHold(
            self.caller_hash, self.salt, self.method, self.key_id, self.caller_group
        )


class Deletion(NamedTuple):
    """Result of a deletion of conversations.

    Attributes:
        rows: Numbers of deleted rows by table.
        on_hold: Conversations that were left because of a legal hold.
    """

    rows: Counter[str]
    on_hold: Mapping[str, Hold]


def all_holds(warehouse: Warehouse) -> list[Hold]:
    """Returns all holds, active and released ones, the oldest first."""
    return _read(warehouse, "1 = 1")


class Holds:
    """Active holds of one agent, as they are now.

    Args:
        warehouse: The warehouse.
        agent_id: The agent.
        keys: Settings by which callers are recognized.

    Attributes:
        active: The holds.
    """

    def __init__(self, warehouse: Warehouse, agent_id: str, keys: HoldKeys) -> None:
        self._agent_id = agent_id
        self.active = _read(warehouse, "agent_id = %s AND released_at IS NULL", agent_id)
        self._by_id = {hold.conversation_id: hold for hold in self.active if hold.conversation_id}
        of_callers = {one: hold for hold in self.active if (one := hold.caller) is not None}
        self._by_hash = {one.caller_hash: hold for one, hold in of_callers.items()}
        region = region_of(warehouse, agent_id, keys.phone_region) if of_callers else ""
        self.callers = CallersOnHold(of_callers, region, keys.pii_secret)

    def __bool__(self) -> bool:
        return bool(self.active)

    def of_caller(self, caller: str) -> Hold | None:
        """Returns a hold on a caller, in any notation."""
        found = self.callers.hashes_of(caller)
        return self._by_hash[found[0]] if found else None

    def among(self, warehouse: Warehouse, conversation_ids: Collection[str]) -> dict[str, Hold]:
        """Returns those of these conversations that are on hold, by id or by their caller.

        Args:
            warehouse: The warehouse, as open in this thread.
            conversation_ids: Conversations, loaded or not.

        Raises:
            ConfigurationError: A caller on hold cannot be recognized.
        """
        if not self.active:
            return {}
        found = {id_: self._by_id[id_] for id_ in conversation_ids if id_ in self._by_id}
        if self.callers:
            self.callers.check_key()
            for ids, marks in id_batches(sorted(conversation_ids)):
                found |= self._of_callers(warehouse, f"AND conversation_id IN ({marks})", *ids)
        return found

    def loaded(self, warehouse: Warehouse) -> dict[str, Hold]:
        """Returns all conversations on hold: those named, and the loaded ones of callers.

        Raises:
            ConfigurationError: A caller on hold cannot be recognized.
        """
        if not self.callers:
            return dict(self._by_id)
        self.callers.check_key()
        numbers = warehouse.rows(
            f"SELECT DISTINCT {caller_sql()} FROM {{conversations}} WHERE agent_id = %s",
            self._agent_id,
        )
        callers = [number for (number,) in numbers if number and self.callers.hashes_of(number)]
        found = dict(self._by_id)
        for batch, marks in id_batches(callers):
            found |= self._of_callers(warehouse, f"AND {caller_sql()} IN ({marks})", *batch)
        return found

    def _of_callers(
        self, warehouse: Warehouse, condition: str, *parameters: str
    ) -> dict[str, Hold]:
        rows = warehouse.rows(
            f"SELECT conversation_id, {caller_sql()} FROM {{conversations}} WHERE agent_id = %s "
            f"{condition}",
            self._agent_id,
            *parameters,
        )
        return {
            name: hold
            for name, number in rows
            if number and (hold := self.of_caller(number)) is not None
        }


def _read(warehouse: Warehouse, condition: str, *parameters: str) -> list[Hold]:
    names = [field.name for field in fields(Hold)]
    rows = warehouse.rows(
        f"SELECT {', '.join(names)} FROM {{holds}} WHERE {condition} ORDER BY placed_at, hold_id",
        *parameters,
    )
    return [Hold(*map(_in_utc, row)) for row in rows]


def _in_utc(value: Any) -> Any:
    return in_utc(value) if isinstance(value, datetime) else value
