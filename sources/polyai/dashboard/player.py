"""The recording of a conversation, played in the page."""

from __future__ import annotations

import marimo as mo

from ..errors import ConfigurationError, StoreError
from ..recordings.store import open_store
from ..views.query_reader import Reader
from . import pieces, queries, wording
from .markup import Markup, joined, tag

_STORED = "stored"

_LONGEST_BYTES = 200 * 1000 * 1000
"""A recording that is larger is not for a page: it goes through the memory of both sides."""


def player(reader: Reader, agent_id: str, conversation_id: str) -> Markup:
    """What plays the redacted recording where there is one, else a line that says why not."""
    rows = queries.recordings(reader, agent_id, conversation_id)
    stored = next((row for row in rows if row["status"] == _STORED and row["uri"]), None)
    if stored is None:
        if rows:
            return pieces.nothing("PolyAI has no recording of it.")
        return tag(
            "p",
            "No recording was fetched. ",
            pieces.code("polyai-warehouse recordings"),
            " fetches what is missing.",
            class_="pw-nothing",
        )
    if (stored["bytes"] or 0) > _LONGEST_BYTES:
        return pieces.nothing(
            f"It is too large to be played here: {wording.size(stored['bytes'])}."
        )
    try:
        sound = _read(stored["uri"])
    except (FileNotFoundError, StoreError, ConfigurationError):
        return pieces.nothing("The recording is not where it was stored, or cannot be read.")
    kind = "redacted" if stored["redacted"] else "not redacted"
    return joined(
        Markup(mo.audio(sound).text),
        tag(
            "p",
            f"{wording.duration(stored['duration_seconds'])}, {kind}, "
            f"{wording.size(stored['bytes'])}",
            class_="pw-note",
        ),
    )


def _read(uri: str) -> bytes:
    folder, _, name = uri.rpartition("/")
    return b"".join(open_store(folder).parts(name))
