"""Reads many details at once, and hands them over in the order in which they were asked for.

Where the listing gave the conversation itself, and no detail is wanted, nothing is asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import Literal

from ..api.client import DataApi
from ..api.page_stream import Document
from ..api.worker_pool import OutageBreaker, WorkerPool
from ..clock import Clock
from ..errors import ApiError, ConversationError, StoppedError, UnavailableError

FIRST_LOOKAHEAD = 250
"""Outstanding details at the start: the first commit does not wait for a full look-ahead."""

Reason = Literal["new", "changed", "in_progress", "written_back", "torn", "failed", "settled"]
"""Why a detail is read; `torn`: a killed run wrote only a part of it; `written_back`: an annotation
or a note was sent to it, which its list row need not show."""


@dataclass(frozen=True)
class Task:
    """A conversation whose detail is to be read, and why."""

    conversation_id: str
    summary_hash: str
    reason: Reason
    is_listed: bool = True
    """Whether this run's listing gave it; else it is known from the warehouse alone."""
    listed_at: datetime | None = None
    """When the listing gave it."""
    document: Document | None = None
    """The conversation as the listing gave it, where it carries it."""


@dataclass(frozen=True)
class Fetched:
    """What came of a task: the body of a detail, or the error that took its place.

    Neither where no detail was asked for.
    """

    task: Task
    fetched_at: datetime
    body: bytes | None = None
    error: ApiError | None = None

    @property
    def has_answer(self) -> bool:
        """Whether there is anything to load."""
        return self.body is not None or self.task.document is not None

    @property
    def is_gone(self) -> bool:
        """The API neither lists it nor has it: deleted, and nothing to try again."""
        return (
            self.error is not None
            and self.error.status == HTTPStatus.NOT_FOUND
            and not self.task.is_listed
        )


class Fetcher:
    """Reads details with a pool of threads, in order and a bounded number ahead of the reader.

    Use as a context manager; leaving it drops what has not been asked for yet, and ends waits.

    Args:
        api: The agent's Data API; None where no details are read.
        workers: Requests in flight at once.
        clock: What time it is.
    """

    def __init__(self, api: DataApi | None, workers: int, clock: Clock) -> None:
        self._api = api
        self._clock = clock
        self._pool = WorkerPool(workers, "polyai-detail")

    def __enter__(self) -> Fetcher:
        return self

    def __exit__(self, *_: object) -> None:
        if self._api is not None:
            self._api.close()
        self._pool.close()

    def stream(self, tasks: Iterable[Task]) -> Iterator[Fetched]:
        """Yields what came of each task, in the order of the tasks.

        Raises:
            AccessError: The key, region or agent was refused; nothing more is asked.
            UnavailableError: The API has stopped answering altogether.
        """
        api = self._api
        if api is None:
            yield from (Fetched(task, task.listed_at or self._clock()) for task in tasks)
            return
        breaker = OutageBreaker()
        for fetched in self._pool.in_order(
            lambda task: self._read(api, task), tasks, first_limit=FIRST_LOOKAHEAD
        ):
            breaker.record(fetched.error)
            yield fetched
            if breaker.opened_by is not None:
                raise breaker.opened_by

    def _read(self, api: DataApi, task: Task) -> Fetched:
        try:
            body = api.conversation_body(task.conversation_id)
        except StoppedError:
            raise
        except (ConversationError, UnavailableError) as error:
            return Fetched(task, self._clock(), error=error)
        return Fetched(task, self._clock(), body)
