"""Privacy mode of what is loaded, compared with that of a run which is about to write."""

from __future__ import annotations

import logging

from ..config.settings import Settings
from ..errors import ConfigurationError
from ..shape.privacy_mode import PrivacyMode
from ..warehouse.privacy_modes import has_loads, privacy_modes
from ..warehouse.queries import Warehouse
from .report import RunReport

logger = logging.getLogger("polyai")


def enter_mode(warehouse: Warehouse, report: RunReport, settings: Settings) -> None:
    """Records the privacy mode of a run in its report, before it writes its first row.

    A warehouse of version 0.1 does not record its modes; that of the settings is taken for it.

    Raises:
        ConfigurationError: The warehouse has rows of another mode, and `accept_mixed` is not set.
    """
    agent_id, mode = report.agent_id, PrivacyMode.of(settings)
    _require_same(warehouse, agent_id, mode, is_mixed=settings.accept_mixed)
    report.pii, report.transcripts, report.pii_key = mode


def _require_same(
    warehouse: Warehouse, agent_id: str, mode: PrivacyMode, *, is_mixed: bool
) -> None:
    loaded = privacy_modes(warehouse, agent_id)
    if others := sorted(loaded - {mode}, key=str):
        if is_mixed:
            logger.warning("%s: mixed with rows of %s, as accepted", agent_id, _listed(others))
            return
        raise ConfigurationError(f"{_difference(agent_id, others, mode)}. {_advice(others, mode)}")
    if not loaded and has_loads(warehouse, agent_id):
        logger.warning(
            "%s: the warehouse does not record under which settings its rows were loaded: %s is "
            "taken for them. If they were loaded otherwise, run redact",
            agent_id,
            mode,
        )


def _difference(agent_id: str, others: list[PrivacyMode], mode: PrivacyMode) -> str:
    if any(other.has_other_secret(mode) for other in others):
        return f"rows of {agent_id} were loaded with another pii_secret than the one that is set"
    return f"rows of {agent_id} were loaded under {_listed(others)}, but {mode} is set"


def _advice(others: list[PrivacyMode], mode: PrivacyMode) -> str:
    mixed = "with --accept-mixed (POLYAI_ACCEPT_MIXED=true) rows of both are stored side by side"
    if all(other.can_become(mode) for other in others):
        return (
            "Run polyai-warehouse redact, which converts what is loaded, or set the former again; "
            f"{mixed}"
        )
    return (
        "What was hashed or dropped cannot be brought back: set the former again, or load into "
        f"another dataset (--dataset); {mixed}"
    )


def _listed(modes: list[PrivacyMode]) -> str:
    return " and under ".join(map(str, modes))
