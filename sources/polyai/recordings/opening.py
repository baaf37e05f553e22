"""Opening of the archive for a run: known, new, or of version 0.1, which is upgraded in place."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from ..clock import Clock, in_utc
from ..errors import StoreError
from ..load.committer import Committer
from ..tables.recordings import ARCHIVES, RECORDINGS
from ..warehouse.file_store import Store
from ..warehouse.incoming import Incoming
from .archive import Archive, agents_with_recordings
from .custody import Entry, chain_folder, event, links
from .identity import (
    Known,
    Place,
    begin_takeover,
    check_place,
    create_identity,
    end_takeover,
    known_archive,
    new_id,
    place_of,
    refuse_unknown,
    register,
    repoint,
)
from .index import FOLDER
from .layout import file_name, partition
from .manifest import Row
from .writer import ArchiveWriter

logger = logging.getLogger("polyai")

FOLDER_0_1 = f"{FOLDER}/agent_id="
"""Beginning of the paths of manifests of version 0.1, one per agent and day."""


_ENTRIES = 5_000
"""Entries of the log that are written together."""


class Opening:
    """Archive of a run, checked before anything is written.

    Args:
        committer: Committer of the warehouse.
        store: Store that the settings name.
        url: Setting that names it.
        clock: Current time.
        is_confirmed_later: Do not read `archive.json` of a bucket in its known place.

    Raises:
        ConfigurationError: The store is not the archive of the warehouse.
        StoreError: It cannot be read.
    """

    def __init__(
        self,
        committer: Committer,
        store: Store,
        url: str,
        clock: Clock,
        *,
        is_confirmed_later: bool = False,
    ) -> None:
        self._committer = committer
        self._store = store
        self._clock = clock
        self._known: Known | None = known_archive(committer.warehouse)
        self._is_in_place = self._is_0_1 = False
        if self._known is None:
            self._is_0_1 = refuse_unknown(committer.warehouse, store)
        elif is_confirmed_later and str(store) == self._known.url and not store.local_folder:
            self._is_in_place = True
        else:
            self._is_in_place = check_place(self._known, store, url)

    @property
    def is_new(self) -> bool:
        """True if the warehouse has no archive yet."""
        return not (self._known or self._is_0_1)

    def open(self, incoming: Incoming, agent_ids: Iterable[str]) -> Place:
        """Opens the archive, and begins, upgrades or follows it where that is due.

        Args:
            incoming: Folder in which files are written first.
            agent_ids: Agents to register with it.
        """
        committer, store, known = self._committer, self._store, self._known
        committer.create_tables((ARCHIVES, RECORDINGS))
        if known is None:
            if self._is_0_1:
                place = begin_takeover(committer, store, incoming, self._clock)
                take_over(committer, place, incoming, self._clock)
                register(committer, place, agents_with_recordings(committer.warehouse), self._clock)
                end_takeover(committer)
                known = known_archive(committer.warehouse)
            else:
                archive_id = create_identity(store, incoming, self._clock)
                place = place_of(committer.warehouse, store, archive_id, new_id())
        else:
            place = place_of(committer.warehouse, store, known.archive_id, known.warehouse_id)
            if not self._is_in_place:
                logger.info("the archive has moved from %s to %s", known.url, store)
                repoint(committer, place)
            if known.is_just_taken_over:
                end_takeover(committer)
        registered = known.agents if known else frozenset()
        register(committer, place, set(agent_ids) - registered, self._clock)
        return place


def take_over(committer: Committer, place: Place, incoming: Incoming, clock: Clock) -> None:
    """Upgrades the recordings of version 0.1 in the warehouse, and writes manifest and log.

    Idempotent, within `begin_takeover` and `end_takeover`.
    """
    store, warehouse = place.store, committer.warehouse
    set_paths(committer, place)
    for agent_id in agents_with_recordings(warehouse):
        # as the run, so that parts that a killed one has written are overwritten
        run_id = place.warehouse_id
        writer = ArchiveWriter(place, incoming, warehouse, agent_id, run_id, clock, repairs=True)
        entries: list[Entry] = []
        logged = _logged(store, agent_id, place.writer)
        for rows in Archive(warehouse, agent_id).days():
            stored = [row for row in rows if row["status"] == "stored"]
            entries += [_upgraded(row, clock) for row in stored if row["path"] not in logged]
            if len(entries) >= _ENTRIES:
                writer.append(entries)
                entries = []
        writer.append(entries)
        writer.rewrite()
    store.delete([path for path, _ in store.walk(FOLDER_0_1)])
    logger.info("upgraded the archive of recordings %s in %s", place.archive_id, store)


def _logged(store: Store, agent_id: str, writer: str) -> set[str]:
    """Paths of the files that a killed upgrade has entered in the log."""
    paths = [path for path, _ in store.walk(f"{chain_folder(agent_id, writer)}/")]
    return {
        link.entry["path"] for link in links(store, paths) if link.entry and "path" in link.entry
    }


def _upgraded(row: Row, clock: Clock) -> Entry:
    names = ("conversation_id", "direction", "redacted", "path", "sha256", "bytes", "fetched_at")
    return event("upgraded", clock(), **{name: row[name] for name in names})


def set_paths(committer: Committer, place: Place) -> None:
    """Sets path, archive and place of the rows of version 0.1, which have an absolute `uri` only.

    Raises:
        StoreError: A `uri` is not the place of its recording.
    """
    prefix = place.store.uri("x").removesuffix("x")
    columns = "agent_id, conversation_id, direction, redacted, started_at, uri"
    while rows := committer.warehouse.rows(
        f"SELECT {columns} FROM {{recordings}} WHERE path IS NULL AND uri IS NOT NULL LIMIT 1"
    ):
        agent_id, conversation_id, direction, redacted, started_at, uri = rows[0]
        name = file_name(conversation_id, direction, redacted=redacted)
        path = f"{partition(agent_id, in_utc(started_at))}/{name}"
        if not uri.endswith(f"/{path}"):
            raise StoreError(f"{uri} is not the place of the recording of {conversation_id}")
        old = uri.removesuffix(path)
        with committer.statements() as client, client.begin_transaction():
            table = client.make_qualified_table_name(RECORDINGS.name)
            rest = f"SUBSTRING(uri, {len(old) + 1})"
            client.execute_sql(
                f"UPDATE {table} SET path = {rest}, archive_id = %s, uri = CONCAT(%s, {rest}) "
                f"WHERE path IS NULL AND SUBSTRING(uri, 1, {len(old)}) = %s",
                place.archive_id,
                prefix,
                old,
            )
