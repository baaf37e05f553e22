"""Parallel download of recordings into the store; files that are already there are adopted."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from http import HTTPStatus
from pathlib import Path
from typing import Any, NamedTuple, Self

from ..api.client import DataApi
from ..api.decoding import NotAcceptedError
from ..api.outage import OutageBreaker, Probe
from ..api.worker_pool import WorkerPool
from ..clock import Clock
from ..errors import AccessError, ApiError, ConversationError, StoppedError, UnavailableError
from ..warehouse.file_store import Incoming, Store
from .archive import Due, Kind
from .layout import file_name, partition
from .manifest import Manifest, Row
from .short import is_short
from .wav import Received, receive

BATCH_SIZE = 5_000
"""Recordings that are committed together: a commit takes a second, whatever its size, and files
that a killed run did not commit are found in the store."""

BATCH_SECONDS = 60.0
"""Maximum time between two commits."""

_SYNCED_TOGETHER = 100
"""Files that are flushed to the disk together: each flush delays the workers that write."""

_PARTITIONS = 64
"""Cached partition listings: calls come in the order in which they began."""

_TICK_SECONDS = 5.0

_WAV = ".wav"

logger = logging.getLogger("polyai")


class Task(NamedTuple):
    """A recording to download.

    Attributes:
        due: Its call.
        kind: Its direction and redaction.
        again: Download it even if its file is in the store.
        is_short: The stored one is much shorter than the call: only a longer one replaces it.
    """

    due: Due
    kind: Kind
    again: bool = False
    is_short: bool = False

    @property
    def loaded(self) -> Mapping[str, Any]:
        """Its row in the warehouse; empty if there is none."""
        return self.due.rows.get(self.kind, {})


@dataclass(frozen=True)
class Outcome:
    """Result for one recording.

    Attributes:
        row: Row of `recordings`.
        error: Reason of a failure; None if it is stored or the API has none.
        is_adopted: It was in the store already.
        is_known: The manifest or the warehouse had this row already.
        is_short: It is stored, and much shorter than the call.
    """

    row: Row
    error: ApiError | None = None
    is_adopted: bool = False
    is_known: bool = False
    is_short: bool = False


class RecordingFetcher:
    """Downloads one agent's recordings into a store.

    Use as a context manager: leaving it cancels what has not begun and ends waits.

    Args:
        api: The agent's Data API.
        agent_id: The agent.
        store: Target of the files.
        incoming: Folder in which files are written first.
        manifest: Rows of the files that are in the store already.
        workers: Maximum number of requests in flight.
        stop: When set, no further recording is begun.
        clock: Current time.
        on_outcome: Called with each outcome as it arrives.

    Attributes:
        rest: Outcomes since the last batch, also after an error. Their files have been flushed to
            the disk, so that no row outlives its file in a power failure.
    """

    def __init__(
        self,
        api: DataApi,
        agent_id: str,
        store: Store,
        incoming: Incoming,
        manifest: Manifest,
        *,
        workers: int,
        stop: threading.Event,
        clock: Clock,
        on_outcome: Callable[[Outcome], None],
    ) -> None:
        self._api = api
        self._agent_id = agent_id
        self._store = store
        self._incoming = incoming
        self._stop = stop
        self._clock = clock
        self._on_outcome = on_outcome
        self.rest: list[Outcome] = []
        self._unsynced: list[Outcome] = []
        self._is_refused = False
        self._breaker = OutageBreaker(probe=Probe(self._first_bytes, api.newest_ids))
        self._probe_kind: Kind | None = None
        self._pool = WorkerPool(workers, "polyai-recording", stop=stop)
        self._files = lru_cache(_PARTITIONS)(store.sizes)
        self._known_rows = lru_cache(_PARTITIONS)(manifest.read)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._api.close()
        self._pool.close()
        self._sync()

    def batches(self, tasks: Iterable[Task]) -> Iterator[list[Outcome]]:
        """Yields the outcomes as they arrive, in batches; the last ones are in `rest`.

        Raises:
            AccessError: The key, region or agent was refused.
            UnavailableError: Outage: the API has stopped answering.
            StoreError: A file cannot be written.
        """
        since = time.monotonic()
        for outcome in self._pool.as_completed(self._outcome, tasks, tick_seconds=_TICK_SECONDS):
            if outcome is not None:
                self._unsynced.append(outcome)
                self._on_outcome(outcome)
                outage = self._breaker.opened_by
                # only now: what was answered before it is kept
                if outage is not None and outcome.error is self._breaker.opened_at:
                    raise outage
            if len(self._unsynced) >= _SYNCED_TOGETHER:
                self._sync()
            if len(self.rest) >= BATCH_SIZE or time.monotonic() - since >= BATCH_SECONDS:
                self._sync()
                if self.rest:
                    batch, self.rest = self.rest, []
                    yield batch
                since = time.monotonic()

    def _sync(self) -> None:
        """Flushes new files to the disk, so that their rows may be committed."""
        # removed first: a disk that has failed once may report success the second time
        outcomes, self._unsynced = self._unsynced, []
        self._store.sync(
            outcome.row["uri"]
            for outcome in outcomes
            if outcome.row["status"] == "stored" and not outcome.is_known
        )
        self.rest += outcomes

    def _outcome(self, task: Task) -> Outcome | None:
        """Adopts or downloads one recording; None if the run is ending."""
        if self._stop.is_set() or self._breaker.is_open or self._is_refused:
            return None
        adopted = None if task.again else self._adopted(task.due, task.kind)
        if adopted and not (task.is_short and not _is_longer(adopted.row, task.loaded)):
            outcome = adopted
        else:
            self._probe_kind = task.kind
            outcome = self._fetched(task)
            self._breaker.record(outcome.error, task.due.conversation_id)
        seconds = outcome.row.get("duration_seconds")
        return replace(outcome, is_short=is_short(task.due.call_seconds, seconds))

    def _first_bytes(self, conversation_id: str) -> object:
        """Requests a recording for a probe, and reads no more than its beginning."""
        kind = self._probe_kind
        if kind is None:
            return None
        return self._api.recording(
            conversation_id,
            kind.direction,
            lambda parts: next(iter(parts), b""),
            redacted=kind.redacted,
        )

    def _fetched(self, task: Task) -> Outcome:
        """Downloads a recording and stores it."""
        due, kind, loaded = task.due, task.kind, task.loaded
        try:
            with self._incoming.file(_WAV) as file:
                received = self._api.recording(
                    due.conversation_id,
                    kind.direction,
                    lambda body: receive(body, file, is_framed=body.is_framed),
                    redacted=kind.redacted,
                )
                if task.is_short and not _is_longer(_facts(received), loaded):
                    return Outcome(self._requested_again(loaded), is_known=True)
                row = self._stored(due, kind, file, received, is_new=True)
        except StoppedError:
            raise
        except AccessError:
            # before the caller receives it, other workers would send more requests
            self._is_refused = True
            raise
        except (ConversationError, UnavailableError) as error:
            # without the API's own error code the 404 may be a gateway's
            is_not_found = error.status == HTTPStatus.NOT_FOUND and bool(error.error_code)
            if task.is_short:
                row = self._requested_again(loaded)
                return Outcome(row, None if is_not_found else error, is_known=True)
            if loaded.get("status") == "stored":
                # lost or changed in the store; its size and hash are still worth keeping
                return Outcome(dict(loaded), error, is_known=True)
            if is_not_found:
                return Outcome(self._row(due, kind, "not_found", error_code=error.error_code))
            return Outcome(self._row(due, kind, "failed", error_code=error.error_code), error)
        if task.is_short:
            logger.info(
                "%s: the recording of %s has now %s s instead of %s s: SHA-256 %s replaces %s",
                self._agent_id,
                due.conversation_id,
                row["duration_seconds"],
                loaded["duration_seconds"],
                row["sha256"],
                loaded["sha256"],
            )
        return Outcome(row)

    def _requested_again(self, loaded: Mapping[str, Any]) -> Row:
        """Row of a stored recording that another request has not made longer."""
        attempts = (loaded["attempts"] or 0) + 1
        return dict(loaded) | {"attempts": attempts, "fetched_at": self._clock()}

    def _adopted(self, due: Due, kind: Kind) -> Outcome | None:
        """Adopts a file that a killed run or an earlier warehouse has left in the store."""
        folder, name = self._place(due, kind)
        size = self._files(folder).get(name)
        if size is None:
            return None
        known = self._known_rows(folder).get((due.conversation_id, *kind))
        if known and known["status"] == "stored" and known["bytes"] == size:
            row = known | {"uri": self._store.uri(f"{folder}/{name}")}
            return Outcome(row, is_adopted=True, is_known=True)
        with self._incoming.file(_WAV) as file:
            try:
                received = receive(self._store.parts(f"{folder}/{name}"), file)
            except (NotAcceptedError, FileNotFoundError):
                # not written by this package, whose files are complete
                return None
            return Outcome(self._stored(due, kind, file, received, is_new=False), is_adopted=True)

    def _stored(self, due: Due, kind: Kind, file: Path, received: Received, *, is_new: bool) -> Row:
        """Builds the row of a complete file; moves it into the store if it is new."""
        path = "/".join(self._place(due, kind))
        if is_new:
            self._store.put(file, path)
        return self._row(
            due,
            kind,
            "stored",
            uri=self._store.uri(path),
            **_facts(received),
        )

    def _place(self, due: Due, kind: Kind) -> tuple[str, str]:
        """Folder and name of a recording's file."""
        name = file_name(due.conversation_id, kind.direction, redacted=kind.redacted)
        return partition(self._agent_id, due.began), name

    def _row(self, due: Due, kind: Kind, status: str, **facts: Any) -> Row:
        attempts = due.rows.get(kind, {}).get("attempts") or 0
        return {
            "agent_id": self._agent_id,
            "conversation_id": due.conversation_id,
            **kind._asdict(),
            "status": status,
            "started_at": due.began,
            "fetched_at": self._clock(),
            "attempts": attempts + 1,
            **facts,
        }


def _facts(received: Received) -> Row:
    """Columns of `recordings` that describe a file."""
    return {
        "bytes": received.bytes,
        "sha256": received.sha256,
        "error_code": received.mark,
        **vars(received.sound),
    }


def _is_longer(row: Mapping[str, Any], loaded: Mapping[str, Any]) -> bool:
    """Returns whether a file is longer than the stored one, by its sound or else its bytes."""
    names = ("duration_seconds", "bytes")
    name = next((n for n in names if None not in (row.get(n), loaded.get(n))), None)
    return name is not None and bool(row[name] > loaded[name])
