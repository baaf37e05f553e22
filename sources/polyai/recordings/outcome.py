"""Task and outcome of one recording."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..errors import ApiError
from .archive import Due, Kind
from .custody import Entry
from .index import Kept
from .manifest import Row


class Task(NamedTuple):
    """A recording to download.

    Attributes:
        due: Its call.
        kind: Its direction and redaction.
        again: Download it even if its file is in the store.
        is_short: The stored one is much shorter than the call: only a longer one replaces it.
    """

    due: Due
    kind: Kind
    again: bool = False
    is_short: bool = False

    @property
    def loaded(self) -> Mapping[str, Any]:
        """Its row in the warehouse; empty if there is none."""
        return self.due.rows.get(self.kind, {})


@dataclass(frozen=True)
class Outcome:
    """Result for one recording.

    Attributes:
        row: Row of `recordings`.
        error: Reason of a failure; None if it is stored or the API has none.
        is_adopted: It was in the store already.
        is_known: The manifest or the warehouse had this row already.
        is_loaded: The warehouse has a row of it, which the new one replaces.
        is_short: It is stored, and much shorter than the call.
        entries: Entries of the custody log.
        kept: Other files that were stored or set aside.
    """

    row: Row
    error: ApiError | None = None
    is_adopted: bool = False
    is_known: bool = False
    is_loaded: bool = False
    is_short: bool = False
    entries: tuple[Entry, ...] = ()
    kept: tuple[Kept, ...] = ()
