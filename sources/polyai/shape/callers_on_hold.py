"""Hashes of callers on legal hold, by which their conversations are recognized.

They are keyed by `pii_secret` where there is one, or else slow to compute, as those of erased
callers are. A caller on hold has to be found among all callers: a slow hash is computed only of
those whose fast hash begins alike, which are one in 256.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import NamedTuple

from ..config.settings import SHORTEST_SECRET
from ..errors import ConfigurationError
from .caller_identity import keyed_hash, normalize_caller, spellings
from .forgotten_callers import CACHED_CALLERS, Method, secret_id, slow_hash

_GROUP_DIGITS = 2
"""Hexadecimal digits of a fast hash that are stored: too few to recognize a number by."""


class CallerOnHold(NamedTuple):
    """Hash of a caller, as in `holds`.

    Attributes:
        caller_hash: Hash of the number or address.
        salt: Salt of the hash.
        method: Method of the hash.
        key_id: Fingerprint of the secret that it is keyed by.
        caller_group: First digits of a fast hash; None where all hashes are fast.
    """

    caller_hash: str
    salt: str
    method: Method
    key_id: str | None = None
    caller_group: str | None = None


def caller_on_hold(caller: str, salt: str, *, region: str = "", secret: str = "") -> CallerOnHold:
    """Hashes a caller, independently of the spelling, and of whether loads hash numbers.

    Args:
        caller: Number or address.
        salt: Random salt.
        region: Country of numbers without country code; see `normalize_number`.
        secret: The setting `pii_secret`; empty or too short for none.
    """
    form = normalize_caller(caller, region)
    if len(secret) < SHORTEST_SECRET:
        fast = keyed_hash(form, salt)
        return CallerOnHold(slow_hash(fast, salt), salt, "scrypt", None, fast[:_GROUP_DIGITS])
    hashed = keyed_hash(keyed_hash(form, secret), salt)
    return CallerOnHold(hashed, salt, "pii_secret", secret_id(secret, salt))


class CallersOnHold:
    """Recognizes callers on hold.

    Args:
        callers: Callers on hold of one agent.
        region: Country of numbers without country code; see `normalize_number`.
        secret: The setting `pii_secret`.
    """

    def __init__(self, callers: Iterable[CallerOnHold], region: str = "", secret: str = "") -> None:
        self._callers = list(callers)
        self._region = region
        self._secret = secret
        self._hashes_of = lru_cache(CACHED_CALLERS)(self._find)

    def __bool__(self) -> bool:
        return bool(self._callers)

    def check_key(self) -> None:
        """Checks that no caller is on hold by another secret.

        Raises:
            ConfigurationError: One is: it could not be recognized, and would be deleted.
        """
        if any(c.key_id and c.key_id != secret_id(self._secret, c.salt) for c in self._callers):
            raise ConfigurationError(
                "callers are on legal hold under another pii_secret, so that their conversations "
                "cannot be recognized, and nothing is deleted. Set that secret again"
            )

    def hashes_of(self, caller: str) -> tuple[str, ...]:
        """Returns the hashes by which a caller is on hold, one per hold.

        Args:
            caller: Number or address, or its hash by the setting `pii`, as it is stored.
        """
        return self._hashes_of(caller)

    def _find(self, caller: str) -> tuple[str, ...]:
        forms = spellings(caller, self._region)
        return tuple(
            one.caller_hash
            for one in self._callers
            if one.caller_hash in self._hashes(caller, forms, one)
        )

    def _hashes(self, caller: str, forms: Iterable[str], one: CallerOnHold) -> Iterator[str]:
        if one.method == "pii_secret":
            for keyed in (caller.strip(), *(keyed_hash(form, self._secret) for form in forms)):
                yield keyed_hash(keyed, one.salt)
            return
        for form in forms:
            fast = keyed_hash(form, one.salt)
            if fast[:_GROUP_DIGITS] == one.caller_group:
                yield slow_hash(fast, one.salt)
