"""Receipt of an erasure, for an auditor: what was erased, when and where, without personal data."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson

from ..config.version import installed_version
from ..errors import ConfigurationError, without_credentials
from ..shape.personal_data import replace_personal_data
from ..tables.rules import DROPPED
from .erasures import Erasure, Erasures

FORMAT = 1
"""Version of the format."""

_OUT_OF_REACH = ("PolyAI's own data", "backups")

_SNAPSHOTS = "deleted rows that the destination keeps: snapshots, time travel, pages not yet reused"


def check_receipt(path: Path) -> None:
    """Checks, before anything is erased, that a receipt can be written.

    Raises:
        ConfigurationError: The file exists, or its folder does not.
    """
    if path.exists():
        raise ConfigurationError(f"{path} exists already: a receipt does not replace another file")
    if not path.absolute().parent.is_dir():
        raise ConfigurationError(f"the folder of {path} does not exist")


def write_receipt(path: Path, content: dict[str, Any]) -> None:
    """Writes a receipt atomically; it is its owner's alone.

    Raises:
        ConfigurationError: It cannot be written. The erasure has been done.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(orjson.dumps(content, option=orjson.OPT_INDENT_2) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise ConfigurationError(
            f"the erasure is done, but its receipt {path} cannot be written: {error}"
        ) from error


def receipt_of(
    done: Erasures,
    *,
    conversations: Sequence[str],
    callers: int,
    erases_mentions: bool,
    reason: str | None,
    warehouse: str,
) -> dict[str, Any]:
    """Returns the content of a receipt.

    Numbers and addresses in ids, paths and errors are left out; see `replace_personal_data`.

    Args:
        done: Result of the run.
        conversations: Conversations that were asked for.
        callers: Number of callers that were asked for.
        erases_mentions: Other conversations that mention a caller were to be erased too.
        reason: Reason of the request.
        warehouse: Destination and dataset.
    """
    out_of_reach = [*_OUT_OF_REACH, *([] if done.is_rewritten else [_SNAPSHOTS])]
    return {
        "receipt": FORMAT,
        "version": installed_version(),
        "exit_code": int(done.exit_code),
        "is_complete": done.is_complete,
        "asked": {
            "conversations": [_clean(name) for name in conversations],
            "callers": callers,
            "callers_not_found": len(done.not_found),
            "mentions": erases_mentions,
            "reason": _clean(reason or "") or None,
        },
        "warehouse": {
            "place": without_credentials(warehouse),
            "files_rewritten": done.is_rewritten,
        },
        "agents": [_of_agent(one) for one in done.agents],
        "published_copies": [without_credentials(copy) for copy in done.copies],
        "not_done": [_clean(problem) for problem in done.problems],
        "out_of_reach": out_of_reach,
    }


def _of_agent(one: Erasure) -> dict[str, Any]:
    erased = {*one.conversations, *one.not_held}
    return {
        "agent_id": one.agent_id,
        "run_id": one.run_id,
        "requested_at": one.requested_at,
        "finished_at": one.finished_at,
        "is_complete": not (one.error or one.locked),
        "conversations": [_clean(name) for name in one.conversations],
        "not_in_warehouse": [_clean(name) for name in one.not_held],
        "callers": [
            {"caller_hash": caller.caller_hash, "method": caller.method, "salt": caller.salt}
            for caller in one.hashes
        ],
        "mentions_left": [_clean(name) for name in one.mentions if name not in erased],
        "on_hold": {
            "conversations": [_clean(name) for name in one.on_hold],
            "callers": len(one.callers_on_hold),
        },
        "rows": dict(sorted(one.rows.items())),
        "recordings": [
            {
                "archive": without_credentials(file.archive),
                "path": _clean(file.path),
                "sha256": file.sha256,
            }
            for file in one.files
        ],
    }


def _clean(text: str) -> str:
    return replace_personal_data(without_credentials(text), "", lambda _: DROPPED)
