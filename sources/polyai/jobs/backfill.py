"""Backfill as a function, for the command, scripts and orchestrators."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from ..config.settings import Settings, resolve
from ..console.exit_codes import ExitCode, slices_exit_code
from ..load.backfill import SLICE_LENGTH, WORKERS
from ..load.backfill import backfill as run_slices
from ..load.refetch import Span
from ..load.slices import SliceReport
from ..warehouse.target import DEFAULT_TARGET, Target


@dataclass(frozen=True)
class BackfillResult:
    """Result of `backfill`.

    Attributes:
        slices: One report per slice that was started, in their order.
        is_interrupted: `stop` was set before the end.
    """

    slices: list[SliceReport]
    is_interrupted: bool = False

    @property
    def exit_code(self) -> ExitCode:
        """Exit code of the command."""
        return slices_exit_code(self.slices, interrupted=self.is_interrupted)


def backfill(
    span: Span,
    *,
    settings: Settings | None = None,
    target: Target = DEFAULT_TARGET,
    slice_length: timedelta = SLICE_LENGTH,
    workers: int = WORKERS,
    resume: bool = True,
    stop: threading.Event | None = None,
    on_change: Callable[[SliceReport], None] = lambda report: None,
) -> BackfillResult:
    """Loads one range of time of all agents, in slices that are committed independently.

    Idempotent: conversations that are loaded and unchanged are skipped. Can run beside `load`,
    whose watermark does not change. Erasures that only the ledger has are applied first, as by
    `load`.

    Args:
        span: The range.
        settings: Agents, and how to read them; an agent's requests in flight are shared among its
            slices. Default: `resolve()`.
        target: The warehouse.
        slice_length: Length of a slice.
        workers: Concurrent slices, each in a process of its own; 1 for this process.
        resume: Skip conversations that are loaded and unchanged. If False, read all of them again.
        stop: When set, started slices commit what they have read, and no more are started.
        on_change: Called with the report of each slice, repeatedly until its end.

    Returns:
        One report per slice. A failed slice does not stop the others.

    Raises:
        ConfigurationError: A setting is missing or wrong, or the range is empty.
        PolyAIError: An erasure of the ledger cannot be applied.
    """
    stop = stop or threading.Event()
    settings = settings or resolve()
    if settings.forget_ledger:
        # imported here, because few warehouses have one
        from ..forgetting.reapply import apply_ledger

        apply_ledger(settings, target, stop)
    reports = run_slices(
        settings,
        target,
        span,
        slice_length=slice_length,
        workers=workers,
        again=not resume,
        stop=stop,
        on_change=on_change,
    )
    return BackfillResult(reports, stop.is_set())
