"""One agent's part of a run: its plan, its details, shaped in batches, cut into chunks.

What is read waits in a queue, so that several agents are read at once, and while one is loaded.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import takewhile
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.compute as pc

from ..api.client import ConversationsV3, DataApi
from ..api.decoding import decode
from ..api.throttle import Traffic
from ..clock import Clock, utc_now
from ..config.settings import Agent, Settings
from ..errors import PolyAIError
from ..listing.data_api import DataListing
from ..listing.landmarks import Landmarks
from ..listing.protocol import Listing
from ..listing.v3 import V3Listing
from ..shape.answer import DATA, V3, Answer, Json, LoadedConversation
from ..shape.audit_rows import audit_table, failure_row
from ..shape.redaction import Redaction
from ..shape.shaping import shape
from ..shape.v3_rows import merge_detail, to_data_api_names
from ..tables.audit import FETCH_FAILURES
from ..tables.declaration import TOMBSTONE
from ..warehouse.held import LoadState
from .discard import load_id_of
from .fetch import Fetched, Fetcher
from .plan import Pace, Plan, Span
from .report import RunReport

logger = logging.getLogger("polyai")

BATCH_SIZE = 500
"""Details that are shaped together; larger batches are no faster and take more memory."""

FIRST_CHUNK_SIZE = 500
"""Conversations of the first chunk of a first load: whoever watches it sees rows soon."""

_QUEUED = 100
"""Answers that were handed over and not taken yet, beside those that wait for their turn."""

_POLL_SECONDS = 0.2

_PATIENCE_SECONDS = 3.0
"""How long a chunk waits for more to arrive while other agents have something to be loaded."""

_CHANGED = ("changed", "in_progress", "written_back", "torn")
"""Reasons that count as a change."""

Tables = dict[str, pa.Table]
"""Rows by table."""


@dataclass(frozen=True)
class Chunk:
    """Conversations that are committed together.

    Attributes:
        batches: their rows, which are read while they are taken.
        days: the days on which they began, once all batches are taken, counted from 1970; None
            stands for one that is not known.
    """

    batches: Iterator[Tables]
    days: set[int | None]


class AgentReader:
    """Reads what one agent has to offer, oldest first.

    Use as a context manager; no request is made before the first chunk is asked for. An error that
    stops the run ends the stream in front of it, so that what was read is loaded; then it is in
    `stopped_by`.

    Args:
        agent: The agent.
        settings: The run's settings.
        warehouse: What is held.
        full: Read the whole listing, and try again what was given up.
        span: Read this range instead of what is new.
        again: Read what is listed also where it has not changed.
        landmarks: Where the Data API's listing has what; learns from each page.
        stop: Set from outside: hand over what was read and end.
        clock: What time it is.

    Raises:
        ConfigurationError: The agent lacks what the chosen API needs.
    """

    def __init__(
        self,
        agent: Agent,
        settings: Settings,
        warehouse: LoadState,
        *,
        full: bool = False,
        span: Span | None = None,
        again: bool = False,
        landmarks: Landmarks | None = None,
        stop: threading.Event | None = None,
        clock: Clock = utc_now,
    ) -> None:
        self._agent = agent
        self._settings = settings
        self._warehouse = warehouse
        self._stop = stop or threading.Event()
        self._redaction = Redaction(settings.pii, settings.pii_secret, settings.transcripts)
        self._clock = clock
        traffic = Traffic()
        self.report = RunReport(
            agent.agent_id,
            "backfill" if span else "load",
            traffic,
            source_api=settings.api,
            started_at=clock(),
            range_from=span.since if span else None,
            range_to=span.before if span else None,
        )
        options: dict[str, Any] = {
            "request_timeout": settings.request_timeout,
            "max_attempts": settings.max_attempts,
            "connections": settings.workers + 1,  # the listing's own
            "traffic": traffic,
        }
        reads_details = settings.api == DATA or settings.details
        api = DataApi(agent, **options) if reads_details else None
        self._apis = frozenset({settings.api} | ({DATA} if api else set()))
        self._v3 = ConversationsV3(agent, **options) if settings.api == V3 else None
        self._fetcher = Fetcher(api, settings.workers, clock)
        self._plan = Plan(
            list(self._listings(api, landmarks)),
            warehouse.for_thread(),
            agent.agent_id,
            Pace(
                clock(),
                settings.lookback,
                settings.settle_after,
                settings.give_up_after,
                full=full,
                span=span,
                again=again,
            ),
            by_id=api is not None,
            report=self.report,
        )
        self._arrived: queue.Queue[Fetched | None] = queue.Queue(_QUEUED)
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._read, name="polyai-reading", daemon=True)
        self.stopped_by: BaseException | None = None
        self.forgotten: list[dict[str, Any]] = []
        """Rows of `forgotten`: what was read and is of an erased caller."""

    def _listings(self, api: DataApi | None, landmarks: Landmarks | None) -> Iterator[Listing]:
        size, clock = self._settings.page_size, self._clock
        if self._v3 is not None:
            for environment in self._settings.environments:
                details = api is not None
                yield V3Listing(self._v3, environment, size, clock, details=details)
        elif api is not None:
            yield DataListing(api, size, clock, landmarks)

    def __enter__(self) -> Self:
        self._fetcher.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._is_over.set()
        self._close()
        if self._thread.ident is not None:
            self._thread.join()

    def _close(self) -> None:
        """Asks for nothing more."""
        self._fetcher.__exit__()
        if self._v3 is not None:
            self._v3.close()

    @property
    def is_stopped(self) -> bool:
        """Whether it was told from outside to end."""
        return self._stop.is_set()

    @property
    def is_ready(self) -> bool:
        """Whether the next chunk has begun to arrive, or there is none."""
        return not self._arrived.empty()

    def now(self) -> datetime:
        """What time it is."""
        return self._clock()

    def start(self) -> None:
        """Begins to read, if it has not begun."""
        if self._thread.ident is None:
            self._thread.start()

    def chunks(self, others_wait: Callable[[], bool] = lambda: False) -> Iterator[Chunk]:
        """Yields chunks of `chunk_size` conversations; a first load begins with a small one.

        A chunk has to be read to its end before the next one is asked for.

        Args:
            others_wait: Whether a chunk is to end early, rather than wait for more to arrive.
        """
        self.start()
        size = self._settings.chunk_size
        stream = self._stream()
        for number, first in enumerate(stream):
            is_first = number == 0 and self._plan.is_first_load
            first_size = min(size, FIRST_CHUNK_SIZE) if is_first else size
            days: set[int | None] = set()
            yield Chunk(self._batches(first, stream, first_size, others_wait, days), days)

    def _read(self) -> None:
        """The reading thread: what was read waits in the queue, None for its end."""
        try:
            tasks = takewhile(lambda _: not self._stop.is_set(), self._plan.tasks())
            for fetched in self._fetcher.stream(tasks):
                if self._stop.is_set():
                    # nothing more is asked for while what was read is loaded
                    self._close()
                    break
                self.report.read += 1
                self._hand_over(fetched)
        except BaseException as error:
            self.stopped_by = error
        finally:
            self._hand_over(None)

    def _hand_over(self, fetched: Fetched | None) -> None:
        while not self._is_over.is_set():
            with suppress(queue.Full):
                self._arrived.put(fetched, timeout=_POLL_SECONDS)
                return

    def _stream(self) -> Iterator[Fetched]:
        while (fetched := self._arrived.get()) is not None:
            yield fetched
        # so that it is seen as ready to whoever asks for more
        self._arrived.put(None)
        if self.stopped_by is not None and not isinstance(self.stopped_by, PolyAIError):
            raise self.stopped_by

    def _batches(
        self,
        first: Fetched,
        stream: Iterator[Fetched],
        size: int,
        others_wait: Callable[[], bool],
        days: set[int | None],
    ) -> Iterator[Tables]:
        """Shapes what the stream brings until the chunk is full."""
        seen: set[str] = set()
        pending: list[Fetched] = []
        patient_until = time.monotonic() + _PATIENCE_SECONDS
        fetched: Fetched | None = first
        while fetched is not None:
            # a listing that shifts can bring a conversation twice, and twice in one package would
            # double its rows
            if fetched.task.conversation_id not in seen:
                seen.add(fetched.task.conversation_id)
                pending.append(fetched)
            if len(pending) == BATCH_SIZE:
                yield _noting_days(self._shaped(pending), days)
                pending = []
            is_full = len(seen) >= size or (
                time.monotonic() > patient_until and self._arrived.empty() and others_wait()
            )
            fetched = None if is_full else next(stream, None)
        if pending:
            yield _noting_days(self._shaped(pending), days)

    def _shaped(self, fetched: list[Fetched]) -> Tables:
        agent_id = self._agent.agent_id
        load_id = load_id_of(agent_id)
        self.report.load_ids.add(load_id)
        if self._plan.forgotten_callers:
            fetched = [item for item in fetched if not self._is_forgotten(item)]
        held = self._warehouse.loaded(
            agent_id,
            [item.task.conversation_id for item in fetched if item.task.reason != "new"],
            children=V3 in self._apis,
        )
        answers = [
            self._answer(item, held.get(item.task.conversation_id))
            for item in fetched
            if item.has_answer
        ]
        shaped = shape(
            self._with_note_histories(answers),
            agent_id=agent_id,
            region=self._agent.region,
            load_id=load_id,
        )
        self._count(fetched, shaped.unmapped, shaped.withheld)
        return shaped.tables | {FETCH_FAILURES.name: self._failures(fetched, load_id)}

    def _is_forgotten(self, item: Fetched) -> bool:
        """Whether it is of an erased caller; it is noted, so that it is not read again."""
        if not item.has_answer or not self._plan.forgotten_callers.match(_detail(item)):
            return False
        self.report.forgotten += 1
        self.forgotten.append(
            {
                "agent_id": self._agent.agent_id,
                "conversation_id": item.task.conversation_id,
                "requested_at": item.fetched_at,
                "erased_at": item.fetched_at,
                "is_by_caller": True,
                "recordings": 0,
                "run_id": self.report.run_id,
            }
        )
        return True

    def _answer(self, item: Fetched, held: LoadedConversation | None) -> Answer:
        """The conversation as the listing and the detail give it, those of them that were read."""
        task = item.task
        found = {DATA: item.body, V3: task.document}
        apis = frozenset(api for api, given in found.items() if given is not None)
        return Answer(
            task.conversation_id,
            self._redaction.apply(_detail(item)),
            task.summary_hash,
            item.fetched_at,
            held,
            apis=apis,
            source_api=self._settings.api,
            may_be_partially_loaded=self._plan.is_after_crash,
        )

    def _with_note_histories(self, answers: list[Answer]) -> list[Answer]:
        """Adds the held versions of the notes that have changed, which are few."""
        changed = [answer.conversation_id for answer in answers if answer.has_changed_note]
        histories = self._warehouse.note_histories(self._agent.agent_id, changed)
        return [
            answer.with_note_history(histories.get(answer.conversation_id, ()))
            for answer in answers
        ]

    def _count(self, fetched: list[Fetched], unmapped: Counter[str], withheld: int) -> None:
        report = self.report
        report.withheld += withheld
        report.unmapped_fields.update(unmapped)
        for item in fetched:
            if item.is_gone:
                logger.warning("%s is not at PolyAI any more", item.task.conversation_id)
                continue
            if item.error is not None:
                report.failed += 1
                report.note_failure(item.task.conversation_id, item.error)
                logger.warning("conversation %s: %s", item.task.conversation_id, item.error)
                continue
            report.fetched += item.body is not None
            report.new += item.task.reason in ("new", "failed")
            report.changed += item.task.reason in _CHANGED
            report.settled += item.task.reason == "settled"

    def _failures(self, fetched: list[Fetched], load_id: str) -> pa.Table:
        """Rows of `fetch_failures`: new and repeated failures, and those that are over."""
        failures = self._plan.failures
        rows = [
            failure_row(
                self._agent.agent_id,
                item.task.conversation_id,
                failures.get(item.task.conversation_id),
                item.fetched_at,
                item.error,
                is_over=item.error is None or item.is_gone,
            )
            for item in fetched
            if item.error is not None or item.task.conversation_id in failures
        ]
        return audit_table(FETCH_FAILURES, rows, load_id)


def _detail(item: Fetched) -> Json:
    """What was read of a conversation, in the Data API's words."""
    body, document = item.body, item.task.document
    detail: Json = decode(body) if body is not None else {}
    if document is None:
        return detail
    row = document.read()
    return merge_detail(row, detail) if body is not None else to_data_api_names(row)


def _noting_days(tables: Tables, days: set[int | None]) -> Tables:
    """The same tables; adds the days on which their conversations began."""
    created_at = tables["conversations"]["created_at"]
    days.update(pc.unique(created_at.cast(pa.date32()).cast(pa.int32())).to_pylist())
    if tables[FETCH_FAILURES.name].num_rows:
        days.add(None)
    return tables


def rows_in(table: pa.Table) -> int:
    """Rows that a load will leave in the warehouse, tombstones not counted."""
    if TOMBSTONE not in table.column_names:
        return int(table.num_rows)
    return int(table[TOMBSTONE].null_count)
