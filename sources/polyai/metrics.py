"""Metrics: names of the customer's own, values in each of the shapes that both APIs send."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from . import tables
from .answers import Json
from .batch import Batch
from .values import NUMBER, UnfitError, text, timestamp

_BOOLEANS = {"true": True, "false": False}


def metrics(batch: Batch) -> pa.Table:
    """One row a value; a name that was written more than once has several."""
    owners: list[str] = []
    names: list[str] = []
    occurrences: list[int] = []
    values: list[str | None] = []
    moments: list[Any] = []
    for row, (answer, by_name) in enumerate(zip(batch.answers, batch.mapped("metrics"))):
        for name, written in by_name.items():
            for occurrence, item in enumerate(written if isinstance(written, list) else [written]):
                is_stamped = isinstance(item, dict) and "value" in item
                moment = item.get("timestamp") if is_stamped else None
                if is_stamped and not _holds(item, moment):
                    kept = batch.spilled.setdefault(row, {}).setdefault("metrics", {})
                    kept.setdefault(name, []).append(item)
                owners.append(answer.conversation_id)
                names.append(name)
                occurrences.append(occurrence)
                values.append(text(item["value"] if is_stamped else item))
                moments.append(moment)
    given = {
        "name": pa.array(names, pa.string()),
        "occurrence": occurrences,
        "value": values,
        "value_number": [_finite(value) for value in values],
        "value_boolean": [_BOOLEANS.get(value.lower()) if value else None for value in values],
        "recorded_at": moments,
    }
    return batch.table(tables.METRICS, owners, given)


def _holds(item: Json, moment: Any) -> bool:
    """Whether the columns of `metrics` hold all of a stamped value."""
    if len(item) > 2 or (len(item) == 2 and "timestamp" not in item):
        return False
    if isinstance(moment, str) and moment[:2] == "20":
        return True
    try:
        timestamp(moment)
    except UnfitError:
        return False
    return True


def _finite(value: str | None) -> float | None:
    if value is None or not NUMBER.fullmatch(value):
        return None
    as_number = float(value)
    return as_number if abs(as_number) != float("inf") else None
