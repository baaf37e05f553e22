"""Fetching of recordings as a function, for the command, scripts and orchestrators."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from ..config.settings import Settings, resolve
from ..console.exit_codes import ExitCode, reports_exit_code
from ..errors import BusyError
from ..warehouse.target import DEFAULT_TARGET, Target
from .report import RecordingsReport
from .run import PIPELINE_NAME, OnBegin, fetch_recordings


@dataclass(frozen=True)
class RecordingsResult:
    """Result of `recordings`.

    Attributes:
        reports: One report per agent that was started.
        is_interrupted: `stop` was set before the end.
    """

    reports: list[RecordingsReport]
    is_interrupted: bool = False

    @property
    def exit_code(self) -> ExitCode:
        """Exit code of the command."""
        return reports_exit_code(self.reports, interrupted=self.is_interrupted)


def recordings(
    *,
    settings: Settings | None = None,
    target: Target = DEFAULT_TARGET,
    stop: threading.Event | None = None,
    on_begin: OnBegin = lambda report: None,
) -> RecordingsResult:
    """Fetches the missing audio of the calls in the warehouse, oldest first.

    Source: `GET …/conversations/{conversationId}/audio`. Idempotent: a file that is already stored
    is not requested. Can run beside `load`, and can be killed at any time.

    Args:
        settings: Agents, the kinds of recordings, and `recordings_url`, where they are stored.
            Default: `resolve()`.
        target: The warehouse.
        stop: When set, requests in flight finish and the run ends as interrupted.
        on_begin: Called with the report of each agent at its start; the counts are then updated in
            place.

    Returns:
        One report per agent. A failed agent does not stop the others.

    Raises:
        BusyError: Another run fetches recordings into the same warehouse.
        ConfigurationError: A setting is missing or wrong.
        DestinationError: The destination cannot be read or written.
        LeaseLostError: Another machine has taken over this run's lease.
        StoreError: The folder or bucket cannot be read or written.
    """
    stop = stop or threading.Event()
    try:
        reports = fetch_recordings(
            settings or resolve(), target.open(PIPELINE_NAME), stop=stop, on_begin=on_begin
        )
    except BusyError:
        if not stop.is_set():
            raise
        reports = []  # interrupted while it waited for the lock
    return RecordingsResult(reports, stop.is_set())
