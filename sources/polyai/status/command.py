"""Status as a function, for the command, scripts and orchestrators."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from ..warehouse.read_only import WAIT, open_to_read
from ..warehouse.target import DEFAULT_TARGET, Target
from .collect import collect_status
from .report import Status


def status(
    *,
    agents: Sequence[str] = (),
    max_age: timedelta | None = None,
    quick: bool = False,
    wait: timedelta = WAIT,
    target: Target = DEFAULT_TARGET,
) -> Status:
    """Checks how fresh the warehouse is, how its runs ended, and whether its rows are consistent.

    Reads only the destination: no API key is needed and no request is sent.

    Args:
        agents: Only these agents. Default: all that are loaded or configured.
        max_age: Age of the last complete load above which an agent is stale.
        quick: Do not count or compare turns and rows, which reads whole tables.
        wait: How long to wait for a DuckDB file that another process is writing.
        target: The warehouse.

    Raises:
        BusyError: The DuckDB file stayed locked.
        ConfigurationError: An agent is unknown, or a setting is wrong.
        DestinationError: There is no warehouse, or the destination cannot be read.
    """
    with open_to_read(target.destination, target.dataset, wait=wait) as warehouse:
        return collect_status(warehouse, agent_ids=agents, max_age=max_age, quick=quick)
