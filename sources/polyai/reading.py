"""One agent's part of a run: its plan, its details, shaped in batches, cut into chunks."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import takewhile
from types import TracebackType
from typing import Self

import pyarrow as pa

from .answers import Answer
from .audit import audit_table, failure_row
from .client import DataApi
from .clock import Clock, utc_now
from .decoding import decode
from .errors import PolyAIError
from .fetching import Fetched, Fetcher
from .listing import OffsetListing
from .plan import Plan
from .recovery import load_id_of
from .redaction import Redaction
from .report import RunReport
from .schema import TOMBSTONE
from .settings import Agent, Settings
from .shaping import shape
from .tables import FETCH_FAILURES
from .warehouse import Warehouse

logger = logging.getLogger("polyai")

BATCH_SIZE = 500
"""Details that are shaped together; larger batches are no faster and take more memory."""

FIRST_CHUNK_SIZE = 500
"""Conversations of the first chunk of a first load: whoever watches it sees rows soon."""

NAMED_FAILURES = 1_000
"""Failures that a report names; all of them are in `fetch_failures`."""

Tables = dict[str, pa.Table]
"""Rows by table."""


@dataclass(frozen=True)
class Chunk:
    """Conversations that are committed together: batches that are read while they are taken."""

    batches: Iterator[Tables]


class AgentReader:
    """Reads what one agent has to offer, oldest first.

    Use as a context manager; no request is made before the first chunk is asked for. An error that
    stops the run ends the stream in front of it, so that what was read is loaded; then it is in
    `stopped_by`.

    Args:
        agent: The agent.
        settings: The run's settings.
        warehouse: What is held.
        command: Name of the command, for `sync_runs`.
        full: Read the whole listing, and try again what was given up.
        stop: Set from outside: hand over what was read and end.
        clock: What time it is.
    """

    def __init__(
        self,
        agent: Agent,
        settings: Settings,
        warehouse: Warehouse,
        *,
        command: str = "load",
        full: bool = False,
        stop: threading.Event | None = None,
        clock: Clock = utc_now,
    ) -> None:
        self._agent = agent
        self._settings = settings
        self._warehouse = warehouse
        self._stop = stop or threading.Event()
        self._redaction = Redaction(settings.pii, settings.pii_secret, settings.transcripts)
        api = DataApi(
            agent,
            request_timeout=settings.request_timeout,
            max_attempts=settings.max_attempts,
            connections=settings.workers + 1,  # the listing's own
        )
        self._clock = clock
        self._fetcher = Fetcher(api, settings.workers, clock)
        self.report = RunReport(agent.agent_id, command, api.traffic)
        self._plan = Plan(
            OffsetListing(
                lambda limit, offset: api.conversations(limit=limit, offset=offset),
                settings.page_size,
            ),
            warehouse,
            agent.agent_id,
            now=clock(),
            lookback=settings.lookback,
            settle_after=settings.settle_after,
            give_up_after=settings.give_up_after,
            full=full,
            report=self.report,
        )
        self.stopped_by: PolyAIError | None = None

    def __enter__(self) -> Self:
        self._fetcher.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._fetcher.__exit__()

    @property
    def is_stopped(self) -> bool:
        """Whether it was told from outside to end."""
        return self._stop.is_set()

    def now(self) -> datetime:
        """What time it is."""
        return self._clock()

    def chunks(self) -> Iterator[Chunk]:
        """Yields chunks of `chunk_size` conversations; a first load begins with a small one.

        A chunk has to be read to its end before the next one is asked for.
        """
        size = self._settings.chunk_size
        stream = self._until_stopped()
        for number, first in enumerate(stream):
            is_first = number == 0 and self._plan.is_first_load
            first_size = min(size, FIRST_CHUNK_SIZE) if is_first else size
            yield Chunk(self._batches(first, stream, first_size))

    def _until_stopped(self) -> Iterator[Fetched]:
        try:
            tasks = takewhile(lambda _: not self._stop.is_set(), self._plan.tasks())
            for fetched in self._fetcher.stream(tasks):
                if self._stop.is_set():
                    # nothing more is asked for while what was read is loaded
                    self._fetcher.__exit__()
                    return
                self.report.read += 1
                yield fetched
        except PolyAIError as error:
            self.stopped_by = error

    def _batches(self, first: Fetched, stream: Iterator[Fetched], size: int) -> Iterator[Tables]:
        """Shapes what the stream brings until the chunk is full."""
        seen: set[str] = set()
        pending: list[Fetched] = []
        fetched: Fetched | None = first
        while fetched is not None:
            # a listing that shifts can bring a conversation twice, and twice in one package would
            # double its rows
            if fetched.task.conversation_id not in seen:
                seen.add(fetched.task.conversation_id)
                pending.append(fetched)
            if len(pending) == BATCH_SIZE:
                yield self._shaped(pending)
                pending = []
            fetched = next(stream, None) if len(seen) < size else None
        if pending:
            yield self._shaped(pending)

    def _shaped(self, fetched: list[Fetched]) -> Tables:
        agent_id = self._agent.agent_id
        load_id = load_id_of(agent_id)
        self.report.load_ids.add(load_id)
        held = self._warehouse.held(
            agent_id, [item.task.conversation_id for item in fetched if item.task.reason != "new"]
        )
        answers = [
            Answer(
                item.task.conversation_id,
                self._redaction.applied(decode(item.body)),
                item.task.summary_hash,
                item.fetched_at,
                held.get(item.task.conversation_id),
                may_be_torn=self._plan.is_after_crash,
            )
            for item in fetched
            if item.body is not None
        ]
        shaped = shape(
            self._with_note_histories(answers),
            agent_id=agent_id,
            region=self._agent.region,
            load_id=load_id,
        )
        self._count(fetched, shaped.unmapped, shaped.withheld)
        return shaped.tables | {FETCH_FAILURES.name: self._failures(fetched, load_id)}

    def _with_note_histories(self, answers: list[Answer]) -> list[Answer]:
        """Adds the held versions of the notes that have changed, which are few."""
        changed = [answer.conversation_id for answer in answers if answer.has_other_note]
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
                if len(report.failures) < NAMED_FAILURES:
                    report.failures[item.task.conversation_id] = item.error
                logger.warning("conversation %s: %s", item.task.conversation_id, item.error)
                continue
            report.fetched += 1
            report.new += item.task.reason in ("new", "failed")
            report.changed += item.task.reason in ("changed", "in_progress", "torn")
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


def rows_in(table: pa.Table) -> int:
    """Rows that a load will leave in the warehouse, tombstones not counted."""
    if TOMBSTONE not in table.column_names:
        return int(table.num_rows)
    return int(table[TOMBSTONE].null_count)
