"""Records of one agent's files in an archive: custody log, manifest and rows, in this order.

A file is stored before its entry is in the log, there before its row is in the manifest, and there
before the row is committed to the warehouse. A killed run leaves a prefix of these steps, which the
next run completes from the files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

import pyarrow as pa

from ..clock import Clock
from ..errors import StoreError
from ..load.report import RunReport
from ..warehouse.incoming import Incoming
from ..warehouse.queries import Warehouse
from .archive import Archive
from .custody import Custody, Entry, Head, event
from .identity import Place, identity_facts
from .index import Index, Kept, read_index
from .layout import month_of, partition
from .manifest import Key, Manifest, Row, table_of


class ArchiveWriter:
    """Writes custody log and manifest of one agent.

    A warehouse that was copied or moved, or that version 0.1 has filled, has no manifest of its own
    yet: it writes one from its rows.

    Args:
        place: The archive.
        incoming: Folder in which files are written first.
        warehouse: The warehouse.
        agent_id: The agent.
        run_id: Run that writes.
        clock: Current time.
        repairs: Go on without an index that was lost.

    Attributes:
        manifest: Manifest of the agent.

    Raises:
        StoreError: The index of this warehouse is lost or damaged.
    """

    def __init__(
        self,
        place: Place,
        incoming: Incoming,
        warehouse: Warehouse,
        agent_id: str,
        run_id: str,
        clock: Clock,
        *,
        repairs: bool = False,
    ) -> None:
        self._warehouse = warehouse
        self._agent_id = agent_id
        self._clock = clock
        self._place = place
        index, is_new = Index(place.archive_id, agent_id, place.writer), False
        try:
            index = read_index(place.store, index.path)
        except FileNotFoundError:
            is_new = True
        except StoreError:
            if not repairs:
                raise
        # a killed run may have left rows that are in the manifest and not in the warehouse
        self._is_clean = is_new or self._has_equal_rows(index)
        self._custody = Custody(place.store, incoming, agent_id, place.writer, index.custody)
        self.manifest = Manifest(place.store, incoming, index, run_id)
        self.manifest.delete_orphans(self._unfinished_runs())
        if is_new and not repairs and next(self._months(), None):
            if self._custody.head.entries:
                raise StoreError(
                    f"{place.store.uri(index.path)} is gone: `recordings verify --refetch` "
                    "rewrites it"
                )
            self.rewrite()

    @property
    def head(self) -> Head:
        """End of the custody log."""
        return self._custody.head

    def describe_in(self, report: RunReport) -> None:
        """Sets the end of the custody log in the report of a run."""
        report.custody_writer = self._place.writer
        report.custody_entries, report.custody_head = self.head

    def record(
        self,
        rows: Sequence[Row],
        entries: Sequence[Entry],
        kept: Sequence[Kept] = (),
        replaces: Callable[[Key], bool] = lambda _: True,
    ) -> None:
        """Writes entries to the log, then rows to the manifest.

        Args:
            rows: Rows of `recordings`.
            entries: What happened to their files.
            kept: Other files that were stored.
            replaces: See `Manifest.commit`.
        """
        self.append(entries)
        if rows or kept:
            self.manifest.commit(
                rows,
                custody=self.head,
                kept=kept,
                replaces=replaces if self._is_clean else lambda _: True,
            )

    def append(self, entries: Sequence[Entry]) -> None:
        """Writes entries to the log."""
        if entries and not self.head.entries:
            joined = event("joined", self._clock(), **identity_facts(self._place))
            entries = [joined, *entries]
        self._custody.append(entries)

    def compact(self) -> None:
        """Merges the parts of the manifest of past months."""
        self.manifest.compact(f"{self._clock():%Y-%m}")

    def rewrite(self, kept: Sequence[Kept] = ()) -> None:
        """Writes the manifest again from the warehouse."""
        self.manifest.rewrite(self._months(), kept, self.head)

    def _has_equal_rows(self, index: Index) -> bool:
        """Returns whether the warehouse has as many rows, and the last run its end."""
        rows = self._warehouse.rows(
            "SELECT count(*) FROM {recordings} WHERE agent_id = %s", self._agent_id
        )
        ended = self._warehouse.rows(
            "SELECT run_id FROM {sync_runs} "
            "WHERE agent_id = %s AND run_id = %s AND finished_at IS NOT NULL",
            self._agent_id,
            index.run_id,
        )
        return bool(ended) and rows == [(sum(part.rows for part in index.parts),)]

    def _unfinished_runs(self) -> list[str]:
        rows = self._warehouse.rows(
            "SELECT run_id FROM {sync_runs} WHERE agent_id = %s AND finished_at IS NULL",
            self._agent_id,
        )
        return [run_id for (run_id,) in rows]

    def _months(self) -> Iterator[tuple[str, pa.Table]]:
        def month(rows: Sequence[Row]) -> str:
            return month_of(partition("", rows[0]["started_at"]).rpartition("=")[2])

        days = Archive(self._warehouse, self._agent_id).days()
        for name, same in groupby(days, key=month):
            yield name, pa.concat_tables([table_of(rows) for rows in same])
