"""Parallel download of recordings into the store; files that are already there are adopted."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from http import HTTPStatus
from typing import Any, Self

from ..api.body import Body
from ..api.client import DataApi
from ..api.outage import OutageBreaker, Probe
from ..api.worker_pool import WorkerPool
from ..clock import Clock
from ..errors import AccessError, ConversationError, StoppedError, UnavailableError
from ..warehouse.incoming import Incoming
from .archive import Kind
from .identity import Place
from .keeper import WAV, Keeper, facts_of, is_longer
from .manifest import Manifest
from .outcome import Outcome, Task
from .short import is_short
from .wav import Received, receive

BATCH_SIZE = 5_000
"""Recordings that are committed together: a commit takes a second, whatever its size, and files
that a killed run did not commit are found in the store."""

BATCH_SECONDS = 60.0
"""Maximum time between two commits."""

_SYNCED_TOGETHER = 100
"""Files that are flushed to the disk together: each flush delays the workers that write."""

_TICK_SECONDS = 5.0

logger = logging.getLogger("polyai")


class RecordingFetcher:
    """Downloads one agent's recordings into a store.

    Use as a context manager: leaving it cancels what has not begun and ends waits.

    Args:
        api: The agent's Data API.
        agent_id: The agent.
        place: Archive of the files.
        incoming: Folder in which files are written first.
        manifest: Rows of the files that are in the store already.
        facts: Facts of the run for the custody log.
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
        place: Place,
        incoming: Incoming,
        manifest: Manifest,
        *,
        facts: Mapping[str, Any],
        workers: int,
        stop: threading.Event,
        clock: Clock,
        on_outcome: Callable[[Outcome], None],
    ) -> None:
        self._api = api
        self._agent_id = agent_id
        self._store = place.store
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
        self._keeper = Keeper(place, incoming, manifest, agent_id, facts, clock)

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
        is_requested = task.again or task.is_short
        outcome = None if is_requested else self._keeper.adopted(task.due, task.kind)
        if outcome is None:
            self._probe_kind = task.kind
            outcome = self._fetched(task)
            self._breaker.record(outcome.error, task.due.conversation_id)
        seconds = outcome.row.get("duration_seconds")
        return replace(
            outcome,
            is_short=is_short(task.due.call_seconds, seconds),
            is_loaded=bool(task.loaded),
        )

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

        def accept(body: Body) -> tuple[Received, dict[str, Any]]:
            received = receive(body, file, is_framed=body.is_framed)
            return received, {"answered_at": self._clock(), **body.origin._asdict()}

        try:
            with self._incoming.file(WAV) as file:
                received, answered = self._api.recording(
                    due.conversation_id, kind.direction, accept, redacted=kind.redacted
                )
                if task.is_short and not is_longer(facts_of(received), loaded):
                    return Outcome(self._keeper.requested_again(loaded), is_known=True)
                return self._keeper.stored(task, file, received, answered)
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
                row = self._keeper.requested_again(loaded)
                return Outcome(row, None if is_not_found else error, is_known=True)
            if loaded.get("status") == "stored":
                # lost or changed in the store; its size and hash are still worth keeping
                return Outcome(dict(loaded), error, is_known=True)
            if is_not_found:
                return Outcome(
                    self._keeper.row(due, kind, "not_found", error_code=error.error_code)
                )
            return Outcome(
                self._keeper.row(due, kind, "failed", error_code=error.error_code), error
            )
