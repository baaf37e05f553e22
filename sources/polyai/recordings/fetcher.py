"""Fetches recordings with many threads: into the store, told apart, and never twice."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from http import HTTPStatus
from pathlib import Path
from typing import Any, NamedTuple, Self

from ..api.client import DataApi
from ..api.decoding import NotAcceptedError
from ..api.worker_pool import OUTAGE_AFTER
from ..clock import Clock
from ..errors import ApiError, ConversationError, StoppedError, UnavailableError
from .archive import Due, Kind
from .layout import file_name, partition
from .manifest import Manifest, Row
from .store import Incoming, Store
from .wav import Received, receive, sound_of

AHEAD = 1_000
"""Recordings that are asked for, or wait to be told of: enough to go on during a commit."""

BATCH_SIZE = 5_000
"""Recordings that are told of together: to tell takes a second, however many they are, and what a
killed run did not tell of is found in the store."""

BATCH_SECONDS = 60.0
"""Time in which those that are in the store are told of at the latest."""

_SETTLED_TOGETHER = 100
"""Files that are sent to the disk together: each time holds up whoever makes a new one."""

_PARTITIONS = 64
"""Partitions whose files are remembered: calls come in the order in which they began."""

_TICK_SECONDS = 5.0

_WAV = ".wav"


class Task(NamedTuple):
    """A recording to fetch.

    Attributes:
        due: Of which call.
        kind: Which of its recordings.
        again: Fetch it also where its file is in the store.
    """

    due: Due
    kind: Kind
    again: bool = False


@dataclass(frozen=True)
class Outcome:
    """What came of a recording: its row, and what went wrong.

    Attributes:
        row: Of `recordings`.
        error: Why it failed; None where it is stored, or the API has none.
        is_adopted: It was in the store already.
        is_told: The manifest or the warehouse had this row already.
    """

    row: Row
    error: ApiError | None = None
    is_adopted: bool = False
    is_told: bool = False


class RecordingFetcher:
    """Fetches one agent's recordings into a store.

    Use as a context manager; leaving it asks for nothing more, and ends waits.

    Args:
        api: The agent's Data API.
        agent_id: The agent.
        store: Where files go.
        incoming: Where they are written first.
        manifest: What is told of files that are in the store already.
        workers: Requests in flight at once.
        stop: Set from outside: begin no more.
        clock: What time it is.
        on_outcome: Told of each outcome as it arrives.

    Attributes:
        rest: What came since the last batch, also where an error ended it; its files outlive a
            power failure, as the rows do that tell of them.
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
        self._unsettled: list[Outcome] = []
        self._lock = threading.Lock()
        self._unanswered = 0
        """Recordings in a row that the API did not answer."""
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="polyai-recording")
        self._files = lru_cache(_PARTITIONS)(store.sizes)
        self._told = lru_cache(_PARTITIONS)(manifest.read)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._api.close()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._settle()

    def batches(self, tasks: Iterable[Task]) -> Iterator[list[Outcome]]:
        """What came of the tasks, as they are done, many together; then there is the `rest`.

        Raises:
            AccessError: The key, region or agent was refused.
            UnavailableError: The API has stopped answering altogether.
            StoreError: The store does not take files.
        """
        since = time.monotonic()
        for outcome in self._as_done(tasks):
            if outcome is not None:
                self._unsettled.append(outcome)
                self._on_outcome(outcome)
                if outcome.error is not None and self._is_down:
                    raise outcome.error
            if len(self._unsettled) >= _SETTLED_TOGETHER:
                self._settle()
            if len(self.rest) >= BATCH_SIZE or time.monotonic() - since >= BATCH_SECONDS:
                self._settle()
                if self.rest:
                    batch, self.rest = self.rest, []
                    yield batch
                since = time.monotonic()

    def _settle(self) -> None:
        """Sends to the disk what is new there; only then may it be told of."""
        # taken out first: a disk that has failed once may say nothing of it the second time
        outcomes, self._unsettled = self._unsettled, []
        self._store.settle(
            outcome.row["uri"]
            for outcome in outcomes
            if outcome.row["status"] == "stored" and not outcome.is_told
        )
        self.rest += outcomes

    def _as_done(self, tasks: Iterable[Task]) -> Iterator[Outcome | None]:
        """Yields None every now and then too, so that the caller sees the time go by."""
        done: queue.SimpleQueue[Future[Outcome | None]] = queue.SimpleQueue()
        waiting = 0
        for task in tasks:
            if self._stop.is_set():
                break
            self._pool.submit(self._outcome, task).add_done_callback(done.put)
            waiting += 1
            while waiting >= AHEAD or not done.empty():
                waiting -= 1
                yield done.get().result()
        while waiting:
            try:
                outcome = done.get(timeout=_TICK_SECONDS).result()
            except queue.Empty:
                yield None
                continue
            waiting -= 1
            yield outcome

    def _outcome(self, task: Task) -> Outcome | None:
        """What came of one recording; None where the run is ending."""
        if self._stop.is_set() or self._is_down:
            return None
        if not task.again and (adopted := self._adopted(task.due, task.kind)):
            return adopted
        outcome = self._fetched(task.due, task.kind)
        is_unanswered = isinstance(outcome.error, UnavailableError)
        with self._lock:
            self._unanswered = self._unanswered + 1 if is_unanswered else 0
        return outcome

    @property
    def _is_down(self) -> bool:
        """Whether the API has stopped answering: asking on would take hours."""
        return self._unanswered >= OUTAGE_AFTER

    def _fetched(self, due: Due, kind: Kind) -> Outcome:
        """Asks for a recording, and stores it."""
        try:
            with self._incoming.file(_WAV) as file:
                received = self._api.recording(
                    due.conversation_id,
                    kind.direction,
                    lambda parts: receive(parts, file),
                    redacted=kind.redacted,
                )
                return Outcome(self._stored(due, kind, file, received, is_new=True))
        except StoppedError:
            raise
        except (ConversationError, UnavailableError) as error:
            held = due.rows.get(kind, {})
            if held.get("status") == "stored":
                # lost or changed in the store; its size and hash are still worth knowing
                return Outcome(dict(held), error, is_told=True)
            # without the API's own code it may be any gateway's
            if error.status == HTTPStatus.NOT_FOUND and error.error_code:
                return Outcome(self._row(due, kind, "not_found", error_code=error.error_code))
            return Outcome(self._row(due, kind, "failed", error_code=error.error_code), error)

    def _adopted(self, due: Due, kind: Kind) -> Outcome | None:
        """Takes over a file that a killed run has put into the store, or an earlier warehouse."""
        folder, name = self._place(due, kind)
        size = self._files(folder).get(name)
        if size is None:
            return None
        told = self._told(folder).get((due.conversation_id, *kind))
        if told and told["status"] == "stored" and told["bytes"] == size:
            row = told | {"uri": self._store.uri(f"{folder}/{name}")}
            return Outcome(row, is_adopted=True, is_told=True)
        with self._incoming.file(_WAV) as file:
            try:
                received = receive(self._store.parts(f"{folder}/{name}"), file)
            except (NotAcceptedError, FileNotFoundError):
                # not one of ours, which are whole
                return None
            return Outcome(self._stored(due, kind, file, received, is_new=False), is_adopted=True)

    def _stored(self, due: Due, kind: Kind, file: Path, received: Received, *, is_new: bool) -> Row:
        """The row of a file that is whole; puts it into the store where it is new there."""
        path = "/".join(self._place(due, kind))
        sound = sound_of(file)
        if is_new:
            self._store.put(file, path)
        uri = self._store.uri(path)
        return self._row(due, kind, "stored", uri=uri, **vars(received), **vars(sound))

    def _place(self, due: Due, kind: Kind) -> tuple[str, str]:
        """Folder and name of a recording's file."""
        name = file_name(due.conversation_id, kind.direction, redacted=kind.redacted)
        return partition(self._agent_id, due.began), name

    def _row(self, due: Due, kind: Kind, status: str, **facts: Any) -> Row:
        asked = due.rows.get(kind, {}).get("attempts") or 0
        return {
            "agent_id": self._agent_id,
            "conversation_id": due.conversation_id,
            **kind._asdict(),
            "status": status,
            "started_at": due.began,
            "fetched_at": self._clock(),
            "attempts": asked + 1,
            **facts,
        }
