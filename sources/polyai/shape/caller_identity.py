"""Identity of callers: normalized numbers, and the hashes by which erased callers are recognized.

The caller is `fromNumber`, or `toNumber` of an outbound call. Some are SIP addresses.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from datetime import datetime
from typing import Any, NamedTuple

from ..clock import timestamp_or_none
from ..tables.rules import BEGAN_AT, caller_column, direction_of


def normalize_number(number: str) -> str:
    """Reduces a phone number to its digits, without international and trunk prefix.

    `+44 (0)20`, `0044 20` and `+44 20` are the same number.
    """
    return "".join(filter(str.isdigit, number.replace("(0)", ""))).removeprefix("00")


def normalize_caller(caller: str) -> str:
    """Normalizes a caller's phone number or address, so that spellings compare equal."""
    return caller.strip().lower() if "@" in caller else normalize_number(caller)


def caller_hash(caller: str, salt: str) -> str:
    """Hashes a number or an address with HMAC-SHA256, independently of its spelling."""
    return hmac.new(salt.encode(), normalize_caller(caller).encode(), hashlib.sha256).hexdigest()


_FIELDS = {
    "from_number": "fromNumber",
    "to_number": "toNumber",
    "started_at": "startedAt",
    "created_at": "createdAt",
}
"""Field of the Data API for each column that identifies a caller's conversation."""


class ForgottenCaller(NamedTuple):
    """A row of `forgotten_callers`."""

    caller_hash: str
    salt: str
    requested_at: datetime


class ForgottenCallers:
    """Recognizes conversations of erased callers.

    Args:
        callers: Erased callers of one agent.
    """

    def __init__(self, callers: Iterable[ForgottenCaller] = ()) -> None:
        self._by_salt: dict[str, dict[str, datetime]] = {}
        for caller in callers:
            of_salt = self._by_salt.setdefault(caller.salt, {})
            of_salt[caller.caller_hash] = caller.requested_at

    def __bool__(self) -> bool:
        return bool(self._by_salt)

    def match(self, detail: dict[str, Any]) -> bool:
        """Returns whether a conversation is of an erased caller and began before the request.

        A conversation without a known start matches too.

        Args:
            detail: The conversation, with the field names of the Data API.
        """
        own_id = str(detail.get("conversationId") or "")
        direction = direction_of(detail.get("direction"), own_id)
        caller = detail.get(_FIELDS[caller_column(direction)])
        if not caller:
            return False
        times = {name: timestamp_or_none(detail.get(_FIELDS[name])) for name in BEGAN_AT.columns}
        began = BEGAN_AT.of(times)
        return any(
            (requested_at := of_salt.get(caller_hash(str(caller), salt))) is not None
            and (began is None or began < requested_at)
            for salt, of_salt in self._by_salt.items()
        )
