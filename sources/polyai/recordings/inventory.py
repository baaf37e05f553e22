"""Comparison of the three inventories of an archive: files in the store, manifest, warehouse.

Each is compared with the others completely and both ways. The store is listed once, in order,
beside the rows of the warehouse, so that memory holds one day at a time.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa

from ..errors import StoreError
from ..warehouse.queries import Warehouse, id_batches
from .archive import Archive
from .custody import links
from .day_walk import DayWalk
from .findings import Finding, Trouble, Verification
from .identity import FILE, Place, identity_bytes
from .index import INDEX, Index, Part, read_index
from .layout import agent_folder, base_path, file_name, month_of, partition, safe_name
from .log_check import LogCheck
from .logged_files import LoggedFiles
from .manifest import SCHEMA, Key, Row, day_of, key_of, read_part, rows_of

OnFiles = Callable[[int], None]
"""Callback for the number of files checked so far."""

_UNTOLD = (
    "neither manifest nor warehouse answers for it: it was put there, or a killed run has left it, "
    "and the next `recordings` registers it"
)

_VALUES = [name for name in SCHEMA.names if name != "date"]


class Inventory:
    """Comparison for some agents, or for the whole archive.

    Args:
        warehouse: The warehouse.
        place: The archive.
        indexes: Index of this warehouse by agent.
        is_whole: Also look at files of other agents, and of none.
        quick: Compare sizes only, without reading files.
        workers: Files that are read in parallel.
        stop: When set, ends after the current day.
        on_files: Called with the number of files checked so far.
        is_at_place: The rows name this place; False for a copy that is not used yet.

    Attributes:
        found: Result, complete after `run`.
        has_identity: The store lists `archive.json` with its size.
    """

    def __init__(
        self,
        warehouse: Warehouse,
        place: Place,
        indexes: Mapping[str, Index],
        *,
        is_whole: bool,
        quick: bool,
        workers: int,
        stop: threading.Event,
        on_files: OnFiles,
        is_at_place: bool = True,
    ) -> None:
        self._warehouse = warehouse
        self._is_at_place = is_at_place
        self._place = place
        self._store = place.store
        self._indexes = indexes
        self._is_whole = is_whole
        self._quick = quick
        self._stop = stop
        self._on_files = on_files
        self._workers = workers
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="polyai-verify")
        self._left: dict[str, int] = {}
        """Files that no row of the warehouse answers for, with their sizes."""
        self._days: dict[str, set[str]] = {agent_id: set() for agent_id in indexes}
        self._rows: Counter[str] = Counter()
        self._own_part: tuple[Part, pa.Table | None] | None = None
        self._unreadable: set[str] = set()
        self._logs: list[LogCheck] = []
        self._logged = LoggedFiles()
        self.found = Verification()
        self.has_identity = False

    def run(self) -> None:
        """Compares everything."""
        with self._pool:
            days = DayWalk(
                self._warehouse,
                self._store,
                self._indexes,
                is_whole=self._is_whole,
                on_link=self._link,
            )
            for agent_id, folder, files, rows in days:
                if self._stop.is_set():
                    self.found.is_stopped = True
                    return
                if agent_id is None:
                    self._left |= {f"{folder}/{n}" if folder else n: s for n, s in files.items()}
                    continue
                self._day(agent_id, folder, files, rows)
                self._on_files(self.found.files)
            size = self._left.pop(FILE, None)
            self.has_identity = size == identity_bytes(self._place.archive_id)
            for agent_id, index in self._indexes.items():
                self._index(index, is_own=True)
                self._manifest_without_rows(agent_id, index)
            self._others()
            if not self._quick:
                self._log_with_files()
            for path in sorted(self._left):
                self._note("untold", self._agent_of(path), path, _UNTOLD)

    def _link(self, path: str) -> None:
        self._note("changed", self._agent_of(path), path, "it is a link, not a file")

    def _day(self, agent_id: str, folder: str, files: dict[str, int], rows: Sequence[Row]) -> None:
        """Compares one day of an agent."""
        self._days[agent_id].add(folder.rpartition("date=")[2])
        self._rows[agent_id] += len(rows)
        same_size: dict[str, Row] = {}
        for key, times in Counter(map(key_of, rows)).items():
            if times > 1:
                self._note("doubled", agent_id, folder, f"{times} rows of {key[0]}, {key[1]}")
        for row in rows:
            if row["status"] != "stored":
                continue
            self.found.files += 1
            self.found.files_of[agent_id] += 1
            self.found.bytes += row["bytes"] or 0
            name = file_name(row["conversation_id"], row["direction"], redacted=row["redacted"])
            path = row["path"] or ""
            if base_path(path) != f"{folder}/{name}":
                detail = f"its path is {path or 'empty'} instead of {folder}/{name}"
                self._note("moved", agent_id, path or f"{folder}/{name}", detail, row)
                continue
            size = files.pop(path.removeprefix(f"{folder}/"), None)
            if size is None:
                self._note("missing", agent_id, path, "the file does not exist", row)
            elif size != row["bytes"]:
                detail = f"{size:,} bytes instead of {row['bytes'] or 0:,}"
                self._note("changed", agent_id, path, detail, row)
            elif self._is_elsewhere(row):
                detail = f"its row names another place: {row['uri']}"
                self._note("moved", agent_id, path, detail, row)
            else:
                same_size[path] = row
        self._left |= {f"{folder}/{name}": size for name, size in files.items()}
        if not self._quick:
            for row, sha256 in zip(same_size.values(), self._pool.map(self._sha256, same_size)):
                if sha256 != row["sha256"]:
                    detail = f"SHA-256 {sha256} instead of {row['sha256']}"
                    self._note("changed", agent_id, row["path"], detail, row)
            self._manifest_day(agent_id, folder, rows)

    def _is_elsewhere(self, row: Row) -> bool:
        is_at = not self._is_at_place or row["uri"] == self._store.uri(row["path"])
        return row["archive_id"] != self._place.archive_id or not is_at

    def _manifest_day(self, agent_id: str, folder: str, rows: Sequence[Row]) -> None:
        index, day = self._indexes[agent_id], folder.rpartition("date=")[2]
        listed = [
            row
            for part in index.parts
            if part.month == month_of(day) and (table := self._read(agent_id, part)) is not None
            for row in rows_of(day_of(table, day))
            if partition(agent_id, row["started_at"]) == folder
        ]
        loaded = {key_of(row): row for row in rows}
        by_key = {key_of(row): row for row in listed}
        details = []
        if missing := loaded.keys() - by_key.keys():
            details.append(f"{_named(missing)} of the warehouse are missing in it")
        if extra := by_key.keys() - loaded.keys():
            details.append(f"{_named(extra)} in it are missing in the warehouse")
        if len(by_key) < len(listed):
            details.append(f"{len(listed) - len(by_key):,} rows are in it twice")
        shared = loaded.keys() & by_key.keys()
        if differing := {key for key in shared if _differ(loaded[key], by_key[key])}:
            details.append(f"{_named(differing)} differ from the warehouse")
        for detail in details:
            self._note("manifest", agent_id, index.path, f"{day}: {detail}")

    def _read(self, agent_id: str, part: Part) -> pa.Table | None:
        """Reads a part of the manifest; None, with a finding, if that is not possible."""
        if self._own_part is None or self._own_part[0] != part:
            table = None
            try:
                table = read_part(self._store, part)
            except StoreError as error:
                if part.path not in self._unreadable:
                    self._unreadable.add(part.path)
                    self._note("manifest", agent_id, part.path, str(error))
            self._own_part = (part, table)
        return self._own_part[1]

    def _manifest_without_rows(self, agent_id: str, index: Index) -> None:
        """Notes rows of the manifest on days without rows in the warehouse."""
        listed = sum(part.rows for part in index.parts)
        if self._quick and listed != self._rows[agent_id]:
            detail = f"it has {listed:,} rows, the warehouse {self._rows[agent_id]:,}"
            self._note("manifest", agent_id, index.path, detail)
        for part in () if self._quick else index.parts:
            if (table := self._read(agent_id, part)) is None:
                continue
            days = Counter(day or month_day(None) for day in table["date"].to_pylist())
            for day in sorted(days.keys() - self._days[agent_id]):
                detail = f"{day}: {days[day]:,} rows in it are missing in the warehouse"
                self._note("manifest", agent_id, index.path, detail)

    def _index(self, index: Index, *, is_own: bool) -> None:
        """Checks the files that an index lists, and its custody log."""
        found, agent_id = self.found, index.agent_id
        self._left.pop(index.path, None)
        for part in index.parts:
            size = self._left.pop(part.path, None)
            if size != part.bytes and (self._quick or size is None):
                detail = "is gone" if size is None else f"has {size:,} bytes, not {part.bytes:,}"
                if part.path not in self._unreadable:
                    self._unreadable.add(part.path)
                    self._note("manifest", agent_id, part.path, f"the part {detail}")
        log = LogCheck(self._store, index, self._left, quick=self._quick)
        log.run(
            self._warehouse if is_own else None,
            self._place,
            lambda link: self._logged.add(link.entry or {}),
        )
        self._logs.append(log)
        found.findings += log.findings
        if index.parts or index.custody.entries:
            found.writers.add(index.writer)
        if is_own and log.head.entries:
            found.heads[agent_id] = log.head

    def _log_with_files(self) -> None:
        """Notes files that are answered for but not in a log, and those of a log that are not."""
        for agent_id in self._indexes:
            for rows in Archive(self._warehouse, agent_id).days():
                for row in rows:
                    if row["status"] == "stored" and row["path"]:
                        self._answer(agent_id, row["path"], row["sha256"])
        if self._logged.are_answered:
            return
        for log in self._logs:
            for link in links(self._store, log.segments):
                for path in self._logged.unanswered(link.entry or {}):
                    # else it is noted as a file that nothing answers for
                    if path not in self._left:
                        place = f"entry {link.number:,} of {link.path}"
                        detail = f"{place} is about it, but neither manifest nor warehouse has it"
                        self._note("custody", self._agent_of(path), path, detail)

    def _answer(self, agent_id: str, path: str, sha256: str) -> None:
        if not self._logged.answer(path, sha256):
            detail = f"no entry of the custody log is about it with SHA-256 {sha256}"
            self._note("custody", agent_id, path, detail)

    def _others(self) -> None:
        """Checks what other warehouses answer for, which may be nothing that this one knows."""
        checked = []
        for path in [path for path in self._left if path.endswith(f"/{INDEX}")]:
            try:
                index = read_index(self._store, path)
            except (StoreError, FileNotFoundError) as error:
                self._note("manifest", self._agent_of(path), path, str(error))
                continue
            if index.archive_id != self._place.archive_id:
                self._note("manifest", index.agent_id, path, "it belongs to another archive")
            else:
                self._index(index, is_own=False)
                checked.append(index)
        deleted = {path for log in self._logs for path in log.deleted}
        for index in self._indexes.values():
            self._kept(index, set(), is_own=True)
        for index in checked:
            self._kept(index, deleted, is_own=False)
        # in a quick check, only to know what the other files are
        is_needed = not self._quick or any(path.startswith("agent_id=") for path in self._left)
        for index in checked if is_needed else ():
            for part in index.parts:
                if (table := self._read(index.agent_id, part)) is not None:
                    self._other_rows(index.agent_id, list(rows_of(table)), deleted)

    def _kept(self, index: Index, deleted: Collection[str], *, is_own: bool) -> None:
        """Checks the other files that an index lists."""
        agent_id = index.agent_id
        damaged = {
            base_path(one.path)
            for one in self.found.findings
            if one.trouble in ("missing", "changed")
        }
        for kept in index.kept:
            size = self._left.pop(kept.path, None)
            if not self._quick:
                self._answer(agent_id, kept.path, kept.sha256)
            if size is None:
                if kept.path not in deleted:
                    self._note("missing", agent_id, kept.path, f"the file ({kept.why}) is gone")
            elif size != kept.bytes or not (self._quick or self._sha256(kept.path) == kept.sha256):
                self._note("changed", agent_id, kept.path, f"the file ({kept.why}) was changed")
            elif kept.why == "other_version" and is_own:
                self._note(
                    "version",
                    agent_id,
                    kept.path,
                    f"PolyAI gave other bytes than those recorded first: SHA-256 {kept.sha256}",
                    is_final=base_path(kept.path) not in damaged,
                )

    def _other_rows(self, agent_id: str, rows: Sequence[Row], deleted: set[str]) -> None:
        stored = {row["path"]: row for row in rows if row["status"] == "stored"}
        for row in () if self._quick else stored.values():
            self._answer(agent_id, row["path"], row["sha256"])
        ids = sorted({row["conversation_id"] for row in stored.values()})
        own: dict[str, str] = {}
        loaded: set[str] = set()
        for batch, marks in id_batches(ids):
            of_agent = f"WHERE agent_id = %s AND conversation_id IN ({marks})"
            own |= dict(
                self._warehouse.rows(
                    f"SELECT path, conversation_id FROM {{recordings}} {of_agent} "
                    "AND path IS NOT NULL",
                    agent_id,
                    *batch,
                )
            )
            found = self._warehouse.rows(
                f"SELECT conversation_id FROM {{conversations}} {of_agent}", agent_id, *batch
            )
            loaded |= {name for (name,) in found}
        registered = set(own.values())
        sizes = {path: self._left.pop(path, None) for path in stored if path not in own}
        for path, size in sizes.items():
            row = stored[path]
            if size is None:
                if path not in deleted:
                    self._note("missing", agent_id, path, "a file of another warehouse is gone")
                continue
            self.found.files += 1
            self.found.bytes += size
            if size != row["bytes"] or not (self._quick or self._sha256(path) == row["sha256"]):
                self._note("changed", agent_id, path, "a file of another warehouse was changed")
            elif row["conversation_id"] in loaded - registered:
                detail = "another warehouse has stored it: the next `recordings` registers it"
                self._note("unregistered", agent_id, path, detail)

    def _sha256(self, path: str) -> str | None:
        try:
            return self._store.digest(path).sha256
        except FileNotFoundError:  # deleted meanwhile
            return None

    def _agent_of(self, path: str) -> str:
        """The agent whose folders contain a path; empty if none does."""
        for agent_id in self._indexes:
            name = safe_name(agent_id)
            if f"/{name}/" in f"/{path}" or f"{agent_folder(agent_id)}/" in path:
                return agent_id
        return ""

    def _note(
        self,
        trouble: Trouble,
        agent_id: str,
        path: str,
        detail: str,
        row: Row | None = None,
        *,
        is_final: bool = False,
    ) -> None:
        uri = self._store.uri(path)
        self.found.findings.append(
            Finding(trouble, agent_id, uri, detail, row, path, is_final=is_final)
        )


def month_day(started_at: None) -> str:
    """Name of the day of calls whose start is unknown."""
    return partition("", started_at).rpartition("=")[2]


def _named(keys: Iterable[Key]) -> str:
    """Number of rows, and the first of them."""
    first, *rest = sorted(keys)
    return f"{len(rest) + 1:,} rows ({first[0]}{' and others' if rest else ''})"


def _differ(loaded: Row, listed: Row) -> bool:
    return any(loaded.get(name) != listed.get(name) for name in _VALUES)
