"""The recordings of conversations that are forgotten: files and rows of the manifest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from datetime import datetime
from itertools import product

from ..config.settings import DIRECTIONS
from ..recordings.layout import agent_folder, file_name, partition
from ..recordings.manifest import Manifest
from ..recordings.prune import path_to_delete
from ..recordings.store import Incoming, Store
from ..warehouse.queries import Warehouse, id_batches


def erase_audio(
    warehouse: Warehouse,
    store: Store,
    incoming: Incoming,
    agent_id: str,
    conversations: Mapping[str, Collection[datetime | None]],
) -> Counter[str]:
    """Deletes all files of these conversations, also those of which no row tells yet.

    A killed run may have put them into the store, or an earlier warehouse. The table `recordings`
    is left as it is, so that who is killed here finds them again.

    Args:
        warehouse: Where the table is.
        store: Where the files are.
        incoming: Where manifests are written first.
        agent_id: The agent.
        conversations: By id, the moments at which it may have begun; where there are none, its
            files are looked for in the folders of all days.

    Returns:
        Files that were deleted, by conversation.

    Raises:
        StoreError: One cannot be deleted, or lies in another store.
    """
    paths: dict[str, str] = {}
    for ids, marks in id_batches(sorted(conversations)):
        for name, uri in warehouse.rows(
            "SELECT conversation_id, uri FROM {recordings} WHERE uri IS NOT NULL "
            f"AND agent_id = %s AND conversation_id IN ({marks})",
            agent_id,
            *ids,
        ):
            paths[path_to_delete(store, uri)] = name
    by_folder: dict[str, set[str]] = {}
    for name, moments in conversations.items():
        for began in moments:
            by_folder.setdefault(partition(agent_id, began), set()).add(name)
    if anywhere := {name for name, moments in conversations.items() if not moments}:
        days = agent_folder(agent_id)
        for day in store.folders(days):
            by_folder.setdefault(f"{days}/{day}", set()).update(anywhere)
    for folder, names in by_folder.items():
        sizes = store.sizes(folder)
        for name, direction, redacted in product(names, DIRECTIONS, (True, False)):
            file = file_name(name, direction, redacted=redacted)
            if file in sizes:
                paths[f"{folder}/{file}"] = name
    store.delete(list(paths))
    manifest = Manifest(store, incoming, agent_id)
    for folder in {path.rpartition("/")[0] for path in paths} | by_folder.keys():
        told = manifest.read(folder)
        kept = [row for row in told.values() if row["conversation_id"] not in conversations]
        if len(kept) < len(told):
            manifest.replace(folder, kept)
    return Counter(paths.values())
