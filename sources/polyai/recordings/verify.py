"""Verification and repair of recordings: files, manifest, hashes and warehouse."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Literal

import dlt

from ..api.throttle import Traffic
from ..clock import Clock, utc_now
from ..config.settings import Settings
from ..errors import StoreError
from ..load.report import no_op
from ..locking.files import LockTimeout
from ..warehouse.file_store import Store
from ..warehouse.queries import Warehouse
from .archive import Archive, Due, Kind, Short, is_awaited
from .fetcher import Task
from .layout import agent_folder, file_name, partition
from .manifest import FOLDER as MANIFEST
from .manifest import SCHEMA, Key, Manifest, Row, key_of, manifest_path, read_partition
from .report import RecordingsReport
from .run import AgentRecordings, Work, open_work

COMMAND = "verify"

Trouble = Literal["missing", "changed", "moved", "manifest", "untold", "short"]
"""The file does not exist; has another size or hash; has another address than in its row; the
manifest differs from the warehouse; the warehouse has no row of the file (yet); the recording is
much shorter than its call."""

HARMLESS: frozenset[Trouble] = frozenset({"untold"})
"""Left by a run that is in progress or was killed; the next run registers the file."""

OnFiles = Callable[[int], None]
"""Callback for the number of files checked so far."""


@dataclass(frozen=True)
class Finding:
    """Discrepancy.

    Attributes:
        trouble: Its kind.
        agent_id: The agent.
        uri: Address of the file or of the manifest's partition.
        detail: Explanation.
        row: The file's row in the warehouse; None for a partition.
        is_repaired: The file was downloaded again, or the manifest rewritten.
        call_seconds: Length of the call that the recording is much shorter than.
        is_final: PolyAI had nothing longer `recordings_wait` after the call, so that it is not
            requested again.
    """

    trouble: Trouble
    agent_id: str
    uri: str
    detail: str
    row: Row | None = None
    is_repaired: bool = False
    call_seconds: float | None = None
    is_final: bool = False

    @property
    def is_harmless(self) -> bool:
        """True if the archive has all that PolyAI had, in spite of it."""
        return self.trouble in HARMLESS or self.is_final


@dataclass
class Verification:
    """Result for the files of all agents.

    Attributes:
        files: Number of files checked.
        bytes: Their total size.
        findings: Discrepancies.
        reports: One report per agent whose recordings were downloaded again.
    """

    files: int = 0
    bytes: int = 0
    findings: list[Finding] = field(default_factory=list)
    reports: list[RecordingsReport] = field(default_factory=list)

    @property
    def is_sound(self) -> bool:
        """True if all discrepancies are repaired or harmless, or there are none."""
        return all(one.is_repaired or one.is_harmless for one in self.findings)

    @property
    def is_intact(self) -> bool:
        """True if files, manifest and warehouse agree, although recordings may be too short."""
        return all(
            one.is_repaired or one.is_harmless or one.trouble == "short" for one in self.findings
        )


def verify(
    warehouse: Warehouse,
    store: Store,
    agent_ids: Sequence[str],
    *,
    wait: timedelta,
    quick: bool = False,
    workers: int = 8,
    stop: threading.Event | None = None,
    on_files: OnFiles = no_op,
) -> Verification:
    """Compares rows of the warehouse with files and manifest; changes nothing.

    Args:
        warehouse: The warehouse.
        store: The files.
        agent_ids: Agents to check.
        wait: `recordings_wait`, until which a recording that is too short is requested again.
        quick: Compare sizes only, without reading files.
        workers: Files that are read in parallel.
        stop: When set, ends after the current day.
        on_files: Called with the number of files checked so far.

    Raises:
        DestinationError: The warehouse cannot be read.
        StoreError: The store cannot be read.
    """
    found = Verification()
    for agent_id in agent_ids:
        check = _Check(store, agent_id, quick=quick, workers=workers)
        archive = Archive(warehouse, agent_id)
        for rows in archive.days():
            if stop is not None and stop.is_set():
                return found
            found.findings += check.day(rows)
            stored = [row for row in rows if row["status"] == "stored"]
            found.files += len(stored)
            found.bytes += sum(row["bytes"] or 0 for row in stored)
            on_files(found.files)
        found.findings += check.rest()
        found.findings += (_short(agent_id, one, wait) for one in archive.short())
    return found


def verify_and_repair(
    settings: Settings,
    pipeline: dlt.Pipeline,
    *,
    quick: bool = False,
    stop: threading.Event | None = None,
    on_files: OnFiles = no_op,
    clock: Clock = utc_now,
) -> Verification:
    """Verifies, then downloads missing or changed files again and rewrites differing manifests.

    A recording that PolyAI no longer has keeps its row, with the size and hash of the file.

    Args:
        settings: Agents and store.
        pipeline: As for `fetch_recordings`.
        quick: Compare sizes only, without reading files.
        stop: When set, ends early.
        on_files: Called with the number of files checked so far.
        clock: Current time.

    Raises:
        PolyAIError: As `fetch_recordings` does.
    """
    stop = stop or threading.Event()
    names = [agent.agent_id for agent in settings.agents]
    timeout = LockTimeout(settings.lock_wait, stop)
    with open_work(pipeline, settings.recordings_url, timeout, names) as work:
        work.refuse_others()

        def check(*, quick: bool) -> Verification:
            return verify(
                work.committer.warehouse,
                work.store,
                names,
                wait=settings.recordings_wait,
                quick=quick,
                workers=settings.workers,
                stop=stop,
                on_files=on_files,
            )

        found = check(quick=quick)
        if not found.findings or stop.is_set():
            return found
        for agent in settings.agents:
            own = [one for one in found.findings if one.agent_id == agent.agent_id]
            if tasks := _tasks(own):
                report = RecordingsReport(agent.agent_id, COMMAND, Traffic(), started_at=clock())
                AgentRecordings(work, agent, settings, report, stop, clock).fetch(
                    list(tasks.values())
                )
                found.reports.append(report)
            _write_manifests(work, agent.agent_id, {one.uri for one in own if one.row is None})
        left = {(one.trouble, one.uri) for one in check(quick=True).findings}
        failed = {name for report in found.reports for name in report.failures}
        found.findings = [
            replace(one, is_repaired=(one.trouble, one.uri) not in left and not _is_of(one, failed))
            for one in found.findings
        ]
    return found


def _tasks(findings: Sequence[Finding]) -> dict[Key, Task]:
    """Tasks to download files again, by their keys; a moved file is adopted at its new address."""
    tasks: dict[Key, Task] = {}
    for one in findings:
        if one.row is None or one.is_final:
            continue
        kind = Kind(one.row["direction"], one.row["redacted"])
        rows = {kind: one.row}
        due = Due(one.row["conversation_id"], one.row["started_at"], None, rows, one.call_seconds)
        is_short = one.trouble == "short"
        again = one.trouble not in ("moved", "short")
        # a file that is missing or changed is replaced by whatever PolyAI has
        tasks.setdefault(key_of(one.row), Task(due, kind, again=again, is_short=is_short))
    return tasks


def _short(agent_id: str, short: Short, wait: timedelta) -> Finding:
    """Finding for a recording that is much shorter than its call."""
    row, seconds = short.row, short.row["duration_seconds"]
    is_final = not is_awaited(row, short.ended_at, wait)
    detail = f"{seconds:.1f} s of a call of {short.call_seconds:.0f} s; "
    if is_final:
        attempts, last = row["attempts"] or 1, row["fetched_at"]
        detail += f"PolyAI had nothing longer in {attempts:,} runs until {last:%Y-%m-%d}"
    else:
        detail += "`recordings` requests it again until recordings_wait is over"
    return Finding(
        "short",
        agent_id,
        row["uri"],
        detail,
        row,
        call_seconds=short.call_seconds,
        is_final=is_final,
    )


def _is_of(finding: Finding, conversation_ids: set[str]) -> bool:
    return finding.row is not None and finding.row["conversation_id"] in conversation_ids


def _write_manifests(work: Work, agent_id: str, uris: set[str]) -> None:
    """Rewrites the manifests of these partitions from the warehouse."""
    manifest = Manifest(work.store, work.incoming, agent_id)
    for rows in Archive(work.committer.warehouse, agent_id).days() if uris else ():
        folder = partition(agent_id, rows[0]["started_at"])
        if work.store.uri(manifest_path(folder)) in uris:
            manifest.replace(folder, rows)


class _Check:
    """Comparison of one agent's rows with files and manifest, one day at a time."""

    def __init__(self, store: Store, agent_id: str, *, quick: bool, workers: int) -> None:
        self._store = store
        self._agent_id = agent_id
        self._quick = quick
        self._workers = workers
        self._folders: set[str] = set()

    def day(self, rows: Sequence[Row]) -> list[Finding]:
        """Discrepancies of one day's rows."""
        folder = partition(self._agent_id, rows[0]["started_at"])
        self._folders.add(folder)
        return [*self._files(folder, rows), *self._manifest(folder, rows)]

    def rest(self) -> Iterator[Finding]:
        """Yields partitions of the manifest that have no row in the warehouse."""
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
        same_size: dict[str, Row] = {}
        for row in rows:
            if row["status"] != "stored":
                continue
            name = file_name(row["conversation_id"], row["direction"], redacted=row["redacted"])
            uri, size = self._store.uri(f"{folder}/{name}"), sizes.pop(name, None)
            if size is None:
                yield Finding("missing", self._agent_id, row["uri"], "the file does not exist", row)
            elif size != row["bytes"]:
                detail = f"{size:,} bytes instead of {row['bytes']:,}"
                yield Finding("changed", self._agent_id, row["uri"], detail, row)
            elif row["uri"] != uri:
                yield Finding("moved", self._agent_id, row["uri"], f"it is now at {uri}", row)
            else:
                same_size[f"{folder}/{name}"] = row
        for name in sizes:
            yield self._finding("untold", f"{folder}/{name}", "the warehouse has no row of it")
        if not self._quick:
            with ThreadPoolExecutor(self._workers, thread_name_prefix="polyai-verify") as pool:
                for row, sha256 in zip(same_size.values(), pool.map(self._sha256, same_size)):
                    if sha256 != row["sha256"]:
                        detail = f"SHA-256 {sha256} instead of {row['sha256']}"
                        yield Finding("changed", self._agent_id, row["uri"], detail, row)

    def _sha256(self, path: str) -> str | None:
        digest = hashlib.sha256()
        try:
            for part in self._store.parts(path):
                digest.update(part)
        except FileNotFoundError:  # deleted meanwhile
            return None
        return digest.hexdigest()

    def _manifest(self, folder: str, rows: Sequence[Row]) -> Iterator[Finding]:
        try:
            listed = read_partition(self._store, self._agent_id, folder)
        except StoreError as error:
            yield self._finding("manifest", manifest_path(folder), str(error))
            return
        loaded = {key_of(row): row for row in rows}
        if missing := loaded.keys() - listed.keys():
            detail = f"{len(missing):,} rows of the warehouse are missing in it"
        elif extra := listed.keys() - loaded.keys():
            detail = f"{len(extra):,} of its rows are missing in the warehouse"
        elif differing := [key for key in loaded if _values(loaded[key]) != _values(listed[key])]:
            detail = f"{len(differing):,} of its rows differ from the warehouse"
        else:
            return
        yield self._finding("manifest", manifest_path(folder), detail)

    def _finding(self, trouble: Trouble, path: str, detail: str) -> Finding:
        return Finding(trouble, self._agent_id, self._store.uri(path), detail)


def _values(row: Row) -> list[Any]:
    return [row.get(name) for name in SCHEMA.names]
