"""Hashes of erased callers, by which later loads recognize their conversations.

A hash cannot be reversed, but whoever can compute it can try every number. It is therefore keyed by
`pii_secret` where there is one, or else slow to compute.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any, Literal, NamedTuple

from ..clock import timestamp_or_none
from ..config.settings import SHORTEST_SECRET
from ..errors import ConfigurationError
from ..tables.conversations import CONVERSATIONS
from ..tables.rules import BEGAN_AT, caller_column, direction_of
from .caller_identity import keyed_hash, normalize_caller, spellings

Method = Literal["pii_secret", "scrypt"]
"""Method of a hash: HMAC-SHA256 keyed by the setting `pii_secret`, or scrypt.

Its input is the hash of version 0.1, HMAC-SHA256 keyed by the salt, so that hashes of that version,
which have no method, are protected too without the number.
"""

_SCRYPT: Mapping[str, int] = {"n": 2**14, "r": 8, "p": 1, "dklen": 32}
"""Parameters of scrypt: 16 MB of memory and about 50 CPU ms for each hash."""

_SCRYPT_MEMORY = 64 * 2**20
"""Limit of its memory in OpenSSL, whose default of 32 MB counts more than the 16 MB."""

_KEY_ID_DIGITS = 16

CACHED_CALLERS = 50_000
"""Callers whose result is kept during a run."""


class ForgottenCaller(NamedTuple):
    """A row of `forgotten_callers`.

    Attributes:
        caller_hash: Hash of the number or address.
        salt: Salt of the hash.
        requested_at: Time of the erasure.
        method: Method of the hash; None in rows of version 0.1.
        key_id: Fingerprint of the secret that it is keyed by.
    """

    caller_hash: str
    salt: str
    requested_at: datetime
    method: Method | None = None
    key_id: str | None = None


def forgotten_caller(
    caller: str, salt: str, requested_at: datetime, *, region: str = "", secret: str = ""
) -> ForgottenCaller:
    """Hashes a caller, independently of the spelling.

    Args:
        caller: Number or address.
        salt: Random salt.
        requested_at: Time of the erasure.
        region: Country of numbers without country code; see `normalize_number`.
        secret: The setting `pii_secret`; empty or too short for none.
    """
    inner = keyed_hash(normalize_caller(caller, region), salt)
    if len(secret) < SHORTEST_SECRET:
        return ForgottenCaller(slow_hash(inner, salt), salt, requested_at, "scrypt")
    hashed = keyed_hash(inner, secret)
    return ForgottenCaller(hashed, salt, requested_at, "pii_secret", secret_id(secret, salt))


def slow_hash(inner: str, salt: str) -> str:
    """Returns the scrypt hash of a hash of version 0.1, in hexadecimal digits."""
    options: dict[str, Any] = {"salt": salt.encode(), "maxmem": _SCRYPT_MEMORY, **_SCRYPT}
    return hashlib.scrypt(inner.encode(), **options).hex()


def secret_id(secret: str, salt: str) -> str:
    """Returns the fingerprint of a secret, from which it cannot be computed."""
    return keyed_hash(f"key {salt}", secret)[:_KEY_ID_DIGITS]


_FIELDS = CONVERSATIONS.fields("")
"""Field of the Data API by column."""


class ForgottenCallers:
    """Recognizes conversations of erased callers.

    Args:
        callers: Erased callers of one agent.
        region: Country of numbers without country code; see `normalize_number`.
        secret: The setting `pii_secret`.
    """

    def __init__(
        self, callers: Iterable[ForgottenCaller] = (), region: str = "", secret: str = ""
    ) -> None:
        self._region = region
        self._secret = secret
        self._requests: dict[tuple[str, Method | None], dict[str, datetime]] = {}
        self._other_keys: set[str] = set()
        for caller in callers:
            if caller.key_id and caller.key_id != secret_id(secret, caller.salt):
                self._other_keys.add(caller.key_id)
                continue
            requests = self._requests.setdefault((caller.salt, caller.method), {})
            requests[caller.caller_hash] = caller.requested_at
        self._newest = max(
            (at for requests in self._requests.values() for at in requests.values()), default=None
        )
        # a caller has many conversations, and a slow hash is computed once
        self._latest = lru_cache(CACHED_CALLERS)(self._latest_request)

    def __bool__(self) -> bool:
        return bool(self._requests)

    def check_key(self) -> None:
        """Checks that no caller was erased with another secret.

        Raises:
            ConfigurationError: One was: it could not be recognized, and would be loaded again.
        """
        if self._other_keys:
            raise ConfigurationError(
                "callers were erased with another pii_secret, so that their conversations cannot "
                "be recognized. Set that secret again; or give up these erasures: delete the rows "
                f"of forgotten_callers with key_id {', '.join(sorted(self._other_keys))}"
            )

    @property
    def salt(self) -> str | None:
        """Salt of the hashes; None if there is no caller."""
        return next((salt for salt, _ in self._requests), None)

    def includes(self, caller: str) -> bool:
        """Returns whether this caller was erased before."""
        return self._latest(caller, True) is not None

    def match(self, detail: dict[str, Any], *, is_loaded: bool = False) -> bool:
        """Returns whether a conversation is of an erased caller and began before the request.

        A conversation without a known start matches too. Nothing is hashed for one that began after
        the newest request, as those of daily loads do.

        Args:
            detail: The conversation, with the field names of the Data API.
            is_loaded: The conversation is in the warehouse, so that the erasure has compared its
                caller: it is compared again only where that is cheap.
        """
        own_id = str(detail.get("conversationId") or "")
        direction = direction_of(detail.get("direction"), own_id)
        caller = detail.get(_FIELDS[caller_column(direction)])
        if not caller or self._newest is None:
            return False
        times = {name: timestamp_or_none(detail.get(_FIELDS[name])) for name in BEGAN_AT.columns}
        began = BEGAN_AT.of(times)
        if began is not None and began >= self._newest:
            return False
        requested_at = self._latest(str(caller), not is_loaded)
        return requested_at is not None and (began is None or began < requested_at)

    def _latest_request(self, caller: str, with_slow: bool) -> datetime | None:
        """Returns the time of the newest erasure of a caller; None if there is none."""
        return max(self._requests_of(caller, with_slow), default=None)

    def _requests_of(self, caller: str, with_slow: bool) -> Iterator[datetime]:
        for form in spellings(caller, self._region):
            for (salt, method), requests in self._requests.items():
                hashed = keyed_hash(form, salt)
                if method == "pii_secret":
                    hashed = keyed_hash(hashed, self._secret)
                elif method == "scrypt":
                    if not with_slow:
                        continue
                    hashed = slow_hash(hashed, salt)
                if requested_at := requests.get(hashed):
                    yield requested_at
