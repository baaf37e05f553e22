"""Erasure of recordings: audio files and rows of the manifest."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any, NamedTuple

import pyarrow.compute as pc

from ..clock import Clock
from ..errors import ConfigurationError, PolyAIError, StoreError
from ..load.committer import Committer
from ..load.report import RunReport
from ..recordings.custody import event
from ..recordings.deletion import file_names, purge
from ..recordings.identity import Place
from ..recordings.layout import QUARANTINE, agent_folder, base_path, partition
from ..recordings.opening import Opening
from ..recordings.writer import ArchiveWriter
from ..warehouse.file_store import Store
from ..warehouse.incoming import Incoming
from ..warehouse.open import working_folder
from ..warehouse.queries import Warehouse, id_batches
from ..warehouse.s3_objects import Locked
from ..warehouse.stores import open_store


class DeletedFile(NamedTuple):
    """An audio file that was deleted.

    Attributes:
        conversation_id: Its conversation.
        archive: Folder or URL of the archive.
        path: Path in the archive.
        sha256: SHA-256 of the file, in hexadecimal digits; None if there was no file any more.
    """

    conversation_id: str
    archive: str
    path: str
    sha256: str | None


class RecordingFiles:
    """Archive of recordings, from which files are deleted.

    Args:
        place: The archive.
        incoming: Folder for new manifests.
        clock: Current time.

    Attributes:
        locked: Files that the last deletion has left in the bucket, under Object Lock.
    """

    def __init__(self, place: Place, incoming: Incoming, clock: Clock) -> None:
        self._place = place
        self._incoming = incoming
        self._clock = clock
        self.locked: list[Locked] = []

    def delete(
        self,
        warehouse: Warehouse,
        report: RunReport,
        conversations: Mapping[str, Collection[datetime | None]],
        reason: str | None,
    ) -> list[DeletedFile]:
        """Deletes all audio files of these conversations, including files without a row.

        A file without a row was stored by a killed run or belongs to an earlier warehouse. The
        table `recordings` is not changed, so that the next run finds the files again if this one is
        killed.

        Args:
            warehouse: Warehouse with the table `recordings`.
            report: Report of the run for one agent, which takes the head of its custody log.
            conversations: Possible start times by conversation id. If there are none, the folders
                of all days are searched.
            reason: Reason of the erasure, for the custody log.

        Returns:
            The deleted files, in order of their paths.

        Raises:
            StoreError: A file cannot be deleted.
        """
        agent_id, store = report.agent_id, self._place.store
        writer = ArchiveWriter(
            self._place, self._incoming, warehouse, agent_id, report.run_id, self._clock
        )
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
        deleted = [
            DeletedFile(conversation_id, str(store), path, hashes.get(path) or _sha256(store, path))
            for path, conversation_id in sorted(paths.items())
        ]
        entries = [
            event(
                "deleted",
                self._clock(),
                agent_id=agent_id,
                conversation_id=file.conversation_id,
                path=file.path,
                sha256=file.sha256,
                run_id=report.run_id,
                why=report.command,
                reason=reason,
            )
            for file in deleted
        ]
        writer.append(entries)
        store.delete(list(paths))
        erased: Any = pc.field("conversation_id").isin(sorted(conversations))
        writer.manifest.remove(erased, paths, writer.head)
        writer.describe_in(report)
        names = {name for one in conversations for name in file_names(one)}
        self.locked = purge(store, agent_id, lambda path: path.rpartition("/")[2] in names)
        return deleted


@contextmanager
def open_recordings(
    committer: Committer, url: str | None, clock: Clock
) -> Iterator[RecordingFiles | PolyAIError | None]:
    """Opens the archive; None if no recording was ever downloaded, else what prevents it."""
    if url is None:
        yield None
        return
    store = open_store(url)
    try:
        opening = Opening(committer, store, url, clock)
    except (ConfigurationError, StoreError) as error:
        # the request is committed first, so that no load brings the conversations back
        yield error
        return
    if opening.is_new:
        yield None
        return
    with Incoming(store, working_folder(committer.pipeline.pipelines_dir)) as incoming:
        yield RecordingFiles(opening.open(incoming, ()), incoming, clock)


def _sha256(store: Store, path: str) -> str | None:
    """Hashes a file without a row; None if it is gone."""
    try:
        return store.digest(path).sha256
    except FileNotFoundError:
        return None


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
            f"{folder}/{name}": conversation_id
            for conversation_id in in_folder
            for name in file_names(conversation_id)
        }
        for path in _listed(store, folder):
            if name := own.get(base_path(path)):
                found[path] = name
    return found


def _listed(store: Store, folder: str) -> Iterator[str]:
    """Yields the files of a day, also those that were set aside."""
    for parent in (folder, f"{QUARANTINE}/{folder}"):
        yield from (f"{parent}/{name}" for name in store.sizes(parent))
