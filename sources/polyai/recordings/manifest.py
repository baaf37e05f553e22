"""The manifest: rows of `recordings` as Parquet in the store, beside the audio.

It is partitioned like the audio: one file per agent and day, which is replaced as a whole. Agent
and day are in the path only, as in Hive: readers differ on columns that are in both.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa

from ..errors import StoreError, first_line
from ..tables.audit import RECORDINGS
from ..tables.declaration import LOAD_ID
from ..warehouse.file_store import Incoming, Store
from .layout import partition

FOLDER = "manifest"
"""Separate from the audio, so that Spark and others can read a folder of Parquet only."""

_FILE = "recordings.parquet"

_AT_ONCE = 8
"""Partitions that are written in parallel: a bucket has a high latency."""

SCHEMA = pa.schema(
    field for field in RECORDINGS.arrow_schema if field.name not in ("agent_id", LOAD_ID)
)
"""Columns of a manifest file; `agent_id` and `date` come from its path."""

_NEEDED = {"conversation_id", "direction", "redacted", "status", "started_at"}
"""Columns without which a file is not a manifest."""

Key = tuple[str, str, bool]
"""Key of a row in its partition: conversation_id, direction, redacted."""

Row = dict[str, Any]
"""Row of `recordings`, by column."""


def key_of(row: Mapping[str, Any]) -> Key:
    """Key of a row among those of its agent."""
    return row["conversation_id"], row["direction"], row["redacted"]


class Manifest:
    """Manifest of one agent.

    Args:
        store: Store that has the manifest.
        incoming: Folder in which files are written first.
        agent_id: The agent.
    """

    def __init__(self, store: Store, incoming: Incoming, agent_id: str) -> None:
        self._store = store
        self._incoming = incoming
        self._agent_id = agent_id

    def read(self, folder: str) -> dict[Key, Row]:
        """Rows of a partition; see `read_partition`."""
        return read_partition(self._store, self._agent_id, folder)

    def add(self, rows: Iterable[Row]) -> None:
        """Upserts rows into their partitions."""
        by_partition: dict[str, list[Row]] = {}
        for row in rows:
            by_partition.setdefault(partition(self._agent_id, row["started_at"]), []).append(row)
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="polyai-manifest") as pool:
            # consumed, so that an error is raised
            list(pool.map(self._add, by_partition, by_partition.values()))

    def _add(self, folder: str, rows: Sequence[Row]) -> None:
        merged = self.read(folder)
        merged.update((key_of(row), row) for row in rows)
        self.replace(folder, list(merged.values()))

    def replace(self, folder: str, rows: Sequence[Row]) -> None:
        """Replaces a partition's file; deletes it if there are no rows."""
        if not rows:
            self._store.delete([manifest_path(folder)])
            return
        ordered = sorted(rows, key=key_of)
        table = pa.Table.from_pylist(
            [{name: row.get(name) for name in SCHEMA.names} for row in ordered], schema=SCHEMA
        )
        import pyarrow.parquet as pq

        with self._incoming.file(".parquet") as draft:
            pq.write_table(table, draft, compression="zstd")
            self._store.put(draft, manifest_path(folder))


def read_partition(store: Store, agent_id: str, folder: str) -> dict[Key, Row]:
    """Reads the rows of a partition; empty if it has no file.

    Raises:
        StoreError: The file cannot be read or is not a manifest.
    """
    # a load without recordings does not need it
    import pyarrow.parquet as pq

    try:
        body = b"".join(store.parts(manifest_path(folder)))
        table = pq.read_table(pa.BufferReader(body))
        # files of older versions may lack the other columns
        if missing := _NEEDED - set(table.column_names):
            raise KeyError(f"columns are missing: {', '.join(sorted(missing))}")
    except FileNotFoundError:
        return {}
    except (pa.ArrowException, OSError, KeyError) as error:
        uri, reason = store.uri(manifest_path(folder)), first_line(error)
        raise StoreError(
            f"{uri} cannot be read ({reason}): `recordings verify --refetch` rewrites it"
        ) from error
    rows = (
        {"agent_id": agent_id} | {name: row.get(name) for name in SCHEMA.names}
        for row in table.to_pylist()
    )
    return {key_of(row): row for row in rows}


def manifest_path(folder: str) -> str:
    """Path of a partition's manifest in the store."""
    return f"{FOLDER}/{folder}/{_FILE}"
