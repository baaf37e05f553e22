"""Erasure of recordings: audio files and rows of the manifest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from datetime import datetime
from itertools import product

from ..config.settings import DIRECTIONS
from ..recordings.layout import agent_folder, file_name, partition
from ..recordings.manifest import Manifest
from ..recordings.prune import path_to_delete
from ..warehouse.file_store import Incoming, Store
from ..warehouse.queries import Warehouse, id_batches


def erase_recordings(
    warehouse: Warehouse,
    store: Store,
    incoming: Incoming,
    agent_id: str,
    conversations: Mapping[str, Collection[datetime | None]],
) -> Counter[str]:
    """Deletes all audio files of these conversations, including files without a row.

    A file without a row was stored by a killed run or belongs to an earlier warehouse. The table
    `recordings` is not changed, so that the next run finds the files again if this one is killed.

    Args:
        warehouse: Warehouse with the table `recordings`.
        store: Store of the files.
        incoming: Folder in which manifests are written first.
        agent_id: The agent.
        conversations: Possible start times by conversation id. If there are none, the folders of
            all days are searched.

    Returns:
        Number of deleted files by conversation id.

    Raises:
        StoreError: A file cannot be deleted, or is in another store.
    """
    paths: dict[str, str] = {}
    for ids, marks in id_batches(sorted(conversations)):
        for conversation_id, uri in warehouse.rows(
            "SELECT conversation_id, uri FROM {recordings} WHERE uri IS NOT NULL "
            f"AND agent_id = %s AND conversation_id IN ({marks})",
            agent_id,
            *ids,
        ):
            paths[path_to_delete(store, uri)] = conversation_id
    by_folder: dict[str, set[str]] = {}
    for conversation_id, start_times in conversations.items():
        for started_at in start_times:
            by_folder.setdefault(partition(agent_id, started_at), set()).add(conversation_id)
    if without_time := {name for name, times in conversations.items() if not times}:
        days = agent_folder(agent_id)
        for day in store.folders(days):
            by_folder.setdefault(f"{days}/{day}", set()).update(without_time)
    for folder, in_folder in by_folder.items():
        sizes = store.sizes(folder)
        for conversation_id, direction, redacted in product(in_folder, DIRECTIONS, (True, False)):
            file = file_name(conversation_id, direction, redacted=redacted)
            if file in sizes:
                paths[f"{folder}/{file}"] = conversation_id
    store.delete(list(paths))
    manifest = Manifest(store, incoming, agent_id)
    for folder in {path.rpartition("/")[0] for path in paths} | by_folder.keys():
        rows = manifest.read(folder)
        kept = [row for row in rows.values() if row["conversation_id"] not in conversations]
        if len(kept) < len(rows):
            manifest.replace(folder, kept)
    return Counter(paths.values())
