"""Rows of the audit tables, `sync_runs` and `fetch_failures`, as Arrow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import pyarrow as pa

from ..errors import ApiError
from ..tables.declaration import LOAD_ID, Table
from .values import cells, column

Stage = Literal["detail", "recording", "stale_detail", "listing"]
"""Request that failed: `stage` of `fetch_failures`.

`stale_detail`: the detail was loaded, but is older than its list row. `listing`: a list row has no
id, and its hash takes the place of the conversation id.
"""


@dataclass(frozen=True)
class Failure:
    """An open row of `fetch_failures`."""

    attempts: int
    first_failed_at: datetime
    last_failed_at: datetime


def audit_table(table: Table, rows: Sequence[Mapping[str, Any]], load_id: str) -> pa.Table:
    """Builds the Arrow table of rows by column name; missing columns become NULL.

    Args:
        table: The declaration.
        rows: Rows with times as `datetime` and JSON columns as objects.
        load_id: dlt load package of the rows.
    """
    arrays = []
    for declared in table.columns:
        values: list[Any] = [row.get(declared.name) for row in rows]
        if declared.name == LOAD_ID:
            values = [load_id] * len(rows)
        if declared.type == "timestamp":
            values = [value.isoformat() if value else None for value in values]
        # a few rows, for which Arrow's functions need not be imported
        convert = column if declared.type == "json" else cells
        arrays.append(convert(values, declared.type)[0])
    return pa.Table.from_arrays(arrays, schema=table.arrow_schema)


def failure_row(
    agent_id: str,
    conversation_id: str,
    open_: Failure | None,
    now: datetime,
    error: ApiError | None,
    *,
    is_over: bool,
    stage: Stage = "detail",
) -> dict[str, Any]:
    """Builds a row of `fetch_failures`.

    Args:
        agent_id: The agent.
        conversation_id: The conversation.
        open_: Open failure of the conversation; None where there is none yet.
        now: Time of the request.
        error: Error of the request; None for success.
        is_over: Whether the failure is resolved, so that nothing is left to retry.
        stage: Request that failed.
    """
    row = {
        "agent_id": agent_id,
        "conversation_id": conversation_id,
        "stage": stage,
        "attempts": (open_.attempts if open_ else 0) + (error is not None),
        "first_failed_at": open_.first_failed_at if open_ else now,
        "last_failed_at": now,
        "resolved_at": now if is_over else None,
    }
    if error is None:
        return row | {"message": "read after all"}
    return row | {
        "http_status": error.status,
        "error_code": error.error_code,
        "error_id": error.error_id,
        "message": str(error),
    }
