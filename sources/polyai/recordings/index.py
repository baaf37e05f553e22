"""Index of a warehouse's manifest: the parts that count, and every other file it answers for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import orjson

from ..errors import StoreError, first_line
from ..warehouse.file_store import Store
from .custody import Head
from .layout import safe_name

FOLDER = "manifest"
"""Separate from the audio, so that Spark and others can read a folder of Parquet only."""

INDEX = "_index.json"
"""Spark and pyarrow skip names that begin with an underscore."""


@dataclass(frozen=True)
class Part:
    """Parquet file of the manifest.

    Attributes:
        path: Path in the archive.
        month: Month of its calls, `2026-03`, or `unknown`.
        sha256: Hash of the file.
        bytes: Size of the file.
        rows: Number of rows.
    """

    path: str
    month: str
    sha256: str
    bytes: int
    rows: int


@dataclass(frozen=True)
class Kept:
    """File beside the recordings: another version, or one that was set aside.

    Attributes:
        path: Path in the archive.
        sha256: Hash of the file.
        bytes: Size of the file.
        why: Event of the custody log.
    """

    path: str
    sha256: str
    bytes: int
    why: str


def kept_of(entry: Mapping[str, Any]) -> Kept | None:
    """Returns the other file that an entry of the custody log is about, if it is about one."""
    why = entry.get("event")
    path = {"other_version": "path", "quarantined": "kept_as", "longer": "earlier_path"}.get(
        str(why)
    )
    if path is None:
        return None
    earlier = "earlier_" if why == "longer" else ""
    return Kept(entry[path], entry[f"{earlier}sha256"], entry[f"{earlier}bytes"], str(why))


@dataclass(frozen=True)
class Index:
    """Content of `_index.json`: the files that one warehouse answers for.

    Attributes:
        archive_id: The archive.
        agent_id: The agent.
        writer: Id of the warehouse in the archive.
        run_id: Run that wrote it.
        parts: Parts of the manifest.
        kept: Other files.
        custody: Head of the custody log.
    """

    archive_id: str
    agent_id: str
    writer: str
    run_id: str = ""
    parts: Sequence[Part] = ()
    kept: Sequence[Kept] = ()
    custody: Head = field(default_factory=Head)

    @property
    def path(self) -> str:
        """Its path."""
        return f"{manifest_folder(self.agent_id)}/{self.writer}/{INDEX}"

    def encoded(self) -> bytes:
        """Returns its JSON."""
        content = asdict(self) | {"custody": self.custody._asdict()}
        return orjson.dumps(content, option=orjson.OPT_INDENT_2)


def manifest_folder(agent_id: str) -> str:
    """Folder of an agent's manifests, one folder per warehouse."""
    return f"{FOLDER}/{safe_name(agent_id)}"


def read_index(store: Store, path: str) -> Index:
    """Reads an index.

    Raises:
        FileNotFoundError: It does not exist.
        StoreError: It cannot be read, or is no index.
    """
    try:
        content = orjson.loads(store.read(path))
        index = Index(
            content["archive_id"],
            content["agent_id"],
            content["writer"],
            content["run_id"],
            [Part(**one) for one in content["parts"]],
            [Kept(**one) for one in content["kept"]],
            Head(**content["custody"]),
        )
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise StoreError(
            f"{store.uri(path)} cannot be read ({first_line(error)}): "
            "`recordings verify --refetch` rewrites it"
        ) from error
    if index.path != path:
        raise StoreError(f"{store.uri(path)} is the index of {index.path}")
    return index


def other_indexes(store: Store, own: Index) -> Iterator[Index]:
    """Yields the indexes of other warehouses with recordings of the same agent."""
    for path, _ in store.walk(f"{manifest_folder(own.agent_id)}/"):
        if path.endswith(f"/{INDEX}") and path != own.path:
            yield read_index(store, path)
