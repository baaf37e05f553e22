"""Callers whose conversations were erased, and do not come back; known by a hash of their number.

Who called, or was called: `fromNumber`, of outbound calls `toNumber`. Some are SIP addresses.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from datetime import datetime
from typing import Any, NamedTuple

from ..clock import timestamp_or_none

OUTBOUND = "outbound"

CALLER = f"CASE WHEN lower(direction) = '{OUTBOUND}' THEN to_number ELSE from_number END"
"""SQL for the number of a conversation's caller."""


def dialled(number: str) -> str:
    """The digits of a phone number, the same however it is written.

    Dialled from abroad or with the zero of a trunk call in brackets: `+44 (0)20`, `0044 20` and
    `+44 20` are one.
    """
    return "".join(filter(str.isdigit, number.replace("(0)", ""))).removeprefix("00")


def spelled_alike(caller: str) -> str:
    """A caller's number or address, the same however it is written."""
    return caller.strip().lower() if "@" in caller else dialled(caller)


def caller_hash(caller: str, salt: str) -> str:
    """What stands for a number or an address that is not kept."""
    return hmac.new(salt.encode(), spelled_alike(caller).encode(), hashlib.sha256).hexdigest()


class ForgottenCaller(NamedTuple):
    """A row of `forgotten_callers`."""

    caller_hash: str
    salt: str
    requested_at: datetime


class ForgottenCallers:
    """Tells conversations of callers that were erased.

    Args:
        callers: Of one agent.
    """

    def __init__(self, callers: Iterable[ForgottenCaller] = ()) -> None:
        self._by_salt: dict[str, dict[str, datetime]] = {}
        for caller in callers:
            of_salt = self._by_salt.setdefault(caller.salt, {})
            of_salt[caller.caller_hash] = caller.requested_at

    def __bool__(self) -> bool:
        return bool(self._by_salt)

    def have(self, detail: dict[str, Any]) -> bool:
        """Whether this answer, in the Data API's words, is of such a caller and from before.

        One of which it is not known when it began is taken to be.
        """
        is_outbound = str(detail.get("direction")).lower() == OUTBOUND
        caller = detail.get("toNumber" if is_outbound else "fromNumber")
        if not caller:
            return False
        began = timestamp_or_none(detail.get("startedAt")) or timestamp_or_none(
            detail.get("createdAt")
        )
        return any(
            (requested_at := of_salt.get(caller_hash(str(caller), salt))) is not None
            and (began is None or began < requested_at)
            for salt, of_salt in self._by_salt.items()
        )
