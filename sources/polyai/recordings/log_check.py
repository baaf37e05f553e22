"""Check of the custody logs of an archive: every link, and the heads that were recorded."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping

from ..errors import StoreError
from ..load.report import no_op
from ..warehouse.file_store import Store
from ..warehouse.queries import Warehouse
from .custody import ChainCheck, Head, Link, chain_folder, is_segment, links
from .findings import Finding
from .identity import Place, identity_facts
from .index import Index


class LogCheck:
    """Check of one warehouse's log of one agent.

    Args:
        store: Store of the archive.
        index: Index of the warehouse.
        left: Sizes of the files that nothing has answered for yet, by path; the log's are removed.
        quick: Do not read the log.

    Attributes:
        findings: What is wrong with it.
        deleted: Paths of files that it says were deleted.
        head: Its end.
        segments: Paths of its segments.
    """

    def __init__(
        self, store: Store, index: Index, left: MutableMapping[str, int], *, quick: bool
    ) -> None:
        self._store = store
        self._index = index
        self._quick = quick
        folder = f"{chain_folder(index.agent_id, index.writer)}/"
        self.segments = sorted(
            path for path in left if path.startswith(folder) and is_segment(path)
        )
        for path in self.segments:
            del left[path]
        self.findings: list[Finding] = []
        self.deleted: set[str] = set()
        self.head = index.custody

    def run(
        self, warehouse: Warehouse | None, place: Place, on_link: Callable[[Link], None] = no_op
    ) -> None:
        """Checks the log.

        Args:
            warehouse: The warehouse if it is its own log, whose heads it has recorded; else None.
            place: The archive.
            on_link: Called with each entry.
        """
        folder = chain_folder(self._index.agent_id, self._index.writer)
        recorded = self._recorded(warehouse)
        expected = max(recorded | {self._index.custody.entries: ""}, default=0)
        if self._quick:
            if expected and not self.segments:
                self._note(folder, "the log is gone")
            return
        check = ChainCheck()
        # what the warehouse has recorded prevails over what lies beside the log
        heads = {self._index.custody.entries: self._index.custody.sha256, **recorded}
        last = Head(expected, heads.get(expected, ""))
        identity = None
        try:
            for link in links(self._store, self.segments):
                check.add(link)
                on_link(link)
                entry = link.entry or {}
                if entry.get("event") == "deleted":
                    self.deleted.add(str(entry.get("path")))
                identity = entry.get("archive_sha256", identity)
                known = heads.pop(link.number, None)
                if known not in (None, link.sha256) and link.number < expected:
                    self._note(link.path, f"entry {link.number:,} has another hash than recorded")
        except FileNotFoundError as error:
            raise StoreError(f"{error.filename} was deleted meanwhile") from error
        check.finish(last)
        for one in check.breaks:
            self._note(one.path, one.detail)
        if check.head.entries < expected:
            missing = expected - check.head.entries
            self._note(folder, f"{missing:,} entries are missing at its end")
        self.head = check.head
        if warehouse is not None and identity is not None:
            now = identity_facts(place)["archive_sha256"]
            if identity != now:
                self._note("archive.json", f"it was changed: SHA-256 {now} instead of {identity}")

    def _recorded(self, warehouse: Warehouse | None) -> dict[int, str]:
        """Heads that runs of this warehouse have recorded, by number of entries."""
        if warehouse is None:
            return {}
        rows = warehouse.rows(
            "SELECT DISTINCT custody_entries, custody_head FROM {sync_runs} "
            "WHERE agent_id = %s AND custody_writer = %s AND custody_entries > 0",
            self._index.agent_id,
            self._index.writer,
        )
        return dict(rows)

    def _note(self, path: str, detail: str) -> None:
        uri = self._store.uri(path)
        self.findings.append(Finding("custody", self._index.agent_id, uri, detail, path=path))
