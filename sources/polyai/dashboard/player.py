"""Audio player of a conversation's recording."""

from __future__ import annotations

import marimo as mo

from ..config.settings import shared_setting
from ..errors import ConfigurationError, StoreError
from ..views.query_reader import Reader
from ..warehouse.stores import open_store
from . import components, formats, queries
from .markup import Markup, joined, tag

_STORED = "stored"

_MAX_BYTES = 200 * 1000 * 1000
"""Maximum size of a playable recording: server and browser keep all of it in memory."""


def player(reader: Reader, agent_id: str, conversation_id: str) -> Markup:
    """Returns a player, of the redacted recording if there is one, or why there is none."""
    rows = queries.recordings(reader, agent_id, conversation_id)
    stored = next((row for row in rows if row["status"] == _STORED and row["uri"]), None)
    if stored is None:
        if rows:
            return components.empty("PolyAI has no recording of this conversation.")
        return tag(
            "p",
            "The recording is not downloaded. Download missing recordings with ",
            components.code("polyai-warehouse recordings"),
            class_="pw-nothing",
        )
    if (stored["bytes"] or 0) > _MAX_BYTES:
        return components.empty(
            f"The recording is too large to be played here: {formats.size(stored['bytes'])}."
        )
    try:
        sound = _read(stored["uri"])
    except (FileNotFoundError, StoreError, ConfigurationError):
        return components.empty(
            "The recording is missing from the archive (recordings_url), or cannot be read."
        )
    kind = "redacted" if stored["redacted"] else "not redacted"
    return joined(
        Markup(mo.audio(sound).text),
        tag(
            "p",
            f"{formats.duration(stored['duration_seconds'])}, {kind}, "
            f"{formats.size(stored['bytes'])}",
            class_="pw-note",
        ),
    )


def _read(uri: str) -> bytes:
    """Reads a file of the archive.

    Raises:
        StoreError: It is not in the archive, whatever the table says.
    """
    store = open_store(shared_setting("recordings_url"))
    path = store.path_of(uri)
    if path is None or not store.is_within(path):
        raise StoreError(f"{uri} is not in {store}")
    return b"".join(store.parts(path))
