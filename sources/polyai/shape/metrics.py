"""Metrics: customer-defined names, with values in the shapes of both APIs."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from ..tables import children
from .answer import Json
from .batch import Batch
from .values import NUMBER, column, text

_BOOLEANS = {"true": True, "false": False}
_LONGEST_BOOLEAN = max(map(len, _BOOLEANS))
_STAMPED = frozenset({"value", "timestamp"})


def metrics(batch: Batch) -> pa.Table:
    """Builds one row per value; a metric written more than once has several."""
    owners: list[str] = []
    names: list[str] = []
    occurrences: list[int] = []
    values: list[str | None] = []
    moments: list[Any] = []
    stamped: dict[int, tuple[int, str, Json]] = {}
    for row, (answer, by_name) in enumerate(zip(batch.answers, batch.objects("metrics"))):
        for name, written in by_name.items():
            for occurrence, item in enumerate(written if isinstance(written, list) else [written]):
                is_stamped = isinstance(item, dict) and "value" in item
                if is_stamped:
                    stamped[len(owners)] = row, name, item
                owners.append(answer.conversation_id)
                names.append(name)
                occurrences.append(occurrence)
                values.append(text(item["value"] if is_stamped else item))
                moments.append(item.get("timestamp") if is_stamped else None)
    recorded_at, unfit = column(moments, "timestamp")
    for index, (row, name, item) in stamped.items():
        if index in unfit or not item.keys() <= _STAMPED:
            kept = batch.leftovers.setdefault(row, {}).setdefault("metrics", {})
            kept.setdefault(name, []).append(item)
    given = {
        "name": pa.array(names, pa.string()),
        "occurrence": occurrences,
        "value": values,
        "value_number": list(map(value_number, values)),
        "value_boolean": list(map(value_boolean, values)),
        "recorded_at": recorded_at,
    }
    return batch.table(children.METRICS, owners, given)


def value_boolean(value: str | None) -> bool | None:
    """Returns the boolean that a value is; None for none."""
    return _BOOLEANS.get(value.lower()) if value and len(value) <= _LONGEST_BOOLEAN else None


def value_number(value: str | None) -> float | None:
    """Returns the finite number that a value is; None for none."""
    # no letter begins a number, and most values are words
    if not value or value[0].isalpha() or not NUMBER.fullmatch(value):
        return None
    as_number = float(value)
    return as_number if abs(as_number) != float("inf") else None
