"""Write-backs as functions, for the commands, scripts and orchestrators."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa

from ..config.settings import Settings, resolve
from ..errors import BusyError, ConfigurationError
from ..load.report import no_op
from ..warehouse.target import DEFAULT_TARGET, Target
from .files import STDIN, read_records
from .query import query_records
from .report import WriteBacks
from .rows import Kind, Record, from_rows
from .run import PIPELINE_NAME, OnBegin, write_back


def annotate(
    rows: Any = None,
    *,
    file: str | None = None,
    query: str | None = None,
    settings: Settings | None = None,
    target: Target = DEFAULT_TARGET,
    dry_run: bool = False,
    stop: threading.Event | None = None,
    on_begin: OnBegin = no_op,
) -> WriteBacks:
    """Adds annotations to turns: `POST …/conversations/{conversationId}/annotation`.

    Idempotent: an annotation that PolyAI already has, or that was sent before, is not sent again.
    Exactly one of `rows`, `file` and `query` is needed.

    Args:
        rows: Mappings with conversation_id, turn_index (counted from 0), role (user or agent),
            annotation_type (missing_topic, wrong_transcript or wrong_info), and agent_id if
            several agents are configured; or a table that supports Arrow's stream interface
            (pandas, polars, DuckDB).
        file: Path of a CSV, JSON lines or Parquet file with these columns; `-` for standard input.
        query: A SELECT with these columns, in the SQL of the warehouse.
        settings: Agents. Default: `resolve()`.
        target: The warehouse.
        dry_run: Check the rows; send and write nothing.
        stop: When set, requests in flight finish and the run ends as interrupted.
        on_begin: Called with the report of each agent at its start; the counts are then updated in
            place.

    Returns:
        The result of each row. A rejected row does not stop the others.

    Raises:
        BusyError: Another run writes back from the same warehouse.
        ConfigurationError: A setting is missing or wrong, the file cannot be read, or no row has a
            required column.
        DestinationError: The warehouse cannot be read or written.
        LeaseLostError: Another machine has taken over this run's lease.
    """
    return send(
        "annotation",
        read(rows, file, query, target),
        settings=settings or resolve(),
        target=target,
        dry_run=dry_run,
        stop=stop,
        on_begin=on_begin,
    )


def note(
    rows: Any = None,
    *,
    file: str | None = None,
    query: str | None = None,
    settings: Settings | None = None,
    target: Target = DEFAULT_TARGET,
    overwrite: bool = False,
    dry_run: bool = False,
    stop: threading.Event | None = None,
    on_begin: OnBegin = no_op,
) -> WriteBacks:
    """Sets the notes of conversations: `POST …/conversations/{conversationId}/note`.

    Exactly one of `rows`, `file` and `query` is needed.

    Args:
        rows: As for `annotate`, with the columns conversation_id and note, and agent_id if several
            agents are configured.
        file: As for `annotate`, with these columns.
        query: As for `annotate`, with these columns.
        settings: Agents. Default: `resolve()`.
        target: The warehouse.
        overwrite: Also replace notes that are newer than the warehouse's.
        dry_run: Check the rows; send and write nothing.
        stop: As for `annotate`.
        on_begin: As for `annotate`.

    Returns:
        The result of each row. A rejected row does not stop the others.

    Raises:
        BusyError: Another run writes back from the same warehouse.
        ConfigurationError: A setting is missing or wrong, the file cannot be read, or no row has a
            required column.
        DestinationError: The warehouse cannot be read or written.
        LeaseLostError: Another machine has taken over this run's lease.
    """
    return send(
        "note",
        read(rows, file, query, target),
        settings=settings or resolve(),
        target=target,
        overwrite=overwrite,
        dry_run=dry_run,
        stop=stop,
        on_begin=on_begin,
    )


def read(rows: Any, file: str | None, query: str | None, target: Target) -> list[Record]:
    """Reads the rows to send from the one source that is given.

    Raises:
        ConfigurationError: No source or more than one is given, or the file cannot be read.
        DestinationError: There is no warehouse, or the query fails.
    """
    if [rows is None, file is None, query is None].count(False) != 1:
        raise ConfigurationError("exactly one of rows, file and query is needed")
    if query is not None:
        return query_records(query, target.destination, target.dataset)
    if file is not None:
        return read_records(file or STDIN)
    given: Iterable[Mapping[str, Any]] = rows
    if hasattr(rows, "__arrow_c_stream__"):
        given = pa.table(rows).to_pylist()
    return from_rows(given)


def send(
    kind: Kind,
    records: Sequence[Record],
    *,
    settings: Settings,
    target: Target,
    overwrite: bool = False,
    dry_run: bool = False,
    stop: threading.Event | None = None,
    on_begin: OnBegin = no_op,
) -> WriteBacks:
    """Sends rows that are already read; see `annotate` and `note`."""
    stop = stop or threading.Event()
    try:
        done = write_back(
            kind,
            records,
            settings,
            target.open(PIPELINE_NAME),
            overwrite=overwrite,
            dry_run=dry_run,
            stop=stop,
            on_begin=on_begin,
        )
    except BusyError:
        if not stop.is_set():
            raise
        done = WriteBacks([], [], [], dry_run)  # interrupted while it waited for the lock
    return replace(done, is_interrupted=stop.is_set())
