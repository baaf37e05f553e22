"""Deletion of recordings, with entries of the custody log that say what was deleted and why."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ..clock import Clock
from .custody import Entry, event
from .index import Kept
from .layout import base_path
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
