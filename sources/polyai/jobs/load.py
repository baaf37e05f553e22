"""Scheduled load as a function: conversations, recordings, views, published copy."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import dlt

from ..config.settings import Settings, resolve
from ..console.exit_codes import ExitCode, reports_exit_code
from ..errors import BusyError, DestinationError, PolyAIError, StoreError
from ..load import run
from ..load.report import RunReport
from ..recordings.command import recordings as fetch_recordings
from ..recordings.report import RecordingsReport
from ..views.refresh import Refreshed, refresh
from ..warehouse.holds import HoldKeys
from ..warehouse.target import DEFAULT_TARGET, Target

if TYPE_CHECKING:
    from ..retention.result import Retention

logger = logging.getLogger("polyai")


@dataclass(frozen=True)
class LoadResult:
    """Result of `load`.

    Attributes:
        reports: One report per agent that was started.
        pipeline: The dlt pipeline of the load.
        recordings: One report per agent whose recordings were fetched.
        refreshed: Views and published copy that were created.
        publish_error: Why readers still have the older copy.
        retention: What was deleted because it is too old; None without settings of retention.
        retention_error: Why that was not done, or not completely.
        is_interrupted: `stop` was set before the end.
    """

    reports: list[RunReport]
    pipeline: dlt.Pipeline
    recordings: list[RecordingsReport] = field(default_factory=list)
    refreshed: Refreshed = field(default_factory=Refreshed)
    publish_error: str | None = None
    retention: Retention | None = None
    retention_error: str | None = None
    is_interrupted: bool = False

    @property
    def exit_code(self) -> ExitCode:
        """Exit code of the command."""
        code = reports_exit_code([*self.reports, *self.recordings], interrupted=self.is_interrupted)
        is_incomplete = self.publish_error or self.retention_error
        if is_incomplete and code in (ExitCode.DONE, ExitCode.SOME_FAILED):
            # an outdated copy, or what is still there, would otherwise go unnoticed
            return ExitCode.CONFIGURATION
        return code


def load(
    *,
    settings: Settings | None = None,
    target: Target = DEFAULT_TARGET,
    full: bool = False,
    select: Sequence[str] = (),
    recordings: bool = False,
    stop: threading.Event | None = None,
    on_begin: Callable[[RunReport], None] = lambda report: None,
) -> LoadResult:
    """Loads new and changed conversations of all agents, then refreshes views and published copy.

    Source: the listing that the setting `api` selects, and
    `GET …/conversations/{conversationId}` for each new or changed conversation. Idempotent; can be
    killed at any time. Erasures that only the ledger of `forget_ledger` has are applied first, and
    what is older than the settings of retention is deleted at the end.
    Views and copy are refreshed if at least one agent was read to its end.

    Args:
        settings: Agents, and how to read them. Default: `resolve()`.
        target: The warehouse.
        full: Read each listing to its end, not only the look-back window.
        select: Tables to load; `conversations` always is. Default: all.
        recordings: Then fetch the missing recordings.
        stop: When set, what was read is committed, and the run ends as interrupted.
        on_begin: Called with the report of each agent at its start; the counts are then updated in
            place.

    Returns:
        One report per agent. A failed agent does not stop the others.

    Raises:
        BusyError: Another run loads into the same warehouse.
        ConfigurationError: A setting is missing or wrong, or a table of `select` is unknown.
        DestinationError: The destination cannot be read or written.
        LeaseLostError: Another machine has taken over this run's lease.
        StoreError: The folder or bucket of the recordings, or the ledger, cannot be read or
            written.
    """
    stop = stop or threading.Event()
    settings = settings or resolve()
    if settings.forget_ledger:
        # imported here, because few warehouses have one
        from ..forgetting.reapply import apply_ledger

        apply_ledger(settings, target, stop)
    pipeline = target.open()
    try:
        reports = run.load(
            settings, pipeline, full=full, select=select, stop=stop, on_begin=on_begin
        )
    except BusyError:
        if not stop.is_set():
            raise
        reports = []  # interrupted while it waited for the lock
    fetched: list[RecordingsReport] = []
    if recordings and not stop.is_set():
        fetched = fetch_recordings(
            settings=settings, target=target, stop=stop, on_begin=on_begin
        ).reports
    retention, retention_error = None, None
    if settings.ages and not stop.is_set():
        retention, retention_error = _apply_retention(settings, target, stop)
    refreshed, publish_error = Refreshed(), None
    if not stop.is_set() and any(report.has_read_all for report in reports):
        try:
            refreshed = refresh(
                pipeline,
                settings.reporting_time_zone,
                settings.publish_to,
                wait=settings.lock_wait,
            )
        except (DestinationError, StoreError) as error:
            publish_error = str(error)
    return LoadResult(
        reports,
        pipeline,
        fetched,
        refreshed,
        publish_error,
        retention,
        retention_error,
        stop.is_set(),
    )


def _apply_retention(
    settings: Settings, target: Target, stop: threading.Event
) -> tuple[Retention | None, str | None]:
    """Deletes what is too old; returns the result, and why it is not complete."""
    # imported here, because few warehouses have an age
    from ..retention.run import Rules, apply

    rules = Rules(
        settings.ages,
        HoldKeys(settings.pii_secret, settings.phone_region),
        settings.recordings_url,
        settings.lock_wait,
    )
    try:
        done = apply(target, rules, [agent.agent_id for agent in settings.agents], stop=stop)
    except BusyError as error:
        logger.warning("nothing was deleted by retention, the next load does it: %s", error)
        return None, None
    except PolyAIError as error:
        return None, str(error)
    return done, "; ".join(dict.fromkeys(done.errors)) or None
