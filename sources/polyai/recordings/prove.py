"""Proof of one conversation's recordings: the entries of the custody log, and their check."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import ConfigurationError
from ..warehouse.queries import Warehouse
from ..warehouse.stores import open_store
from .custody import FOLDER, Link, is_segment
from .identity import check_place, known_archive, place_of
from .index import INDEX, Index, manifest_folder, read_index
from .layout import safe_name
from .log_check import LogCheck

_GIVEN = frozenset({"fetched", "fetched_again", "longer"})
"""Events of files that PolyAI's answer contained."""

_PRESENT = _GIVEN | {"found", "upgraded"}


@dataclass
class Proof:
    """Chain of custody of one conversation's recordings.

    Attributes:
        conversation_id: The conversation.
        archive_id: The archive.
        entries: Entries of the log about it, each with its log, number and hash.
        files: Its recordings as the warehouse has them, each with the state of its file.
        problems: Reasons why the chain does not prove them.
    """

    conversation_id: str
    archive_id: str
    entries: list[dict[str, Any]] = field(default_factory=list)
    files: list[dict[str, Any]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def is_proven(self) -> bool:
        """True if every file is what the log says, and the log is unbroken."""
        return not self.problems


def prove(warehouse: Warehouse, url: str, conversation_id: str) -> Proof:
    """Collects and checks the chain of custody of a conversation.

    Args:
        warehouse: The warehouse, read only.
        url: Address of its archive.
        conversation_id: The conversation.

    Raises:
        ConfigurationError: The warehouse has no archive, or it is elsewhere.
        StoreError: The archive cannot be read.
    """
    known = known_archive(warehouse)
    if known is None:
        raise ConfigurationError("this warehouse has no archive of recordings")
    store = open_store(url)
    check_place(known, store, url)
    place = place_of(warehouse, store, known.archive_id, known.warehouse_id)
    proof = Proof(conversation_id, known.archive_id)
    rows = warehouse.rows_by_column(
        "SELECT agent_id, direction, redacted, status, path, sha256, bytes FROM {recordings} "
        "WHERE conversation_id = %s ORDER BY agent_id, direction, redacted",
        conversation_id,
    )
    left = dict(store.walk(f"{FOLDER}/"))
    own_agents = {row["agent_id"] for row in rows}

    def note(link: Link) -> None:
        entry: Mapping[str, Any] = link.entry or {}
        if entry.get("conversation_id") == conversation_id:
            proof.entries.append({"log": link.path, "sha256_of_entry": link.sha256, **entry})

    for agent_id in sorted(own_agents | _agents(known.agents, left)):
        writers = {
            path.split("/")[2]
            for path in left
            if path.startswith(f"{FOLDER}/{safe_name(agent_id)}/") and is_segment(path)
        }
        for writer in sorted(writers):
            index = Index(known.archive_id, agent_id, writer)
            try:
                index = read_index(store, f"{manifest_folder(agent_id)}/{writer}/{INDEX}")
            except FileNotFoundError:
                proof.problems.append(f"{store.uri(index.path)} is gone")
            log = LogCheck(store, index, left, quick=False)
            log.run(warehouse if writer == place.writer else None, place, note)
            proof.problems += [f"{one.uri}: {one.detail}" for one in log.findings]
    proof.entries.sort(key=lambda entry: str(entry["at"]))
    given = {(one["path"], one["sha256"]) for one in proof.entries if one["event"] in _PRESENT}
    for row in rows:
        if row["status"] != "stored":
            continue
        try:
            is_intact = store.digest(row["path"]).sha256 == row["sha256"]
        except FileNotFoundError:
            is_intact = False
        proof.files.append({**row, "uri": store.uri(row["path"]), "is_intact": is_intact})
        if not is_intact:
            proof.problems.append(f"{store.uri(row['path'])} is not what was recorded")
        if (row["path"], row["sha256"]) not in given:
            proof.problems.append(f"no entry of the log is about {store.uri(row['path'])}")
    if not proof.entries:
        proof.problems.append("no entry of the log is about this conversation")
    return proof


def _agents(known: frozenset[str], left: Mapping[str, int]) -> set[str]:
    """Agents of the warehouse that have logs in the archive."""
    folders = {path.split("/")[1] for path in left}
    return {agent_id for agent_id in known if safe_name(agent_id) in folders}
