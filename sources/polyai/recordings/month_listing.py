"""Listings of an archive's days, a month at a time where each listing is a request."""

from __future__ import annotations

import threading
from collections import OrderedDict

from ..warehouse.file_store import Store

_MONTHS = 3
"""Cached listings: calls come in the order in which they began."""


class MonthListing:
    """Files by day, listed once per month and run; thread-safe.

    Args:
        store: The store.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._listed: OrderedDict[str, dict[str, dict[str, int]]] = OrderedDict()
        self._lock = threading.Lock()

    def sizes(self, folder: str) -> dict[str, int]:
        """Sizes in bytes of the files in the folder of a day, by name."""
        # on this machine a day is cheaper
        prefix = f"{folder}/" if self._store.local_folder else folder[: -len("-01")]
        with self._lock:
            if prefix not in self._listed:
                days: dict[str, dict[str, int]] = {}
                for path, size in self._store.walk(prefix):
                    day, _, name = path.rpartition("/")
                    days.setdefault(day, {})[name] = size
                self._listed[prefix] = days
                if len(self._listed) > _MONTHS:
                    self._listed.popitem(last=False)
            self._listed.move_to_end(prefix)
            return self._listed[prefix].get(folder, {})
