"""Verification and repair of an archive: files, manifest, custody log, hashes and warehouse."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import dlt

from ..api.throttle import Traffic
from ..clock import Clock, utc_now
from ..config.settings import Settings
from ..errors import StoreError
from ..load.report import RunReport, no_op
from ..locking.files import LockTimeout
from ..tables.audit import SYNC_RUNS
from ..tables.recordings import RECORDINGS
from .archive import Archive, Due, Kind, agents_with_recordings
from .custody import Entry, chain_folder, is_segment, links
from .findings import Finding, Verification, short_finding
from .identity import check_place, known_archive
from .index import Index, Kept, kept_of, read_index
from .inventory import Inventory, OnFiles
from .manifest import Key, key_of
from .outcome import Task
from .quarantine import quarantine
from .report import RecordingsReport
from .run import AgentRecordings
from .work import COMMANDS, TABLES, Work, open_work
from .writer import ArchiveWriter

COMMAND = "verify"


def verify(
    pipeline: dlt.Pipeline,
    recordings_url: str,
    *,
    wait: timedelta,
    agent_ids: Sequence[str] = (),
    quick: bool = False,
    workers: int = 8,
    lock_wait: timedelta = timedelta(0),
    stop: threading.Event | None = None,
    on_files: OnFiles = no_op,
    clock: Clock = utc_now,
) -> Verification:
    """Compares warehouse, files, manifest and custody log, and leaves a row in `sync_runs`.

    Args:
        pipeline: As for `fetch_recordings`.
        recordings_url: Address of the archive.
        wait: `recordings_wait`, until which a recording that is too short is requested again.
        agent_ids: Agents to check; all agents and all other files by default.
        quick: Compare sizes only, without reading files.
        workers: Files that are read in parallel.
        lock_wait: Maximum time to wait for another run over the same recordings.
        stop: When set, ends early.
        on_files: Called with the number of files checked so far.
        clock: Current time.

    Raises:
        PolyAIError: As `fetch_recordings` does.
    """
    stop = stop or threading.Event()
    timeout = LockTimeout(lock_wait, stop)
    with open_work(
        pipeline,
        recordings_url,
        timeout,
        agent_ids or None,
        is_confirmed_later=quick,
        clock=clock,
    ) as work:
        work.refuse_others()
        check = _Check(work, agent_ids, wait, workers, stop, on_files, clock)
        return check.recorded(lambda: check.run(quick=quick))


def verify_and_repair(
    settings: Settings,
    pipeline: dlt.Pipeline,
    *,
    agent_ids: Sequence[str] = (),
    quick: bool = False,
    stop: threading.Event | None = None,
    on_files: OnFiles = no_op,
    clock: Clock = utc_now,
) -> Verification:
    """Verifies, then downloads missing or changed files again, and repairs the rest.

    A recorded hash is never replaced. A changed file is moved into `quarantine/`, and so is a file
    that nothing answers for; the manifest is written again from the warehouse. If PolyAI gives
    other bytes than before, they are stored beside the recording. One that PolyAI no longer has
    keeps its row.

    Args:
        settings: Agents and store.
        pipeline: As for `fetch_recordings`.
        agent_ids: Agents to check; all agents and all other files by default.
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
    with open_work(pipeline, settings.recordings_url, timeout, names, clock=clock) as work:
        work.refuse_others()
        check = _Check(
            work, agent_ids, settings.recordings_wait, settings.workers, stop, on_files, clock
        )

        def repaired() -> Verification:
            found = check.run(quick=quick)
            if not found.findings or stop.is_set():
                return found
            check.repair_manifests(found)
            check.set_aside(check.run(quick=True))
            for agent in settings.agents:
                if tasks := _tasks(one for one in found.findings if one.agent_id == agent.agent_id):
                    report = RecordingsReport(
                        agent.agent_id, COMMAND, Traffic(), started_at=clock()
                    )
                    AgentRecordings(work, agent, settings, report, stop, clock).fetch(
                        list(tasks.values())
                    )
                    found.reports.append(report)
            return _with_repairs(found, check.run(quick=True))

        return check.recorded(repaired)


def _with_repairs(found: Verification, after: Verification) -> Verification:
    """Marks findings that are gone, and adds those that the repair has brought."""
    left = {(one.trouble, one.uri) for one in after.findings}
    before = {(one.trouble, one.uri) for one in found.findings}
    failed = {name for report in found.reports for name in report.failures}
    found.findings = [
        replace(
            one,
            # a quick check does not read the log
            is_repaired=one.trouble != "custody"
            and (one.trouble, one.uri) not in left
            and not _is_of(one, failed),
        )
        for one in found.findings
    ] + [one for one in after.findings if (one.trouble, one.uri) not in before]
    return found


def _tasks(findings: Iterator[Finding]) -> dict[Key, Task]:
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
        tasks.setdefault(key_of(one.row), Task(due, kind, again=again, is_short=is_short))
    return tasks


def _is_of(finding: Finding, conversation_ids: set[str]) -> bool:
    return finding.row is not None and finding.row["conversation_id"] in conversation_ids


class _Check:
    """Verification of some agents, or of the whole archive, in a run that has opened it."""

    def __init__(
        self,
        work: Work,
        agent_ids: Sequence[str],
        wait: timedelta,
        workers: int,
        stop: threading.Event,
        on_files: OnFiles,
        clock: Clock,
    ) -> None:
        self._work = work
        self._warehouse = work.committer.warehouse
        known = known_archive(self._warehouse)
        everyone = {*agents_with_recordings(self._warehouse), *(known.agents if known else ())}
        self._agent_ids = list(agent_ids or sorted(everyone))
        self._is_whole = not agent_ids
        self._wait = wait
        self._workers = workers
        self._stop = stop
        self._on_files = on_files
        self._clock = clock
        self._run_ids: dict[str, str] = {}

    def recorded(self, verify: Callable[[], Verification]) -> Verification:
        """Verifies, with a row per agent in `sync_runs`."""
        committer = self._work.committer
        reports = [
            RunReport(agent_id, COMMAND, Traffic(), started_at=self._clock())
            for agent_id in self._agent_ids
        ]
        self._run_ids = {one.agent_id: one.run_id for one in reports}
        killed = [row for one in reports for row in committer.begin(one, COMMANDS, TABLES)]
        found = verify()
        for report in reports:
            left = found.left(report.agent_id)
            report.findings = left.total()
            report.rows[RECORDINGS.name] = found.files_of[report.agent_id]
            if head := found.heads.get(report.agent_id):
                report.custody_writer = self._work.archive.writer
                report.custody_entries, report.custody_head = head
            report.is_proven = not left and not found.is_empty
            report.finish(interrupted=found.is_stopped, now=self._clock())
            if left:
                report.error = ", ".join(f"{n:,} {name}" for name, n in left.most_common())
        committer.write({SYNC_RUNS: [*(one.as_row() for one in reports), *killed]})
        return found

    def run(self, *, quick: bool) -> Verification:
        """Compares everything; changes nothing."""
        if self._work.place is None:
            return Verification()
        indexes, damages = {}, []
        for agent_id in self._agent_ids:
            indexes[agent_id], damage = self._index(agent_id)
            damages += damage
        inventory = Inventory(
            self._warehouse,
            self._work.place,
            indexes,
            is_whole=self._is_whole,
            quick=quick,
            workers=self._workers,
            stop=self._stop,
            on_files=self._on_files,
        )
        inventory.run()
        found = inventory.found
        if quick and not inventory.has_identity:
            self._confirm_place()
        found.findings[:0] = damages
        for agent_id in () if found.is_stopped else self._agent_ids:
            for short in Archive(self._warehouse, agent_id).short():
                found.findings.append(short_finding(agent_id, short, self._wait))
        return found

    def _confirm_place(self) -> None:
        """Reads `archive.json`, where index and listing do not show that it is this archive.

        Raises:
            ConfigurationError: It is another one, or none.
        """
        place, known = self._work.archive, known_archive(self._warehouse)
        if known:
            check_place(known, place.store, known.url)

    def _index(self, agent_id: str) -> tuple[Index, list[Finding]]:
        """Reads the index of this warehouse; an empty one, with a finding, if it is lost."""
        place = self._work.archive
        empty = Index(place.archive_id, agent_id, place.writer)
        uri = place.store.uri(empty.path)
        try:
            index = read_index(place.store, empty.path)
            if index.archive_id == place.archive_id:
                return index, []
            self._confirm_place()
            detail = f"it belongs to the archive {index.archive_id}"
            return index, [Finding("manifest", agent_id, uri, detail, path=empty.path)]
        except StoreError as error:
            self._confirm_place()
            return empty, [Finding("manifest", agent_id, uri, str(error), path=empty.path)]
        except FileNotFoundError:
            self._confirm_place()
            if not next(Archive(self._warehouse, agent_id).days(), None):
                return empty, []
            folder = f"{chain_folder(agent_id, place.writer)}/"
            if not next(place.store.walk(folder), None):
                # the warehouse was copied or moved, and has not written here yet
                return self._writer(agent_id, repairs=False).manifest.index, []
            return empty, [Finding("manifest", agent_id, uri, "it does not exist", path=empty.path)]

    def repair_manifests(self, found: Verification) -> None:
        """Writes manifests with findings again, from the warehouse."""
        for agent_id in self._agent_ids:
            if any(
                one.trouble == "manifest" and one.agent_id == agent_id for one in found.findings
            ):
                writer = self._writer(agent_id)
                writer.rewrite(self._kept(agent_id, writer))

    def set_aside(self, found: Verification) -> None:
        """Moves files that nothing answers for into `quarantine/`.

        Not while other warehouses write to the archive: they may be of one that is storing them.
        """
        if found.writers - {self._work.archive.writer}:
            return
        by_agent: dict[str, list[Finding]] = {}
        for one in found.findings:
            if one.trouble == "untold" and self._agent_ids:
                by_agent.setdefault(one.agent_id or self._agent_ids[0], []).append(one)
        for agent_id, findings in by_agent.items():
            moved = [
                quarantine(self._work.archive.store, one.path, self._clock()) for one in findings
            ]
            entries: list[Entry] = [entry | {"agent_id": agent_id} for _, entry in moved]
            self._writer(agent_id).record((), entries, [kept for kept, _ in moved])

    def _writer(self, agent_id: str, *, repairs: bool = True) -> ArchiveWriter:
        run_id = self._run_ids[agent_id]
        return self._work.writer(agent_id, run_id, self._clock, repairs=repairs)

    def _kept(self, agent_id: str, writer: ArchiveWriter) -> list[Kept]:
        """Other files of an agent, from its index or else from its log."""
        if writer.manifest.index.kept:
            return list(writer.manifest.index.kept)
        place, kept = self._work.archive, dict[str, Kept]()
        folder = chain_folder(agent_id, place.writer)
        paths = sorted(path for path, _ in place.store.walk(f"{folder}/") if is_segment(path))
        for link in links(place.store, paths):
            entry: Mapping[str, Any] = link.entry or {}
            if entry.get("event") == "deleted":
                kept.pop(entry["path"], None)
            elif one := kept_of(entry):
                kept[one.path] = one
        return list(kept.values())
