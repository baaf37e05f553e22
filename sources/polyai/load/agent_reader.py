"""Reading of one agent: its plan, its details, and the chunks they are cut into.

What is fetched waits in a queue, so that several agents are read at once, and while a chunk is
loaded.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime
from functools import partial
from itertools import takewhile
from types import TracebackType
from typing import Any, Self

from ..api.client import NEWEST_IDS, ConversationsV3, DataApi
from ..api.names import AgentsApi
from ..api.throttle import Traffic
from ..clock import Clock, utc_now
from ..config.agent import DATA, V3, Agent
from ..config.settings import Settings
from ..errors import AccessError, PolyAIError, RouteGoneError
from ..listing.data_api import DataListing
from ..listing.landmarks import Landmarks
from ..listing.protocol import Listing, MalformedRow
from ..listing.v3 import V3Listing
from ..shape.redaction import Redaction, request_options
from ..warehouse.fallback import fallback
from ..warehouse.held import LoadState
from ..warehouse.holds import HoldKeys
from .batch_shaper import BatchShaper
from .batching import BATCH_SIZE, Batcher, ChunkLimit
from .chunk import Batch, Chunk
from .fallback import offers_details
from .fetch import Fetched, Fetcher, Task
from .held_mode import enter_mode
from .listing_choice import ListingChoice, both_refused, first_choice, log_choice, next_choice
from .names import ReadNames, client_options, read_names
from .plan import Plan
from .refetch import RefetchPolicy, Span
from .report import RunReport

_QUEUE_SIZE = 100
"""Answers that wait to be shaped, beside those in the look-ahead of the fetcher."""

_POLL_SECONDS = 0.2


class AgentReader:
    """Reads new and changed conversations of one agent, oldest first.

    Use as a context manager; no request is made before the first chunk is requested. An error that
    stops the run ends the stream, so that what was read before it is loaded; it is then in
    `stopped_by`.

    Args:
        agent: The agent.
        settings: The run's settings.
        warehouse: State of the load.
        full: Read the whole listing, and retry failures that were given up.
        span: Read this range instead of what is new.
        again: Read listed conversations even if they have not changed.
        landmarks: Known positions in the Data API's listing, updated with each page.
        stop: Event that ends reading; what was read is still returned.
        clock: Injectable clock.

    Attributes:
        report: Report of the run, whose counts are updated in place.
        stopped_by: Error that ended reading, if any.
        reads_names: Whether to request the names behind ids once all else was read.
        names: What was read of them.
        names_by_hand: Names given by hand, as in `Settings.names`.
        environments: Environments that v3 lists.

    Raises:
        ConfigurationError: The agent lacks what the chosen API needs; or rows of another privacy
            mode are loaded.
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
        self._settings = settings
        self._stop = stop or threading.Event()
        self._clock = clock
        self._agent = agent
        self._landmarks = Landmarks() if landmarks is None else landmarks
        self._choice = first_choice(agent, settings, warehouse)
        if self._landmarks.replaced_by:
            self._choice = ListingChoice(*self._landmarks.replaced_by, is_known=True)
        before = fallback(warehouse, agent.agent_id)
        if span is None:
            log_choice(self._choice, agent, settings)
        self._refused: AccessError | None = None
        """Error that ended the listing."""
        self._first_refusal: AccessError | None = None
        """Error of the API in whose place another one has been read since."""
        traffic = Traffic()
        self.report = RunReport(
            agent.agent_id,
            "backfill" if span else "load",
            traffic,
            source_api=self._choice.source_api,
            replaced_api=self._choice.replaced_api,
            started_at=clock(),
            range_from=span.since if span else None,
            range_to=span.before if span else None,
            redact=Redaction.of(settings).text,
        )
        enter_mode(warehouse, self.report, settings)
        options: dict[str, Any] = {
            **request_options(settings),
            "connections": settings.workers + 1,  # one for the listing
            "traffic": traffic,
        }
        # no connection is opened before the first request
        self._data = None if agent.problem_with(DATA) else DataApi(agent, **options)
        self._v3 = None if agent.problem_with(V3) else ConversationsV3(agent, **options)
        # of a listing that was gone in the last run, one more answer is enough
        self._confirm_gone(but=before.replaced_api if before else None)
        self._names = None if self._data is None else AgentsApi(agent, **client_options(options))
        self._fetcher = Fetcher(self._data, settings.workers, clock, self._newest_ids)
        self._plan = Plan(
            list(self._listings()),
            warehouse.for_thread(),
            agent.agent_id,
            RefetchPolicy(
                clock(),
                settings.lookback,
                settings.settle_after,
                settings.give_up_after,
                full=full,
                span=span,
                again=again,
            ),
            by_id=self._choice.details,
            report=self.report,
            fallback=before,
            keys=self.hold_keys,
            ages=settings.ages,
        )
        self._shaper = BatchShaper(agent, settings, warehouse, self._plan, self.report)
        self._arrived: queue.Queue[Fetched | None] = queue.Queue(_QUEUE_SIZE)
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._read, name="polyai-reading", daemon=True)
        self.stopped_by: BaseException | None = None
        self.reads_names = False
        self.names = ReadNames({}, is_whole=False)
        self.names_by_hand = settings.names
        self.environments = settings.environments

    @property
    def _listing_v3(self) -> ConversationsV3 | None:
        """The Conversations API v3, if it lists."""
        return self._v3 if self._choice.source_api == V3 else None

    def _listings(self) -> Iterator[Listing]:
        size, clock = self._settings.page_size_of(self._choice.source_api), self._clock
        if (v3 := self._listing_v3) is not None:
            for environment in self._settings.environments:
                yield V3Listing(v3, environment, size, clock, details=self._choice.details)
        elif self._data is not None:
            yield DataListing(self._data, size, clock, self._landmarks)

    def _confirm_gone(self, but: str | None = None) -> None:
        """Lets the APIs ask a second time before a route counts as gone, except for one API."""
        for api in (self._data, self._v3):
            if api is not None:
                api.confirms_gone = api.source_api != but

    def _newest_ids(self) -> list[str]:
        """Requests the ids of some of the newest conversations, for probes."""
        if (v3 := self._listing_v3) is not None:
            (environment, *_) = self._settings.environments
            newest = v3.conversations(
                environment=environment, since=None, before=None, limit=NEWEST_IDS
            )
            return [row.conversation_id for row in newest.rows]
        return self._data.newest_ids() if self._data is not None else []

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
        """Stops sending requests."""
        self._fetcher.__exit__()
        for api in (self._v3, self._names):
            if api is not None:
                api.close()

    @property
    def forgotten(self) -> list[dict[str, Any]]:
        """Rows of `forgotten` for conversations that were read and belong to erased callers."""
        return self._shaper.forgotten

    @property
    def hold_keys(self) -> HoldKeys:
        """Settings by which callers on legal hold are recognized."""
        return HoldKeys(self._settings.pii_secret, self._settings.phone_region)

    def too_old_row(self) -> dict[str, Any] | None:
        """Returns the row of `retention`, if the number of conversations too old has changed."""
        known = self._plan.retention_before
        if self.report.range_from is not None or self.report.too_old == known.too_old:
            return None
        changed = asdict(known) | {"too_old": self.report.too_old, "run_id": self.report.run_id}
        return {"agent_id": self.report.agent_id, **changed}

    @property
    def malformed(self) -> dict[str, MalformedRow]:
        """List rows that cannot be loaded, by key."""
        return self._plan.malformed

    @property
    def is_stopped(self) -> bool:
        """True if the run was interrupted."""
        return self._stop.is_set()

    @property
    def is_ready(self) -> bool:
        """True if the next chunk has begun to arrive, or there is none."""
        return not self._arrived.empty()

    def now(self) -> datetime:
        """Returns the time of the run's clock."""
        return self._clock()

    def start(self) -> None:
        """Starts reading in a thread of its own; no-op if it has started."""
        if self._thread.ident is None:
            self._thread.start()

    def chunks(self, others_wait: Callable[[], bool] = lambda: False) -> Iterator[Chunk]:
        """Yields chunks of `chunk_size` conversations; a slow first load begins with a small one.

        A chunk has to be read to its end before the next one is requested.

        Args:
            others_wait: Whether a chunk is to end early, rather than wait for more to arrive.
        """
        self.start()
        stream = self._stream()
        for number, first in enumerate(stream):
            is_first = number == 0 and self._plan.is_first_load
            yield Chunk(partial(self._batches, first, stream, is_first, others_wait))

    def pages(self, size: int) -> Iterator[list[Fetched]]:
        """Yields answers in lists of up to `size`, each conversation once.

        Unlike a chunk, a page can be shaped after the reader was closed.
        """
        self.start()
        batcher = Batcher(size)
        for fetched in self._stream():
            if page := batcher.add(fetched):
                yield page
        if page := batcher.rest():
            yield page

    def shape(self, page: Sequence[Fetched], load_id: str) -> Batch:
        """Shapes a page for the load package with this id."""
        return self._shaper.shape(page, load_id)

    def _read(self) -> None:
        """Fetches into the queue, in the reading thread; ends it with None."""
        try:
            self._read_listing()
            while self._refused is not None and not self._stop.is_set():
                self._replace_listing(self._refused)
                self._read_listing()
            if self.reads_names and self._names is not None and not self._stop.is_set():
                self.names = read_names(self._names, self._agent, self._settings)
        except BaseException as error:
            self.stopped_by = error
        finally:
            self._put(None)

    def _read_listing(self) -> None:
        """Fetches what the listing leads to into the queue."""
        for fetched in self._fetcher.stream(self._tasks(), details=self._choice.details):
            if self._stop.is_set():
                # no more requests while what was read is loaded
                self._close()
                break
            self.report.read += 1
            self._put(fetched)

    def _tasks(self) -> Iterator[Task]:
        """Yields the tasks of the plan, up to a refusal of the listing, which it notes."""
        self._refused = None
        try:
            yield from takewhile(lambda _: not self._stop.is_set(), self._plan.tasks())
        except AccessError as error:
            self._refused = error

    def _replace_listing(self, refusal: AccessError) -> None:
        """Goes on through the other API.

        Raises:
            AccessError: It cannot take over.
        """
        if self._first_refusal is not None:
            raise both_refused(self._first_refusal, refusal)
        if self.report.listed and not isinstance(refusal, RouteGoneError):
            # the key was accepted at first
            raise refusal
        refused = self._choice
        self._confirm_gone()
        choice = self._choice = next_choice(
            refused,
            refusal,
            self._agent,
            self._settings,
            lambda: offers_details(self._data, is_known=refused.is_known),
        )
        self._first_refusal = refusal
        self._landmarks.replaced_by = (choice.source_api, choice.details, choice.replaced_api)
        if self.report.api_count is None and self._landmarks.count is not None:
            # counted by a page whose rows were not compared yet
            self.report.api_count, self.report.counted_at = self._landmarks.count, self._clock()
        self.report.restart(choice.source_api, choice.replaced_api)
        self._plan.restart(list(self._listings()), by_id=self._choice.details)

    def _put(self, fetched: Fetched | None) -> None:
        while not self._is_over.is_set():
            with suppress(queue.Full):
                self._arrived.put(fetched, timeout=_POLL_SECONDS)
                return

    def _stream(self) -> Iterator[Fetched]:
        while (fetched := self._arrived.get()) is not None:
            self._fetcher.taken(fetched)
            yield fetched
            # not kept in memory while waiting for the next one
            del fetched
        # the end stays in the queue, so that `is_ready` remains true
        self._arrived.put(None)
        if self.stopped_by is not None and not isinstance(self.stopped_by, PolyAIError):
            raise self.stopped_by

    def _batches(
        self,
        first: Fetched,
        stream: Iterator[Fetched],
        is_first: bool,
        others_wait: Callable[[], bool],
        load_id: str,
    ) -> Iterator[Batch]:
        """Shapes answers in batches until the chunk is full."""
        batcher = Batcher(BATCH_SIZE)
        limit = ChunkLimit(batcher, self._settings.chunk_size, is_first=is_first)
        fetched: Fetched | None = first
        while fetched is not None:
            if batch := batcher.add(fetched):
                shaped = self._shaper.shape(batch, load_id)
                # not kept in memory while the rows are written
                del batch, fetched
                yield shaped
                del shaped
            is_full = limit.is_reached(lambda: self._arrived.empty() and others_wait())
            fetched = None if is_full else next(stream, None)
        if batch := batcher.rest():
            shaped = self._shaper.shape(batch, load_id)
            del batch
            yield shaped
