"""Which conversations a run has to read: new, changed, going on, failed, settling; no other."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from .fetching import Reason, Task
from .listing import OffsetListing, Row, created_at
from .report import RunReport
from .warehouse import Failure, Warehouse

COMPARED_TOGETHER = 2_000
"""List rows that are compared with the warehouse in one query."""


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
        warehouse: Where the held state is read.
        agent_id: The agent.
        now: When the run began.
        lookback: How far behind the newest held conversation the listing is read.
        settle_after: Ages after its end at which a conversation is read again.
        give_up_after: Age from which on a failure is not tried again.
        full: Read the whole listing, and try what was given up.
        report: Takes the counts.

    Attributes:
        failures: Open failures by conversation.
        is_first_load: Nothing of the agent is held; known once `tasks` has begun.
        is_after_crash: A run was killed, and may have left rows of conversations that are not
            held; known once `tasks` has begun.
    """

    def __init__(
        self,
        listing: OffsetListing,
        warehouse: Warehouse,
        agent_id: str,
        *,
        now: datetime,
        lookback: timedelta,
        settle_after: tuple[timedelta, ...],
        give_up_after: timedelta,
        full: bool,
        report: RunReport,
    ) -> None:
        self._listing = listing
        self._warehouse = warehouse
        self._agent_id = agent_id
        self._now = now
        self._lookback = lookback
        self._settle_after = settle_after
        self._give_up_after = give_up_after
        self._full = full
        self._report = report
        self._due: dict[str, Task] = {}
        self._given_up: frozenset[str] = frozenset()
        self._asked: set[str] = set()
        self._listed = array("Q")
        self.failures: Mapping[str, Failure] = {}
        self.is_first_load = False
        self.is_after_crash = False

    def tasks(self) -> Iterator[Task]:
        """Yields what is to be read, each conversation once.

        A first load and a full one walk the whole listing, a later one what lies within the
        look-back; always from the oldest end, so that an interruption leaves no hole behind what
        was loaded. What is due without being listed follows.
        """
        newest = self._warehouse.newest_created_at(self._agent_id)
        self.is_first_load = newest is None and not self._warehouse.count_held(self._agent_id)
        self.is_after_crash = any(
            run["run_id"] != self._report.run_id
            for run in self._warehouse.begun_runs(self._agent_id)
        )
        self.failures = self._warehouse.open_failures(self._agent_id)
        self._given_up = frozenset() if self._full else frozenset(self._too_old())
        self._report.given_up = len(self._given_up)
        left_alone = self._given_up | self._warehouse.gone(self._agent_id)
        self._due = {
            task.conversation_id: task
            for task in self._due_tasks()
            if task.conversation_id not in left_alone
        }
        since = newest - self._lookback if newest and not self._full else None
        is_whole = since is None
        for rows in _together(self._listing.oldest_first(since=since)):
            if is_whole:
                self._listed.extend(_short_hash(str(row.get("conversationId"))) for row in rows)
            yield from self._compared(rows, is_whole=is_whole)
        yield from self._due.values()
        settling = self._warehouse.settling(self._agent_id, self._settle_after, self._now)
        for conversation_id, hash_ in settling:
            if conversation_id not in self._asked and conversation_id not in left_alone:
                yield Task(conversation_id, hash_, "settled", is_listed=False)
        if is_whole:
            self._reconcile()

    def _too_old(self) -> Iterator[str]:
        """Failures that are not tried again."""
        for conversation_id, failure in self.failures.items():
            if failure.first_failed_at <= self._now - self._give_up_after:
                yield conversation_id

    def _due_tasks(self) -> Iterator[Task]:
        """What has to be read again, whether or not it is listed."""
        agent_id, warehouse = self._agent_id, self._warehouse
        for conversation_id, hash_ in warehouse.unfinished(agent_id):
            yield Task(conversation_id, hash_, "in_progress", is_listed=False)
        if self.is_after_crash:
            for conversation_id, hash_ in warehouse.incomplete(agent_id):
                yield Task(conversation_id, hash_, "torn", is_listed=False)
        hashes = warehouse.summary_hashes(agent_id, list(self.failures), None)
        for conversation_id in self.failures:
            hash_ = hashes.get(conversation_id) or ""
            yield Task(conversation_id, hash_, "failed", is_listed=False)

    def _compared(self, rows: Iterable[Row], *, is_whole: bool) -> Iterator[Task]:
        """The rows that the warehouse does not hold as they are listed."""
        by_id = {str(row["conversationId"]): row for row in rows if row.get("conversationId")}
        held = {} if self.is_first_load else self._hashes(by_id)
        report = self._report
        report.listed += len(by_id)
        report.api_count = self._listing.api_count
        report.gaps_repaired = self._listing.gaps_repaired
        report.expected = report.api_count if is_whole else report.listed + len(self._due)
        reason: Reason
        for conversation_id, row in by_id.items():
            listed_hash = summary_hash(row)
            if conversation_id in self._asked or conversation_id in self._given_up:
                continue  # the listing shifted and gives it again, or it cannot be read
            if task := self._due.pop(conversation_id, None):
                reason = task.reason
            elif conversation_id not in held:
                reason = "new"
            elif held[conversation_id] != listed_hash:
                reason = "changed"
            else:
                report.unchanged += 1
                continue
            if reason != "new":
                self._asked.add(conversation_id)
            yield Task(conversation_id, listed_hash, reason)

    def _hashes(self, by_id: Mapping[str, Row]) -> dict[str, str | None]:
        moments = [moment for row in by_id.values() if (moment := created_at(row))]
        within = (min(moments), max(moments)) if moments else None
        return self._warehouse.summary_hashes(self._agent_id, list(by_id), within)

    def _reconcile(self) -> None:
        """Counts what the whole listing had, each once, and what is held and was not in it."""
        listed = pa.array(self._listed, pa.uint64()).unique()
        self._report.listed = len(listed)
        if self.is_first_load:
            self._report.absent = 0
            return
        absent = 0
        for ids in self._warehouse.conversation_ids(self._agent_id):
            held = pa.array([_short_hash(name) for name in ids], pa.uint64())
            absent += len(ids) - (pc.sum(pc.is_in(held, value_set=listed)).as_py() or 0)
        self._report.absent = absent


def _together(pages: Iterable[list[Row]]) -> Iterator[list[Row]]:
    """Pages put together, as many as are compared in one query."""
    rows: list[Row] = []
    for page in pages:
        rows.extend(page)
        if len(rows) >= COMPARED_TOGETHER:
            yield rows
            rows = []
    if rows:
        yield rows


def _short_hash(conversation_id: str) -> int:
    """A conversation in 8 bytes: a million of them are to be remembered at once."""
    return int.from_bytes(hashlib.blake2b(conversation_id.encode(), digest_size=8).digest())
