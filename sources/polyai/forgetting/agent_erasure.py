"""Erasure for one agent: its request, its files and rows, and its end."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Sequence
from typing import Any

from ..api.throttle import Traffic
from ..clock import Clock
from ..errors import ConfigurationError, PolyAIError, StoreError
from ..load.committer import Committer
from ..load.report import RunReport
from ..shape.forgotten_callers import ForgottenCaller, forgotten_caller
from ..tables.audit import SYNC_RUNS
from ..tables.declaration import Table
from ..tables.erasure import FORGOTTEN, FORGOTTEN_CALLERS, LEDGER_ENTRIES
from ..warehouse.callers import forgotten_callers, stored_callers
from ..warehouse.holds import HoldKeys
from ..warehouse.s3_objects import Locked, locked_error
from .erasures import Erasure
from .ledger import Entry, Ledger, entry_rows, has_entries
from .recording_files import DeletedFile, RecordingFiles
from .selection import Selection

COMMAND = "forget"
"""Value of `command` in `sync_runs`."""

_TABLES = (FORGOTTEN_CALLERS, FORGOTTEN, LEDGER_ENTRIES)

_SALT_BYTES = 16


class AgentErasure:
    """Erasure for one agent.

    Args:
        committer: Committer of the run.
        selection: What to erase.
        reason: Stored with each conversation.
        keys: Settings by which callers on legal hold are recognized; `pii_secret` is also the key
            of the hashes of callers, empty or too short for none.
        ledger: Ledger that the erasure is added to, if there is one.
        clock: Current time.

    Attributes:
        erasure: Its result.
    """

    def __init__(
        self,
        committer: Committer,
        selection: Selection,
        *,
        reason: str | None,
        keys: HoldKeys,
        ledger: Ledger | None,
        clock: Clock,
    ) -> None:
        self._ledger = ledger
        self._keys = keys
        self._committer = committer
        self._selection = selection
        self._reason = reason
        self._clock = clock
        self._report = RunReport(selection.agent_id, COMMAND, Traffic(), started_at=clock())
        self._interrupted: list[dict[str, Any]] = []
        self._files: list[DeletedFile] = []
        self._locked: list[Locked] = []
        self._error: PolyAIError | None = None
        self.erasure = Erasure.of(selection)
        self.erasure.run_id = self._report.run_id
        self.erasure.requested_at = self._report.started_at

    def erase(self, files: RecordingFiles | PolyAIError | None) -> None:
        """Commits the request, then deletes recordings and rows.

        Args:
            files: Archive of the recordings; None if there is none, else what prevents its use.
        """
        committer, selection, report = self._committer, self._selection, self._report
        self._interrupted = committer.begin(report, [COMMAND], _TABLES)
        self.erasure.hashes = callers = self._new_callers()
        committer.write({FORGOTTEN: self._rows(), FORGOTTEN_CALLERS: self._caller_rows(callers)})
        try:
            self._append_to_ledger(callers)
        except StoreError as error:
            # erased all the same, and added by the next run, because this one is not complete
            self._error = error

        def delete_files(conversation_ids: Sequence[str]) -> None:
            if files is not None and not isinstance(files, PolyAIError):
                conversations = {name: selection.conversations[name] for name in conversation_ids}
                self._files = files.delete(committer.warehouse, report, conversations, self._reason)
                self._locked = files.locked

        try:
            if isinstance(files, PolyAIError):
                raise files
            conversations = list(selection.conversations)
            done = committer.erase(selection.agent_id, conversations, self._keys, delete_files)
            report.rows.update(done.rows)
            # placed since the selection; the request stays open
            self.erasure.leave(done.on_hold)
        except (ConfigurationError, StoreError) as error:
            self._error = error

    def finish(self, left: Sequence[str]) -> None:
        """Commits the end of the run, and without an error the completion of the request.

        Args:
            left: Copies that still contain the erased data, and why.
        """
        now, selection = self._clock(), self._selection
        if left and self._error is None:
            self._error = StoreError(f"copies still contain the erased data: {'; '.join(left)}")
        self._report.is_proven = not self._locked
        self._report.finish(self._error, now=now)
        self.erasure.error = self._report.error
        self.erasure.locked = self._locked
        if self._locked and self._error is None:
            self._report.error = locked_error(self._locked)
        rows: dict[Table, list[dict[str, Any]]] = {
            SYNC_RUNS: [self._report.as_row(), *self._interrupted]
        }
        if self._error is None and not self._locked:
            files = Counter(file.conversation_id for file in self._files)
            rows[LEDGER_ENTRIES] = entry_rows(selection.entries, self._report.run_id)
            rows[FORGOTTEN] = [
                row | {"erased_at": now, "recordings": files[row["conversation_id"]]}
                for row in self._rows()
                if row["conversation_id"] not in self.erasure.on_hold
            ]
        self._committer.write(rows)
        self.erasure.rows = self._report.rows
        self.erasure.recordings = len(self._files)
        self.erasure.files = self._files
        self.erasure.finished_at = now

    def _rows(self) -> list[dict[str, Any]]:
        """Returns rows of `forgotten`; values of an earlier request are kept."""
        selection, report = self._selection, self._report
        rows = []
        # of a restored backup: erased by the first run after the hold is released
        of_ledger = {name for entry in selection.entries for name in entry.conversations}
        for name in sorted(selection.conversations.keys() | of_ledger & selection.on_hold.keys()):
            is_by_caller = name in selection.of_callers
            earlier = selection.earlier.get(name)
            rows.append(
                {
                    "agent_id": selection.agent_id,
                    "conversation_id": name,
                    "requested_at": earlier.requested_at if earlier else report.started_at,
                    "reason": self._reason or (earlier.reason if earlier else None),
                    "is_by_caller": is_by_caller or bool(earlier and earlier.is_by_caller),
                    "run_id": report.run_id,
                }
            )
        return rows

    def _new_callers(self) -> list[ForgottenCaller]:
        """Returns the callers that this run erases."""
        selection = self._selection
        known = forgotten_callers(self._committer.warehouse, selection.agent_id, selection.region)
        salt = known.salt or secrets.token_hex(_SALT_BYTES)
        at, secret = self._report.started_at, self._keys.pii_secret
        return sorted(
            {
                forgotten_caller(caller, salt, at, region=selection.region, secret=secret)
                for caller in selection.callers
            }
        )

    def _caller_rows(self, callers: Sequence[ForgottenCaller]) -> list[dict[str, Any]]:
        """Returns rows of `forgotten_callers`: of new callers, and of those in the ledger."""
        of_ledger = (caller for entry in self._selection.entries for caller in entry.callers)
        # the newest request of each
        by_hash = {caller.caller_hash: caller for caller in (*of_ledger, *callers)}
        own = {
            "agent_id": self._selection.agent_id,
            "reason": self._reason,
            "run_id": self._report.run_id,
        }
        return [own | caller._asdict() for caller in by_hash.values()]

    def _append_to_ledger(self, callers: Sequence[ForgottenCaller]) -> None:
        """Adds to the ledger what it does not have: the first time, all earlier erasures too."""
        ledger, selection, report = self._ledger, self._selection, self._report
        if ledger is None:
            return
        warehouse, agent_id = self._committer.warehouse, selection.agent_id
        names = set(selection.conversations)
        if not (selection.entries or has_entries(warehouse, agent_id)):
            names |= selection.earlier.keys()
            callers = stored_callers(warehouse, agent_id)
        names -= {name for entry in selection.entries for name in entry.conversations}
        if not (names or callers):
            return
        entry = Entry(
            report.run_id, report.started_at, agent_id, tuple(sorted(names)), tuple(callers)
        )
        ledger.append(entry)
        self._committer.write({LEDGER_ENTRIES: entry_rows([entry], report.run_id)})
