"""Sends one agent's rows, each once, and tells the warehouse before and after.

The API adds an annotation as often as it is asked to. So a row is told of as `sending` in the
warehouse before it is sent, and as `sent` or `rejected` after; wherever it is not known what came
of a request, a killed run's among them, the conversation is looked at before it is sent again.
dlt's own way of writing back, `@dlt.destination`, hands over a batch again from its start when it
was interrupted, which would leave some of it twice.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from http import HTTPStatus
from typing import Any, Self

from ..api.client import DataApi
from ..api.worker_pool import OUTAGE_AFTER
from ..clock import Clock, in_utc
from ..config.settings import Agent, Settings
from ..errors import (
    AccessError,
    ApiError,
    BusyError,
    ConversationError,
    PolyAIError,
    StoppedError,
    UnavailableError,
    UncertainError,
)
from ..load.committer import Committer
from ..locking.leases import Holder
from ..shape.redaction import Redaction
from ..tables.audit import SYNC_RUNS, WRITE_BACKS
from ..warehouse.held import LoadState
from .report import Outcome, Result, WriteBackReport
from .rows import Kind, Row
from .standing import Json, objection, shows

logger = logging.getLogger("polyai")

COMMANDS: Mapping[Kind, str] = {"annotation": "annotate", "note": "note"}
"""What runs are called in `sync_runs`."""

_BATCH_SIZE = 200
"""Rows that are told of together before they are sent; a killed run leaves so many to look at."""

_NOT_SHOWN = (
    "PolyAI does not show whether it has it: look in Agent Studio, for it is not sent again"
)

_BEGINNING = datetime(1, 1, 2, tzinfo=UTC)


@dataclass(frozen=True)
class _Told:
    """What `write_backs` tells of a row; a note is there as the settings let it be held."""

    row: Row
    status: str
    requested_at: datetime | None
    sent_at: datetime | None


@dataclass(frozen=True)
class _Found:
    """Whether PolyAI has a row; None and why where that is not known, and whether it may be."""

    is_there: bool | None
    why: str | None = None
    may_tell_later: bool = False


class AgentWriteBacks:
    """One agent's part of a run. Use as a context manager.

    Args:
        agent: The agent.
        kind: What the rows are.
        rows: What is to be sent.
        settings: The run's settings.
        warehouse: Where `write_backs` and the held notes are read; None where there is none.
        report: Counts, which move in place.
        overwrite: Replace also notes that nobody has seen here.
        stop: Set from outside: begin no more.
        clock: What time it is.
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
        self._kind = kind
        self._rows = rows
        self._warehouse = warehouse
        self._overwrite = overwrite
        self._stop = stop
        self._clock = clock
        self._max_attempts = settings.max_attempts
        self._wait_seconds = settings.uncertain_wait.total_seconds()
        self._redaction = Redaction(settings.pii, settings.pii_secret, settings.transcripts)
        self._api = DataApi(
            agent,
            request_timeout=settings.request_timeout,
            max_attempts=settings.max_attempts,
            connections=settings.workers,
            traffic=report.traffic,
        )
        self._pool = ThreadPoolExecutor(settings.workers, thread_name_prefix="polyai-write-back")
        self._told: dict[str, _Told] = {}
        """What `write_backs` tells, by id."""
        self._untold: dict[str, dict[str, Any]] = {}
        """Rows for `write_backs` that are still to be written, by id: one twice would be double."""
        self._unanswered = 0
        """Requests in a row that the API did not answer."""
        self._stopped_by: ApiError | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._api.close()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def look(self) -> None:
        """Tells what would be sent; nothing is sent or written."""
        self._told = self._read_told()
        for row in self._to_send():
            self.report.add(Result.of(row, "to send"))
        self._end(self._stopped_by)

    def leave_to(self, holder: Holder) -> None:
        """Sends nothing, because another machine is at it."""
        error = BusyError(f"{holder} writes back to {self._agent_id}")
        for row in self._rows:
            self.report.add(Result.of(row, "not sent", str(error)))
        self._end(error)

    def send(self, committer: Committer) -> None:
        """Sends the rows, and tells the warehouse of it."""
        killed = committer.begin(self.report, [WRITE_BACKS], list(COMMANDS.values()))
        self._told = self._read_told()
        self._settle()
        rows = self._to_send()
        for start in range(0, len(rows), _BATCH_SIZE):
            batch = rows[start : start + _BATCH_SIZE]
            if not self._may_go_on:
                for row in batch:
                    self.report.add(self._left(row))
                continue
            asked_at = self._clock()
            sending = {row.write_back_id: self._as_row(row, "sending", asked_at) for row in batch}
            # what came of those before goes with them: a package a batch
            committer.write({WRITE_BACKS: list((self._untold | sending).values())})
            self._untold = {}
            for told, result in self._pool.map(partial(self._sent, asked_at=asked_at), batch):
                self._untold[told["write_back_id"]] = told
                self.report.add(result)
        self._end(self._stopped_by)
        runs = [self.report.as_row(), *killed]
        committer.write({WRITE_BACKS: list(self._untold.values()), SYNC_RUNS: runs})

    def _end(self, error: PolyAIError | None) -> None:
        self.report.finish(error, interrupted=self._stop.is_set(), now=self._clock())

    @property
    def _may_go_on(self) -> bool:
        return self._stopped_by is None and not self._stop.is_set()

    @property
    def _why_left(self) -> str:
        return str(self._stopped_by) if self._stopped_by else "the run was told to end before"

    def _left(self, row: Row) -> Result:
        return Result.of(row, "not sent", self._why_left)

    def _settle(self) -> None:
        """Finds out what came of the rows that a killed run was sending."""
        sending = [told for told in self._told.values() if told.status == "sending"]
        if not sending:
            return
        logger.warning("a run was killed while it sent %d rows: looking for them", len(sending))
        absent = self._looked_for(sending)
        if absent and self._may_go_on:
            # a request can be under way still whose sender is gone
            self._stop.wait(self._wait_seconds)
            absent = self._looked_for(absent)
        if self._may_go_on:
            for told in absent:
                self._note_settled(told, "rejected", "the run was killed before PolyAI had it")

    def _looked_for(self, sending: Sequence[_Told]) -> list[_Told]:
        """Settles what PolyAI shows, and gives what it does not have."""
        shown = self._pool.map(self._shown, [told.row for told in sending])
        absent = []
        for told, found in zip(sending, shown):
            if found.is_there is False:
                absent.append(told)
            elif found.is_there:
                self._note_settled(told, "sent", None)
            elif not found.may_tell_later:
                self._note_settled(told, "unknown", found.why)
        return absent

    def _note_settled(self, told: _Told, status: str, message: str | None) -> None:
        sent_at = self._clock() if status == "sent" else None
        self._told[told.row.write_back_id] = replace(told, status=status, sent_at=sent_at)
        self._untold[told.row.write_back_id] = self._as_row(
            told.row, status, told.requested_at, sent_at=sent_at, message=message
        )

    def _to_send(self) -> list[Row]:
        """The rows that can be sent and are not there yet; the others are reported."""
        by_conversation: dict[str, list[Row]] = {}
        warehouse = self._warehouse
        forgotten = frozenset() if warehouse is None else warehouse.forgotten(self._agent_id)
        for row in self._rows:
            told = self._told.get(row.write_back_id)
            if row.conversation_id in forgotten:
                self.report.add(Result.of(row, "rejected", "the conversation was forgotten"))
            elif row.kind == "annotation" and told is not None and told.status == "sent":
                # where PolyAI does not show it, somebody has taken it away again
                self.report.add(Result.of(row, "there"))
            else:
                by_conversation.setdefault(row.conversation_id, []).append(row)
        known_notes = self._known_notes(list(by_conversation)) if self._kind == "note" else {}
        looked = self._pool.map(
            lambda rows: self._looked_at(rows, known_notes.get(rows[0].conversation_id, ())),
            by_conversation.values(),
        )
        to_send = []
        for judged in looked:
            for row, result in judged:
                if result is None:
                    to_send.append(row)
                else:
                    self.report.add(result)
        return sorted(to_send, key=lambda row: row.place)

    def _looked_at(
        self, rows: Sequence[Row], known_notes: Collection[str]
    ) -> list[tuple[Row, Result | None]]:
        """What is to be said of the rows of one conversation; None where they can be sent."""
        if not self._may_go_on:
            return [(row, self._left(row)) for row in rows]
        try:
            detail = self._detail(rows[0].conversation_id)
        except ApiError as error:
            is_unknown = error.status == HTTPStatus.NOT_FOUND and error.error_code
            why = "PolyAI has no such conversation" if is_unknown else str(error)
            outcome: Outcome = "not sent" if isinstance(error, UnavailableError) else "rejected"
            return [(row, Result.of(row, outcome, why)) for row in rows]
        return [(row, self._judged(row, detail, known_notes)) for row in rows]

    def _judged(self, row: Row, detail: Json, known_notes: Collection[str]) -> Result | None:
        is_there, told = shows(detail, row), self._told.get(row.write_back_id)
        if is_there:
            if told is not None and told.status != "sent":
                self._note_settled(told, "sent", None)
            return Result.of(row, "there")
        if told is not None and told.status == "sending":
            return Result.of(row, "unknown", "PolyAI could not be asked whether it has it")
        if is_there is None and told is not None and told.status == "unknown":
            return Result.of(row, "unknown", _NOT_SHOWN)
        held = self._as_held(detail)
        why = objection(held, row, known_notes, overwrite=self._overwrite)
        return Result.of(row, "rejected", why) if why else None

    def _sent(self, row: Row, *, asked_at: datetime) -> tuple[dict[str, Any], Result]:
        """Sends one row; what to tell of it."""

        def told(
            status: str, outcome: Outcome, why: str | None = None, error: ApiError | None = None
        ) -> tuple[dict[str, Any], Result]:
            sent_at = self._clock() if status == "sent" else None
            row_told = self._as_row(
                row, status, asked_at, sent_at=sent_at, message=why, error=error
            )
            return row_told, Result.of(row, outcome, why)

        for _ in range(self._max_attempts):
            if not self._may_go_on:
                return told("rejected", "not sent", self._why_left)
            try:
                self._post(row)
            except (UncertainError, UnavailableError) as error:
                if isinstance(error, StoppedError):
                    return told("rejected", "not sent", self._why_left)
                if isinstance(error, UnavailableError) and row.kind == "annotation":
                    # it is sent again by itself only where PolyAI cannot have had it
                    return told("rejected", "not sent", str(error), error)
                found = self._looked_for_again(row)
                if found.is_there:
                    return told("sent", "sent")
                if found.is_there is None:
                    status = "sending" if found.may_tell_later else "unknown"
                    return told(status, "unknown", f"{found.why} ({error})", error)
                last = error
            except ApiError as error:
                return told("rejected", "rejected", str(error), error)
            else:
                return told("sent", "sent")
        return told(
            "rejected", "not sent", f"{self._max_attempts} times, the last time: {last}", last
        )

    def _looked_for_again(self, row: Row) -> _Found:
        """Whether a request whose answer was lost was carried out."""
        found = self._shown(row)
        if found.is_there is False:
            # it can be under way still
            if self._stop.wait(self._wait_seconds):
                return _Found(None, "the run was told to end", may_tell_later=True)
            found = self._shown(row)
        return found

    def _shown(self, row: Row) -> _Found:
        """Whether PolyAI shows the row."""
        try:
            detail = self._detail(row.conversation_id)
        except ApiError as error:
            return _Found(None, str(error), not isinstance(error, ConversationError))
        is_there = shows(detail, row) or shows(self._as_held(detail), row)
        return _Found(is_there, _NOT_SHOWN if is_there is None else None)

    def _detail(self, conversation_id: str) -> Json:
        with self._noting_outage():
            return self._api.conversation(conversation_id)

    def _post(self, row: Row) -> None:
        with self._noting_outage():
            if row.kind == "note":
                self._api.set_note(row.conversation_id, row.note or "")
            else:
                self._api.annotate(
                    row.conversation_id,
                    row.turn_index or 0,
                    row.role or "",
                    row.annotation_type or "",
                )

    @contextmanager
    def _noting_outage(self) -> Iterator[None]:
        """Lets nothing more begin once the key is refused, or the API has stopped answering."""
        try:
            yield
        except AccessError as error:
            self._stopped_by = error
            raise
        except UnavailableError as error:
            self._unanswered += 1
            if self._unanswered >= OUTAGE_AFTER:
                self._stopped_by = error
            raise
        else:
            self._unanswered = 0

    def _as_held(self, detail: Json) -> Json:
        """The detail with its note as the warehouse may hold it."""
        return {**detail, **self._redaction.apply({"note": detail.get("note")})}

    def _read_told(self) -> dict[str, _Told]:
        """What `write_backs` tells of the agent's rows of this kind, by id."""
        told: dict[str, _Told] = {}
        if self._warehouse is None:
            return told
        for (
            conversation_id,
            id_,
            turn,
            role,
            type_,
            note_,
            status,
            asked,
            sent,
        ) in self._warehouse.rows(
            "SELECT conversation_id, write_back_id, turn_index, role, annotation_type, note, "
            "status, requested_at, sent_at FROM {write_backs} WHERE agent_id = %s AND kind = %s",
            self._agent_id,
            self._kind,
        ):
            row = Row(0, self._agent_id, conversation_id, self._kind, id_, turn, role, type_, note_)
            told[id_] = _Told(row, status, in_utc(asked), in_utc(sent))
        return told

    def _known_notes(self, conversation_ids: Sequence[str]) -> dict[str, list[str]]:
        """Notes that whoever wrote the rows may have seen, by conversation."""
        if self._warehouse is None:
            return {}
        histories = self._warehouse.note_histories(self._agent_id, conversation_ids)
        known = {
            conversation_id: [version.note for version in versions if version.valid_to is None]
            for conversation_id, versions in histories.items()
        }
        sent = [told for told in self._told.values() if told.sent_at is not None]
        newest: dict[str, _Told] = {}
        for told in sorted(sent, key=lambda told: told.sent_at or _BEGINNING):
            newest[told.row.conversation_id] = told
        for conversation_id, told in newest.items():
            known.setdefault(conversation_id, []).append(told.row.note or "")
        return known

    def _as_row(
        self,
        row: Row,
        status: str,
        asked_at: datetime | None,
        *,
        sent_at: datetime | None = None,
        message: str | None = None,
        error: ApiError | None = None,
    ) -> dict[str, Any]:
        """A row of `write_backs`."""
        return {
            "agent_id": self._agent_id,
            "conversation_id": row.conversation_id,
            "write_back_id": row.write_back_id,
            "kind": row.kind,
            "turn_index": row.turn_index,
            "role": row.role,
            "annotation_type": row.annotation_type,
            **self._redaction.apply({"note": row.note}),
            "status": status,
            "error_code": error.error_code if error else None,
            "error_id": error.error_id if error else None,
            "message": message,
            "run_id": self.report.run_id,
            "requested_at": asked_at,
            "sent_at": sent_at,
        }
