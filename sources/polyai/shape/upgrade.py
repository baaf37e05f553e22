"""Rows of an earlier version in the columns of this one, from what the rows already hold.

An earlier version kept in `extra` what had no column yet. Pure and idempotent: rows that are
upgraded already come out as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from ..api.decoding import decode
from ..tables.children import ANNOTATIONS, FUNCTION_EVENTS
from ..tables.declaration import LOAD_ID, Column, Table
from ..tables.turns import TURNS
from .batch import Batch
from .llm_requests import llm_requests
from .merge_held import for_arrow
from .values import column

Row = Mapping[str, Any]

UPGRADED: Mapping[Table, str] = {
    TURNS: "turns[].",
    FUNCTION_EVENTS: "functionEvents{}[].",
    ANNOTATIONS: "turns[].reviews[].",
}
"""Tables whose `extra` may hold values of columns added since, with the path of their rows."""

_NESTED = {"asr_corrected_user_input": "metadata"}
"""Columns added since that take the field of the same name of a JSON column."""


def upgraded(table: Table, rows: Sequence[Row]) -> pa.Table | None:
    """Moves values from `extra` and JSON columns into their own columns.

    Args:
        table: One of `UPGRADED`.
        rows: Rows as the destination returns them, JSON columns as text or decoded.

    Returns:
        All rows, in the exact Arrow schema of the table; None if none has such a value.
    """
    columns = {field: name for name, field in table.fields(UPGRADED[table]).items()}
    extras = [_decoded(row["extra"]) or {} for row in rows]
    values: dict[str, dict[int, Any]] = {}
    for index, (row, extra) in enumerate(zip(rows, extras)):
        for field in columns.keys() & extra.keys():
            if row[columns[field]] is None:
                values.setdefault(columns[field], {})[index] = extra.pop(field)
        for name, source in _NESTED.items():
            if row.get(source) is None or row[name] is not None:
                continue
            nested = _decoded(row[source])
            if isinstance(nested, dict) and nested.get(name) not in (None, ""):
                values.setdefault(name, {})[index] = nested[name]
    if not values:
        return None
    arrays = {}
    fields = {name: field for field, name in columns.items()}
    for declared in table.columns:
        moved = values.get(declared.name, {})
        array, unfit = _column(declared, [row[declared.name] for row in rows], moved)
        for index, value in unfit.items():
            extras[index][fields.get(declared.name, declared.name)] = value
        arrays[declared.name] = array
    arrays["extra"], _ = column([extra or None for extra in extras], "json")
    return pa.Table.from_pydict(arrays, schema=table.arrow_schema)


def upgraded_llm_requests(agent_id: str, turns: Sequence[Row]) -> pa.Table | None:
    """Builds the rows of `llm_requests` from loaded rows of `turns`.

    Args:
        agent_id: Agent of all turns.
        turns: Rows as the destination returns them.

    Returns:
        The rows, with the load packages of their turns; None if there are none.
    """
    sent = [{"llm_requests": _decoded(turn["llm_requests"])} for turn in turns]
    keys = [(turn["conversation_id"], turn["turn_index"]) for turn in turns]
    rows = llm_requests(Batch(agent_id, "", "", ()), sent, keys)
    if not rows.num_rows:
        return None
    packages = {turn["conversation_id"]: turn[LOAD_ID] for turn in turns}
    load_ids = [packages[owner] for owner in rows["conversation_id"].to_pylist()]
    position = rows.schema.get_field_index(LOAD_ID)
    return rows.set_column(position, rows.schema.field(LOAD_ID), pa.array(load_ids, pa.string()))


def _decoded(value: Any) -> Any:
    return decode(value.encode()) if isinstance(value, str) else value


def _column(
    declared: Column, loaded: Sequence[Any], moved: Mapping[int, Any]
) -> tuple[pa.Array, Mapping[int, Any]]:
    """Builds a column of loaded and moved values, and returns those that do not fit its type."""
    array, unfit = column(list(moved.values()), declared.type)
    fitting = dict(zip(moved, array.to_pylist()))
    values = [
        fitting.get(index) if value is None else for_arrow(value, array.type)
        for index, value in enumerate(loaded)
    ]
    indexes = list(moved)
    return pa.array(values, array.type), {indexes[place]: value for place, value in unfit.items()}
