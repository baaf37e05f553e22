"""Runs that read one API because the listing of the other one is gone: limits and their report."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus

from ..api.client import DataApi
from ..config.agent import V3
from ..errors import AccessError, ConversationError, RouteGoneError, UnavailableError
from ..warehouse.fallback import Count, last_count, missing_of, unlisted_environments
from ..warehouse.held import LoadState
from .report import RunReport

_NO_CONVERSATION = "none"
"""Id that no conversation has: the answer shows whether the API still offers details."""


def offers_details(api: DataApi | None, *, is_known: bool) -> bool:
    """Asks whether details can be read while the listing of the Data API is gone.

    Args:
        api: The agent's Data API.
        is_known: Whether the agent was loaded through it before. Then only a route that is gone
            means no: a key that is refused is an error of the run.
    """
    if api is None:
        return False
    try:
        api.detail(_NO_CONVERSATION)
    except RouteGoneError:
        return False
    except AccessError:
        return is_known
    except ConversationError as error:
        return is_known or error.status != HTTPStatus.FORBIDDEN
    except UnavailableError:
        return True
    return True


def note_limits(report: RunReport, warehouse: LoadState, environments: Sequence[str]) -> None:
    """Adds to the report what v3 may not list in place of the Data API.

    Args:
        report: Report of a run at its end.
        warehouse: State of the load.
        environments: Environments that v3 lists.
    """
    if report.replaced_api is None or report.source_api != V3:
        return
    agent_id = report.agent_id
    report.unlisted = unlisted_environments(warehouse, agent_id, environments)
    if report.range_from is not None:
        return
    if report.api_count is not None and report.counted_at is not None:
        count: Count | None = Count(report.api_count, report.counted_at)
    else:
        count = last_count(warehouse, agent_id, report.run_id)
    report.counted_missing = missing_of(
        warehouse,
        agent_id,
        count,
        erased=report.forgotten + report.too_old,
        absent=report.known_absent,
        pending=report.pending,
        excess=report.count_excess,
    )
