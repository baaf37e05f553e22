"""LLM requests of turns, one row each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from ..tables.turns import LLM_REQUESTS
from .answer import Json
from .batch import Batch, TurnKeys
from .turns import listed
from .values import text

_TURN_NUMBER = "turn_number"


def llm_requests(batch: Batch, turns: Sequence[Json], keys: TurnKeys) -> pa.Table:
    """Builds one row per LLM request.

    Args:
        batch: The batch.
        turns: Turns of all conversations, of which only `llm_requests` is read.
        keys: Conversation id and index of each turn.
    """
    owners: list[str] = []
    indexes: list[int] = []
    positions: list[int] = []
    requests: list[Json] = []
    extras: dict[int, Json] = {}
    for turn, (owner, index) in zip(turns, keys):
        if not (sent := turn.get("llm_requests")):
            continue
        for position, request in enumerate(listed(sent)):
            fields = request if isinstance(request, dict) else {"value": request}
            if not _is_number_of(index, fields.get(_TURN_NUMBER)):
                extras[len(owners)] = {_TURN_NUMBER: fields[_TURN_NUMBER]}
            owners.append(owner)
            indexes.append(index)
            positions.append(position)
            requests.append(fields)
    given = {"turn_index": indexes, "position": positions}
    return batch.table(
        LLM_REQUESTS, owners, given, requests, "turns[].llm_requests[].", {_TURN_NUMBER}, extras
    )


def _is_number_of(turn_index: int, sent: Any) -> bool:
    """Checks whether a number of a turn only repeats its index; the API counts from 0 or from 1."""
    return sent is None or text(sent) in (None, str(turn_index), str(turn_index + 1))
