"""Totals over several days: rates are computed from sums, never averaged."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

RED_SECONDS = 3
RED_ERRORS = 0.05
"""PolyAI's own thresholds for turn latency, and for the error rate of functions."""


@dataclass(frozen=True)
class Totals:
    """Sums of columns of `kpi_daily`, and the rates computed from them."""

    conversations: int = 0
    finished_conversations: int = 0
    handed_off_conversations: int = 0
    contained_conversations: int = 0
    contained_excl_abandoned_conversations: int = 0
    timed_conversations: int = 0
    handle_time_seconds_sum: float = 0.0
    scored_conversations_1_5: int = 0
    poly_score_1_5_sum: float = 0.0
    scored_conversations_0_10: int = 0
    poly_score_0_10_sum: float = 0.0
    csat_offers: int = 0
    csat_answers: int = 0
    csat_score_sum: float = 0.0

    @property
    def containment_rate(self) -> float | None:
        return _ratio(self.contained_conversations, self.finished_conversations)

    @property
    def containment_rate_excl_abandoned(self) -> float | None:
        return _ratio(self.contained_excl_abandoned_conversations, self.finished_conversations)

    @property
    def handoff_rate(self) -> float | None:
        return _ratio(self.handed_off_conversations, self.finished_conversations)

    @property
    def handle_time_seconds_mean(self) -> float | None:
        return _ratio(self.handle_time_seconds_sum, self.timed_conversations)

    @property
    def poly_score_1_5_mean(self) -> float | None:
        return _ratio(self.poly_score_1_5_sum, self.scored_conversations_1_5)

    @property
    def poly_score_0_10_mean(self) -> float | None:
        return _ratio(self.poly_score_0_10_sum, self.scored_conversations_0_10)

    @property
    def csat_mean(self) -> float | None:
        return _ratio(self.csat_score_sum, self.csat_answers)

    @property
    def csat_response_rate(self) -> float | None:
        return _ratio(self.csat_answers, self.csat_offers)


COLUMNS = tuple(field.name for field in fields(Totals))


def total(rows: Iterable[Mapping[str, Any]]) -> Totals:
    """Returns the totals of rows with these columns; NULL counts as 0."""
    sums: dict[str, Any] = dict.fromkeys(COLUMNS, 0)
    for row in rows:
        for name in COLUMNS:
            sums[name] += row[name] or 0
    return Totals(**sums)


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None
