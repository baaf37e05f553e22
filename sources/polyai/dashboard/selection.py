"""What is looked at: days, agent, channel, environment and variant, as a URL and SQL tell them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta

PRESETS: Mapping[str, int] = {"7d": 7, "30d": 30, "90d": 90}
"""Periods up to today by their name in a URL, with their days."""

CUSTOM = "custom"

FIELDS = ("agent", "channel", "environment", "variant")

_COLUMNS = {
    "agent": "agent_id",
    "channel": "channel",
    "environment": "environment",
    "variant": "variant_id",
}

LIVE = "live"
"""The environment that is looked at unless another one is chosen, as in PolyAI's dashboards."""


@dataclass(frozen=True)
class Period:
    """Local dates from `since` to `until`, both included."""

    since: date
    until: date

    @property
    def length(self) -> int:
        """Days."""
        return (self.until - self.since).days + 1

    @property
    def previous(self) -> Period:
        """The period of the same length before it."""
        return Period(self.since - timedelta(self.length), self.since - timedelta(1))

    @property
    def dates(self) -> list[date]:
        """Each day of it."""
        return [self.since + timedelta(number) for number in range(self.length)]


def ending(today: date, length: int) -> Period:
    """The period of so many days that ends today."""
    return Period(today - timedelta(length - 1), today)


@dataclass(frozen=True)
class Selection:
    """A period, and one of each or all where it is None.

    Attributes:
        period: The days.
        agent: agent_id.
        channel: As the views tell it.
        environment: As the views tell it.
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
        """A condition on a view's columns, and its parameters.

        Args:
            alias: The view's, where the query has others too.
            period: Other days than its own.
            fields: Those of the filters that the view has columns for.
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
        """Its period and the one before, in one."""
        return Period(self.period.previous.since, self.period.until)
