"""The destination as the state of the load: what is held, what failed, what is due."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dlt
from dlt.common.configuration.exceptions import ConfigurationException
from dlt.common.destination import Destination
from dlt.common.exceptions import DltException
from dlt.destinations.exceptions import DatabaseUndefinedRelation
from dlt.pipeline.exceptions import PipelineStepFailed

from .answers import Held, NoteVersion
from .errors import ConfigurationError, DestinationError, PolyAIError

PIPELINE_NAME = "polyai"
DATASET_NAME = "polyai"

IDS_A_QUERY = 1_000
"""Ids in one `IN` list; every destination takes that many."""


@dataclass(frozen=True)
class Failure:
    """An open row of `fetch_failures`."""

    attempts: int
    first_failed_at: datetime


_DUCKDB_CONFIG = {"threads": 1}
"""DuckDB loads beside the threads that fetch: one of its own costs a quarter less CPU and memory
than one a core. A `global_config` of the user's own goes before it."""


_DUCKDB_LOAD_WORKERS = 1
"""Tables that are loaded at once: each needs memory, and DuckDB takes them one by one anyway."""


def open_pipeline(
    destination: str | Destination[Any, Any] | None = None,
    dataset: str | None = None,
    pipelines_dir: str | Path | None = None,
) -> dlt.Pipeline:
    """The dlt pipeline that loads the warehouse; nothing is connected yet.

    The DuckDB file is `polyai.duckdb` in the working directory unless dlt's configuration says
    otherwise. DuckDB names a database after its file, and refuses `polyai.conversations` as
    ambiguous where both the database and a schema are called `polyai`. So in a file of the
    dataset's own name the tables live in its `main` schema; there `polyai.conversations` means the
    same, and in every other file the schema is the dataset.

    Args:
        destination: dlt's name of it, or one of `dlt.destinations`; by default dlt's
            setting `destination_type`, else `duckdb`.
        dataset: Its dataset, `polyai` by default.
        pipelines_dir: Working directory; by default `.dlt/pipelines`, so that two folders with a
            warehouse each never load each other's pending packages.

    Raises:
        ConfigurationError: The destination is unknown or not configured.
    """
    # a signal ends a run between two conversations, not in the middle of dlt's steps
    dlt.config["runtime.intercept_signals"] = False
    # dlt would keep a copy of every conversation beside the warehouse
    dlt.config["load.delete_completed_jobs"] = True
    name = dataset or DATASET_NAME
    try:
        pipeline = dlt.pipeline(
            PIPELINE_NAME,
            pipelines_dir=str(pipelines_dir or Path(".dlt", "pipelines").resolve()),
            destination=destination or dlt.config.get("destination_type", str) or "duckdb",
            dataset_name=name,
        )
        if pipeline.destination.destination_type == "dlt.destinations.duckdb":
            credentials: Any = pipeline.destination_client().config.credentials
            if dlt.config.get("load.workers") is None:
                dlt.config["load.workers"] = _DUCKDB_LOAD_WORKERS
            credentials.global_config = _DUCKDB_CONFIG | (credentials.global_config or {})
            pipeline = dlt.pipeline(
                PIPELINE_NAME,
                pipelines_dir=pipeline.pipelines_dir,
                destination=dlt.destinations.duckdb(credentials),
                dataset_name="main" if Path(str(credentials.database)).stem == name else name,
            )
    except (DltException, ConfigurationException, ImportError) as error:
        raise ConfigurationError(f"destination: {_first_line(error)}") from error
    return pipeline


_DONE_BY_DESTINATION = {"load": "did not take the load", "sync": "cannot be opened"}


@contextmanager
def destination_errors() -> Iterator[None]:
    """Turns what dlt raises for a destination that cannot be used into one clear line."""
    try:
        yield
    except PipelineStepFailed as error:
        cause = _root_cause(error)
        if isinstance(cause, (PolyAIError, KeyboardInterrupt)):
            raise cause from None
        if error.step not in _DONE_BY_DESTINATION:
            raise
        raise DestinationError(
            f"the destination {_DONE_BY_DESTINATION[error.step]}: {_first_line(cause)}"
        ) from error
    except (DltException, OSError) as error:
        raise DestinationError(
            f"the destination cannot be used: {_first_line(_root_cause(error))}"
        ) from error


@contextmanager
def owner_only() -> Iterator[None]:
    """Files and folders that are made meanwhile are for their owner alone."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


KEPT_PACKAGES = 10
"""Records of loaded packages that stay in the working directory, for a look at what went wrong."""


def forget_loaded_packages(pipeline: dlt.Pipeline) -> None:
    """Removes older records of loaded packages, which dlt keeps for ever: some 100 KB each."""
    loaded = sorted(pipeline.list_completed_load_packages())
    for load_id in loaded[:-KEPT_PACKAGES]:
        shutil.rmtree(Path(pipeline.working_dir, "load", "loaded", load_id), ignore_errors=True)


def _root_cause(error: BaseException) -> BaseException:
    cause = error
    while (deeper := cause.__cause__ or cause.__context__) is not None:
        cause = deeper
    return cause


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), repr(error))


class Warehouse:
    """Reads of one destination dataset what a load has to know, a bounded part at a time.

    A conversation counts as held once the load package that wrote it is complete: after a run
    that was killed between two tables it is read again, also on another machine.
    """

    def __init__(self, pipeline: dlt.Pipeline) -> None:
        self.pipeline = pipeline

    def newest_created_at(self, agent_id: str) -> datetime | None:
        """When the newest held conversation of the agent was created; None where none is held."""
        rows = self._rows(
            "SELECT max(coalesce(created_at, started_at)) FROM {conversations} WHERE agent_id = %s "
            f"AND {_COMPLETE}",
            agent_id,
        )
        newest = rows[0][0] if rows else None
        return newest.astimezone(UTC) if newest is not None else None

    def held(self, agent_id: str, conversation_ids: Sequence[str]) -> dict[str, Held]:
        """What is held of these conversations, by id."""
        found: dict[str, Held] = {}
        for ids, marks in _in_parts(conversation_ids):
            for conversation_id, *values in self._rows(
                "SELECT conversation_id, summary_hash, in_progress, num_turns, num_silences, "
                "num_ood, poly_score, poly_score_scale, note FROM {conversations} "
                f"WHERE agent_id = %s AND conversation_id IN ({marks}) AND {_COMPLETE}",
                agent_id,
                *ids,
            ):
                found[conversation_id] = Held(*values)
        return found

    def in_progress(self, agent_id: str) -> list[tuple[str, str]]:
        """Id and summary hash of each held conversation that had not ended when it was read."""
        return [
            (row[0], row[1] or "")
            for row in self._rows(
                "SELECT conversation_id, summary_hash FROM {conversations} WHERE agent_id = %s "
                f"AND in_progress AND {_COMPLETE} ORDER BY created_at",
                agent_id,
            )
        ]

    def open_failures(self, agent_id: str) -> dict[str, Failure]:
        """Conversations whose detail could not be read so far, by id."""
        return {
            conversation_id: Failure(attempts, first_failed_at.astimezone(UTC))
            for conversation_id, attempts, first_failed_at in self._rows(
                "SELECT conversation_id, attempts, first_failed_at FROM {fetch_failures} "
                "WHERE agent_id = %s AND stage = 'detail' AND resolved_at IS NULL",
                agent_id,
            )
        }

    def note_histories(
        self, agent_id: str, conversation_ids: Sequence[str]
    ) -> dict[str, list[NoteVersion]]:
        """The held versions of these conversations' notes, oldest first, by id."""
        histories: dict[str, list[NoteVersion]] = {}
        for ids, marks in _in_parts(conversation_ids):
            for conversation_id, note, valid_from, valid_to in self._rows(
                "SELECT conversation_id, note, valid_from, valid_to FROM {notes} "
                f"WHERE agent_id = %s AND conversation_id IN ({marks}) ORDER BY valid_from",
                agent_id,
                *ids,
            ):
                histories.setdefault(conversation_id, []).append(
                    NoteVersion(
                        note,
                        valid_from.astimezone(UTC),
                        valid_to.astimezone(UTC) if valid_to else None,
                    )
                )
        return histories

    def count_rows(self, table: str) -> int:
        """Rows of a table, 0 where it does not exist yet."""
        rows = self._rows(f"SELECT count(*) FROM {{{table}}}")
        return int(rows[0][0]) if rows else 0

    def _rows(self, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Runs a query with qualified table names; nothing where a table does not exist yet."""
        with destination_errors():
            client = self.pipeline.sql_client()
            tables = _QualifiedNames(client)
            try:
                with client, client.execute_query(sql.format_map(tables), *parameters) as cursor:
                    return list(cursor.fetchall())
            except DatabaseUndefinedRelation:
                return []


_COMPLETE = "_dlt_load_id IN (SELECT load_id FROM {_dlt_loads} WHERE status = 0)"


class _QualifiedNames(dict[str, str]):
    """Resolves `{table}` in a query to the name that the destination knows it by."""

    def __init__(self, client: Any) -> None:
        super().__init__()
        self._client = client

    def __missing__(self, table: str) -> str:
        return str(self._client.make_qualified_table_name(table))


def _in_parts(ids: Sequence[str]) -> Iterator[tuple[Sequence[str], str]]:
    """The ids in parts, with as many placeholders as each has."""
    for start in range(0, len(ids), IDS_A_QUERY):
        part = ids[start : start + IDS_A_QUERY]
        yield part, ", ".join(["%s"] * len(part))
