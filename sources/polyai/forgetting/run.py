"""Forgets conversations and callers: all that the warehouse, its files and its copies have of them.

What is to be forgotten is written down before anything is deleted. So no load brings it back from
then on, and what a killed run has left to be done the next one does.
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import dlt

from ..api.throttle import Traffic
from ..clock import Clock, utc_now
from ..console.exit_codes import ExitCode
from ..debug_chats import result_store as debug_chats
from ..errors import BusyError, PolyAIError, StoreError
from ..load.committer import Committer, open_committer
from ..load.discard import discard_all
from ..load.report import RunReport
from ..locking.files import LockTimeout, database_lock, staging_datasets
from ..recordings import run as recordings
from ..recordings.store import Incoming, Store, open_store
from ..shape.caller_identity import caller_hash
from ..tables.audit import FORGOTTEN, FORGOTTEN_CALLERS, RECORDINGS, SYNC_RUNS
from ..tables.declaration import Table
from ..views.publishing import is_published
from ..views.refresh import refresh
from ..warehouse.open import PIPELINE_NAME as STEADY_PIPELINE
from ..warehouse.open import working_folder
from ..warehouse.queries import Warehouse
from ..write_backs import run as write_backs
from .audio import erase_audio
from .rewriting import rewrite
from .selection import Selection, select

logger = logging.getLogger("polyai")

PIPELINE_NAME = "polyai_forget"
"""dlt pipeline and schema of what is told of erasures."""

COMMAND = "forget"
"""What it is called in `sync_runs`."""

_TABLES = (FORGOTTEN_CALLERS, FORGOTTEN)

_LOCK_ENDING = ".forget.lock"

_OTHERS = (".lock", recordings.LOCK_ENDING, write_backs.LOCK_ENDING, debug_chats.LOCK_ENDING)
"""Locks beside a DuckDB file of all who write rows of conversations, but for backfills: what a
slice has read before is erased when it ends."""

_SALT_BYTES = 16


@dataclass
class Erasure:
    """What was erased of one agent, or would be.

    Attributes:
        agent_id: The agent.
        conversations: Conversations that were held, or of which anything else was.
        not_held: Conversations of which there was nothing: they are not to come.
        callers: Numbers that are not to come back.
        rows: Rows that were deleted, by table.
        recordings: Files that were deleted.
        error: What kept it from being done to its end.
    """

    agent_id: str
    conversations: list[str]
    not_held: list[str]
    callers: int
    rows: Counter[str] = field(default_factory=Counter)
    recordings: int = 0
    error: str | None = None


@dataclass(frozen=True)
class Erasures:
    """What a run has erased.

    Attributes:
        agents: By agent.
        is_rewritten: The warehouse is a DuckDB file, and was written anew.
        error: Why the copy for readers still contains the erased rows.
        is_interrupted: `stop` was set before the last agent.
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
        is_done = self.error is None and not any(one.error for one in self.agents)
        return ExitCode.DONE if is_done else ExitCode.CONFIGURATION


@dataclass(frozen=True)
class Readers:
    """The copy for readers, which is taken anew.

    Attributes:
        zone: Of the views' local dates.
        publish_to: Folder of the copy; None for none.
    """

    zone: str
    publish_to: Path | None


def planned(selections: Sequence[Selection]) -> Erasures:
    """What would be erased."""
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
    lock_wait: timedelta = timedelta(0),
    stop: threading.Event | None = None,
    clock: Clock = utc_now,
) -> Erasures:
    """Erases conversations, also all of a caller, and keeps them from coming back.

    Rows of all tables, recordings with their manifest, packages that wait to be loaded; a DuckDB
    file is written anew, as is its copy for readers. PolyAI is asked for nothing, and keeps its
    own. What a killed run has left to be done is done as well.

    Args:
        pipeline: Where the warehouse is; `open_pipeline` with the name `PIPELINE_NAME`.
        conversation_ids: Conversations, held or not.
        callers: Phone numbers. What has begun until now does not come back; later calls come.
        recordings_url: Where recordings are.
        readers: How the copy for readers is made.
        agent_ids: As for `select`.
        reason: Kept with each conversation.
        pii_secret: As for `select`.
        lock_wait: How long to wait for other runs; nothing else may write meanwhile.
        stop: When set, ends before the next agent; what is left the next run does.
        clock: What time it is.

    Returns:
        What was erased, an agent at a time; one that cannot be does not keep the others.

    Raises:
        BusyError: Another run writes into the warehouse.
        ConfigurationError: As `select`; or `recordings_url` cannot be used.
        DestinationError: The destination cannot be read or written.
        LeaseLostError: Another machine has taken over, because this one stood still.
    """
    stop = stop or threading.Event()

    def chosen(warehouse: Warehouse) -> list[Selection]:
        return select(
            warehouse, conversation_ids, callers, agent_ids=agent_ids, pii_secret=pii_secret
        )

    with (
        _alone(pipeline, LockTimeout(lock_wait, stop), chosen) as committer,
        _place(committer, recordings_url) as place,
    ):
        selections = chosen(committer.warehouse)
        agents = [_AgentErasure(committer, selection, reason, clock) for selection in selections]
        begun = []
        for agent in agents:
            if stop.is_set():
                break
            agent.erase(place)
            begun.append(agent)
        _discard_waiting(committer)
        is_rewritten = rewrite(pipeline)
        for agent in begun:
            agent.finish()
    error = _taken_anew(pipeline, readers, lock_wait)
    return Erasures(
        [agent.erasure for agent in begun],
        is_rewritten,
        error,
        is_interrupted=len(begun) < len(agents),
    )


class _AgentErasure:
    """One agent's part of a run."""

    def __init__(
        self, committer: Committer, selection: Selection, reason: str | None, clock: Clock
    ) -> None:
        self._committer = committer
        self._selection = selection
        self._reason = reason
        self._clock = clock
        self._report = RunReport(selection.agent_id, COMMAND, Traffic(), started_at=clock())
        self._killed: list[dict[str, Any]] = []
        self._files: Counter[str] = Counter()
        self._error: PolyAIError | None = None
        self.erasure = _erasure(selection)

    def erase(self, place: _Place | None) -> None:
        """Writes down what is to go, then deletes it: files first, for rows tell of them."""
        committer, selection = self._committer, self._selection
        agent_id, conversations = selection.agent_id, selection.conversations
        self._killed = committer.begin(self._report, _TABLES, [COMMAND])
        committer.write({FORGOTTEN: self._rows(), FORGOTTEN_CALLERS: self._caller_rows()})
        try:
            if place is not None:
                self._files = erase_audio(
                    committer.warehouse, place.store, place.incoming, agent_id, conversations
                )
        except StoreError as error:
            self._error = error
            return
        self._report.rows.update(committer.erase(agent_id, list(conversations)))

    def finish(self) -> None:
        """Writes down that nothing is left, where that is so."""
        now = self._clock()
        self._report.finish(self._error, now=now)
        rows: dict[Table, list[dict[str, Any]]] = {
            SYNC_RUNS: [self._report.as_row(), *self._killed]
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
        """Rows of `forgotten`; what an earlier request tells stays."""
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
        known = self._committer.warehouse.forgotten_callers(agent_id)
        salt = known[0].salt if known else secrets.token_hex(_SALT_BYTES)
        hashes = {caller_hash(caller, salt) for caller in self._selection.callers}
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
class _Place:
    """Where recordings are."""

    store: Store
    incoming: Incoming


@contextmanager
def _alone(
    pipeline: dlt.Pipeline, timeout: LockTimeout, chosen: Callable[[Warehouse], list[Selection]]
) -> Iterator[Committer]:
    """A committer, and nobody else who writes rows of conversations until it ends."""

    def lease_names() -> list[str]:
        warehouse = Warehouse(pipeline, locks_file=True)
        return [
            name
            for selection in chosen(warehouse)
            for name in (
                selection.agent_id,
                recordings.lease_name(selection.agent_id),
                write_backs.lease_name(selection.agent_id),
                debug_chats.lease_name(selection.agent_id),
            )
        ]

    with ExitStack() as held:
        for ending in _OTHERS:
            held.enter_context(database_lock(pipeline, timeout, ending))
        committer, others = held.enter_context(
            open_committer(pipeline, _LOCK_ENDING, lease_names, timeout)
        )
        for name, holder in others.items():
            raise BusyError(f"{holder} is at work on {name}")
        yield committer


@contextmanager
def _place(committer: Committer, url: str) -> Iterator[_Place | None]:
    """The store; None where there is none, and never was a recording."""
    store = open_store(url)
    folder = store.local_folder
    is_missing = folder is not None and not folder.exists()
    if is_missing and not committer.warehouse.has_table(RECORDINGS.name):
        yield None
        return
    with Incoming(store, working_folder(committer.pipeline.pipelines_dir)) as incoming:
        store.check()
        yield _Place(store, incoming)


def _discard_waiting(committer: Committer) -> None:
    """Throws away what killed runs on this machine have read and not loaded."""
    pipeline = committer.pipeline
    names = discard_all(working_folder(pipeline.pipelines_dir), STEADY_PIPELINE)
    committer.drop_datasets(staging_datasets(pipeline, names))


def _taken_anew(pipeline: dlt.Pipeline, readers: Readers, wait: timedelta) -> str | None:
    """Takes the copy for readers anew; why it could not be."""
    if readers.publish_to is None:
        return None
    try:
        refresh(pipeline, readers.zone, readers.publish_to, wait=wait)
    except PolyAIError as error:
        return f"the published copy still contains the erased data: {error}"
    if is_published(pipeline, readers.publish_to):
        return None
    return (
        "the published copy still contains the erased data, because another run is publishing. Run "
        "views when it has ended"
    )


def _erasure(selection: Selection) -> Erasure:
    held = selection.conversations
    return Erasure(
        selection.agent_id,
        sorted(name for name, moments in held.items() if moments),
        sorted(name for name, moments in held.items() if not moments),
        len(selection.callers),
    )
