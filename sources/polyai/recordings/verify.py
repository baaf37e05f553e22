"""Checks the files of recordings against warehouse, manifest and hashes, and mends what is off."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import dlt

from ..api.throttle import Traffic
from ..clock import Clock, utc_now
from ..config.settings import Settings
from ..errors import StoreError
from ..locking.files import LockTimeout
from ..warehouse.queries import Warehouse
from .archive import Archive, Due, Kind
from .fetcher import Task
from .layout import agent_folder, file_name, partition
from .manifest import FOLDER as MANIFEST
from .manifest import SCHEMA, Manifest, Row, key_of, manifest_path, read_partition
from .report import RecordingsReport
from .run import AgentRecordings, Work, at_work
from .store import Store

COMMAND = "verify"

Trouble = Literal["missing", "changed", "moved", "manifest", "untold"]
"""No such file; another size or hash; in another place than its row says; a manifest that has other
rows than the warehouse; a file that the warehouse does not tell of (yet)."""

HARMLESS: frozenset[Trouble] = frozenset({"untold"})
"""A run that is under way, or was killed, has put it there; the next one tells of it."""

OnFiles = Callable[[int], None]
"""Told how many files have been looked at."""


@dataclass(frozen=True)
class Finding:
    """Something that does not agree.

    Attributes:
        trouble: What it is.
        agent_id: The agent.
        uri: Of the file, or of the manifest's partition.
        said: In which way.
        row: What the warehouse tells of the file; None of a partition.
        is_mended: It was fetched, or written, anew.
    """

    trouble: Trouble
    agent_id: str
    uri: str
    said: str
    row: Row | None = None
    is_mended: bool = False


@dataclass
class Verification:
    """How the files of all agents stand.

    Attributes:
        files: Files that were looked at.
        bytes: Their size.
        findings: What does not agree.
        reports: Of what was fetched anew, an agent each.
    """

    files: int = 0
    bytes: int = 0
    findings: list[Finding] = field(default_factory=list)
    reports: list[RecordingsReport] = field(default_factory=list)

    @property
    def is_sound(self) -> bool:
        """Whether all agrees, or was made to."""
        return all(one.is_mended or one.trouble in HARMLESS for one in self.findings)


def _silent(_: int) -> None:
    """Takes no notice."""


def verify(
    warehouse: Warehouse,
    store: Store,
    agent_ids: Sequence[str],
    *,
    quick: bool = False,
    workers: int = 8,
    stop: threading.Event | None = None,
    on_files: OnFiles = _silent,
) -> Verification:
    """Compares what the warehouse tells of files with the files themselves; changes nothing.

    Args:
        warehouse: Where the rows are.
        store: Where the files are.
        agent_ids: Whose.
        quick: Compare sizes only, which reads no file.
        workers: Files that are read at once.
        stop: When set, ends after the day that is looked at.
        on_files: Told how many files have been looked at.

    Raises:
        DestinationError: The warehouse cannot be read.
        StoreError: The store cannot be read.
    """
    found = Verification()
    for agent_id in agent_ids:
        check = _Check(store, agent_id, quick=quick, workers=workers)
        for rows in Archive(warehouse, agent_id).days():
            if stop is not None and stop.is_set():
                return found
            found.findings += check.day(rows)
            stored = [row for row in rows if row["status"] == "stored"]
            found.files += len(stored)
            found.bytes += sum(row["bytes"] or 0 for row in stored)
            on_files(found.files)
        found.findings += check.rest()
    return found


def verify_and_mend(
    settings: Settings,
    pipeline: dlt.Pipeline,
    *,
    quick: bool = False,
    stop: threading.Event | None = None,
    on_files: OnFiles = _silent,
    clock: Clock = utc_now,
) -> Verification:
    """The same; then fetches anew what is missing or changed, and writes differing manifests anew.

    What PolyAI does not have any more keeps its row, with the size and hash that the file had.

    Args:
        settings: Agents, and where their files are.
        pipeline: As for `fetch_recordings`.
        quick: Compare sizes only, which reads no file.
        stop: When set, ends early.
        on_files: Told how many files have been looked at.
        clock: What time it is.

    Raises:
        PolyAIError: As `fetch_recordings` does.
    """
    stop = stop or threading.Event()
    names = [agent.agent_id for agent in settings.agents]
    timeout = LockTimeout(settings.lock_wait, stop)
    with at_work(pipeline, settings.recordings_url, timeout, names) as work:
        work.refuse_others()

        def look(*, quick: bool) -> Verification:
            return verify(
                work.committer.warehouse,
                work.store,
                names,
                quick=quick,
                workers=settings.workers,
                stop=stop,
                on_files=on_files,
            )

        found = look(quick=quick)
        if not found.findings or stop.is_set():
            return found
        for agent in settings.agents:
            own = [one for one in found.findings if one.agent_id == agent.agent_id]
            if tasks := [_task(one.row, one.trouble) for one in own if one.row is not None]:
                report = RecordingsReport(agent.agent_id, COMMAND, Traffic(), started_at=clock())
                AgentRecordings(work, agent, settings, report, stop, clock).fetch(tasks)
                found.reports.append(report)
            _write_manifests(work, agent.agent_id, {one.uri for one in own if one.row is None})
        left = {(one.trouble, one.uri) for one in look(quick=True).findings}
        failed = {name for report in found.reports for name in report.failures}
        found.findings = [
            replace(one, is_mended=(one.trouble, one.uri) not in left and not _is_of(one, failed))
            for one in found.findings
        ]
    return found


def _task(row: Row, trouble: Trouble) -> Task:
    """Asks for a file again; one that was moved is taken over where it is."""
    kind = Kind(row["direction"], row["redacted"])
    due = Due(row["conversation_id"], row["started_at"], None, {kind: row})
    return Task(due, kind, again=trouble != "moved")


def _is_of(finding: Finding, conversation_ids: set[str]) -> bool:
    return finding.row is not None and finding.row["conversation_id"] in conversation_ids


def _write_manifests(work: Work, agent_id: str, uris: set[str]) -> None:
    """Writes these partitions' manifests anew, from the warehouse."""
    manifest = Manifest(work.store, work.incoming, agent_id)
    for rows in Archive(work.committer.warehouse, agent_id).days() if uris else ():
        folder = partition(agent_id, rows[0]["started_at"])
        if work.store.uri(manifest_path(folder)) in uris:
            manifest.replace(folder, rows)


class _Check:
    """Compares one agent's rows with files and manifest, a day at a time."""

    def __init__(self, store: Store, agent_id: str, *, quick: bool, workers: int) -> None:
        self._store = store
        self._agent_id = agent_id
        self._quick = quick
        self._workers = workers
        self._folders: set[str] = set()

    def day(self, rows: Sequence[Row]) -> list[Finding]:
        """What does not agree of a day's rows."""
        folder = partition(self._agent_id, rows[0]["started_at"])
        self._folders.add(folder)
        return [*self._files(folder, rows), *self._manifest(folder, rows)]

    def rest(self) -> Iterator[Finding]:
        """Partitions of the manifest of which the warehouse has no row."""
        for name in self._store.folders(f"{MANIFEST}/{agent_folder(self._agent_id)}"):
            folder = f"{agent_folder(self._agent_id)}/{name}"
            if folder not in self._folders:
                yield self._finding(
                    "manifest", manifest_path(folder), "the warehouse has none of its rows"
                )

    def _files(self, folder: str, rows: Sequence[Row]) -> Iterator[Finding]:
        sizes = {
            name: size for name, size in self._store.sizes(folder).items() if name.endswith(".wav")
        }
        whole: dict[str, Row] = {}
        for row in rows:
            if row["status"] != "stored":
                continue
            name = file_name(row["conversation_id"], row["direction"], redacted=row["redacted"])
            uri, size = self._store.uri(f"{folder}/{name}"), sizes.pop(name, None)
            if size is None:
                yield Finding("missing", self._agent_id, row["uri"], "there is no file", row)
            elif size != row["bytes"]:
                said = f"{size:,} bytes instead of {row['bytes']:,}"
                yield Finding("changed", self._agent_id, row["uri"], said, row)
            elif row["uri"] != uri:
                yield Finding("moved", self._agent_id, row["uri"], f"it is {uri}", row)
            else:
                whole[f"{folder}/{name}"] = row
        for name in sizes:
            yield self._finding("untold", f"{folder}/{name}", "the warehouse does not tell of it")
        if not self._quick:
            with ThreadPoolExecutor(self._workers, thread_name_prefix="polyai-verify") as pool:
                for row, sha256 in zip(whole.values(), pool.map(self._sha256, whole)):
                    if sha256 != row["sha256"]:
                        said = f"SHA-256 {sha256} instead of {row['sha256']}"
                        yield Finding("changed", self._agent_id, row["uri"], said, row)

    def _sha256(self, path: str) -> str | None:
        digest = hashlib.sha256()
        try:
            for part in self._store.parts(path):
                digest.update(part)
        except FileNotFoundError:  # just now
            return None
        return digest.hexdigest()

    def _manifest(self, folder: str, rows: Sequence[Row]) -> Iterator[Finding]:
        try:
            told = read_partition(self._store, self._agent_id, folder)
        except StoreError as error:
            yield self._finding("manifest", manifest_path(folder), str(error))
            return
        held = {key_of(row): row for row in rows}
        if missing := held.keys() - told.keys():
            said = f"{len(missing):,} rows of the warehouse are missing in it"
        elif more := told.keys() - held.keys():
            said = f"it has {len(more):,} rows that the warehouse has not"
        elif others := [key for key in held if _told(held[key]) != _told(told[key])]:
            said = f"{len(others):,} of its rows differ from the warehouse's"
        else:
            return
        yield self._finding("manifest", manifest_path(folder), said)

    def _finding(self, trouble: Trouble, path: str, said: str) -> Finding:
        return Finding(trouble, self._agent_id, self._store.uri(path), said)


def _told(row: Row) -> list[Any]:
    return [row.get(name) for name in SCHEMA.names]
