"""One agent's rows of `write_backs`: those in the warehouse, and those not yet committed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from ..clock import Clock, in_utc
from ..errors import ApiError
from ..shape.redaction import Redaction
from ..warehouse.held import LoadState
from .rows import Kind, Row

_BEGINNING = datetime(1, 1, 2, tzinfo=UTC)


@dataclass(frozen=True)
class Recorded:
    """Row of `write_backs`.

    Attributes:
        row: The annotation or the note; a note is redacted as the settings require.
        status: `sending`, `sent`, `rejected` or `unknown`.
        requested_at: Time of the request.
        sent_at: Time at which PolyAI confirmed it; None if it did not.
    """

    row: Row
    status: str
    requested_at: datetime | None
    sent_at: datetime | None


class History:
    """Rows of `write_backs` of one agent and kind.

    Args:
        warehouse: The warehouse; None if it does not exist, which gives an empty history.
        agent_id: The agent.
        kind: Kind of the rows.
        run_id: The current run.
        redaction: Redaction of notes.
        clock: Current time.

    Attributes:
        uncommitted: Rows that are still to be committed, by id, so that no package has a duplicate.
    """

    def __init__(
        self,
        warehouse: LoadState | None,
        agent_id: str,
        kind: Kind,
        run_id: str,
        redaction: Redaction,
        clock: Clock,
    ) -> None:
        self._warehouse = warehouse
        self._agent_id = agent_id
        self._kind = kind
        self._run_id = run_id
        self._redaction = redaction
        self._clock = clock
        self._recorded: dict[str, Recorded] = {}
        self.uncommitted: dict[str, dict[str, Any]] = {}

    def read(self) -> None:
        """Reads the rows from the warehouse."""
        if self._warehouse is None:
            return
        for (
            conversation_id,
            id_,
            turn,
            role,
            type_,
            note,
            status,
            requested,
            sent,
        ) in self._warehouse.rows(
            "SELECT conversation_id, write_back_id, turn_index, role, annotation_type, note, "
            "status, requested_at, sent_at FROM {write_backs} WHERE agent_id = %s AND kind = %s",
            self._agent_id,
            self._kind,
        ):
            row = Row(0, self._agent_id, conversation_id, self._kind, id_, turn, role, type_, note)
            self._recorded[id_] = Recorded(row, status, in_utc(requested), in_utc(sent))

    def get(self, row: Row) -> Recorded | None:
        """Returns the recorded state of a row; None if it was never sent."""
        return self._recorded.get(row.write_back_id)

    def sending(self) -> list[Recorded]:
        """Rows that a killed run was sending."""
        return [one for one in self._recorded.values() if one.status == "sending"]

    def resolve(self, recorded: Recorded, status: str, message: str | None) -> None:
        """Gives a row its final status."""
        sent_at = self._clock() if status == "sent" else None
        row = recorded.row
        self._recorded[row.write_back_id] = replace(recorded, status=status, sent_at=sent_at)
        self.uncommitted[row.write_back_id] = self.as_row(
            row, status, recorded.requested_at, sent_at=sent_at, message=message
        )

    def forgotten(self) -> frozenset[str]:
        """Conversations that were erased."""
        return frozenset() if self._warehouse is None else self._warehouse.forgotten(self._agent_id)

    def known_notes(self, conversation_ids: Sequence[str]) -> dict[str, list[str]]:
        """Notes that the author of the rows may have seen, by conversation."""
        if self._warehouse is None:
            return {}
        histories = self._warehouse.note_histories(self._agent_id, conversation_ids)
        known = {
            conversation_id: [version.note for version in versions if version.valid_to is None]
            for conversation_id, versions in histories.items()
        }
        sent = [one for one in self._recorded.values() if one.sent_at is not None]
        newest: dict[str, Recorded] = {}
        for one in sorted(sent, key=lambda one: one.sent_at or _BEGINNING):
            newest[one.row.conversation_id] = one
        for conversation_id, one in newest.items():
            known.setdefault(conversation_id, []).append(one.row.note or "")
        return known

    def as_row(
        self,
        row: Row,
        status: str,
        requested_at: datetime | None,
        *,
        sent_at: datetime | None = None,
        message: str | None = None,
        error: ApiError | None = None,
    ) -> dict[str, Any]:
        """Builds a row of `write_backs`."""
        return {
            "agent_id": self._agent_id,
            "conversation_id": row.conversation_id,
            "write_back_id": row.write_back_id,
            "kind": row.kind,
            "turn_index": row.turn_index,
            "role": row.role,
            "annotation_type": row.annotation_type,
            **self._redaction.value({"note": row.note}),
            "status": status,
            "error_code": error.error_code if error else None,
            "error_id": error.error_id if error else None,
            "message": message,
            "run_id": self._run_id,
            "requested_at": requested_at,
            "sent_at": sent_at,
        }
