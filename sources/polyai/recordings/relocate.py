"""Change of an archive's place: `move` copies it, `adopt` accepts where it is now."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from urllib.parse import unquote

import dlt
import pyarrow as pa
import pyarrow.parquet as pq

from ..clock import Clock, utc_now
from ..errors import BusyError, ConfigurationError, StoreError, first_line
from ..load.committer import Committer, open_committer
from ..load.report import no_op
from ..locking.files import LockTimeout
from ..locking.names import RECORDINGS_WRITER
from ..tables.recordings import ARCHIVES, RECORDINGS
from ..warehouse.file_store import Store
from ..warehouse.held import LoadState
from ..warehouse.incoming import Incoming
from ..warehouse.open import working_folder
from ..warehouse.queries import Warehouse, id_batches
from ..warehouse.stores import open_store
from .archive import Archive, agents_with_recordings
from .custody import Event, event
from .findings import Finding
from .identity import (
    FILE,
    Known,
    Place,
    begin_takeover,
    create_identity,
    end_takeover,
    identity_facts,
    known_archive,
    place_of,
    read_identity,
    register,
    repoint,
)
from .index import Index, read_index
from .inventory import Inventory, OnFiles
from .layout import file_name, partition
from .manifest import KEY, Key, Row, key_of
from .month_listing import MonthListing
from .opening import FOLDER_0_1, take_over
from .writer import ArchiveWriter

logger = logging.getLogger("polyai")

_ROWS = 5_000
"""Rows that are committed together."""


@dataclass(frozen=True)
class Relocation:
    """Result of `move` or `adopt`.

    Attributes:
        archive_id: The archive.
        url: Its place from now on.
        before: Its place before; None if the warehouse had no archive.
        files: Files that were copied.
        recordings: Recordings of this warehouse.
        missing: Those of them that are not in the archive.
    """

    archive_id: str
    url: str
    before: str | None
    files: int = 0
    recordings: int = 0
    missing: int = 0


def adopt(
    pipeline: dlt.Pipeline,
    url: str,
    *,
    lock_wait: timedelta = timedelta(0),
    clock: Clock = utc_now,
) -> Relocation:
    """Makes a store the archive of a warehouse, from now on.

    For an archive that was moved, one that another warehouse or version 0.1 has written, and one
    whose `archive.json` was lost. Downloads nothing.

    Raises:
        ConfigurationError: None of the warehouse's recordings is in it.
        PolyAIError: As `fetch_recordings` does.
    """
    store = open_store(url)
    with _alone(pipeline, lock_wait) as committer:
        committer.create_tables((ARCHIVES, RECORDINGS))
        warehouse, known = committer.warehouse, known_archive(committer.warehouse)
        found = _identity_to_adopt(store, known)
        is_same = known is not None and found in (None, known.archive_id)
        recordings, missing = _missing(warehouse, store)
        if recordings and missing == recordings:
            raise ConfigurationError(
                f"{store} has none of the {recordings:,} recordings of this warehouse, and is not "
                "its archive"
            )
        with Incoming(store, working_folder(pipeline.pipelines_dir)) as incoming:
            if known and is_same and known.url != str(store):
                archive_id = create_identity(store, incoming, clock, known.archive_id)
                place = place_of(warehouse, store, archive_id, known.warehouse_id)
            else:
                # in the same place, it is a copy of the warehouse that is to write on its own
                wanted = known.archive_id if known and is_same else None
                place = begin_takeover(committer, store, incoming, clock, wanted)
            if known is None:
                _import_0_1(committer, place)
                take_over(committer, place, incoming, clock)
            # before the warehouse is changed, which shows that it was adopted
            _log(committer, place, incoming, clock, "adopted", known)
            repoint(committer, place)
            agents = {name for (name,) in warehouse.rows(_AGENTS)}
            agents |= {*agents_with_recordings(warehouse)}
            register(committer, place, agents - (known.agents if known else set()), clock)
            end_takeover(committer)
    before = known.url if known else None
    return Relocation(place.archive_id, str(store), before, recordings=recordings, missing=missing)


_AGENTS = "SELECT DISTINCT agent_id FROM {conversations}"


def move(
    pipeline: dlt.Pipeline,
    to: str,
    *,
    lock_wait: timedelta = timedelta(0),
    workers: int = 8,
    stop: threading.Event | None = None,
    on_files: OnFiles = no_op,
    clock: Clock = utc_now,
) -> Relocation:
    """Copies an archive to another place, compares all hashes there, and switches to it.

    Until then the warehouse uses the old place, where every file is kept. Resumable: a file that is
    there already with the same size is not copied again, but its hash is compared like all others.

    Args:
        pipeline: As for `fetch_recordings`.
        to: Folder or URL of the new place.
        lock_wait: Maximum time to wait for another run over the same recordings.
        workers: Files that are copied in parallel.
        stop: When set, ends early; the next call resumes.
        on_files: Called with the number of files copied or compared so far.
        clock: Current time.

    Raises:
        ConfigurationError: The warehouse has no archive, or the new place has another one.
        StoreError: The copy is not what the warehouse has recorded.
        PolyAIError: As `fetch_recordings` does.
    """
    stop = stop or threading.Event()
    target = open_store(to)
    with _alone(pipeline, lock_wait) as committer:
        known = known_archive(committer.warehouse)
        if known is None:
            raise ConfigurationError("this warehouse has no archive of recordings to move")
        source = open_store(known.url)
        if (found := read_identity(source)) != known.archive_id:
            raise ConfigurationError(f"{source} is not the archive {known.archive_id}: {found}")
        if str(target) == known.url:
            raise ConfigurationError(f"the archive is at {target} already")
        if (other := read_identity(target)) not in (None, known.archive_id):
            raise ConfigurationError(f"{target} is another archive, {other}")
        place = place_of(committer.warehouse, target, known.archive_id, known.warehouse_id)
        with Incoming(target, working_folder(pipeline.pipelines_dir)) as incoming:
            files = _copy(source, target, incoming, workers, stop, on_files)
            if not stop.is_set():
                _copy_one(source, target, incoming, FILE)
                _compare(committer.warehouse, place, known, workers, stop, on_files)
            if stop.is_set():
                return Relocation(known.archive_id, known.url, known.url, files)
            _log(committer, place, incoming, clock, "moved", known)
            repoint(committer, place)
    return Relocation(known.archive_id, str(target), known.url, files)


@contextmanager
def _alone(pipeline: dlt.Pipeline, lock_wait: timedelta) -> Iterator[Committer]:
    """Opens the warehouse, and keeps out other runs over recordings."""

    def lease_names() -> list[str]:
        names = agents_with_recordings(Warehouse(pipeline, locks_file=True))
        return [RECORDINGS_WRITER.lease(name) for name in names]

    with open_committer(
        pipeline,
        RECORDINGS_WRITER.lock_ending,
        lease_names,
        LockTimeout(lock_wait, threading.Event()),
    ) as (committer, others):
        for holder in others.values():
            raise BusyError(f"{holder} is processing recordings")
        yield committer


def _identity_to_adopt(store: Store, known: Known | None) -> str | None:
    """Returns the id of a store; deletes a damaged one that the warehouse can restore."""
    try:
        return read_identity(store)
    except ConfigurationError:
        if known is None:
            raise
        store.delete([FILE])
        return None


def _missing(warehouse: Warehouse, store: Store) -> tuple[int, int]:
    """Numbers of stored recordings of a warehouse, and of those that a store lacks."""
    stored = missing = 0
    for agent_id in agents_with_recordings(warehouse):
        files = MonthListing(store)
        for rows in Archive(warehouse, agent_id).days():
            sizes = files.sizes(partition(agent_id, rows[0]["started_at"]))
            for row in rows:
                if row["status"] == "stored":
                    stored += 1
                    missing += sizes.get(_name(row)) != row["bytes"]
    return stored, missing


def _name(row: Row) -> str:
    """Name of a row's file."""
    if row["path"]:
        return str(row["path"]).rpartition("/")[2]
    return file_name(row["conversation_id"], row["direction"], redacted=row["redacted"])


def _log(
    committer: Committer,
    place: Place,
    incoming: Incoming,
    clock: Clock,
    kind: Event,
    known: Known | None,
) -> None:
    """Writes an entry about the new place into each log of this warehouse."""
    facts = identity_facts(place) | {"url": str(place.store), "before": known.url if known else ""}
    for agent_id in agents_with_recordings(committer.warehouse):
        run_id = place.warehouse_id
        writer = ArchiveWriter(place, incoming, committer.warehouse, agent_id, run_id, clock)
        writer.append([event(kind, clock(), agent_id=agent_id, **facts)])


def _import_0_1(committer: Committer, place: Place) -> None:
    """Registers recordings of version 0.1 that another warehouse had, from their manifest."""
    store = place.store
    state = LoadState(committer.pipeline, locks_file=True)
    rows: list[Row] = []
    for path, _ in store.walk(FOLDER_0_1):
        agent_id = unquote(path.split("/")[1].partition("=")[2])
        forgotten = state.forgotten(agent_id)
        listed = {
            key_of(row): row
            for row in _rows_0_1(store, path, agent_id)
            if row["conversation_id"] not in forgotten
        }
        held = _held(committer.warehouse, agent_id, listed)
        rows += [row for key, row in listed.items() if key not in held]
        if len(rows) >= _ROWS:
            committer.write({RECORDINGS: rows})
            rows = []
    if rows:
        committer.write({RECORDINGS: rows})


def _held(warehouse: Warehouse, agent_id: str, keys: Iterable[Key]) -> set[Key]:
    """Returns the keys of these recordings that the warehouse has rows of."""
    names = ", ".join(KEY)
    return {
        key
        for batch, marks in id_batches(sorted({key[0] for key in keys}))
        for key in warehouse.rows(
            f"SELECT {names} FROM {{recordings}} "
            f"WHERE agent_id = %s AND conversation_id IN ({marks})",
            agent_id,
            *batch,
        )
    }


def _rows_0_1(store: Store, path: str, agent_id: str) -> Iterator[Row]:
    try:
        table = pq.read_table(pa.BufferReader(store.read(path)))
    except (pa.ArrowException, OSError) as error:
        raise StoreError(
            f"{store.uri(path)} cannot be read ({first_line(error)}): delete it, and the next "
            "`recordings` reads the files themselves"
        ) from error
    for row in table.to_pylist():
        yield row | {"agent_id": agent_id}


def _copy(
    source: Store,
    target: Store,
    incoming: Incoming,
    workers: int,
    stop: threading.Event,
    on_files: OnFiles,
) -> int:
    """Copies files that the target does not have with the same size; returns their number."""
    there = dict(target.walk())
    copied = 0

    def copy(path: str) -> None:
        nonlocal copied
        if not stop.is_set():
            _copy_one(source, target, incoming, path)
            copied += 1
            on_files(copied)

    def is_due(path: str, size: int) -> bool:
        # an index may change without changing its size
        return path != FILE and (path.endswith(".json") or there.get(path) != size)

    due = (path for path, size in source.walk() if is_due(path, size))
    with ThreadPoolExecutor(workers, thread_name_prefix="polyai-copy") as pool:
        for _ in pool.map(copy, due):
            pass
    return copied


def _copy_one(source: Store, target: Store, incoming: Incoming, path: str) -> None:
    with incoming.file(".copy") as draft:
        source.download(path, draft)
        target.put(draft, path)


def _compare(
    warehouse: Warehouse,
    place: Place,
    known: Known,
    workers: int,
    stop: threading.Event,
    on_files: OnFiles,
) -> None:
    """Compares a copy with the warehouse, all hashes included."""
    agents = {*known.agents, *agents_with_recordings(warehouse)}
    indexes = {}
    for agent_id in agents:
        index = Index(place.archive_id, agent_id, place.writer)
        try:
            indexes[agent_id] = read_index(place.store, index.path)
        except FileNotFoundError:
            indexes[agent_id] = index
    inventory = Inventory(
        warehouse,
        place,
        indexes,
        is_whole=True,
        quick=False,
        workers=workers,
        stop=stop,
        on_files=on_files,
        is_at_place=False,
    )
    inventory.run()
    findings: list[Finding] = [one for one in inventory.found.findings if not one.is_harmless]
    if findings:
        first = findings[0]
        raise StoreError(
            f"the copy in {place.store} is not complete, and the archive stays at {known.url}: "
            f"{len(findings):,} findings, such as {first.uri}: {first.detail}. Run `recordings "
            "verify` on the archive first"
        )
