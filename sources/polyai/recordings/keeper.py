"""Keeping of recordings: complete files go into the archive, and none is ever overwritten."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..api.decoding import NotAcceptedError
from ..clock import Clock
from ..warehouse.incoming import Incoming
from .archive import Due, Kind
from .custody import Entry, Event, event
from .identity import Place
from .index import Kept
from .layout import base_path, file_name, partition, version_name
from .manifest import KEY, Manifest, Row
from .month_listing import MonthListing
from .outcome import Outcome, Task
from .quarantine import quarantine
from .wav import Received, receive

WAV = ".wav"

_PARTITIONS = 64
"""Cached days of the manifest: calls come in the order in which they began."""

logger = logging.getLogger("polyai")


class Keeper:
    """Puts one agent's recordings into the archive, or finds them there; thread-safe.

    Args:
        place: The archive.
        incoming: Folder in which files are written first.
        manifest: Rows of the files that are in the store already.
        agent_id: The agent.
        facts: Facts of the run for the custody log.
        clock: Current time.
    """

    def __init__(
        self,
        place: Place,
        incoming: Incoming,
        manifest: Manifest,
        agent_id: str,
        facts: Mapping[str, Any],
        clock: Clock,
    ) -> None:
        self._archive_id = place.archive_id
        self._store = place.store
        self._incoming = incoming
        self._manifest = manifest
        self._agent_id = agent_id
        self._facts = facts
        self._clock = clock
        self._files = MonthListing(place.store).sizes
        self._known_rows = lru_cache(_PARTITIONS)(manifest.read)

    def requested_again(self, loaded: Mapping[str, Any]) -> Row:
        """Row of a stored recording that another request has not made longer."""
        attempts = (loaded["attempts"] or 0) + 1
        return dict(loaded) | {"attempts": attempts, "fetched_at": self._clock()}

    def adopted(self, due: Due, kind: Kind) -> Outcome | None:
        """Adopts a file that a killed run or another warehouse has left in the store."""
        folder, name = self._place(due, kind)
        sizes = self._files(folder)
        if name not in sizes:
            return None
        known = self._known_rows(folder).get((due.conversation_id, *kind))
        if known and known["status"] == "stored":
            stored_name = str(known["path"]).rpartition("/")[2]
            if sizes.get(stored_name) == known["bytes"]:
                row = known | self._location(known["path"])
                entries = (self._entry("found", row),)
                return Outcome(row, is_adopted=True, is_known=True, entries=entries)
        with self._incoming.file(WAV) as file:
            try:
                received = receive(self._store.parts(f"{folder}/{name}"), file)
            except (NotAcceptedError, FileNotFoundError):
                # not written by this package, whose files are complete
                return None
            row = self._stored_row(due, kind, f"{folder}/{name}", received)
            recorded = due.rows.get(kind, {})
            if recorded.get("status") == "stored" and recorded["sha256"] != row["sha256"]:
                return None
            return Outcome(row, is_adopted=True, entries=(self._entry("found", row),))

    def stored(
        self, task: Task, file: Path, received: Received, answered: Mapping[str, Any]
    ) -> Outcome:
        """Moves a complete answer into the store, where it replaces no file."""
        due, kind, loaded = task.due, task.kind, task.loaded
        path = loaded.get("path") or "/".join(self._place(due, kind))
        row = self._stored_row(due, kind, path, received)
        if task.is_short:
            return self._longer(task, file, row, answered)
        if loaded.get("status") == "stored" and self._is_intact(path, loaded["sha256"]):
            return Outcome(dict(loaded) | self._location(path), is_known=True)
        entries, kept = self._set_aside(row, loaded)
        if loaded.get("status") == "stored" and loaded["sha256"] != received.sha256:
            other, versions = self._other_version(file, row, answered)
            row = self.requested_again(loaded)
            return Outcome(row, is_known=True, entries=(*entries, *other), kept=(*kept, *versions))
        # another warehouse may have been faster
        if not (self._store.create(file, path) or self._has(path, received.sha256)):
            row |= self._location(self._create_version(file, path, received.sha256))
        is_again = loaded.get("status") == "stored"
        fetched = self._entry("fetched_again" if is_again else "fetched", row, answered)
        return Outcome(row, entries=(*entries, fetched), kept=kept)

    def _longer(self, task: Task, file: Path, row: Row, answered: Mapping[str, Any]) -> Outcome:
        """Stores a longer recording beside the one that is too short, which is kept."""
        loaded = task.loaded
        row |= self._location(self._create_version(file, str(loaded["path"]), row["sha256"]))
        logger.info(
            "%s: the recording of %s has now %s s instead of %s s: SHA-256 %s replaces %s",
            self._agent_id,
            task.due.conversation_id,
            row["duration_seconds"],
            loaded["duration_seconds"],
            row["sha256"],
            loaded["sha256"],
        )
        entry = self._entry("longer", row, answered) | {
            f"earlier_{name}": loaded[name] for name in ("path", "sha256", "bytes")
        }
        kept = Kept(loaded["path"], loaded["sha256"], loaded["bytes"], "longer")
        return Outcome(row, entries=(entry,), kept=(kept,))

    def _set_aside(
        self, row: Row, loaded: Mapping[str, Any]
    ) -> tuple[tuple[Entry, ...], tuple[Kept, ...]]:
        """Moves a file that is not the recording into `quarantine/`, if there is one."""
        path = str(row["path"])
        folder, _, name = path.rpartition("/")
        if name not in self._files(folder):
            return (), ()
        kept, entry = quarantine(self._store, path, self._clock())
        entry |= {name: row[name] for name in KEY}
        return (entry | {**self._facts, "recorded_sha256": loaded.get("sha256")},), (kept,)

    def _other_version(
        self, file: Path, row: Row, answered: Mapping[str, Any]
    ) -> tuple[tuple[Entry, ...], tuple[Kept, ...]]:
        """Stores other bytes than those of the recorded hash beside the recording, once."""
        for one in self._manifest.index.kept:
            is_version = base_path(one.path) == base_path(row["path"])
            if one.sha256 == row["sha256"] and is_version and one.why == "other_version":
                return (self._entry("other_version", row | {"path": one.path}, answered),), ()
        row = row | {"path": self._create_version(file, str(row["path"]), row["sha256"])}
        kept = Kept(row["path"], row["sha256"], row["bytes"], "other_version")
        return (self._entry("other_version", row, answered),), (kept,)

    def _create_version(self, file: Path, path: str, sha256: str) -> str:
        """Stores a file beside another one, and returns its path."""
        for version in itertools.count(2):
            target = version_name(base_path(path), version)
            # a killed run may have stored the same
            if self._store.create(file, target) or self._has(target, sha256):
                break
        return target

    def _is_intact(self, path: str, sha256: str) -> bool:
        folder, _, name = path.rpartition("/")
        return name in self._files(folder) and self._has(path, sha256)

    def _has(self, path: str, sha256: str) -> bool:
        return self._store.digest(path).sha256 == sha256

    def _stored_row(self, due: Due, kind: Kind, path: str, received: Received) -> Row:
        """Builds the row of a complete file."""
        return self.row(due, kind, "stored", **self._location(path), **facts_of(received))

    def _location(self, path: str) -> Row:
        """Columns of `recordings` that say where a file is."""
        return {"path": path, "archive_id": self._archive_id, "uri": self._store.uri(path)}

    def _entry(
        self, kind: Event, row: Mapping[str, Any], answered: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Entry of the custody log about a stored file."""
        names = ("conversation_id", "direction", "redacted", "path", "sha256", "bytes")
        facts = {name: row[name] for name in names}
        return event(kind, self._clock(), **self._facts, **facts, **(answered or {}))

    def _place(self, due: Due, kind: Kind) -> tuple[str, str]:
        """Folder and name of a recording's file."""
        name = file_name(due.conversation_id, kind.direction, redacted=kind.redacted)
        return partition(self._agent_id, due.began), name

    def row(self, due: Due, kind: Kind, status: str, **facts: Any) -> Row:
        attempts = due.rows.get(kind, {}).get("attempts") or 0
        return {
            "agent_id": self._agent_id,
            "conversation_id": due.conversation_id,
            **kind._asdict(),
            "status": status,
            "started_at": due.began,
            "fetched_at": self._clock(),
            "attempts": attempts + 1,
            **facts,
        }


def facts_of(received: Received) -> Row:
    """Columns of `recordings` that describe a file."""
    return {
        "bytes": received.bytes,
        "sha256": received.sha256,
        "error_code": received.mark,
        **vars(received.sound),
    }


def is_longer(row: Mapping[str, Any], loaded: Mapping[str, Any]) -> bool:
    """Returns whether a file is longer than the stored one, by its sound or else its bytes."""
    names = ("duration_seconds", "bytes")
    name = next((n for n in names if None not in (row.get(n), loaded.get(n))), None)
    return name is not None and bool(row[name] > loaded[name])
