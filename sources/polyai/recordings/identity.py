"""Identity of an archive: `archive.json` in the store, and its rows of `archives`.

A warehouse has one archive. Another or an unknown store is refused, so that a mistyped or forgotten
`recordings_url` neither begins a second archive nor looks like an empty one. `relocate` has the
ways to change it.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..clock import Clock, utc_now
from ..errors import ConfigurationError
from ..load.committer import Committer
from ..tables.recordings import ARCHIVES, RECORDINGS
from ..warehouse.duckdb_file import duckdb_path
from ..warehouse.file_store import Store
from ..warehouse.incoming import Incoming
from ..warehouse.open import destination_label
from ..warehouse.queries import Warehouse

FILE = "archive.json"

FORMAT = 2
"""Version of the layout; archives of version 0.1 have no `archive.json`."""

WRITER_DIGITS = 16

_TAKEOVER = "*"
"""`agent_id` of the row of `archives` that exists while an archive is taken over."""


@dataclass(frozen=True)
class Known:
    """Archive as the warehouse knows it.

    Attributes:
        archive_id: Its id.
        url: Its place.
        warehouse_id: Random id of the warehouse in it.
        agents: Agents that are registered with it.
        is_just_taken_over: Only `end_takeover` is missing.
    """

    archive_id: str
    url: str
    warehouse_id: str
    agents: frozenset[str]
    is_just_taken_over: bool


@dataclass(frozen=True)
class Place:
    """Archive that a run uses, in its store.

    Attributes:
        archive_id: Its id.
        writer: Id under which this warehouse writes manifest and custody log. It differs for a copy
            of the warehouse, so that the copy overwrites nothing.
        warehouse_id: Random id from which `writer` derives.
        store: Its files.
    """

    archive_id: str
    writer: str
    warehouse_id: str
    store: Store


def known_archive(warehouse: Warehouse) -> Known | None:
    """Returns the archive of a warehouse; None if it has none."""
    rows = warehouse.rows(
        "SELECT archive_id, url, warehouse_id, agent_id FROM {archives} ORDER BY added_at, agent_id"
    )
    own = [row for row in rows if row[3] != _TAKEOVER]
    if not own:
        return None
    archive_id, url, warehouse_id, _ = own[0]
    is_just_taken_over = (warehouse_id, _TAKEOVER) in {row[2:] for row in rows}
    agents = frozenset(agent_id for *_, agent_id in own)
    return Known(archive_id, url, warehouse_id, agents, is_just_taken_over)


def read_identity(store: Store) -> str | None:
    """Returns the id of the archive in a store; None if there is none.

    Raises:
        ConfigurationError: `archive.json` is there, but is not an archive's.
        StoreError: The store cannot be read, or does not exist.
    """
    try:
        body = store.read(FILE)
    except FileNotFoundError:
        store.check()
        return None
    try:
        content = json.loads(body)
        archive_id = content["archive_id"]
        is_valid = isinstance(archive_id, str) and content["format"] == FORMAT
    except (ValueError, TypeError, KeyError):
        is_valid = False
    if not is_valid:
        raise ConfigurationError(
            f"{store.uri(FILE)} is damaged: it is not the description of an archive of format "
            f"{FORMAT}. Restore it from a backup, or write it again with `recordings adopt {store}`"
        )
    return str(archive_id)


def create_identity(
    store: Store, incoming: Incoming, clock: Clock, archive_id: str | None = None
) -> str:
    """Writes `archive.json` unless there is one, and returns the id in it.

    Args:
        store: The store.
        incoming: Folder in which it is written first.
        clock: Current time.
        archive_id: Id to write; a new one by default.
    """
    if found := read_identity(store):
        return found
    archive_id = archive_id or new_id()
    with incoming.file(".json") as draft:
        draft.write_bytes(_encoded(archive_id, clock()))
        if not store.create(draft, FILE):
            return read_identity(store) or archive_id
    return archive_id


def _encoded(archive_id: str, created_at: datetime) -> bytes:
    content = {
        "archive_id": archive_id,
        "created_at": created_at.isoformat(timespec="seconds"),
        "format": FORMAT,
    }
    return f"{json.dumps(content, indent=2)}\n".encode()


def identity_bytes(archive_id: str) -> int:
    """Size of `archive.json`, which does not depend on when it was written."""
    return len(_encoded(archive_id, datetime.min.replace(tzinfo=UTC)))


def identity_facts(place: Place) -> dict[str, str]:
    """Returns the archive's id and the hash of `archive.json`, for the custody log."""
    digest = hashlib.sha256(place.store.read(FILE)).hexdigest()
    return {"archive_id": place.archive_id, "archive_sha256": digest}


def new_id() -> str:
    """Returns a random id."""
    return uuid.uuid4().hex


def place_of(warehouse: Warehouse, store: Store, archive_id: str, warehouse_id: str) -> Place:
    """Returns an archive as a run of this warehouse uses it."""
    file = duckdb_path(warehouse.pipeline)
    own = str(file.resolve()) if file else destination_label(warehouse.pipeline)
    digest = hashlib.sha256(f"{warehouse_id}\n{own}".encode()).hexdigest()
    return Place(archive_id, digest[:WRITER_DIGITS], warehouse_id, store)


def is_relative(url: str) -> bool:
    """Returns whether a setting names a folder beside the project, which moves along with it."""
    return "://" not in url and not Path(url).expanduser().is_absolute()


def check_place(known: Known, store: Store, url: str) -> bool:
    """Checks that a store is the archive of the warehouse.

    Args:
        known: The archive of the warehouse.
        store: The store.
        url: Setting that names it.

    Returns:
        True if it is in its known place; False if it has moved along with the project's folder.

    Raises:
        ConfigurationError: It is another one, or in another place.
    """
    found = read_identity(store)
    ours = f"the archive of this warehouse is {known.archive_id} at {known.url}"
    if found is None:
        raise ConfigurationError(
            f"{store} has no {FILE}, and is not an archive: {ours}. Set recordings_url to its "
            f"place, or move it there with `recordings move --to {store}`"
        )
    if found != known.archive_id:
        raise ConfigurationError(
            f"{store} is another archive, {found}: {ours}. Set recordings_url to its place, or use "
            f"the other one from now on with `recordings adopt {store}`"
        )
    if str(store) == known.url:
        return True
    if is_relative(url):
        return False
    raise ConfigurationError(
        f"{store} has the same id, but {ours}. If it was moved, run `recordings adopt {store}`"
    )


def refuse_unknown(warehouse: Warehouse, store: Store) -> bool:
    """Checks that a warehouse without an archive may begin one in a store.

    Returns:
        True if version 0.1 has put the warehouse's recordings there, False if it is empty.

    Raises:
        ConfigurationError: The store is in use, or the warehouse's recordings are elsewhere.
    """
    found = read_identity(store)
    is_upgrading = found is not None and _unfinished(warehouse, store, found) is not None
    files = (path for path, _ in store.walk() if path != FILE)
    if found and not is_upgrading and next(files, None):
        raise ConfigurationError(
            f"{store} is the archive {found}, which this warehouse does not know: to go on with "
            f"it, or to share it with another warehouse, run `recordings adopt {store}`"
        )
    uris = [
        uri
        for (uri,) in warehouse.rows(
            "SELECT max(uri) FROM {recordings} WHERE uri IS NOT NULL GROUP BY agent_id"
        )
    ]
    has_files = next(iter(store.walk("agent_id=")), None) is not None
    elsewhere = [uri for uri in uris if store.path_of(uri) is None]
    if elsewhere or (uris and not has_files):
        raise ConfigurationError(
            f"{store} is not the archive of this warehouse, which has recordings such as "
            f"{(elsewhere or uris)[0]}. Set recordings_url to their place, or, if they were moved, "
            f"run `recordings adopt {store}`"
        )
    if uris:
        return True
    if has_files or next(iter(store.walk("manifest/")), None):
        raise ConfigurationError(
            f"{store} has recordings that this warehouse does not know: to use them, run "
            f"`recordings adopt {store}`"
        )
    return False


def archive_row(place: Place, agent_id: str, clock: Clock = utc_now) -> Mapping[str, Any]:
    """Returns an agent's row of `archives`."""
    return {
        "agent_id": agent_id,
        "archive_id": place.archive_id,
        "url": str(place.store),
        "warehouse_id": place.warehouse_id,
        "added_at": clock(),
    }


def register(committer: Committer, place: Place, agent_ids: Iterable[str], clock: Clock) -> None:
    """Writes the rows of `archives` of these agents."""
    rows = [archive_row(place, agent_id, clock) for agent_id in sorted(agent_ids)]
    if rows:
        committer.write({ARCHIVES: rows})


def begin_takeover(
    committer: Committer,
    store: Store,
    incoming: Incoming,
    clock: Clock,
    archive_id: str | None = None,
) -> Place:
    """Returns the archive in a store, in which this warehouse begins to write.

    Until `end_takeover`, a row of `archives` keeps the ids, so that the next run continues the
    manifest and the log of one that was killed.

    Args:
        committer: Committer of the warehouse.
        store: The store.
        incoming: Folder in which `archive.json` is written first.
        clock: Current time.
        archive_id: Id of an archive that has lost its `archive.json`.
    """
    archive_id = read_identity(store) or archive_id
    unfinished = _unfinished(committer.warehouse, store, archive_id)
    ids = unfinished or (archive_id or new_id(), new_id())
    place = place_of(committer.warehouse, store, *ids)
    register(committer, place, [_TAKEOVER], clock)
    create_identity(store, incoming, clock, place.archive_id)
    return place


def end_takeover(committer: Committer) -> None:
    """Deletes the row of `begin_takeover`."""
    committer.delete(ARCHIVES, "agent_id = %s", _TAKEOVER)


def _unfinished(
    warehouse: Warehouse, store: Store, archive_id: str | None
) -> tuple[str, str] | None:
    """Returns the ids of archive and warehouse of a takeover that was killed; None without one.

    Args:
        warehouse: The warehouse.
        store: The store.
        archive_id: The id in the store; None if it has none yet.
    """
    for begun_id, url, warehouse_id in warehouse.rows(
        "SELECT archive_id, url, warehouse_id FROM {archives} WHERE agent_id = %s", _TAKEOVER
    ):
        if archive_id == begun_id or (archive_id is None and url == str(store)):
            return begun_id, warehouse_id
    return None


def repoint(committer: Committer, place: Place) -> None:
    """Makes a place that of the warehouse's archive and of its files, in one transaction."""
    store = place.store
    prefix = store.uri("x").removesuffix("x")
    with committer.statements() as client, client.begin_transaction():
        archives = client.make_qualified_table_name(ARCHIVES.name)
        recordings = client.make_qualified_table_name(RECORDINGS.name)
        client.execute_sql(
            f"UPDATE {archives} SET archive_id = %s, url = %s, warehouse_id = %s "
            "WHERE agent_id <> %s",
            place.archive_id,
            str(store),
            place.warehouse_id,
            _TAKEOVER,
        )
        client.execute_sql(
            f"UPDATE {recordings} SET archive_id = %s, uri = CONCAT(%s, path) "
            "WHERE path IS NOT NULL",
            place.archive_id,
            prefix,
        )
