"""Walk over the days of an archive, files and rows of the warehouse beside each other."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import groupby

from ..warehouse.file_store import Store
from ..warehouse.queries import Warehouse
from .archive import Archive
from .custody import FOLDER as CUSTODY
from .index import FOLDER as MANIFEST
from .layout import QUARANTINE, agent_folder, partition, safe_name
from .manifest import Row


class DayWalk:
    """Iterable over days, which lists the store once and holds one day in memory at a time.

    Args:
        warehouse: The warehouse.
        store: Store of the archive.
        agent_ids: Agents whose rows are read.
        is_whole: Also yield files of other agents, and of none.
        on_link: Called with the path of each symbolic link, which is no file of the archive.
    """

    def __init__(
        self,
        warehouse: Warehouse,
        store: Store,
        agent_ids: Collection[str],
        *,
        is_whole: bool,
        on_link: Callable[[str], None],
    ) -> None:
        self._warehouse = warehouse
        self._store = store
        self._agent_ids = agent_ids
        self._is_whole = is_whole
        self._on_link = on_link

    def __iter__(self) -> Iterator[tuple[str | None, str, dict[str, int], Sequence[Row]]]:
        """Yields agent, folder, files and rows of each day, and other files without an agent."""
        rows = self._row_days()
        next_rows = next(rows, None)
        for folder, files in self._file_days():
            # both are in order of the folders
            while next_rows and f"{next_rows[1]}/" < f"{folder}/":
                yield next_rows[0], next_rows[1], {}, next_rows[2]
                next_rows = next(rows, None)
            if next_rows and next_rows[1] == folder:
                yield next_rows[0], folder, files, next_rows[2]
                next_rows = next(rows, None)
            else:
                yield None, folder, files, ()
        while next_rows:
            yield next_rows[0], next_rows[1], {}, next_rows[2]
            next_rows = next(rows, None)

    def _row_days(self) -> Iterator[tuple[str, str, Sequence[Row]]]:
        for agent_id in sorted(self._agent_ids, key=lambda name: f"{agent_folder(name)}/"):
            for rows in Archive(self._warehouse, agent_id).days():
                yield agent_id, partition(agent_id, rows[0]["started_at"]), rows

    def _file_days(self) -> Iterator[tuple[str, dict[str, int]]]:
        """Yields files by the folder of their day, with their paths below it."""

        def day(entry: tuple[str, int]) -> str:
            first, _, rest = entry[0].partition("/")
            is_day = first.startswith("agent_id=") and "/" in rest
            return f"{first}/{rest.partition('/')[0]}" if is_day else entry[0].rpartition("/")[0]

        for folder, entries in groupby(self._entries(), key=day):
            yield folder, {path.removeprefix(f"{folder}/"): size for path, size in entries}

    def _entries(self) -> Iterator[tuple[str, int]]:
        """Yields the files of the store; links are reported, for they lead elsewhere."""
        for path, size in self._walked():
            if self._store.is_link(path):
                self._on_link(path)
            else:
                yield path, size

    def _walked(self) -> Iterator[tuple[str, int]]:
        if self._is_whole:
            yield from self._store.walk()
            return
        agents = sorted(self._agent_ids, key=lambda name: f"{agent_folder(name)}/")
        for agent_id in agents:
            yield from self._store.walk(f"{agent_folder(agent_id)}/")
        for agent_id in agents:
            for folder in (MANIFEST, CUSTODY):
                yield from self._store.walk(f"{folder}/{safe_name(agent_id)}/")
            yield from self._store.walk(f"{QUARANTINE}/{agent_folder(agent_id)}/")
