"""Callers that were erased from a warehouse, and the country of its numbers."""

from __future__ import annotations

from collections import Counter

from ..clock import in_utc
from ..shape.caller_identity import country_of
from ..shape.forgotten_callers import ForgottenCaller, ForgottenCallers
from ..tables.rules import OUTBOUND
from .queries import Warehouse

_NUMBERS_READ = 100
"""The agent's own numbers that are looked at; it has few."""


def forgotten_callers(
    warehouse: Warehouse, agent_id: str, phone_region: str = "", pii_secret: str = ""
) -> ForgottenCallers:
    """Returns the callers of an agent whose conversations were erased.

    Args:
        warehouse: The warehouse.
        agent_id: The agent.
        phone_region: As for `region_of`.
        pii_secret: The setting.
    """
    callers = stored_callers(warehouse, agent_id)
    region = region_of(warehouse, agent_id, phone_region) if callers else ""
    return ForgottenCallers(callers, region, pii_secret)


def stored_callers(warehouse: Warehouse, agent_id: str) -> list[ForgottenCaller]:
    """Returns the rows of `forgotten_callers` of an agent."""
    return [
        ForgottenCaller(
            row["caller_hash"],
            row["salt"],
            in_utc(row["requested_at"]),
            # a dry run may read a warehouse of version 0.1, without these columns
            row.get("method"),
            row.get("key_id"),
        )
        for row in warehouse.rows_by_column(
            "SELECT * FROM {forgotten_callers} WHERE agent_id = %s", agent_id
        )
    ]


def region_of(warehouse: Warehouse, agent_id: str, phone_region: str = "") -> str:
    """Returns the country of numbers without country code.

    Args:
        warehouse: The warehouse.
        agent_id: The agent.
        phone_region: The setting; if it is empty, the country of most of the agent's own numbers.

    Returns:
        Two letters; empty if the agent has no international number.
    """
    if phone_region:
        return phone_region
    own = warehouse.rows(
        "SELECT number, 1 FROM {phone_numbers} WHERE agent_id = %s", agent_id
    ) or warehouse.rows(
        f"SELECT CASE WHEN lower(direction) = '{OUTBOUND}' THEN from_number ELSE to_number END, "
        "count(*) FROM {conversations} WHERE agent_id = %s GROUP BY 1 "
        f"ORDER BY 2 DESC LIMIT {_NUMBERS_READ}",
        agent_id,
    )
    countries: Counter[str] = Counter()
    for number, count in own:
        if country := country_of(str(number or "")):
            countries[country] += count
    return countries.most_common(1)[0][0] if countries else ""
