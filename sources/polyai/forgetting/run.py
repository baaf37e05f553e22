"""Erasure of conversations and callers from the warehouse, its files and its copies.

The request is committed to `forgotten` before anything is deleted. From then on no load restores
the conversations, and the next run completes the erasure if this one is killed.
"""

from __future__ import annotations

import secrets
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import dlt

from ..api.throttle import Traffic
from ..clock import Clock, utc_now
from ..console.exit_codes import ExitCode
from ..errors import ConfigurationError, PolyAIError, StoreError
from ..load.committer import Committer
from ..load.discard import discard_all
from ..load.exclusive import exclusive_committer
from ..load.report import RunReport
from ..locking.files import LockTimeout, staging_datasets
from ..recordings.identity import Place
from ..recordings.opening import Opening
from ..recordings.writer import ArchiveWriter
from ..shape.caller_identity import caller_hash
from ..tables.audit import FORGOTTEN, FORGOTTEN_CALLERS, SYNC_RUNS
from ..tables.declaration import Table
from ..views.publication import is_current
from ..views.refresh import refresh
from ..warehouse.callers import forgotten_callers
from ..warehouse.file_store import open_store
from ..warehouse.incoming import Incoming
from ..warehouse.open import PIPELINE_NAME as LOAD_PIPELINE_NAME
from ..warehouse.open import working_folder
from ..warehouse.queries import Warehouse
from .copies import remake_copies
from .duckdb_rewrite import rewrite_duckdb_file
from .lake_rewrite import rewrite_lake
from .recording_files import erase_recordings
from .selection import Selection, select
from .sqlite_rewrite import rewrite_sqlite_warehouse

PIPELINE_NAME = "polyai_forget"
"""dlt pipeline and schema of the tables about erasures."""

COMMAND = "forget"
"""Value of `command` in `sync_runs`."""

_TABLES = (FORGOTTEN_CALLERS, FORGOTTEN)

_LOCK_ENDING = ".forget.lock"

_SALT_BYTES = 16


@dataclass
class Erasure:
    """Result, or plan, of the erasure for one agent.

    Attributes:
        agent_id: The agent.
        conversations: Conversations with rows in the warehouse.
        not_held: Conversations without rows, which are not loaded later.
        callers: Number of callers whose earlier conversations are not loaded again.
        rows: Number of deleted rows by table.
        recordings: Number of deleted audio files.
        not_found: Callers without a conversation; by caller, those of the warehouse that come near.
        error: Error that prevented the completion.
    """

    agent_id: str
    conversations: list[str]
    not_held: list[str]
    callers: int
    rows: Counter[str] = field(default_factory=Counter)
    recordings: int = 0
    not_found: dict[str, list[str]] = field(default_factory=dict)
    error: str | None = None


@dataclass(frozen=True)
class Erasures:
    """Result, or plan, of a run.

    Attributes:
        agents: One erasure per agent.
        is_rewritten: True if the warehouse is files (DuckDB, DuckLake, SQLite) that were rewritten.
        error: Reason why the published copy still contains the erased data.
        is_interrupted: True if `stop` was set before the last agent.
    """

    agents: list[Erasure]
    is_rewritten: bool = False
    error: str | None = None
    is_interrupted: bool = False

    @property
    def exit_code(self) -> ExitCode:
        """Exit code of the command."""
        if self.is_interrupted:
            return ExitCode.INTERRUPTED
        if self.error or any(one.error for one in self.agents):
            return ExitCode.CONFIGURATION
        return ExitCode.SOME_FAILED if self.not_found else ExitCode.DONE

    @property
    def not_found(self) -> dict[str, list[str]]:
        """Callers that no agent has a conversation of; by caller, those that come near."""
        callers = {caller for one in self.agents for caller in one.not_found}
        return {
            caller: list(
                dict.fromkeys(near for one in self.agents for near in one.not_found[caller])
            )
            for caller in sorted(callers)
            if all(caller in one.not_found for one in self.agents)
        }


@dataclass(frozen=True)
class Readers:
    """Published copy for readers, which is refreshed after an erasure.

    Attributes:
        zone: Time zone of the views' local dates.
        publish_to: Folder of the copy, or folder or URL of Parquet files; None for neither.
    """

    zone: str
    publish_to: Path | str | None


def planned_erasures(selections: Sequence[Selection]) -> Erasures:
    """Returns what a run would erase."""
    return Erasures([_erasure(selection) for selection in selections])


def forget(
    pipeline: dlt.Pipeline,
    conversation_ids: Sequence[str],
    callers: Sequence[str] = (),
    *,
    recordings_url: str,
    readers: Readers,
    agent_ids: Sequence[str] = (),
    reason: str | None = None,
    pii_secret: str = "",
    phone_region: str = "",
    lock_wait: timedelta = timedelta(0),
    stop: threading.Event | None = None,
    clock: Clock = utc_now,
) -> Erasures:
    """Erases conversations and callers, and keeps them from being loaded again.

    Erases rows of all tables, recordings with their manifest, and packages that are not loaded
    yet; rewrites a DuckDB file and refreshes its published copy. Sends no request to PolyAI, which
    keeps its data. Also completes unfinished erasures of killed runs. Idempotent.

    Args:
        pipeline: Pipeline of the warehouse: `open_pipeline` with the name `PIPELINE_NAME`.
        conversation_ids: Conversations, in the warehouse or not.
        callers: Phone numbers. Calls that started before this run are not loaded again; later
            calls are.
        recordings_url: Archive of the recordings.
        readers: The published copy.
        agent_ids: As for `select`.
        reason: Stored with each conversation.
        pii_secret: As for `select`.
        phone_region: As for `select`.
        lock_wait: Time to wait for other runs; no other run may write at the same time.
        stop: When set, the run ends before the next agent; the next run completes the rest.
        clock: Source of the current time.

    Returns:
        Erasures by agent; an error of one agent does not stop the others.

    Raises:
        BusyError: Another run writes into the warehouse.
        ConfigurationError: As for `select`; or `recordings_url` cannot be used.
        DestinationError: The destination cannot be read or written.
        LeaseLostError: Another machine has taken over a lease because this run was suspended.
    """
    stop = stop or threading.Event()

    def selected(warehouse: Warehouse) -> list[Selection]:
        return select(
            warehouse,
            conversation_ids,
            callers,
            agent_ids=agent_ids,
            pii_secret=pii_secret,
            phone_region=phone_region,
        )

    def selected_agents() -> list[str]:
        found = selected(Warehouse(pipeline, locks_file=True))
        return [selection.agent_id for selection in found]

    timeout = LockTimeout(lock_wait, stop)
    # backfills are not locked out: a slice erases forgotten conversations that it has read
    with (
        exclusive_committer(pipeline, timeout, selected_agents, _LOCK_ENDING) as committer,
        _recordings(committer, recordings_url, clock) as archive,
    ):
        selections = selected(committer.warehouse)
        agents = [_AgentErasure(committer, selection, reason, clock) for selection in selections]
        started = []
        for agent in agents:
            if stop.is_set():
                break
            agent.erase(archive)
            started.append(agent)
        _discard_pending(committer)
        is_rewritten = (
            rewrite_duckdb_file(pipeline)
            or rewrite_lake(committer)
            or rewrite_sqlite_warehouse(committer)
        )
        left = remake_copies(pipeline, wait=lock_wait, besides=readers.publish_to)
        for agent in started:
            agent.finish(left)
    error = _refresh_copy(pipeline, readers, lock_wait)
    return Erasures(
        [agent.erasure for agent in started],
        is_rewritten,
        error,
        is_interrupted=len(started) < len(agents),
    )


class _AgentErasure:
    """Erasure for one agent."""

    def __init__(
        self, committer: Committer, selection: Selection, reason: str | None, clock: Clock
    ) -> None:
        self._committer = committer
        self._selection = selection
        self._reason = reason
        self._clock = clock
        self._report = RunReport(selection.agent_id, COMMAND, Traffic(), started_at=clock())
        self._interrupted: list[dict[str, Any]] = []
        self._files: Counter[str] = Counter()
        self._error: PolyAIError | None = None
        self.erasure = _erasure(selection)

    def erase(self, archive: _Recordings | PolyAIError | None) -> None:
        """Commits the request, then deletes files and rows; files first, because rows name them."""
        committer, selection = self._committer, self._selection
        agent_id, conversations = selection.agent_id, selection.conversations
        self._interrupted = committer.begin(self._report, [COMMAND], _TABLES)
        committer.write({FORGOTTEN: self._rows(), FORGOTTEN_CALLERS: self._caller_rows()})
        try:
            if isinstance(archive, PolyAIError):
                raise archive
            if archive is not None:
                writer = archive.writer(committer.warehouse, self._report, self._clock)
                self._files = erase_recordings(
                    committer.warehouse,
                    archive.place.store,
                    writer,
                    agent_id,
                    conversations,
                    self._clock,
                    run_id=self._report.run_id,
                    why=COMMAND,
                    reason=self._reason,
                )
                writer.describe_in(self._report)
        except (ConfigurationError, StoreError) as error:
            self._error = error
            return
        self._report.rows.update(committer.erase(agent_id, list(conversations)))

    def finish(self, left: Sequence[str]) -> None:
        """Commits the end of the run, and without an error the completion of the request.

        Args:
            left: Copies that still contain the erased data, and why.
        """
        now = self._clock()
        if left and self._error is None:
            self._error = StoreError(f"copies still contain the erased data: {'; '.join(left)}")
        self._report.finish(self._error, now=now)
        rows: dict[Table, list[dict[str, Any]]] = {
            SYNC_RUNS: [self._report.as_row(), *self._interrupted]
        }
        if self._error is None:
            rows[FORGOTTEN] = [
                row | {"erased_at": now, "recordings": self._files[row["conversation_id"]]}
                for row in self._rows()
            ]
        self._committer.write(rows)
        self.erasure.rows = self._report.rows
        self.erasure.recordings = self._files.total()
        self.erasure.error = self._report.error

    def _rows(self) -> list[dict[str, Any]]:
        """Returns rows of `forgotten`; values of an earlier request are kept."""
        selection, report = self._selection, self._report
        rows = []
        for name in sorted(selection.conversations):
            is_by_caller = name in selection.of_callers
            earlier = selection.earlier.get(name)
            rows.append(
                {
                    "agent_id": selection.agent_id,
                    "conversation_id": name,
                    "requested_at": earlier.requested_at if earlier else report.started_at,
                    "reason": self._reason or (earlier.reason if earlier else None),
                    "is_by_caller": is_by_caller or bool(earlier and earlier.is_by_caller),
                    "run_id": report.run_id,
                }
            )
        return rows

    def _caller_rows(self) -> list[dict[str, Any]]:
        agent_id = self._selection.agent_id
        known = forgotten_callers(self._committer.warehouse, agent_id, self._selection.region)
        salt = known.salt or secrets.token_hex(_SALT_BYTES)
        hashes = {
            caller_hash(caller, salt, self._selection.region) for caller in self._selection.callers
        }
        return [
            {
                "agent_id": agent_id,
                "caller_hash": hashed,
                "salt": salt,
                "requested_at": self._report.started_at,
                "reason": self._reason,
                "run_id": self._report.run_id,
            }
            for hashed in sorted(hashes)
        ]


@dataclass(frozen=True)
class _Recordings:
    """Archive of recordings, with the folder for new manifests."""

    place: Place
    incoming: Incoming

    def writer(self, warehouse: Warehouse, report: RunReport, clock: Clock) -> ArchiveWriter:
        """Opens manifest and custody log of the agent of a run."""
        return ArchiveWriter(
            self.place, self.incoming, warehouse, report.agent_id, report.run_id, clock
        )


@contextmanager
def _recordings(
    committer: Committer, url: str, clock: Clock
) -> Iterator[_Recordings | PolyAIError | None]:
    """Opens the archive; None if no recording was ever downloaded, else what prevents it."""
    store = open_store(url)
    try:
        opening = Opening(committer, store, url, clock)
    except (ConfigurationError, StoreError) as error:
        # the request is committed first, so that no load brings the conversations back
        yield error
        return
    if opening.is_new:
        yield None
        return
    with Incoming(store, working_folder(committer.pipeline.pipelines_dir)) as incoming:
        yield _Recordings(opening.open(incoming, ()), incoming)


def _discard_pending(committer: Committer) -> None:
    """Discards packages that killed runs on this machine have not loaded."""
    pipeline = committer.pipeline
    names = discard_all(working_folder(pipeline.pipelines_dir), LOAD_PIPELINE_NAME)
    committer.drop_datasets(staging_datasets(pipeline, names))


def _refresh_copy(pipeline: dlt.Pipeline, readers: Readers, wait: timedelta) -> str | None:
    """Refreshes the published copy; returns the reason if that is not possible."""
    if readers.publish_to is None:
        return None
    try:
        refresh(pipeline, readers.zone, readers.publish_to, wait=wait)
    except PolyAIError as error:
        return f"the published copy still contains the erased data: {error}"
    if is_current(pipeline, readers.publish_to):
        return None
    return (
        "the published copy still contains the erased data, because another run is publishing. Run "
        "views when it has ended"
    )


def _erasure(selection: Selection) -> Erasure:
    conversations = selection.conversations
    return Erasure(
        selection.agent_id,
        sorted(name for name, times in conversations.items() if times),
        sorted(name for name, times in conversations.items() if not times),
        len(selection.callers),
        not_found=selection.not_found,
    )
