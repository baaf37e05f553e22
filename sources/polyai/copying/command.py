"""Copy of a warehouse as a function, for the command, scripts and orchestrators."""

from __future__ import annotations

import threading
from datetime import timedelta

from ..config.settings import shared_setting
from ..warehouse.open import open_pipeline
from ..warehouse.read_only import open_to_read
from ..warehouse.target import DEFAULT_TARGET, Target
from . import run
from .run import PIPELINE_NAME, SOURCE_PIPELINE_NAME, Copy, OnPart


def copy(
    to: str,
    *,
    to_dataset: str | None = None,
    wait: timedelta | None = None,
    target: Target = DEFAULT_TARGET,
    stop: threading.Event | None = None,
    on_part: OnPart | None = None,
) -> Copy:
    """Copies the warehouse to another destination, without asking PolyAI, and compares both sides.

    Copies all tables, and dlt's own, so that the next load there requests what has changed and
    nothing else. A run that was killed is continued by the next one, which also brings an earlier
    copy up to date.

    Args:
        to: dlt's name of the destination to copy to. Give it a name of its own if both are of the
            same type: `archive`, with `DESTINATION__ARCHIVE__DESTINATION_TYPE=duckdb`.
        to_dataset: Dataset there. Default: that of the warehouse.
        wait: How long to wait for other runs; no other run may write to either side meanwhile.
            Default: the setting `lock_wait`.
        target: The warehouse to copy.
        stop: When set, the run ends before the next part.
        on_part: Called after each part with the number of conversations that are done, and of all.

    Returns:
        The comparison of each table.

    Raises:
        BusyError: Another run writes to the warehouse or the destination.
        ConfigurationError: A destination is unknown, refused or not configured; both are the same;
            or the other one already holds another warehouse.
        DestinationError: There is no warehouse, or a destination cannot be read or written.
        LeaseLostError: Another machine has taken over this run's lease.
    """
    dataset = to_dataset or target.dataset
    destination = open_pipeline(to, dataset, target.pipelines_dir, PIPELINE_NAME)
    with open_to_read(target.destination, target.dataset):
        pass  # raises an error if there is no file, which would be created otherwise
    return run.copy(
        target.open(SOURCE_PIPELINE_NAME),
        destination,
        lock_wait=shared_setting("lock_wait") if wait is None else wait,
        stop=stop,
        on_part=on_part,
    )
