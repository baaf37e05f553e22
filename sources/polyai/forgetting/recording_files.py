"""Erasure of recordings: audio files and rows of the manifest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from datetime import datetime
from itertools import product
from typing import Any

import pyarrow.compute as pc

from ..clock import Clock
from ..config.settings import DIRECTIONS
from ..recordings.custody import event
from ..recordings.layout import QUARANTINE, agent_folder, base_path, file_name, partition
from ..recordings.writer import ArchiveWriter
from ..warehouse.file_store import Store
from ..warehouse.queries import Warehouse, id_batches


def erase_recordings(
    warehouse: Warehouse,
    store: Store,
    writer: ArchiveWriter,
    agent_id: str,
    conversations: Mapping[str, Collection[datetime | None]],
    clock: Clock,
    **facts: str | None,
) -> Counter[str]:
    """Deletes all audio files of these conversations, including files without a row.

    A file without a row was stored by a killed run or belongs to an earlier warehouse. The table
    `recordings` is not changed, so that the next run finds the files again if this one is killed.

    Args:
        warehouse: Warehouse with the table `recordings`.
        store: Store of the files.
        writer: Manifest and custody log of the agent.
        agent_id: The agent.
        conversations: Possible start times by conversation id. If there are none, the folders of
            all days are searched.
        clock: Current time.
        facts: Run and reason, for the custody log.

    Returns:
        Number of deleted files by conversation id.

    Raises:
        StoreError: A file cannot be deleted.
    """
    hashes: dict[str, str | None] = {one.path: one.sha256 for one in writer.manifest.index.kept}
    paths: dict[str, str] = {}
    for ids, marks in id_batches(sorted(conversations)):
        for conversation_id, path, sha256 in warehouse.rows(
            "SELECT conversation_id, path, sha256 FROM {recordings} WHERE path IS NOT NULL "
            f"AND agent_id = %s AND conversation_id IN ({marks})",
            agent_id,
            *ids,
        ):
            paths[path], hashes[path] = conversation_id, sha256
    paths |= _files(store, agent_id, conversations)
    entries = [
        event(
            "deleted",
            clock(),
            agent_id=agent_id,
            conversation_id=conversation_id,
            path=path,
            sha256=hashes.get(path),
            **facts,
        )
        for path, conversation_id in sorted(paths.items())
    ]
    writer.append(entries)
    store.delete(list(paths))
    erased: Any = pc.field("conversation_id").isin(sorted(conversations))
    writer.manifest.remove(erased, paths, writer.head)
    return Counter(paths.values())


def _files(
    store: Store, agent_id: str, conversations: Mapping[str, Collection[datetime | None]]
) -> dict[str, str]:
    """Finds all files of these conversations: their conversations by path."""
    by_folder: dict[str, set[str]] = {}
    for conversation_id, start_times in conversations.items():
        for started_at in start_times:
            by_folder.setdefault(partition(agent_id, started_at), set()).add(conversation_id)
    if without_time := {name for name, times in conversations.items() if not times}:
        days = agent_folder(agent_id)
        for day in store.folders(days):
            by_folder.setdefault(f"{days}/{day}", set()).update(without_time)
    found = {}
    for folder, in_folder in by_folder.items():
        own = {
            f"{folder}/{file_name(conversation_id, direction, redacted=redacted)}": conversation_id
            for conversation_id, direction, redacted in product(
                in_folder, DIRECTIONS, (True, False)
            )
        }
        for path in _listed(store, folder):
            if name := own.get(base_path(path)):
                found[path] = name
    return found


def _listed(store: Store, folder: str) -> Iterator[str]:
    """Yields the files of a day, also those that were set aside."""
    for parent in (folder, f"{QUARANTINE}/{folder}"):
        yield from (f"{parent}/{name}" for name in store.sizes(parent))
