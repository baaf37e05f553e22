"""The manifest: the rows of `recordings` as Parquet, in the store, beside the audio.

It is partitioned as the audio is, one file for each agent and day, which is replaced as a whole.
These two stand in the path alone, as Hive has it: readers differ on columns that stand in both.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import StoreError, first_line
from ..tables.audit import RECORDINGS
from ..tables.declaration import LOAD_ID
from .layout import partition
from .store import Incoming, Store

FOLDER = "manifest"
"""Apart from the audio, so that Spark and others can be pointed at a folder of Parquet alone."""

_FILE = "recordings.parquet"

_AT_ONCE = 8
"""Partitions that are written at once: a bucket takes its time for each."""

SCHEMA = pa.schema(
    field for field in RECORDINGS.arrow_schema if field.name not in ("agent_id", LOAD_ID)
)
"""Columns of a file; `agent_id` and `date` come from its path."""

_NEEDED = {"conversation_id", "direction", "redacted", "status", "started_at"}
"""Without these columns a file is none of ours."""

Key = tuple[str, str, bool]
"""What a row of a partition is known by: conversation_id, direction, redacted."""

Row = dict[str, Any]
"""A row of `recordings`, by column."""


def key_of(row: Mapping[str, Any]) -> Key:
    """What a row is known by, beside its agent."""
    return row["conversation_id"], row["direction"], row["redacted"]


class Manifest:
    """The rows of one agent's partitions.

    Args:
        store: Where the manifest is.
        incoming: Where its files are written first.
        agent_id: The agent.
    """

    def __init__(self, store: Store, incoming: Incoming, agent_id: str) -> None:
        self._store = store
        self._incoming = incoming
        self._agent_id = agent_id

    def read(self, folder: str) -> dict[Key, Row]:
        """The rows of a partition; see `read_partition`."""
        return read_partition(self._store, self._agent_id, folder)

    def add(self, rows: Iterable[Row]) -> None:
        """Adds rows to their partitions; they replace those that have the same key."""
        by_partition: dict[str, list[Row]] = {}
        for row in rows:
            by_partition.setdefault(partition(self._agent_id, row["started_at"]), []).append(row)
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="polyai-manifest") as pool:
            # to the end, so that an error is raised
            list(pool.map(self._add, by_partition, by_partition.values()))

    def _add(self, folder: str, rows: Sequence[Row]) -> None:
        held = self.read(folder)
        held.update((key_of(row), row) for row in rows)
        self.replace(folder, list(held.values()))

    def replace(self, folder: str, rows: Sequence[Row]) -> None:
        """Writes a partition's file anew; none is left where there are no rows."""
        if not rows:
            self._store.delete([manifest_path(folder)])
            return
        ordered = sorted(rows, key=key_of)
        table = pa.Table.from_pylist(
            [{name: row.get(name) for name in SCHEMA.names} for row in ordered], schema=SCHEMA
        )
        with self._incoming.file(".parquet") as draft:
            pq.write_table(table, draft, compression="zstd")
            self._store.put(draft, manifest_path(folder))


def read_partition(store: Store, agent_id: str, folder: str) -> dict[Key, Row]:
    """The rows of a partition; none where it has no file.

    Raises:
        StoreError: The file cannot be read, or is no Parquet.
    """
    try:
        body = b"".join(store.parts(manifest_path(folder)))
        table = pq.read_table(pa.BufferReader(body))
        # one that an older version wrote lacks columns
        if missing := _NEEDED - set(table.column_names):
            raise KeyError(f"it has no {', '.join(sorted(missing))}")
    except FileNotFoundError:
        return {}
    except (pa.ArrowException, OSError, KeyError) as error:
        uri, said = store.uri(manifest_path(folder)), first_line(error)
        raise StoreError(
            f"{uri} cannot be read ({said}): `recordings verify --refetch` writes it anew"
        ) from error
    rows = (
        {"agent_id": agent_id} | {name: row.get(name) for name in SCHEMA.names}
        for row in table.to_pylist()
    )
    return {key_of(row): row for row in rows}


def manifest_path(folder: str) -> str:
    """The manifest of a partition, by its path in the store."""
    return f"{FOLDER}/{folder}/{_FILE}"
