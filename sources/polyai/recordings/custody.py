"""Custody log: an append-only chain of entries about every file of an archive.

Each warehouse writes a chain of its own per agent, as immutable segments of JSON lines. Each entry
has the SHA-256 of the line before it, across segments, so that no entry can be changed or removed
without breaking the chain. The head, the hash of the newest entry, is kept in `sync_runs`; kept
anywhere else, it proves the chain even against those who can write to both.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, NamedTuple

import orjson

from ..config.version import installed_version
from ..errors import StoreError
from ..warehouse.file_store import Store
from ..warehouse.incoming import Incoming
from .layout import safe_name

FOLDER = "custody"

Event = Literal[
    "joined",
    "upgraded",
    "fetched",
    "fetched_again",
    "longer",
    "other_version",
    "found",
    "quarantined",
    "deleted",
    "moved",
    "adopted",
]
"""Kind of an entry.

`joined`: this warehouse began to write. `upgraded`: an archive of version 0.1 had the file.
`fetched`: PolyAI's answer was stored. `fetched_again`: a lost file was replaced by the same bytes.
`longer`: a longer recording was stored beside the one that was too short. `other_version`: PolyAI
gave other bytes than before, which were stored beside them. `found`: the file was in the store
already. `quarantined`, `deleted`: the file was set aside or deleted. `moved`, `adopted`: the
archive has another place.
"""

START = "0" * 64
"""`previous` of the first entry."""

_SEGMENT = re.compile(r"(\d{10})\.jsonl")

Entry = Mapping[str, Any]


class Head(NamedTuple):
    """End of a chain.

    Attributes:
        entries: Number of entries.
        sha256: Hash of the newest entry.
    """

    entries: int = 0
    sha256: str = START


class Link(NamedTuple):
    """Line of a chain.

    Attributes:
        path: Segment.
        number: Position in the chain, from 1.
        sha256: Hash of the line.
        entry: Its content; None if it cannot be read.
    """

    path: str
    number: int
    sha256: str
    entry: Entry | None


class Break(NamedTuple):
    """Place at which a chain is broken.

    Attributes:
        path: Segment.
        number: Number of the entry.
        detail: Explanation.
    """

    path: str
    number: int
    detail: str


def chain_folder(agent_id: str, writer: str) -> str:
    """Folder of a writer's chain."""
    return f"{FOLDER}/{safe_name(agent_id)}/{writer}"


def event(kind: Event, at: datetime, **facts: Any) -> dict[str, Any]:
    """Returns an entry that is not part of a chain yet."""
    return {"event": kind, "at": at, "version": installed_version(), **facts}


class Custody:
    """Chain of one agent that this warehouse writes.

    Args:
        store: Store of the archive.
        incoming: Folder in which segments are written first.
        agent_id: The agent.
        writer: Id of the warehouse in the archive.
        since: A head from which on the chain is read; the start by default.
    """

    def __init__(
        self, store: Store, incoming: Incoming, agent_id: str, writer: str, since: Head
    ) -> None:
        self._store = store
        self._incoming = incoming
        self._folder = chain_folder(agent_id, writer)
        self.head = since
        names = (path.rpartition("/")[2] for path, _ in store.walk(f"{self._folder}/"))
        # segments that a killed run wrote last are known from nowhere else
        newer = [name for name in names if _number(name) > since.entries]
        for link in links(store, [f"{self._folder}/{name}" for name in sorted(newer)]):
            self.head = Head(link.number, link.sha256)

    def append(self, entries: Sequence[Entry]) -> Head:
        """Writes entries as a segment.

        Raises:
            StoreError: It cannot be written, or another process writes to the same chain.
        """
        if not entries:
            return self.head
        path = f"{self._folder}/{self.head.entries + 1:010d}.jsonl"
        number, previous = self.head
        with self._incoming.file(".jsonl") as draft:
            with draft.open("wb") as file:
                for entry in entries:
                    number += 1
                    line = orjson.dumps({"entry": number, "previous": previous, **entry})
                    previous = hashlib.sha256(line).hexdigest()
                    file.write(line + b"\n")
            if not self._store.create(draft, path):
                raise StoreError(
                    f"{self._store.uri(path)} exists already: another copy of this warehouse "
                    "writes to its archive. `recordings adopt` lets this one write on its own"
                )
        self.head = Head(number, previous)
        return self.head


def _number(name: str) -> int:
    """Number of the first entry of a segment; -1 for another file."""
    match = _SEGMENT.fullmatch(name)
    return int(match[1]) if match else -1


def is_segment(path: str) -> bool:
    """Returns whether a path below `FOLDER` has the form of a segment's."""
    return path.count("/") == 3 and _number(path.rpartition("/")[2]) > 0


def links(store: Store, paths: Iterable[str]) -> Iterator[Link]:
    """Yields the lines of segments, which are in order."""
    for path in paths:
        number = _number(path.rpartition("/")[2])
        for line in store.read(path).removesuffix(b"\n").split(b"\n"):
            try:
                entry = orjson.loads(line)
                found = entry["entry"]
                is_entry = isinstance(found, int) and isinstance(entry["previous"], str)
            except (orjson.JSONDecodeError, KeyError, TypeError):
                is_entry = False
            if is_entry:
                number = found
            yield Link(path, number, hashlib.sha256(line).hexdigest(), entry if is_entry else None)
            number += 1


class ChainCheck:
    """Check of one chain, link by link.

    A changed entry shows in the next one, whose `previous` it no longer has.

    Attributes:
        breaks: Places at which it is broken.
        head: Its end.
    """

    def __init__(self) -> None:
        self.breaks: list[Break] = []
        self.head = Head()
        self._last: Link | None = None
        self._before: Link | None = None
        self._is_unclear = False
        """The last link does not fit the one before: either of them was changed."""

    def add(self, link: Link) -> None:
        """Checks the next link."""
        if link.entry is None:
            self._settle(fits=True)
            self._break(link, "cannot be read")
        else:
            fits = link.entry["previous"] == self.head.sha256
            is_after_break = self._last is not None and self._last.entry is None
            self._settle(fits=fits)
            if (missing := link.number - self.head.entries - 1) > 0:
                before = f"{missing:,} entries before it are missing"
                self._break(link, before)
            elif missing < 0:
                self._break(link, "is not the next one of its chain")
            elif not fits and not is_after_break:
                self._is_unclear = True
        self._before, self._last = self._last, link
        self.head = Head(link.number, link.sha256)

    def finish(self, head: Head | None) -> None:
        """Compares the end with the recorded head, if there is one with this number of entries."""
        is_known = head is not None and head.entries == self.head.entries
        is_other = is_known and head != self.head
        if self._is_unclear:
            self._settle(fits=not is_other)
        elif is_other and self._last is not None and self._last.entry is not None:
            self._break(self._last, "was changed: its hash is not the recorded head")

    def _settle(self, *, fits: bool) -> None:
        """Names the changed entry, as the next link shows it."""
        if self._is_unclear and self._last is not None:
            self._is_unclear = False
            # an entry whose own `previous` was changed fits neither of its neighbours
            changed = self._before if fits and self._before is not None else self._last
            self._break(changed, "was changed: the next entry has another hash of it")

    def _break(self, link: Link, detail: str) -> None:
        self.breaks.append(Break(link.path, link.number, f"entry {link.number:,} {detail}"))
