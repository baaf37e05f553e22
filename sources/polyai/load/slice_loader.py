"""Loader of slices: time ranges of one agent each, into a destination that it keeps open."""

from __future__ import annotations

import logging
import sys
import threading
from contextlib import ExitStack
from typing import Any, Self

from ..clock import Clock, utc_now
from ..config.settings import Settings
from ..listing.landmarks import Landmarks
from ..locking.files import LockTimeout, free_pipeline_name
from ..warehouse.capabilities import advice_without_leases
from ..warehouse.held import BACKFILL_SCHEMA
from ..warehouse.open import BACKFILL_PIPELINE, open_pipeline, working_folder
from ..warehouse.target import Target
from .agent_reader import AgentReader
from .committer import Committer, open_committer
from .loop import LoadLoop, OnBegin
from .memory import fix_mmap_threshold
from .refetch import Span
from .report import RunReport, no_op
from .run import selected_tables

logger = logging.getLogger("polyai")

MAX_PIPELINES = 256
"""Limit of the loaders that use one folder of working directories at once."""


class SliceLoader:
    """Loads slices; the destination is opened for the first one and kept until the end.

    Any number of loaders may be used at once, beside each other and beside `load`, each with a
    working directory of its own: they take turns only to merge rows of the same days. The watermark
    of `load` does not move.

    Args:
        target: Destination.
        stop: Event that ends a slice as interrupted; what was read is still loaded.
        first_pipeline: Number of the first working directory to try.
    """

    def __init__(self, target: Target, stop: threading.Event, first_pipeline: int = 1) -> None:
        self._target = target
        self._stop = stop
        self._first_pipeline = first_pipeline
        self._opened = ExitStack()
        self._committer: Committer | None = None
        self._is_advised = False
        """True once the lack of leases was logged."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        self._committer = None
        self._opened.__exit__(*error)

    def load(
        self,
        settings: Settings,
        span: Span,
        *,
        again: bool = False,
        landmarks: Landmarks | None = None,
        on_begin: OnBegin = no_op,
        clock: Clock = utc_now,
    ) -> RunReport:
        """Loads one agent's conversations of a time range.

        After an error, the next slice opens the destination again, and what this one left in the
        working directory is discarded.

        Args:
            settings: One agent and how to read it.
            span: The range.
            again: Read listed conversations even if they have not changed.
            landmarks: Known positions in the Data API's listing, updated with each page.
            on_begin: Called with the report, whose counts are updated in place.
            clock: Injectable clock.

        Raises:
            BusyError: All working directories are in use.
            ConfigurationError: The agent lacks what the chosen API needs.
            DestinationError: The destination cannot be read or written.
            LeaseLostError: Another machine has taken over, because this one did not respond.
        """
        (agent,) = settings.agents
        try:
            committer = self._committer = self._committer or self._open(settings)
            reader = AgentReader(
                agent,
                settings,
                committer.warehouse,
                span=span,
                again=again,
                landmarks=landmarks,
                stop=self._stop,
                clock=clock,
            )
            loop = LoadLoop(committer, selected_tables(()), on_begin, self._stop)
            (report,) = loop.run([reader])
        except BaseException:
            self.__exit__(*sys.exc_info())
            raise
        return report

    def _open(self, settings: Settings) -> Committer:
        fix_mmap_threshold()
        target, folder = self._target, working_folder(self._target.pipelines_dir)
        name = self._opened.enter_context(
            free_pipeline_name(folder, BACKFILL_PIPELINE, self._first_pipeline, MAX_PIPELINES)
        )
        pipeline = open_pipeline(target.destination, target.dataset, folder, name)
        if not self._is_advised and (advice := advice_without_leases(pipeline)):
            logger.warning("%s", advice)
        self._is_advised = True
        timeout = LockTimeout(settings.lock_wait, self._stop)
        committer, _ = self._opened.enter_context(
            open_committer(pipeline, None, lambda: (), timeout, BACKFILL_SCHEMA)
        )
        return committer
