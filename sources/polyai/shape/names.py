"""Rows of the tables of names: from the Agents API's answers, and compared with loaded ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from ..api.decoding import decode
from ..clock import in_utc
from ..tables.declaration import LOAD_ID, Table
from ..tables.names import AGENTS, DEPLOYMENTS, PHONE_NUMBERS, VARIANTS
from ..tables.registry import key_of
from ..tables.rules import DROPPED
from .values import column

Row = Mapping[str, Any]
Json = dict[str, Any]

_PREFIXES: Mapping[Table, str] = {
    AGENTS: "agents[].",
    DEPLOYMENTS: "deployments[].",
    VARIANTS: "variants[].",
    PHONE_NUMBERS: "phoneNumbers[].",
}
_EMPTY: tuple[object, ...] = (None, "", {})
"""Values that `extra` leaves out."""

_NAMES: Mapping[Table, str] = {
    AGENTS: "agent_name",
    DEPLOYMENTS: "message",
    VARIANTS: "variant_name",
}
"""Column of the name that a person reads."""


def name_rows(table: Table, agent_id: str, items: Iterable[Json]) -> list[Json]:
    """Builds rows of a table of names; the first one of each key.

    Args:
        table: One of `registry.name_tables()`.
        agent_id: The agent, as configured.
        items: Objects as sent, redacted. One without an id has no row.
    """
    rest = [dict(item) for item in items]
    columns: dict[str, list[Any]] = {}
    if table is DEPLOYMENTS:
        metadata = [_copy_object(item, "metadata") for item in rest]
        columns["message"] = _taken(table, "message", metadata, "deployment_message")
    for name, field in table.fields(_PREFIXES[table]).items():
        columns[name] = _taken(table, name, rest, field)
    rows = _unique_rows(table, agent_id, columns)
    for position, row in rows.items():
        extra = {name: value for name, value in rest[position].items() if value not in _EMPTY}
        row["extra"] = extra or None
    return list(rows.values())


def changed_rows(
    table: Table, rows: Iterable[Json], loaded: Iterable[Row], now: datetime
) -> list[Json]:
    """Returns the rows that are new or differ from the loaded ones, with their history.

    Args:
        table: Table of the rows.
        rows: Rows of `name_rows`.
        loaded: Rows of the agent as the destination returns them.
        now: Time of the load.
    """
    key = key_of(table)
    known = {tuple(row[name] for name in key): _decoded(table, row) for row in loaded}
    found = (
        (known.get(tuple(row[name] for name in key)), row | {"first_seen_at": now}) for row in rows
    )
    return [new for old, row in found if (new := _with_history(table, row, old, now)) != old]


def with_given_names(
    table: Table,
    agent_id: str,
    rows: Iterable[Json],
    loaded: Iterable[Row],
    names: Mapping[str, str],
) -> list[Json]:
    """Returns rows in which names given by hand take the place of those that were read.

    Args:
        table: Table of the rows.
        agent_id: The agent.
        rows: Rows of `name_rows`.
        loaded: Rows of the agent as the destination returns them, for ids that were not read.
        names: Names by id.
    """
    key, name_column = key_of(table)[-1], _NAMES[table]
    found = {row[key]: row for row in rows}
    known = {row[key]: _decoded(table, row) for row in loaded} | found
    for id_, name in names.items():
        row = known.get(id_) or _without_values(table) | {"agent_id": agent_id, key: id_}
        found[id_] = row | {name_column: name}
    return list(found.values())


def _without_values(table: Table) -> Json:
    return {column.name: None for column in table.columns if column.name != LOAD_ID}


def _copy_object(item: Json, field: str) -> Json:
    """Replaces an object in a field by a copy, and returns it; an empty one if there is none."""
    found = item.get(field)
    if not isinstance(found, dict):
        return {}
    item[field] = copy = dict(found)
    return copy


def _taken(table: Table, name: str, items: Sequence[Json], field: str) -> list[Any]:
    """Moves a field out of the items into the values of a column, unless it does not fit."""
    (declared,) = (each for each in table.columns if each.name == name)
    array, unfit = column([item.pop(field, None) for item in items], declared.type)
    for position, value in unfit.items():
        items[position][field] = value
    values: list[Any] = array.to_pylist()
    return values


def _unique_rows(table: Table, agent_id: str, columns: Mapping[str, list[Any]]) -> dict[int, Json]:
    """Returns rows by position: the first one of each key, none without an id."""
    key = key_of(table)
    names = ("agent_id", *columns)
    rows: dict[tuple[Any, ...], tuple[int, Json]] = {}
    for position, values in enumerate(zip(*columns.values())):
        row = dict(zip(names, (agent_id, *values)))
        found = tuple(row[name] for name in key)
        if not {None, DROPPED} & set(found):
            rows.setdefault(found, (position, row))
    return dict(rows.values())


def _with_history(table: Table, row: Json, old: Row | None, now: datetime) -> Json:
    """Adds the columns that the API does not send."""
    if old is None:
        return row
    row |= {"first_seen_at": old["first_seen_at"]}
    if "earlier_names" in old:
        name = _NAMES[table]
        row["earlier_names"] = earlier = old["earlier_names"]
        if old[name] is not None and old[name] != row[name]:
            replaced = {"name": old[name], "until": now.isoformat()}
            row["earlier_names"] = [*(earlier or ()), replaced]
    return row


def _decoded(table: Table, row: Row) -> Json:
    """Returns a loaded row as `name_rows` would build it."""
    return dict(_decoded_columns(table, row))


def _decoded_columns(table: Table, row: Row) -> Iterator[tuple[str, Any]]:
    for each in table.columns:
        value = row[each.name]
        if each.type == "timestamp":
            value = in_utc(value)
        elif each.type == "json" and isinstance(value, str):
            value = decode(value.encode())
        if each.name != LOAD_ID:
            yield each.name, value
