"""Selection of the conversations that a run reads.

These are the new, changed, unfinished, failed, written back and partially loaded ones, and those
past a re-fetch age.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from datetime import datetime
from itertools import chain

from ..config.retention import NO_AGES, Ages
from ..listing.protocol import Listed, Listing, MalformedRow
from ..shape.audit_rows import Failure
from ..shape.forgotten_callers import ForgottenCallers
from ..warehouse.callers import forgotten_callers
from ..warehouse.fallback import Fallback, listed_until
from ..warehouse.held import LOAD_COMMANDS, Due, LoadState
from ..warehouse.holds import NO_KEYS, HoldKeys, Holds
from ..warehouse.retention_limits import RetentionLimits, retention_limits
from .batching import grouped
from .fetch import Reason, Task
from .reconciliation import Reconciliation
from .refetch import (
    RefetchPolicy,
    ages_applied_until,
    in_progress_interval,
    is_in_progress_due,
    may_be_loading,
    windows,
)
from .report import RunReport
from .stale_details import is_due

ROWS_PER_COMPARISON = 2_000
"""Listed conversations that are compared with the warehouse in one query."""


class Plan:
    """Comparison of the API's listing with the warehouse, oldest first.

    Args:
        listings: Listings of the agent, read one after the other.
        warehouse: State of the load.
        agent_id: The agent.
        policy: Rules for reading conversations again.
        by_id: Whether a conversation that is not listed can be read.
        report: Takes the counts.
        fallback: Fallback of the newest runs.
        keys: Settings by which erased callers and those on legal hold are recognized.
        ages: Ages at which conversations are too old to be loaded.

    Attributes (set when `tasks` begins):
        failures: Open failures by conversation.
        stale: Details that were older than their list row, by conversation.
        forgotten_callers: Erased callers, whose conversations must not be loaded.
        holds: Legal holds.
        retention: Limits before which conversations, or their words, are not loaded.
        retention_before: Limits that were applied by the last run that deleted.
        is_first_load: The warehouse has no conversation of the agent.
        is_after_crash: A run without an end may have left rows of incomplete load packages.
    """

    def __init__(
        self,
        listings: Sequence[Listing],
        warehouse: LoadState,
        agent_id: str,
        policy: RefetchPolicy,
        *,
        by_id: bool,
        report: RunReport,
        fallback: Fallback | None = None,
        keys: HoldKeys = NO_KEYS,
        ages: Ages = NO_AGES,
    ) -> None:
        self._keys = keys
        self._ages = ages
        self._fallback = fallback
        self._warehouse = warehouse
        self._agent_id = agent_id
        self._policy = policy
        self._report = report
        self.failures: Mapping[str, Failure] = {}
        self.stale: Mapping[str, Failure] = {}
        self.forgotten_callers = ForgottenCallers()
        self.holds: Holds | None = None
        self.retention = self.retention_before = RetentionLimits()
        self.is_first_load = False
        self.is_after_crash = False
        self.restart(listings, by_id=by_id)

    def restart(self, listings: Sequence[Listing], *, by_id: bool) -> None:
        """Takes other listings in place of those that were refused; `tasks` then begins again.

        What is read from the warehouse stays until then: earlier tasks may still be shaped.
        """
        self._listings = listings
        self._by_id = by_id
        self._due: dict[str, Due] = {}
        self._reasons: dict[str, Reason] = {}
        self._left_out: frozenset[str] = frozenset()
        """Conversations that are not read even if listed: given up, or erased."""
        self._requested: set[str] = set()
        self._known_failures: list[Task] = []
        """Failed in an earlier run: read last, so that they keep nothing else from being read."""
        self._compared: set[str] = set()
        """Compared already in this run, before the whole list is read."""
        self._found = 0
        """Conversations to load that were neither loaded nor failed when the run began."""
        self._reconciliation = Reconciliation(
            self._warehouse, self._agent_id, self._report, self._policy.now
        )

    def tasks(self) -> Iterator[Task]:
        """Yields the conversations to read, each once.

        A first and a full load read the whole listing, a later one the look-back window; always
        from the oldest end, so that an interruption leaves no gap before the watermark. What is
        due without being listed follows, then what failed in earlier runs.
        """
        policy = self._policy
        with self._warehouse.kept_open():
            excluded, known_malformed = self._read_state()
            starts = [] if policy.span else [self._window_start(each) for each in self._listings]
        if policy.span is not None:
            for listing in self._listings:
                yield from self._listed_tasks(listing, policy.span.since, policy.span.before)
            yield from self._known_failures
            return
        for number, (listing, start) in enumerate(zip(self._listings, starts)):
            yield from self._listed_tasks(listing, start, None)
            malformed = len(listing.malformed.keys() - known_malformed)
            if start is not None and self._reconciliation.must_walk(
                listing, self._found, malformed
            ):
                starts[number] = None
                yield from self._listed_tasks(listing, None, None)
        if self._by_id:
            yield from self._due_by_id(excluded)
        else:
            yield from self._due_by_window(excluded, starts)
        yield from self._known_failures
        if all(start is None for start in starts) and self._report.is_proven:
            environments = [known for listing in self._listings if (known := listing.environment)]
            self._reconciliation.end(environments, is_first_load=self.is_first_load)

    def _read_state(self) -> tuple[frozenset[str], Set[str]]:
        """Reads from the warehouse what the listing is compared with.

        Returns:
            Conversations that are not read unless they are listed, and list rows that are known
            not to be loadable, by key.
        """
        policy, warehouse, agent_id = self._policy, self._warehouse, self._agent_id
        self.is_first_load = not warehouse.has_conversations(agent_id)
        self.failures = warehouse.open_failures(agent_id)
        self.stale = warehouse.open_failures(agent_id, "stale_detail")
        given_up = frozenset() if policy.full or policy.span else frozenset(self._given_up())
        self._report.given_up = len(given_up)
        forgotten = warehouse.forgotten(agent_id)
        self._report.forgotten = len(forgotten)
        self._left_out = given_up | forgotten
        self.forgotten_callers = forgotten_callers(
            warehouse, agent_id, self._keys.phone_region, self._keys.pii_secret
        )
        self.forgotten_callers.check_key()
        self.holds = Holds(warehouse, agent_id, self._keys)
        self.retention_before = retention_limits(warehouse, agent_id)
        self.retention = self.retention_before.at(self._ages, policy.now)
        self._report.too_old = self.retention.too_old
        excluded = self._left_out | warehouse.gone(agent_id)
        self._reconciliation.start()
        self._collect_due(excluded)
        return excluded, warehouse.open_failures(agent_id, "listing").keys()

    @property
    def malformed(self) -> dict[str, MalformedRow]:
        """List rows that cannot be loaded, by key."""
        return {key: row for listing in self._listings for key, row in listing.malformed.items()}

    def _window_start(self, listing: Listing) -> datetime | None:
        """Returns the start of the look-back window; None for the oldest end.

        The watermark of a first load that was interrupted proves nothing about older conversations,
        unless the list is in order.
        """
        policy, warehouse, agent_id = self._policy, self._warehouse, self._agent_id
        if policy.full:
            return None
        if listing.has_count and warehouse.was_interrupted_at_first(agent_id, self._report.run_id):
            return None
        state = (warehouse, agent_id, listing, self._fallback, policy.now)
        start = listed_until(*state, details=self._by_id, environments=len(self._listings))
        return start - policy.lookback if start else None

    def _given_up(self) -> Iterator[str]:
        """Yields conversations whose failures are no longer retried."""
        for conversation_id, failure in self.failures.items():
            if failure.first_failed_at <= self._policy.now - self._policy.give_up_after:
                yield conversation_id

    def _collect_due(self, excluded: frozenset[str]) -> None:
        """Collects what has to be read again, listed or not."""
        agent_id, warehouse = self._agent_id, self._warehouse
        due: list[tuple[Reason, Due]] = []
        span = self._policy.span
        within = (span.since, span.before) if span else None
        due += [
            ("in_progress", row)
            for row in warehouse.in_progress(agent_id, within)
            if is_in_progress_due(row, self._policy.now)
        ]
        if self._by_id and span is None:
            due += [("written_back", row) for row in warehouse.written_back(agent_id)]
        due += [("partially_loaded", row) for row in self._partially_loaded()]
        self._found += sum(reason == "partially_loaded" for reason, _ in due)
        if self._by_id and span is None:
            stale = [name for name, one in self.stale.items() if is_due(one, self._policy.now)]
            due += [("stale", row) for row in self._recorded(stale)]
        due += [("failed", row) for row in self._recorded(list(self.failures))]
        for reason, row in due:
            if row.conversation_id not in excluded:
                self._due[row.conversation_id] = row
                self._reasons[row.conversation_id] = reason

    def _recorded(self, conversation_ids: list[str]) -> Iterator[Due]:
        """Yields conversations of `fetch_failures`, loaded or not."""
        hashes = self._warehouse.summary_hashes(self._agent_id, conversation_ids, None)
        for name in conversation_ids:
            yield Due(name, hashes.get(name) or "", None, None)

    def _partially_loaded(self) -> list[Due]:
        """Returns conversations of incomplete packages, except in slices that may be running."""
        policy = self._policy
        unfinished = [
            run
            for run in self._warehouse.unfinished_runs(self._agent_id, LOAD_COMMANDS)
            if run["run_id"] != self._report.run_id
            and (policy.span is None or policy.span.overlaps(run["range_from"], run["range_to"]))
        ]
        self.is_after_crash = bool(unfinished)
        if not unfinished:
            return []
        partial = self._warehouse.partially_loaded(self._agent_id)
        return [row for row in partial if not may_be_loading(row, unfinished, policy)]

    def _listed_tasks(
        self, listing: Listing, since: datetime | None, before: datetime | None
    ) -> Iterator[Task]:
        """Yields what is to be read of a listing, or of a range of it."""
        is_whole = since is None and before is None
        undated = listing.undated.copy()
        for rows in grouped(listing.oldest_first(since, before), ROWS_PER_COMPARISON):
            if is_whole:
                self._reconciliation.add(rows)
            yield from self._differences(rows, listing, is_whole=is_whole)
        if undated := listing.undated - undated:
            loaded = self._warehouse.summary_hashes(self._agent_id, sorted(undated), None)
            self._report.undated += len(undated - loaded.keys() - self._left_out)
        self._reconciliation.end_walk(listing, is_whole=is_whole)

    def _differences(
        self, rows: Sequence[Listed], listing: Listing, *, is_whole: bool
    ) -> Iterator[Task]:
        """Yields the listed conversations that are missing or outdated in the warehouse."""
        by_id = {row.conversation_id: row for row in rows}
        loaded = {} if self.is_first_load else self._loaded_hashes(by_id)
        report = self._report
        report.listed += len(by_id)
        if listing.api_count is not None:
            report.api_count, report.counted_at = listing.api_count, rows[-1].fetched_at
        report.gaps_repaired = listing.gaps_repaired
        report.expected = report.api_count if is_whole else report.listed + len(self._due)
        for conversation_id, row in by_id.items():
            if conversation_id in self._requested or conversation_id in self._left_out:
                continue  # a duplicate, because the listing shifted; or excluded
            if self._is_too_old(row):
                self._due.pop(conversation_id, None)
                if conversation_id in loaded:
                    report.unchanged += 1  # until it is deleted, or because it is on hold
                elif is_whole and conversation_id not in self.failures:
                    self._reconciliation.add_too_old(conversation_id)
                continue
            if conversation_id in self._compared:
                continue
            if not is_whole and listing.has_count:
                self._compared.add(conversation_id)
            if reason := self._reason(row, loaded):
                if reason == "new":
                    self._found += 1
                else:
                    self._requested.add(conversation_id)
                task = Task(
                    conversation_id,
                    row.summary_hash,
                    reason,
                    listed_at=row.fetched_at,
                    document=row.document,
                    row=row.row,
                    source_api=listing.source_api,
                )
                if reason == "failed":
                    self._known_failures.append(task)
                else:
                    yield task
            else:
                report.unchanged += 1

    def _is_too_old(self, row: Listed) -> bool:
        before = self.retention.conversations_before
        if before is None or (row.at is not None and row.at >= before):
            return False
        listed = row.row if row.document is None else row.document.read()
        return listed is not None and self.retention.is_too_old(listed)

    def _reason(self, row: Listed, loaded: Mapping[str, str | None]) -> Reason | None:
        """Returns the reason to read a listed conversation; None if there is none."""
        conversation_id = row.conversation_id
        is_loaded = conversation_id in loaded
        is_same = is_loaded and row.has_hash(loaded[conversation_id]) and not self._policy.again
        if due := self._due.pop(conversation_id, None):
            reason = self._reasons[conversation_id]
            # a listing of whole conversations proves that it has not changed; an old one in
            # progress is written all the same, so that its next read is later
            is_proven = not self._by_id and (
                reason == "settled"
                or (reason == "in_progress" and not in_progress_interval(due, self._policy.now))
            )
            return None if is_same and is_proven else reason
        if not is_loaded:
            return "new"
        return None if is_same else "changed"

    def _loaded_hashes(self, by_id: Mapping[str, Listed]) -> dict[str, str | None]:
        moments = [row.at for row in by_id.values() if row.at]
        within = (min(moments), max(moments)) if moments else None
        return self._warehouse.summary_hashes(self._agent_id, list(by_id), within)

    def _due_by_id(self, excluded: frozenset[str]) -> Iterator[Task]:
        """Yields what is due and was not listed, one request each."""
        for row in self._due.values():
            reason = self._reasons[row.conversation_id]
            task = self._unlisted(row, reason)
            if reason == "failed":
                self._known_failures.append(task)
            else:
                yield task
        policy, skipped = self._policy, excluded | self._requested
        warehouse, agent_id, now = self._warehouse, self._agent_id, policy.now
        with warehouse.kept_open():
            until = ages_applied_until(warehouse, agent_id, self._fallback, now)
            settled = warehouse.past_refetch_age(agent_id, policy.settle_after, now, until)
            first = next(settled, None)
        for row in chain([first] if first else [], settled):
            if row.conversation_id not in skipped:
                yield self._unlisted(row, "settled")

    def _unlisted(self, row: Due, reason: Reason) -> Task:
        """Returns the task for a conversation that only the warehouse knows."""
        return Task(
            row.conversation_id,
            row.summary_hash,
            reason,
            is_listed=False,
            source_api=self._listings[0].source_api,
        )

    def _due_by_window(
        self, excluded: frozenset[str], starts: Sequence[datetime | None]
    ) -> Iterator[Task]:
        """Yields the same from windows of the listing, where nothing can be read by its id.

        Unchanged conversations are not written again, so a re-fetch age counts as crossed only in
        the first run after it.
        """
        policy, agent_id = self._policy, self._agent_id
        due = list(self._due.values())
        last = self._warehouse.last_complete_run(agent_id, policy.now)
        if last is not None:
            for row in self._warehouse.past_refetch_age(
                agent_id, policy.settle_after, policy.now, last
            ):
                if row.conversation_id not in excluded and row.conversation_id not in self._due:
                    self._due[row.conversation_id] = row
                    self._reasons[row.conversation_id] = "settled"
                    due.append(row)
        for listing, start in zip(self._listings, starts):
            moments = sorted(
                row.created_at
                for row in due
                if row.created_at
                and row.environment == listing.environment
                and start is not None
                and row.created_at < start
            )
            for since, before in windows(moments):
                yield from self._listed_tasks(listing, since, before)
