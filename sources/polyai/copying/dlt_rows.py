"""Rows of dlt's own tables: load packages, schemas, and states of pipelines."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import dlt
from dlt.common.versioned_state import compress_state, decompress_state
from dlt.pipeline.state_sync import generate_pipeline_state_version_hash

from ..clock import in_utc
from ..load.committer import Committer
from ..warehouse.queries import Warehouse

LOADS = "_dlt_loads"

_STATES = "_dlt_pipeline_state"

KEYS: Mapping[str, str] = {
    "_dlt_version": "version_hash",
    _STATES: "_dlt_load_id",
    LOADS: "load_id",
}
"""Column by which rows are replaced, by table. `_dlt_loads` is the last one, because it makes the
rows of the other tables count."""

_ROWS_PER_INSERT = 100

Row = tuple[tuple[str, Any], ...]
"""Values by column, in the order of the names."""


def rows_of(warehouse: Warehouse, table: str, columns: frozenset[str]) -> Counter[Row]:
    """Returns the rows of one of dlt's tables; none if it does not exist."""
    names = sorted(columns & (warehouse.existing_columns(table) or frozenset()))
    if not names:
        return Counter()
    selected = ", ".join(map(warehouse.name, names))
    found = warehouse.rows_by_column(f"SELECT {selected} FROM {{{table}}}")
    return Counter(tuple((name, _plain(row[name])) for name in names) for row in found)


def for_pipeline(rows: Counter[Row], table: str, pipeline: dlt.Pipeline) -> Counter[Row]:
    """Returns rows as a pipeline's destination has to have them.

    States name the destination and the dataset that they belong to.
    """
    if table != _STATES:
        return rows
    adapted: Counter[Row] = Counter()
    for row, count in rows.items():
        values = dict(row)
        state: Any = decompress_state(values["state"])
        state |= {
            "dataset_name": pipeline.dataset_name,
            "destination_type": pipeline.destination.destination_type,
            "destination_name": pipeline.destination.configured_name,
        }
        state["_version_hash"] = generate_pipeline_state_version_hash(state)
        values |= {"state": compress_state(state), "version_hash": state["_version_hash"]}
        adapted[tuple(values.items())] = count
    return adapted


def replace_rows(
    committer: Committer, table: str, found: Counter[Row], expected: Counter[Row]
) -> None:
    """Makes the rows of one of dlt's tables those that are expected; idempotent.

    Args:
        committer: Committer of the target.
        table: The table.
        found: Its rows.
        expected: The rows that it has to have.
    """
    key = KEYS[table]
    before, after = _by_key(found, key), _by_key(expected, key)
    changed = [name for name in {**before, **after} if before[name] != after[name]]
    with committer.statements() as client:
        name = client.make_qualified_table_name(table)
        for value in changed:
            if before[value]:
                column = client.escape_column_name(key)
                client.execute_sql(f"DELETE FROM {name} WHERE {column} = %s", value)
        rows = [dict(row) for value in changed for row in after[value].elements()]
        for begin in range(0, len(rows), _ROWS_PER_INSERT):
            _insert(client, name, rows[begin : begin + _ROWS_PER_INSERT])


def _insert(client: Any, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
    columns = list(rows[0])
    quoted = ", ".join(map(client.escape_column_name, columns))
    marks = ", ".join([f"({', '.join(['%s'] * len(columns))})"] * len(rows))
    values = [row[column] for row in rows for column in columns]
    client.execute_sql(f"INSERT INTO {name} ({quoted}) VALUES {marks}", *values)


def _by_key(rows: Counter[Row], key: str) -> defaultdict[Any, Counter[Row]]:
    grouped: defaultdict[Any, Counter[Row]] = defaultdict(Counter)
    for row, count in rows.items():
        grouped[dict(row)[key]][row] = count
    return grouped


def _plain(value: Any) -> Any:
    return in_utc(value) if isinstance(value, datetime) else value
