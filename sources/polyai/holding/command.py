"""Legal holds as a function, for the command, scripts and orchestrators."""

from __future__ import annotations

import getpass
import secrets
import threading
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import timedelta
from typing import Any

from ..clock import Clock, utc_now
from ..config.settings import shared_setting
from ..console.exit_codes import ExitCode
from ..copying.sides import agents as known_agents
from ..errors import ConfigurationError
from ..load.committer import open_committer
from ..locking.files import LockTimeout
from ..shape.caller_identity import has_country
from ..shape.callers_on_hold import caller_on_hold
from ..tables.erasure import HOLDS
from ..warehouse.callers import region_of
from ..warehouse.holds import Hold, HoldKeys, Holds, all_holds
from ..warehouse.queries import Warehouse, id_batches
from ..warehouse.read_only import open_to_read
from ..warehouse.target import DEFAULT_TARGET, Target

PIPELINE_NAME = "polyai_hold"
"""dlt pipeline and schema of the load packages of holds."""

_LOCK_ENDING = ".hold.lock"

_SALT_BYTES = 16


@dataclass(frozen=True)
class HoldsResult:
    """Result of `hold`.

    Attributes:
        holds: All holds after it, active and released ones, the oldest first.
        placed: Ids of the holds that were placed.
        released: Ids of the holds that were released.
        not_found: Conversations and callers without a hold to release.
    """

    holds: list[Hold]
    placed: list[str] = field(default_factory=list)
    released: list[str] = field(default_factory=list)
    not_found: list[str] = field(default_factory=list)

    @property
    def exit_code(self) -> ExitCode:
        """Exit code of the command."""
        return ExitCode.SOME_FAILED if self.not_found else ExitCode.DONE


def hold(
    *conversations: str,
    callers: Sequence[str] = (),
    agents: Sequence[str] = (),
    reason: str | None = None,
    release: bool = False,
    by: str | None = None,
    wait: timedelta | None = None,
    target: Target = DEFAULT_TARGET,
    clock: Clock = utc_now,
) -> HoldsResult:
    """Places or releases legal holds on conversations and callers; without either, lists them.

    What is on hold is not deleted by `forget`, `recordings prune` or `prune`. A hold on a caller
    covers the conversations that are loaded and those to come. The same conversation or caller can
    be on hold for several reasons, until each of them is released. Needs no API key.

    Args:
        conversations: Conversation ids, loaded or not.
        callers: Phone numbers or SIP addresses.
        agents: Only these agents. Default: the agents of the conversations; all for callers.
        reason: Reason, such as the number of a case. Required to place a hold; to release, only
            holds with this reason. Default: all.
        release: Release holds.
        by: Who does it. Default: the user of the computer.
        wait: How long to wait for another run of this command. Default: the setting `lock_wait`.
        target: The warehouse.
        clock: Current time.

    Raises:
        BusyError: Another run of this command is in progress.
        ConfigurationError: A setting is wrong; no reason is given; the agent of a conversation, or
            the country of a number, is not known; or numbers are not stored, so that callers cannot
            be recognized.
        DestinationError: There is no warehouse, or it cannot be read or written.
    """
    # also says where there is no warehouse, rather than create one
    with open_to_read(target.destination, target.dataset) as warehouse:
        if not conversations and not callers:
            return HoldsResult([one for one in all_holds(warehouse) if _is_of(one, agents)])
    if not release and not (reason or "").strip():
        raise ConfigurationError("a hold needs a reason, such as the number of a case: --reason")
    if callers and not release and shared_setting("pii") == "drop":
        raise ConfigurationError(
            "phone numbers are not stored (pii = drop), so that a caller on hold could not be "
            "recognized: pass the ids of the conversations"
        )
    pipeline = target.open(PIPELINE_NAME)
    timeout = LockTimeout(wait or shared_setting("lock_wait"), threading.Event())
    with open_committer(pipeline, _LOCK_ENDING, lambda: (), timeout) as (committer, _):
        committer.create_tables([HOLDS])
        change = _Change(
            committer.warehouse,
            list(agents) or known_agents(committer.warehouse),
            HoldKeys(shared_setting("pii_secret"), shared_setting("phone_region")),
            reason,
            by or getpass.getuser(),
            clock,
        )
        for name in dict.fromkeys(conversations):
            change.conversation(name, release=release)
        for caller in dict.fromkeys(callers):
            change.caller(caller, release=release)
        if change.rows:
            committer.write({HOLDS: [_as_row(one) for one in change.rows]})
        rows = {one.hold_id for one in change.rows}
        return HoldsResult(
            [one for one in all_holds(committer.warehouse) if _is_of(one, agents)],
            [] if release else sorted(rows),
            sorted(rows) if release else [],
            change.not_found,
        )


class _Change:
    """Rows of `holds` that a run writes."""

    def __init__(
        self,
        warehouse: Warehouse,
        agent_ids: Sequence[str],
        keys: HoldKeys,
        reason: str | None,
        by: str,
        clock: Clock,
    ) -> None:
        self._warehouse = warehouse
        self._agent_ids = agent_ids
        self._keys = keys
        self._reason = reason
        self._by = by
        self._now = clock()
        self._holds = {agent_id: Holds(warehouse, agent_id, keys) for agent_id in agent_ids}
        self.rows: list[Hold] = []
        self.not_found: list[str] = []

    def conversation(self, name: str, *, release: bool) -> None:
        """Places or releases the hold on a conversation."""
        active = [one for one in self._active() if one.conversation_id == name]
        if release:
            self._release(name, active)
            return
        for agent_id in self._agents_of(name):
            if not any(one.agent_id == agent_id and self._is_same(one) for one in active):
                self.rows.append(self._new(agent_id, conversation_id=name))

    def caller(self, caller: str, *, release: bool) -> None:
        """Places or releases the hold on a caller, with every agent."""
        active = [
            one
            for holds in self._holds.values()
            for hash_ in (holds.callers.hashes_of(caller))
            for one in holds.active
            if one.caller_hash == hash_
        ]
        if release:
            self._release(caller, active)
            return
        for agent_id in self._agent_ids:
            if any(one.agent_id == agent_id and self._is_same(one) for one in active):
                continue
            region = region_of(self._warehouse, agent_id, self._keys.phone_region)
            if not has_country(caller, region):
                raise ConfigurationError(
                    f"the country of {caller} is not known, so that it could not be recognized: "
                    "write it with + and its country code, or set phone_region"
                )
            hashed = caller_on_hold(
                caller,
                secrets.token_hex(_SALT_BYTES),
                region=region,
                secret=self._keys.pii_secret,
            )
            self.rows.append(self._new(agent_id, **hashed._asdict()))

    def _active(self) -> list[Hold]:
        return [one for holds in self._holds.values() for one in holds.active]

    def _is_same(self, one: Hold) -> bool:
        return one.reason == self._reason

    def _release(self, name: str, active: Sequence[Hold]) -> None:
        found = [one for one in active if self._reason is None or self._is_same(one)]
        if not found:
            self.not_found.append(name)
        self.rows += [replace(one, released_at=self._now, released_by=self._by) for one in found]

    def _new(self, agent_id: str, **values: Any) -> Hold:
        unset: dict[str, Any] = dict.fromkeys(
            ("conversation_id", "caller_hash", "caller_group", "method", "salt", "key_id")
        )
        own: dict[str, Any] = {
            "hold_id": uuid.uuid4().hex,
            "reason": self._reason,
            "placed_at": self._now,
            "placed_by": self._by,
        }
        return Hold(agent_id, **(unset | own | values))

    def _agents_of(self, name: str) -> list[str]:
        """Returns the agents that have a conversation, or the only one that it can be of."""
        if len(self._agent_ids) == 1:
            return list(self._agent_ids)
        found = [
            agent_id
            for ids, marks in id_batches(self._agent_ids)
            for (agent_id,) in self._warehouse.rows(
                "SELECT agent_id FROM {conversations} WHERE conversation_id = %s "
                f"AND agent_id IN ({marks})",
                name,
                *ids,
            )
        ]
        if not found:
            raise ConfigurationError(
                f"{name}: not in the warehouse. To keep it once it is loaded, name its agent with "
                "--agent"
            )
        return found


def _is_of(one: Hold, agents: Sequence[str]) -> bool:
    return not agents or one.agent_id in agents


def _as_row(one: Hold) -> dict[str, Any]:
    return {each.name: getattr(one, each.name) for each in fields(one)}
