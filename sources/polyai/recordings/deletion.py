"""Deletion of recordings, with entries of the custody log that say what was deleted and why."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import product

from ..clock import Clock
from ..config.settings import DIRECTIONS
from ..warehouse.file_store import Store
from ..warehouse.s3_objects import Locked
from .custody import Entry, event
from .index import Kept
from .layout import QUARANTINE, agent_folder, base_path, file_name
from .manifest import KEY, Row


def kept_by_recording(kept: Iterable[Kept]) -> dict[str, list[Kept]]:
    """Groups other versions and files in quarantine by the path of their recording."""
    found: dict[str, list[Kept]] = {}
    for one in kept:
        found.setdefault(base_path(one.path), []).append(one)
    return found


def deletions(
    rows: Iterable[Row],
    kept: Mapping[str, Sequence[Kept]],
    clock: Clock,
    **facts: str | None,
) -> tuple[list[Entry], list[str]]:
    """Returns the entries of the log for files that will be deleted, and their paths.

    Args:
        rows: Rows of `recordings`.
        kept: Other files of these recordings; see `kept_by_recording`.
        clock: Current time.
        facts: Run and reason.
    """
    entries: list[Entry] = []
    paths: list[str] = []
    for row in rows:
        if not row["path"]:
            continue
        files = {row["path"]: (row["sha256"], row["bytes"])}
        for one in kept.get(base_path(row["path"]), ()):
            files[one.path] = (one.sha256, one.bytes)
        for path, (sha256, size) in files.items():
            same = {name: row[name] for name in ("agent_id", *KEY)}
            entries.append(
                event("deleted", clock(), **same, path=path, sha256=sha256, bytes=size, **facts)
            )
            paths.append(path)
    return entries, paths


def file_names(conversation_id: str) -> list[str]:
    """Names of all files that a conversation can have, without versions."""
    return [
        file_name(conversation_id, direction, redacted=redacted)
        for direction, redacted in product(DIRECTIONS, (True, False))
    ]


def purge(store: Store, agent_id: str, is_due: Callable[[str], bool]) -> list[Locked]:
    """Deletes what a bucket with versioning keeps of an agent's deleted recordings.

    Also what earlier runs could not delete, because it was locked.

    Args:
        store: Store of the archive.
        agent_id: The agent.
        is_due: Returns whether a deleted recording, by its path, was deleted for good.

    Returns:
        Files that are still locked.
    """
    folder = f"{agent_folder(agent_id)}/"
    return [
        locked
        for prefix in (folder, f"{QUARANTINE}/{folder}")
        for locked in store.purge(prefix, lambda path: is_due(base_path(path)))
    ]
