"""Which conversations a run has to read: new, changed, going on, failed, settling; no other."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ..listing.protocol import Listed, Listing
from ..shape.audit_rows import Failure
from ..shape.caller_identity import ForgottenCallers
from ..warehouse.held import LOAD_COMMANDS, Due, LoadState
from .fetch import Reason, Task
from .report import RunReport

COMPARED_TOGETHER = 2_000
"""Listed conversations that are compared with the warehouse in one query."""

LONGEST_GAP = timedelta(hours=1)
"""Between two conversations that are looked for in one window of the listing."""

LONGEST_SLICE = timedelta(days=1)
"""How long a slice of a backfill is taken to be still at work, where it never said how it ended."""

_A_MOMENT = timedelta(seconds=1)


@dataclass(frozen=True)
class Span:
    """A range of time: what began in it, its begin included, its end not."""

    since: datetime
    before: datetime

    def overlaps(self, since: datetime | None, before: datetime | None) -> bool:
        """Whether another range, open where it is None, has a moment in common with it."""
        return (before is None or self.since < before) and (since is None or since < self.before)


@dataclass(frozen=True)
class Pace:
    """What decides, beside the listing, what is read again.

    Attributes:
        now: When the run began.
        lookback: How far behind the steady load's position the listing is read.
        settle_after: Ages after its end at which a conversation is read again.
        give_up_after: Age from which on a failure is not tried again.
        full: Read the whole listing, and try what was given up.
        span: Read this range instead of what is new, and nothing that is not listed in it.
        again: Read what is listed also where it has not changed.
    """

    now: datetime
    lookback: timedelta
    settle_after: tuple[timedelta, ...]
    give_up_after: timedelta
    full: bool = False
    span: Span | None = None
    again: bool = False


class Plan:
    """Compares what the API lists with what the warehouse holds, oldest first.

    Args:
        listings: What is listed, one after the other.
        warehouse: Where the held state is read.
        agent_id: The agent.
        pace: What is read again.
        by_id: Whether a conversation can be read that is not listed.
        report: Takes the counts.

    Attributes:
        failures: Open failures by conversation.
        forgotten_callers: Callers whose conversations are not to come back; known once `tasks` has
            begun.
        is_first_load: Nothing of the agent is held; known once `tasks` has begun.
        is_after_crash: A run was killed, and may have left rows of conversations that are not
            held; known once `tasks` has begun.
    """

    def __init__(
        self,
        listings: Sequence[Listing],
        warehouse: LoadState,
        agent_id: str,
        pace: Pace,
        *,
        by_id: bool,
        report: RunReport,
    ) -> None:
        self._listings = listings
        self._warehouse = warehouse
        self._agent_id = agent_id
        self._pace = pace
        self._by_id = by_id
        self._report = report
        self._due: dict[str, Due] = {}
        self._reasons: dict[str, Reason] = {}
        self._left_out: frozenset[str] = frozenset()
        """Listed ones that are not read all the same: given up, or erased."""
        self._asked: set[str] = set()
        self._listed = array("Q")
        self.failures: Mapping[str, Failure] = {}
        self.forgotten_callers = ForgottenCallers()
        self.is_first_load = False
        self.is_after_crash = False

    def tasks(self) -> Iterator[Task]:
        """Yields what is to be read, each conversation once.

        A first load and a full one walk the whole listing, a later one what lies within the
        look-back; always from the oldest end, so that an interruption leaves no hole behind what
        was loaded. What is due without being listed follows.
        """
        pace = self._pace
        self.is_first_load = not self._warehouse.has_conversations(self._agent_id)
        self.failures = self._warehouse.open_failures(self._agent_id)
        given_up = frozenset() if pace.full or pace.span else frozenset(self._too_old())
        self._report.given_up = len(given_up)
        forgotten = self._warehouse.forgotten(self._agent_id)
        self._report.forgotten = len(forgotten)
        self._left_out = given_up | forgotten
        self.forgotten_callers = ForgottenCallers(self._warehouse.forgotten_callers(self._agent_id))
        left_alone = self._left_out | self._warehouse.gone(self._agent_id)
        self._note_what_is_due(left_alone)
        if pace.span is not None:
            for listing in self._listings:
                yield from self._walked(listing, pace.span.since, pace.span.before)
            return
        edges = [self._edge(listing) for listing in self._listings]
        for listing, edge in zip(self._listings, edges):
            yield from self._walked(listing, edge, None)
        if self._by_id:
            yield from self._due_by_id(left_alone)
        else:
            yield from self._due_by_window(left_alone, edges)
        if all(edge is None for edge in edges):
            self._reconcile()

    def _edge(self, listing: Listing) -> datetime | None:
        """Where the steady load's look-back begins; None for the oldest end."""
        position = self._warehouse.watermark(self._agent_id, listing.environment)
        return position - self._pace.lookback if position and not self._pace.full else None

    def _too_old(self) -> Iterator[str]:
        """Failures that are not tried again."""
        for conversation_id, failure in self.failures.items():
            if failure.first_failed_at <= self._pace.now - self._pace.give_up_after:
                yield conversation_id

    def _note_what_is_due(self, left_alone: frozenset[str]) -> None:
        """What has to be read again, whether or not it is listed."""
        agent_id, warehouse = self._agent_id, self._warehouse
        due: list[tuple[Reason, Due]] = []
        span = self._pace.span
        within = (span.since, span.before) if span else None
        due += [("in_progress", held) for held in warehouse.in_progress(agent_id, within)]
        if self._by_id and span is None:
            due += [("written_back", held) for held in warehouse.written_back(agent_id)]
        due += [("torn", held) for held in self._torn()]
        hashes = warehouse.summary_hashes(agent_id, list(self.failures), None)
        due += [
            ("failed", Due(failed, hashes.get(failed) or "", None, None))
            for failed in self.failures
        ]
        for reason, held in due:
            if held.conversation_id not in left_alone:
                self._due[held.conversation_id] = held
                self._reasons[held.conversation_id] = reason

    def _torn(self) -> list[Due]:
        """What killed runs left half-written, but for what a backfill may be writing right now."""
        pace = self._pace
        begun = [
            run
            for run in self._warehouse.unfinished_runs(self._agent_id, LOAD_COMMANDS)
            if run["run_id"] != self._report.run_id
            and (pace.span is None or pace.span.overlaps(run["range_from"], run["range_to"]))
        ]
        self.is_after_crash = bool(begun)
        at_work = [
            Span(run["range_from"], run["range_to"])
            for run in begun
            if pace.span is None and may_be_at_work(run, pace.now)
        ]
        return [
            held
            for held in (self._warehouse.partially_loaded(self._agent_id) if begun else ())
            if not (at := held.created_at)
            or not any(slice_.overlaps(at, at + _A_MOMENT) for slice_ in at_work)
        ]

    def _walked(
        self, listing: Listing, since: datetime | None, before: datetime | None
    ) -> Iterator[Task]:
        """What is to be read of a listing, or of a part of it."""
        is_whole = since is None and before is None
        undated = listing.undated
        for rows in _together(listing.oldest_first(since, before)):
            if is_whole:
                self._listed.extend(_short_hash(row.conversation_id) for row in rows)
            yield from self._compared(rows, listing, is_whole=is_whole)
        self._report.undated += listing.undated - undated

    def _compared(
        self, rows: Sequence[Listed], listing: Listing, *, is_whole: bool
    ) -> Iterator[Task]:
        """The rows that the warehouse does not hold as they are listed."""
        by_id = {row.conversation_id: row for row in rows}
        held = {} if self.is_first_load else self._hashes(by_id)
        report = self._report
        report.listed += len(by_id)
        report.api_count = listing.api_count
        report.gaps_repaired = listing.gaps_repaired
        report.expected = report.api_count if is_whole else report.listed + len(self._due)
        for conversation_id, row in by_id.items():
            if conversation_id in self._asked or conversation_id in self._left_out:
                continue  # the listing shifted and gives it again, or it is not to be read
            if reason := self._reason(row, held):
                if reason != "new":
                    self._asked.add(conversation_id)
                yield Task(
                    conversation_id,
                    row.summary_hash,
                    reason,
                    listed_at=row.fetched_at,
                    document=row.document,
                )
            else:
                report.unchanged += 1

    def _reason(self, row: Listed, held: Mapping[str, str | None]) -> Reason | None:
        """Why a listed conversation is read; None where it is not."""
        conversation_id = row.conversation_id
        is_held = conversation_id in held
        is_same = is_held and held[conversation_id] == row.summary_hash and not self._pace.again
        if self._due.pop(conversation_id, None):
            reason = self._reasons[conversation_id]
            # where the listing has all there is, it has not changed since either
            is_told = not self._by_id and reason in ("in_progress", "settled")
            return None if is_same and is_told else reason
        if not is_held:
            return "new"
        return None if is_same else "changed"

    def _hashes(self, by_id: Mapping[str, Listed]) -> dict[str, str | None]:
        moments = [row.at for row in by_id.values() if row.at]
        within = (min(moments), max(moments)) if moments else None
        return self._warehouse.summary_hashes(self._agent_id, list(by_id), within)

    def _due_by_id(self, left_alone: frozenset[str]) -> Iterator[Task]:
        """What is due and was not listed, and what has settled: each costs a request."""
        for held in self._due.values():
            reason = self._reasons[held.conversation_id]
            yield Task(held.conversation_id, held.summary_hash, reason, is_listed=False)
        pace, skipped = self._pace, left_alone | self._asked
        for held in self._warehouse.past_refetch_age(self._agent_id, pace.settle_after, pace.now):
            if held.conversation_id not in skipped:
                yield Task(held.conversation_id, held.summary_hash, "settled", is_listed=False)

    def _due_by_window(
        self, left_alone: frozenset[str], edges: Sequence[datetime | None]
    ) -> Iterator[Task]:
        """The same where nothing can be read by its id: in windows of the listing around it.

        What has not changed is not written again, so an age counts as crossed in the first run
        after it.
        """
        pace, agent_id = self._pace, self._agent_id
        due = list(self._due.values())
        last = self._warehouse.last_complete_run(agent_id)
        if last is not None:
            for held in self._warehouse.past_refetch_age(
                agent_id, pace.settle_after, pace.now, last
            ):
                if held.conversation_id not in left_alone and held.conversation_id not in self._due:
                    self._due[held.conversation_id] = held
                    self._reasons[held.conversation_id] = "settled"
                    due.append(held)
        for listing, edge in zip(self._listings, edges):
            moments = sorted(
                held.created_at
                for held in due
                if held.created_at
                and held.environment == listing.environment
                and edge is not None
                and held.created_at < edge
            )
            for since, before in _windows(moments):
                yield from self._walked(listing, since, before)

    def _reconcile(self) -> None:
        """Counts what the whole listing had, each once, and what is held and was not in it."""
        listed = pa.array(self._listed, pa.uint64()).unique()
        self._report.listed = len(listed)
        if self.is_first_load:
            self._report.absent = 0
            return
        environments = [known for listing in self._listings if (known := listing.environment)]
        absent = 0
        for ids in self._warehouse.conversation_ids(self._agent_id, environments):
            held = pa.array([_short_hash(name) for name in ids], pa.uint64())
            absent += len(ids) - (pc.sum(pc.is_in(held, value_set=listed)).as_py() or 0)
        self._report.absent = absent


def may_be_at_work(run: Mapping[str, Any], now: datetime) -> bool:
    """Whether a run that never said how it ended may be a slice of a backfill that goes on."""
    return bool(run["range_from"]) and run["started_at"] > now - LONGEST_SLICE


def _windows(moments: Sequence[datetime]) -> Iterator[tuple[datetime, datetime]]:
    """As few windows as hold all moments, which are ascending, without long gaps."""
    start = last = None
    for moment in moments:
        if start is not None and last is not None and moment - last > LONGEST_GAP:
            yield start, last + _A_MOMENT
            start = None
        start, last = start or moment, moment
    if start is not None and last is not None:
        yield start, last + _A_MOMENT


def _together(pages: Iterable[list[Listed]]) -> Iterator[list[Listed]]:
    """Pages put together, as many as are compared in one query."""
    rows: list[Listed] = []
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
