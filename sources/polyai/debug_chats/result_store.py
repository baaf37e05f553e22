"""Storage of results in the warehouse: the tables `debug_chats` and `debug_chat_turns`."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import dlt

from ..errors import BusyError
from ..load.committer import open_committer
from ..locking.files import LockTimeout
from ..locking.names import DEBUG_CHATS_WRITER
from ..tables.debug_chats import DEBUG_CHAT_TURNS, DEBUG_CHATS
from .results import ChatsRun, ScenarioResult

PIPELINE_NAME = "polyai_debug_chats"
"""dlt pipeline and schema of debug chats; separate from `load`, which can run at the same time."""

MIN_WAIT = timedelta(minutes=1)
"""Minimum wait for a lock, so that two CI jobs that end together both store their results."""


def store_results(run: ChatsRun, pipeline: dlt.Pipeline, *, wait: timedelta = timedelta(0)) -> None:
    """Writes the results of a run in one load package.

    Args:
        run: Result of `run_suites`; scenarios that were not started are not stored.
        pipeline: Pipeline of the warehouse: `open_pipeline` with the name `PIPELINE_NAME`.
        wait: Maximum wait for another run that writes debug chats; at least `MIN_WAIT`.

    Raises:
        BusyError: Another run held the lock or lease for longer than that.
        DestinationError: The destination cannot be written.
    """
    stored = [one for one in run.scenarios if one.turns or one.outcome != "skipped"]
    if not stored:
        return
    chat_ids = [one.chat_id or f"none-{uuid.uuid4().hex}" for one in stored]
    chats = [_chat_row(run, one, chat_id) for one, chat_id in zip(stored, chat_ids)]
    turns = [row for one, chat_id in zip(stored, chat_ids) for row in _turn_rows(one, chat_id)]
    agent_ids = list(dict.fromkeys(one.agent_id for one in stored))
    # not the run's own stop event: an interrupted run still stores its results
    timeout = LockTimeout(max(wait, MIN_WAIT), threading.Event())

    def lease_names() -> list[str]:
        return [DEBUG_CHATS_WRITER.lease(agent_id) for agent_id in agent_ids]

    with open_committer(pipeline, DEBUG_CHATS_WRITER.lock_ending, lease_names, timeout) as (
        committer,
        others,
    ):
        for holder in others.values():
            raise BusyError(f"{holder} is writing debug chats: these results were not stored")
        committer.write({DEBUG_CHATS: chats, DEBUG_CHAT_TURNS: turns})


def _chat_row(run: ChatsRun, result: ScenarioResult, chat_id: str) -> dict[str, Any]:
    setup = result.setup
    return {
        "agent_id": result.agent_id,
        "chat_id": chat_id,
        "conversation_id": result.chat_id,
        "run_id": run.run_id,
        "label": run.label,
        "suite": result.suite,
        "scenario": result.scenario,
        "environment": setup.environment,
        "variant_id": setup.variant_id,
        "asr_lang_code": setup.asr_lang_code,
        "tts_lang_code": setup.tts_lang_code,
        "started_at": result.started_at,
        "finished_at": result.finished_at,
        "ended": result.has_ended,
        # unknown for a scenario that was interrupted
        "passed": None if result.outcome == "skipped" else result.outcome == "passed",
        "error": result.error or result.failure,
    }


def _turn_rows(result: ScenarioResult, chat_id: str) -> Iterator[dict[str, Any]]:
    for turn in result.turns:
        yield {
            "agent_id": result.agent_id,
            "chat_id": chat_id,
            "conversation_id": result.chat_id,
            "turn_index": turn.turn_index,
            "user_input": turn.user_input,
            "response": turn.response,
            "latency_ms": round(turn.latency_seconds * 1000),
            "delayed_response": turn.is_delayed,
            "metadata": turn.metadata,
            "check": "; ".join(check.expected for check in turn.checks) or None,
            "passed": turn.passed,
            "failure": "; ".join(map(str, turn.unmet)) or None,
            "extra": turn.extra,
        }
