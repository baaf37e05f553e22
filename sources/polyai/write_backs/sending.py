"""Write-backs of one agent: each row is sent once, and recorded before and after.

The API adds an annotation as often as it is requested. A row is therefore committed to the
warehouse as `sending` before it is sent, and as `sent` or `rejected` afterwards. If the result of a
request is unknown, in a killed run as well, the conversation is checked before the row is sent
again. dlt's own `@dlt.destination` restarts an interrupted batch from its beginning, which would
create duplicates.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection, Mapping, Sequence
from http import HTTPStatus
from typing import Self

from ..api.client import DataApi
from ..api.worker_pool import WorkerPool
from ..clock import Clock
from ..config.agent import Agent
from ..config.settings import Settings
from ..errors import ApiError, ConfigurationError, PolyAIError, UnavailableError
from ..load.committer import Committer
from ..load.held_mode import enter_mode
from ..shape.redaction import Redaction, request_options
from ..tables.audit import SYNC_RUNS, WRITE_BACKS
from ..warehouse.held import LoadState
from .comparison import Json, is_present, objection, with_redacted_note
from .delivery import NOT_SHOWN, Delivery
from .history import History, Recorded
from .report import Outcome, Result, WriteBackReport
from .rows import Kind, Row

logger = logging.getLogger("polyai")

COMMANDS: Mapping[Kind, str] = {"annotation": "annotate", "note": "note"}
"""Commands of the runs in `sync_runs`."""

_BATCH_SIZE = 200
"""Rows that are committed together before they are sent; after a kill, as many are checked."""


class AgentWriteBacks:
    """One agent's part of a run. Use as a context manager.

    Args:
        agent: The agent.
        kind: Kind of the rows.
        rows: Rows to send.
        settings: Settings of the run.
        warehouse: The warehouse; None if it does not exist.
        report: Counts, updated in place.
        overwrite: Replace notes that are not known here, too.
        stop: When set, no further row is begun.
        clock: Current time.
    """

    def __init__(
        self,
        agent: Agent,
        kind: Kind,
        rows: Sequence[Row],
        settings: Settings,
        warehouse: LoadState | None,
        report: WriteBackReport,
        *,
        overwrite: bool,
        stop: threading.Event,
        clock: Clock,
    ) -> None:
        self.report = report
        report.expected = len(rows)
        self._agent_id = agent.agent_id
        self._settings = settings
        self._kind = kind
        self._rows = rows
        self._overwrite = overwrite
        self._stop = stop
        self._clock = clock
        self._redaction = Redaction.of(settings)
        self._api = DataApi(
            agent,
            **request_options(settings),
            connections=settings.workers,
            traffic=report.traffic,
        )
        self._pool = WorkerPool(settings.workers, "polyai-write-back")
        self._delivery = Delivery(self._api, settings, self._redaction, stop, clock)
        self._history = History(
            warehouse, agent.agent_id, kind, report.run_id, self._redaction, clock
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._api.close()
        self._pool.close()

    def check(self) -> None:
        """Reports the rows that would be sent; nothing is sent or written."""
        self._history.read()
        for row in self._to_send():
            self.report.add(Result.of(row, "to send"))
        self._finish(self._delivery.stopped_by)

    def send(self, committer: Committer) -> None:
        """Sends the rows and commits the results; none if rows of another mode are loaded."""
        try:
            enter_mode(committer.warehouse, self.report, self._settings)
        except ConfigurationError as error:
            for row in self._rows:
                self.report.add(Result.of(row, "not sent", str(error)))
            self._finish(error)
            return
        killed = committer.begin(self.report, list(COMMANDS.values()), [WRITE_BACKS])
        history = self._history
        history.read()
        self._resolve_killed()
        rows = self._to_send()
        for start in range(0, len(rows), _BATCH_SIZE):
            batch = rows[start : start + _BATCH_SIZE]
            if not self._delivery.can_continue:
                for row in batch:
                    self.report.add(self._left(row))
                continue
            requested_at = self._clock()
            sending = {
                row.write_back_id: history.as_row(row, "sending", requested_at) for row in batch
            }
            # with the results of the previous batch: one package per batch
            committer.write({WRITE_BACKS: list((history.uncommitted | sending).values())})
            history.uncommitted = {}
            for row, done in zip(batch, self._pool.in_order(self._delivery.send, batch)):
                history.uncommitted[row.write_back_id] = history.as_row(
                    row,
                    done.status,
                    requested_at,
                    sent_at=done.sent_at,
                    message=done.reason,
                    error=done.error,
                )
                self.report.add(Result.of(row, done.outcome, done.reason))
        self._finish(self._delivery.stopped_by)
        runs = [self.report.as_row(), *killed]
        committer.write({WRITE_BACKS: list(history.uncommitted.values()), SYNC_RUNS: runs})

    def _finish(self, error: PolyAIError | None) -> None:
        self.report.finish(error, interrupted=self._stop.is_set(), now=self._clock())

    def _left(self, row: Row) -> Result:
        return Result.of(row, "not sent", self._delivery.stop_reason)

    def _resolve_killed(self) -> None:
        """Determines the status of the rows that a killed run was sending."""
        sending = self._history.sending()
        if not sending:
            return
        logger.warning("a run was killed while it sent %d rows: checking them", len(sending))
        absent = self._absent(sending)
        if absent and self._delivery.can_continue:
            # a request of the killed run may still be in progress
            self._delivery.wait()
            absent = self._absent(absent)
        if self._delivery.can_continue:
            for recorded in absent:
                self._history.resolve(
                    recorded, "rejected", "the run was killed before PolyAI had the row"
                )

    def _absent(self, sending: Sequence[Recorded]) -> list[Recorded]:
        """Resolves the rows that PolyAI shows, and returns those that it does not have."""
        absent = []
        lookups = self._pool.in_order(self._delivery.look_up, [one.row for one in sending])
        for recorded, found in zip(sending, lookups):
            if found.is_present is False:
                absent.append(recorded)
            elif found.is_present:
                self._history.resolve(recorded, "sent", None)
            elif not found.is_transient:
                self._history.resolve(recorded, "unknown", found.reason)
        return absent

    def _to_send(self) -> list[Row]:
        """Returns the rows that PolyAI lacks and accepts; reports the others."""
        by_conversation: dict[str, list[Row]] = {}
        forgotten = self._history.forgotten()
        for row in self._rows:
            recorded = self._history.get(row)
            if row.conversation_id in forgotten:
                self.report.add(Result.of(row, "rejected", "the conversation was forgotten"))
            elif row.kind == "annotation" and recorded is not None and recorded.status == "sent":
                # if PolyAI does not show it, somebody has removed it
                self.report.add(Result.of(row, "there"))
            else:
                by_conversation.setdefault(row.conversation_id, []).append(row)
        known_notes: Mapping[str, Collection[str]] = {}
        if self._kind == "note":
            known_notes = self._history.known_notes(list(by_conversation))
        checked = self._pool.in_order(
            lambda rows: self._checked(rows, known_notes.get(rows[0].conversation_id, ())),
            by_conversation.values(),
        )
        to_send = []
        for results in checked:
            for row, result in results:
                if result is None:
                    to_send.append(row)
                else:
                    self.report.add(result)
        return sorted(to_send, key=lambda row: row.place)

    def _checked(
        self, rows: Sequence[Row], known_notes: Collection[str]
    ) -> list[tuple[Row, Result | None]]:
        """Results of the rows of one conversation; None for those that can be sent."""
        if not self._delivery.can_continue:
            return [(row, self._left(row)) for row in rows]
        try:
            detail = self._delivery.detail(rows[0].conversation_id)
        except ApiError as error:
            is_unknown = error.status == HTTPStatus.NOT_FOUND and error.error_code
            reason = "PolyAI does not have this conversation" if is_unknown else str(error)
            outcome: Outcome = "not sent" if isinstance(error, UnavailableError) else "rejected"
            return [(row, Result.of(row, outcome, reason)) for row in rows]
        return [(row, self._check(row, detail, known_notes)) for row in rows]

    def _check(self, row: Row, detail: Json, known_notes: Collection[str]) -> Result | None:
        present, recorded = is_present(detail, row), self._history.get(row)
        if present:
            if recorded is not None and recorded.status != "sent":
                self._history.resolve(recorded, "sent", None)
            return Result.of(row, "there")
        if recorded is not None and recorded.status == "sending":
            return Result.of(row, "unknown", "the check whether PolyAI has the row failed")
        if present is None and recorded is not None and recorded.status == "unknown":
            return Result.of(row, "unknown", NOT_SHOWN)
        redacted = with_redacted_note(detail, self._redaction)
        reason = objection(redacted, row, known_notes, overwrite=self._overwrite)
        return Result.of(row, "rejected", reason) if reason else None
