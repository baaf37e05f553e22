"""Selection of days, agent, channel, environment and variant; its form in URLs and SQL."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta

PRESETS: Mapping[str, int] = {"7d": 7, "30d": 30, "90d": 90}
"""Lengths in days of periods up to today, by their name in a URL."""

CUSTOM = "custom"

FIELDS = ("agent", "channel", "environment", "variant")

_COLUMNS = {
    "agent": "agent_id",
    "channel": "channel",
    "environment": "environment",
    "variant": "variant_id",
}

LIVE = "live"
"""Default environment, as in PolyAI's own dashboards."""


@dataclass(frozen=True)
class Period:
    """Local dates from `since` to `until`, both inclusive."""

    since: date
    until: date

    @property
    def length(self) -> int:
        """Number of days."""
        return (self.until - self.since).days + 1

    @property
    def previous(self) -> Period:
        """The preceding period of the same length."""
        return Period(self.since - timedelta(self.length), self.since - timedelta(1))

    @property
    def dates(self) -> list[date]:
        """Days in order."""
        return [self.since + timedelta(offset) for offset in range(self.length)]


def ending(today: date, length: int) -> Period:
    """Returns the period of this number of days that ends today."""
    return Period(today - timedelta(length - 1), today)


@dataclass(frozen=True)
class Selection:
    """A period and filters; None is no filter.

    Attributes:
        period: The days.
        agent: agent_id.
        channel: Value of the views' column `channel`.
        environment: Value of the views' column `environment`.
        variant: variant_id.
    """

    period: Period
    agent: str | None = None
    channel: str | None = None
    environment: str | None = None
    variant: str | None = None

    def where(
        self, alias: str = "", *, period: Period | None = None, fields: tuple[str, ...] = FIELDS
    ) -> tuple[str, dict[str, object]]:
        """Returns a condition on a view's columns, and its parameters.

        Args:
            alias: Alias of the view in the query.
            period: Days that replace its own.
            fields: Filters to apply; the view must have their columns.
        """
        days = period or self.period
        prefix = f"{alias}." if alias else ""
        conditions = [f"{prefix}local_date BETWEEN $since AND $until"]
        values: dict[str, object] = {"since": days.since, "until": days.until}
        for field in fields:
            if (value := getattr(self, field)) is not None:
                conditions.append(f"{prefix}{_COLUMNS[field]} = ${field}")
                values[field] = value
        return " AND ".join(conditions), values

    @property
    def both(self) -> Period:
        """Its period together with the previous one."""
        return Period(self.period.previous.since, self.period.until)
