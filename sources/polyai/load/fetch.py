"""Concurrent fetching of details, returned in the order of the tasks.

Where the listing contains whole conversations and no details are wanted, nothing is requested.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from http import HTTPStatus
from itertools import count
from typing import Any, Literal

from ..api.answers import Detail
from ..api.client import DataApi
from ..api.outage import OutageBreaker, Probe
from ..api.page_stream import Document
from ..api.worker_pool import WorkerPool
from ..clock import Clock
from ..config.agent import DATA
from ..errors import (
    ApiError,
    ConversationError,
    PolyAIError,
    StoppedError,
    UnavailableError,
    unexpected_error,
)
from .byte_budget import ByteBudget

logger = logging.getLogger("polyai")

FIRST_LOOKAHEAD = 250
"""Outstanding details at the start: the first commit does not wait for a full look-ahead."""

LOOKAHEAD_BYTES = 4 * 2**20
"""Details that wait to be shaped, as sent: those of 270 usual conversations. They are decoded
already, because a detail is decoded once only, and then take about five times the memory."""

Reason = Literal[
    "new",
    "changed",
    "in_progress",
    "written_back",
    "partially_loaded",
    "stale",
    "failed",
    "settled",
]
"""Reason to read a detail.

`partially_loaded`: the load package of its rows never became complete. `written_back`: an
annotation or a note was sent to it, which its list row may not show. `stale`: its detail was older
than its list row. `settled`: it has crossed a re-fetch age.
"""


@dataclass(frozen=True)
class Task:
    """A conversation to read.

    Attributes:
        conversation_id: Its id.
        summary_hash: Hash of its list row.
        reason: Reason to read it.
        is_listed: Whether this run's listing contains it; otherwise only the warehouse knows it.
        listed_at: Time at which the listing was read.
        document: The conversation itself, if the listing contains it.
        row: Its list row, if that is not the conversation itself.
        source_api: API of the run's listing.
    """

    conversation_id: str
    summary_hash: str
    reason: Reason
    is_listed: bool = True
    listed_at: datetime | None = None
    document: Document | None = None
    row: Mapping[str, Any] | None = None
    source_api: str = DATA


@dataclass(frozen=True)
class Fetched:
    """Outcome of a task: a detail, an error, or neither if no detail was requested."""

    task: Task
    fetched_at: datetime
    detail: Detail | None = None
    error: ApiError | None = None

    @property
    def has_answer(self) -> bool:
        """True if there is anything to load."""
        return self.detail is not None or self.task.document is not None

    @property
    def size(self) -> int:
        """Bytes of the answer as sent."""
        document = self.task.document
        return self.detail_size + (document.length if document is not None else 0)

    @property
    def detail_size(self) -> int:
        """Bytes of the detail as sent."""
        return self.detail.size if self.detail is not None else 0

    @property
    def is_gone(self) -> bool:
        """True if the API neither lists nor finds it: it was deleted, and a retry is pointless."""
        return (
            self.error is not None
            and self.error.status == HTTPStatus.NOT_FOUND
            and not self.task.is_listed
        )


class Fetcher:
    """Pool of threads that reads details, in order and a bounded number ahead of the caller.

    Use as a context manager; leaving it cancels pending requests and ends waits.

    Args:
        api: The agent's Data API; None where no details can be read.
        workers: Concurrent requests.
        clock: Injectable clock.
        listed: Requests ids of conversations from the first page of the list.
    """

    def __init__(
        self,
        api: DataApi | None,
        workers: int,
        clock: Clock,
        listed: Callable[[], Sequence[str]] = tuple,
    ) -> None:
        self._api = api
        self._clock = clock
        self._listed = listed
        self._pool = WorkerPool(workers, "polyai-detail")
        self._budget = ByteBudget(LOOKAHEAD_BYTES)
        self._numbers = count()
        """Places of the tasks, over all calls of `stream`."""

    def __enter__(self) -> Fetcher:
        return self

    def __exit__(self, *_: object) -> None:
        if self._api is not None:
            self._api.close()
        self._budget.close()
        self._pool.close()

    def taken(self, fetched: Fetched) -> None:
        """Registers that the next answer of `stream` does not wait any more."""
        self._budget.take(fetched.detail_size)

    def stream(self, tasks: Iterable[Task], *, details: bool) -> Iterator[Fetched]:
        """Yields the outcome of each task, in the order of the tasks; `taken` makes room for more.

        Args:
            tasks: The conversations.
            details: Whether details are requested.

        Raises:
            AccessError: The key, region or agent was refused, or every conversation is; nothing
                more is requested.
            UnavailableError: Outage of the API.
        """
        api = self._api
        numbered = ((next(self._numbers), task) for task in tasks)
        if api is None or not details:
            yield from (Fetched(task, task.listed_at or self._clock()) for _, task in numbered)
            return
        breaker = OutageBreaker(probe=Probe(partial(_detail, api), self._listed))
        answers = self._pool.in_order(
            lambda task: self._read(api, *task),
            numbered,
            first_limit=FIRST_LOOKAHEAD,
        )
        for fetched in answers:
            breaker.record(fetched.error, fetched.task.conversation_id)
            yield fetched
            if breaker.opened_by is not None:
                raise breaker.opened_by

    def _read(self, api: DataApi, number: int, task: Task) -> Fetched:
        self._budget.wait(number)
        try:
            detail = _detail(api, task.conversation_id)
        except StoppedError:
            raise
        except (ConversationError, UnavailableError) as error:
            return Fetched(task, self._clock(), error=error)
        self._budget.add(detail.size)
        return Fetched(task, self._clock(), detail)


def _detail(api: DataApi, conversation_id: str) -> Detail:
    """Requests a detail.

    Raises:
        ConversationError: As for `DataApi.detail`, and for an answer that makes the
            client fail.
        ApiError: As for `DataApi.detail`.
    """
    try:
        return api.detail(conversation_id)
    except (PolyAIError, OSError, MemoryError):
        raise
    except Exception as error:
        logger.debug("conversation %s", conversation_id, exc_info=True)
        raise unexpected_error("its answer cannot be read", error) from error
