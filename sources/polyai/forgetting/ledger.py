"""Ledger of erasures outside the warehouse, to apply them again after a restore of a backup.

Append-only: JSON lines in a file, or one object per entry in a bucket. An entry has what is needed
to erase again: ids of conversations and hashes of callers.
"""

from __future__ import annotations

import errno
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson

from ..clock import in_utc
from ..config.version import installed_version
from ..errors import ConfigurationError, StoreError
from ..recordings.layout import safe_name
from ..shape.forgotten_callers import ForgottenCaller
from ..tables.erasure import LEDGER_ENTRIES
from ..warehouse.file_store import Store
from ..warehouse.incoming import Incoming
from ..warehouse.queries import Warehouse
from ..warehouse.stores import open_store

_OBJECT_ENDING = ".json"


@dataclass(frozen=True)
class Entry:
    """Erasure for one agent by one run.

    Attributes:
        entry_id: Id of the entry: that of the run.
        at: Time of the erasure.
        agent_id: The agent.
        conversations: Ids of erased conversations.
        callers: Erased callers.
    """

    entry_id: str
    at: datetime
    agent_id: str
    conversations: tuple[str, ...]
    callers: tuple[ForgottenCaller, ...]

    def encoded(self) -> bytes:
        """Returns the entry as one line of JSON."""
        return orjson.dumps(
            {
                "entry_id": self.entry_id,
                "at": self.at,
                "version": installed_version(),
                "agent_id": self.agent_id,
                "conversations": self.conversations,
                "callers": [caller._asdict() for caller in self.callers],
            },
            option=orjson.OPT_APPEND_NEWLINE,
        )

    @classmethod
    def decoded(cls, line: bytes, place: str) -> Entry:
        """Parses a line.

        Raises:
            StoreError: It is not an entry.
        """
        try:
            fields: dict[str, Any] = orjson.loads(line)
            return cls(
                str(fields["entry_id"]),
                _moment(fields["at"]),
                str(fields["agent_id"]),
                tuple(map(str, fields["conversations"])),
                tuple(
                    ForgottenCaller(**caller | {"requested_at": _moment(caller["requested_at"])})
                    for caller in fields["callers"]
                ),
            )
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            raise StoreError(
                f"{place} is not an entry of a ledger of erasures, so that an erasure may be "
                "missing. Restore it, or remove it if a power failure has torn it"
            ) from error


class Ledger(ABC):
    """Entries in a file or bucket."""

    @abstractmethod
    def read(self, agent_ids: Iterable[str], known: Set[str]) -> list[Entry]:
        """Returns the entries of agents, oldest first.

        Args:
            agent_ids: The agents.
            known: Ids of entries to leave out.

        Raises:
            StoreError: The ledger cannot be read.
        """

    @abstractmethod
    def append(self, entry: Entry) -> None:
        """Adds an entry durably.

        Raises:
            StoreError: The ledger cannot be written.
        """

    def pending(self, warehouse: Warehouse, agent_ids: Sequence[str]) -> dict[str, list[Entry]]:
        """Returns the entries by agent that a warehouse has neither written nor applied."""
        known = {
            entry_id for (entry_id,) in warehouse.rows("SELECT entry_id FROM {ledger_entries}")
        }
        found: dict[str, list[Entry]] = {}
        for entry in self.read(agent_ids, known):
            found.setdefault(entry.agent_id, []).append(entry)
        return found


class _FileLedger(Ledger):
    """Lines of a file, which is its owner's alone."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self, agent_ids: Iterable[str], known: Set[str]) -> list[Entry]:
        wanted = frozenset(agent_ids)
        entries = []
        try:
            with self._path.open("rb") as file:
                for number, line in enumerate(file, 1):
                    entry = Entry.decoded(line, f"line {number} of {self._path}")
                    if entry.agent_id in wanted and entry.entry_id not in known:
                        entries.append(entry)
        except FileNotFoundError:
            # a file server that is not mounted looks like an empty ledger
            if known or not self._path.parent.is_dir():
                raise StoreError(
                    f"forget_ledger {self._path} does not exist, so that an erasure may be missing"
                ) from None
        except OSError as error:
            raise StoreError(f"forget_ledger {self._path} cannot be read: {error}") from error
        return entries

    def append(self, entry: Entry) -> None:
        try:
            file = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                # one call, so that lines of two runs do not mix
                line = entry.encoded()
                if os.write(file, line) < len(line):
                    raise OSError(errno.ENOSPC, "no space for a whole entry")
                os.fsync(file)
            finally:
                os.close(file)
        except OSError as error:
            raise StoreError(f"forget_ledger {self._path} cannot be written: {error}") from error


class _ObjectLedger(Ledger):
    """Objects of a bucket, or files of a folder, in a folder per agent."""

    def __init__(self, store: Store, drafts: Path) -> None:
        self._store = store
        self._drafts = drafts

    def read(self, agent_ids: Iterable[str], known: Set[str]) -> list[Entry]:
        self._store.check()
        entries = []
        for agent_id in agent_ids:
            folder = safe_name(agent_id)
            for name in sorted(self._store.sizes(folder)):
                if name.endswith(_OBJECT_ENDING) and _entry_id(name) not in known:
                    path = f"{folder}/{name}"
                    entries.append(Entry.decoded(self._store.read(path), self._store.uri(path)))
        return entries

    def append(self, entry: Entry) -> None:
        name = f"{entry.at:%Y%m%dT%H%M%SZ}-{entry.entry_id}{_OBJECT_ENDING}"
        path = f"{safe_name(entry.agent_id)}/{name}"
        with Incoming(self._store, self._drafts) as incoming, incoming.file(_OBJECT_ENDING) as file:
            file.write_bytes(entry.encoded())
            if not self._store.create(file, path):
                raise StoreError(f"{self._store.uri(path)} exists already")


def open_ledger(setting: str, drafts: Path | str) -> Ledger | None:
    """Opens the ledger of the setting `forget_ledger`; None without one.

    Args:
        setting: Path of a file, or fsspec URL of a folder.
        drafts: Folder on this machine, for files that are uploaded.

    Raises:
        ConfigurationError: The URL cannot be used.
    """
    if not setting:
        return None
    if "://" in setting:
        store = open_store(setting, setting="forget_ledger", section="forget")
        return _ObjectLedger(store, Path(drafts))
    path = Path(setting).expanduser()
    if path.is_dir():
        raise ConfigurationError(
            f"forget_ledger {setting} is a folder: name a file in it, or give a URL (file://…) for "
            "one file per erasure"
        )
    return _FileLedger(path)


def entry_rows(entries: Iterable[Entry], run_id: str) -> list[dict[str, Any]]:
    """Returns rows of `ledger_entries`.

    Args:
        entries: Entries that the warehouse has written or applied.
        run_id: Run that did.
    """
    return [
        {
            "agent_id": entry.agent_id,
            "entry_id": entry.entry_id,
            "requested_at": entry.at,
            "run_id": run_id,
        }
        for entry in entries
    ]


def has_entries(warehouse: Warehouse, agent_id: str) -> bool:
    """Returns whether the warehouse has written or applied an entry of an agent."""
    return bool(
        warehouse.rows(
            f"SELECT entry_id FROM {{{LEDGER_ENTRIES.name}}} WHERE agent_id = %s LIMIT 1", agent_id
        )
    )


def _entry_id(name: str) -> str:
    return name.removesuffix(_OBJECT_ENDING).rpartition("-")[2]


def _moment(text: str) -> datetime:
    return in_utc(datetime.fromisoformat(text))
