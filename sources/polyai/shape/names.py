"""Rows of the tables of names: from the Agents API's answers, and compared with loaded ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
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
_NAMES: Mapping[Table, str] = {AGENTS: "agent_name", VARIANTS: "variant_name"}
"""Column whose replaced values go into `earlier_names`."""


def name_rows(table: Table, agent_id: str, items: Iterable[Json]) -> list[Json]:
    """Builds rows of a table of names; the first one of each key.

    Args:
        table: One of `registry.name_tables()`.
        agent_id: The agent, as configured.
        items: Objects as sent, redacted. One without an id has no row.
    """
    key = key_of(table)
    rows: dict[tuple[Any, ...], Json] = {}
    for item in items:
        row = {"agent_id": agent_id, **_row(table, item)}
        values = tuple(row[name] for name in key)
        if not {None, DROPPED} & set(values):
            rows.setdefault(values, row)
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


def _row(table: Table, item: Json) -> Json:
    rest = dict(item)
    row: Json = {"message": None} if table is DEPLOYMENTS else {}
    metadata = rest.get("metadata")
    if table is DEPLOYMENTS and isinstance(metadata, dict):
        rest["metadata"] = {
            name: value for name, value in metadata.items() if name != "deployment_message"
        }
        row |= _values(table, "message", metadata, "deployment_message", rest)
    for name, field in table.fields(_PREFIXES[table]).items():
        row |= _values(table, name, rest, field, rest)
    rest = {name: value for name, value in rest.items() if value not in (None, "", {})}
    return row | {"extra": rest or None}


def _values(table: Table, name: str, source: Json, field: str, rest: Json) -> Json:
    """Takes a field as the value of a column; one that does not fit its type goes into `rest`."""
    value = source.get(field)
    rest.pop(field, None)
    (declared,) = (each for each in table.columns if each.name == name)
    array, unfit = column([value], declared.type)
    if unfit:
        rest[field] = value
    return {name: array[0].as_py()}


def _with_history(table: Table, row: Json, old: Row | None, now: datetime) -> Json:
    """Adds the columns that the API does not send."""
    if old is None:
        return row
    row |= {"first_seen_at": old["first_seen_at"]}
    if name := _NAMES.get(table):
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
