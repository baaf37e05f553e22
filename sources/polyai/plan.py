"""Which conversations a run has to read: new, changed, still going on, failed before."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta

import orjson

from .answers import Held
from .fetching import Task
from .listing import OffsetListing, Row
from .report import RunReport
from .warehouse import Failure, Warehouse


def summary_hash(row: Row) -> str:
    """A hash of a list row that tells whether the conversation has changed since it was read.

    Nulls are left out, so that a field which the API begins to send empty changes nothing.
    """
    filled = {name: value for name, value in row.items() if value is not None}
    text = orjson.dumps(filled, option=orjson.OPT_SORT_KEYS)
    return hashlib.blake2b(text, digest_size=16).hexdigest()


class Plan:
    """Compares what the API lists with what the warehouse holds, oldest first.

    Args:
        listing: A walk that has not begun.
        warehouse: Where the held state is read; None loads everything that is listed.
        agent_id: The agent.
        lookback: How far behind the newest held conversation the listing is read.
        full: Read the whole listing.
        report: Takes the counts.
    """

    def __init__(
        self,
        listing: OffsetListing,
        warehouse: Warehouse,
        agent_id: str,
        *,
        lookback: timedelta,
        full: bool,
        report: RunReport,
    ) -> None:
        self._listing = listing
        self._warehouse = warehouse
        self._agent_id = agent_id
        self._lookback = lookback
        self._full = full
        self._report = report
        self._due: dict[str, Task] = {}
        self.failures: Mapping[str, Failure] = {}

    def tasks(self) -> Iterator[Task]:
        """Yields what is to be read.

        The first load and a full one walk from the oldest end, so that memory does not grow with
        the agent's age. A later one reads the newest pages up to the look-back and turns them
        round: then an interruption leaves no hole behind what was loaded.
        """
        self.failures = self._warehouse.open_failures(self._agent_id)
        self._due = self._due_by_id()
        newest = self._warehouse.newest_created_at(self._agent_id)
        if newest is None or self._full:
            for rows in self._listing.oldest_first():
                self._report.expected = self._listing.api_count
                yield from self._compared(rows, nothing_held=newest is None)
        else:
            tasks: list[Task] = []
            for rows in self._listing.newest_first(until=newest - self._lookback):
                tasks.extend(self._compared(rows, nothing_held=False))
            self._report.expected = self._report.unchanged + len(tasks) + len(self._due)
            yield from reversed(tasks)
        yield from self._due.values()

    def _due_by_id(self) -> dict[str, Task]:
        """What has to be read again, whether or not the look-back lists it."""
        due = {
            conversation_id: Task(conversation_id, hash_, "in_progress")
            for conversation_id, hash_ in self._warehouse.in_progress(self._agent_id)
        }
        held = self._warehouse.held(self._agent_id, list(self.failures))
        for conversation_id in self.failures:
            known = held.get(conversation_id)
            hash_ = (known.summary_hash if known else None) or ""
            due[conversation_id] = Task(conversation_id, hash_, "failed")
        return due

    def _compared(self, rows: Iterable[Row], *, nothing_held: bool) -> Iterator[Task]:
        """The rows that the warehouse does not hold as they are listed."""
        by_id = {str(row["conversationId"]): row for row in rows if row.get("conversationId")}
        held: dict[str, Held] = (
            {} if nothing_held else self._warehouse.held(self._agent_id, list(by_id))
        )
        report = self._report
        report.listed += len(by_id)
        report.api_count = self._listing.api_count
        report.gaps_repaired = self._listing.gaps_repaired
        for conversation_id, row in by_id.items():
            listed_hash = summary_hash(row)
            known = held.get(conversation_id)
            if task := self._due.pop(conversation_id, None):
                reason = task.reason
            elif known is None:
                reason = "new"
            elif known.summary_hash != listed_hash:
                reason = "changed"
            else:
                report.unchanged += 1
                continue
            yield Task(conversation_id, listed_hash, reason)
