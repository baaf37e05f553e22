"""Delivery of single rows to PolyAI: retries that cannot create a duplicate."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from ..api.client import DataApi
from ..api.outage import OutageBreaker, Probe
from ..clock import Clock
from ..config.settings import Settings
from ..errors import (
    AccessError,
    ApiError,
    ConversationError,
    StoppedError,
    UnavailableError,
    UncertainError,
)
from ..shape.redaction import Redaction
from .comparison import Json, is_present, with_redacted_note
from .report import Outcome
from .rows import Row

NOT_SHOWN = (
    "PolyAI does not show whether it has the row: check in Agent Studio, it is not sent again"
)


@dataclass(frozen=True)
class Lookup:
    """Search for a row at PolyAI.

    Attributes:
        is_present: Whether PolyAI has the row; None if that is unknown.
        reason: Reason why it is unknown.
        is_transient: A later search may find out.
    """

    is_present: bool | None
    reason: str | None = None
    is_transient: bool = False


@dataclass(frozen=True)
class Delivered:
    """Result of sending one row.

    Attributes:
        status: For `write_backs`.
        outcome: For the report.
        reason: Reason, if it was not sent.
        error: The error, if there was one.
        sent_at: Time at which it was sent; None if it was not.
    """

    status: str
    outcome: Outcome
    reason: str | None = None
    error: ApiError | None = None
    sent_at: datetime | None = None


class Delivery:
    """Requests of one agent's write-backs; used by many threads.

    After an outage, a refused key or a stop, nothing more is sent.

    Args:
        api: The agent's Data API.
        settings: Settings of the run.
        redaction: Redaction of notes.
        stop: Set when the run is interrupted.
        clock: Current time.
    """

    def __init__(
        self,
        api: DataApi,
        settings: Settings,
        redaction: Redaction,
        stop: threading.Event,
        clock: Clock,
    ) -> None:
        self._api = api
        self._max_attempts = settings.max_attempts
        self._wait_seconds = settings.uncertain_wait.total_seconds()
        self._redaction = redaction
        self._stop = stop
        self._clock = clock
        self._breaker = OutageBreaker(probe=Probe(api.detail, api.newest_ids))
        self._refusal: AccessError | None = None

    @property
    def stopped_by(self) -> ApiError | None:
        """The refusal or outage that ended the run; None if there was none."""
        return self._refusal or self._breaker.opened_by

    @property
    def can_continue(self) -> bool:
        """True if more requests may be sent."""
        return self.stopped_by is None and not self._stop.is_set()

    @property
    def stop_reason(self) -> str:
        """Reason for rows that are left."""
        return str(self.stopped_by) if self.stopped_by else "the run was interrupted first"

    def wait(self) -> bool:
        """Waits as long as a lost request may be in progress at PolyAI; True if interrupted."""
        return self._stop.wait(self._wait_seconds)

    def detail(self, conversation_id: str) -> Json:
        """Returns `GET …/conversations/{conversationId}`.

        Raises:
            ApiError: The request failed.
        """
        with self._recorded_outcome(conversation_id):
            return self._api.conversation(conversation_id)

    def look_up(self, row: Row) -> Lookup:
        """Searches for the row at PolyAI."""
        try:
            detail = self.detail(row.conversation_id)
        except ApiError as error:
            return Lookup(None, str(error), not isinstance(error, ConversationError))
        found = is_present(detail, row) or is_present(
            with_redacted_note(detail, self._redaction), row
        )
        return Lookup(found, NOT_SHOWN if found is None else None)

    def send(self, row: Row) -> Delivered:
        """Sends one row; sends it again only if PolyAI does not have it."""
        for _ in range(self._max_attempts):
            if not self.can_continue:
                return Delivered("rejected", "not sent", self.stop_reason)
            try:
                self._post(row)
            except StoppedError:
                return Delivered("rejected", "not sent", self.stop_reason)
            except (UncertainError, UnavailableError) as error:
                if isinstance(error, UnavailableError) and row.kind == "annotation":
                    # the transport has retried it, and PolyAI cannot have carried it out
                    return Delivered("rejected", "not sent", str(error), error)
                found = self._look_up_again(row)
                if found.is_present:
                    return self._sent()
                if found.is_present is None:
                    status = "sending" if found.is_transient else "unknown"
                    return Delivered(status, "unknown", f"{found.reason} ({error})", error)
                last = error
            except ApiError as error:
                return Delivered("rejected", "rejected", str(error), error)
            else:
                return self._sent()
        reason = f"{self._max_attempts} attempts failed, the last one: {last}"
        return Delivered("rejected", "not sent", reason, last)

    def _sent(self) -> Delivered:
        return Delivered("sent", "sent", sent_at=self._clock())

    def _look_up_again(self, row: Row) -> Lookup:
        """Searches for a row whose response was lost."""
        found = self.look_up(row)
        if found.is_present is False:
            # the request may still be in progress
            if self.wait():
                return Lookup(None, "the run was interrupted", is_transient=True)
            found = self.look_up(row)
        return found

    def _post(self, row: Row) -> None:
        with self._recorded_outcome(row.conversation_id):
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
    def _recorded_outcome(self, conversation_id: str) -> Iterator[None]:
        """Records the outcome of a request for `can_continue`."""
        try:
            yield
        except ApiError as error:
            if isinstance(error, AccessError):
                self._refusal = error
            self._breaker.record(error, conversation_id)
            raise
        self._breaker.record(None, conversation_id)
