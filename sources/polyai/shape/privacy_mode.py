"""Privacy mode: the settings that decide in which form rows with personal data are stored."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import NamedTuple, Self

from ..config.settings import Settings

_SCRYPT = {"salt": b"polyai-warehouse pii_secret", "n": 2**14, "r": 8, "p": 1, "dklen": 8}
"""Parameters of the fingerprint: 16 MB and some 50 ms per guess."""

_STRENGTH = ("keep", "hash", "drop")
"""Values of `pii` and `transcripts`, each stricter than the one before."""


class PrivacyMode(NamedTuple):
    """Privacy mode of a run, as in the columns of `sync_runs`.

    Attributes:
        pii: Setting `pii`.
        transcripts: Setting `transcripts`.
        pii_key: Fingerprint of the setting `pii_secret`; None unless numbers are hashed.
    """

    pii: str
    transcripts: str
    pii_key: str | None = None

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Returns the mode that the settings ask for."""
        return cls.named(settings.pii, settings.transcripts, settings.pii_secret)

    @classmethod
    def named(cls, pii: str, transcripts: str, secret: str) -> Self:
        """Returns the mode of these settings."""
        return cls(pii, transcripts, fingerprint(secret) if pii == "hash" else None)

    def __str__(self) -> str:
        return f"pii = {self.pii} and transcripts = {self.transcripts}"

    def can_become(self, other: PrivacyMode) -> bool:
        """Returns whether rows of this mode can be converted to another one."""
        is_stricter = all(
            _STRENGTH.index(theirs) >= _STRENGTH.index(ours)
            for ours, theirs in zip(self[:2], other[:2])
        )
        return is_stricter and not self.has_other_secret(other)

    def has_other_secret(self, other: PrivacyMode) -> bool:
        """Returns whether both modes hash numbers, with different secrets."""
        return self.pii == other.pii == "hash" and self.pii_key != other.pii_key


@lru_cache
def fingerprint(secret: str) -> str:
    """Returns 16 hexadecimal digits by which a secret is recognized, and not found."""
    digest = hashlib.scrypt(secret.encode(), **_SCRYPT)  # type: ignore[arg-type]
    return digest.hex()
