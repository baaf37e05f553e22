"""Quarantine: files that are not what the archive answers for, set aside and never overwritten."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from ..warehouse.file_store import Store
from .custody import event
from .index import Kept
from .layout import QUARANTINE

_DIGITS = 16


def quarantine(store: Store, path: str, now: datetime) -> tuple[Kept, dict[str, Any]]:
    """Moves a file into `quarantine/`, under its path and hash.

    Returns:
        The file in its new place, and the entry of the custody log.

    Raises:
        StoreError: It cannot be moved.
    """
    sha256, size = store.digest(path)
    target = f"{QUARANTINE}/{path}.{sha256[:_DIGITS]}"
    store.move(path, target)
    kept = Kept(target, sha256, size, "quarantined")
    return kept, event("quarantined", now, path=path, kept_as=target, sha256=sha256, bytes=size)
