"""Shaping of fetched conversations into batches, with what the warehouse has of them."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from ..api.decoding import decode
from ..config.settings import Agent, Settings
from ..shape.answer import DATA, V3, Answer, Json, LoadedConversation
from ..shape.audit_rows import audit_table, failure_row
from ..shape.redaction import Redaction
from ..shape.shaping import shape
from ..shape.v3_rows import merge_detail, to_data_api_names
from ..tables.audit import FETCH_FAILURES
from ..warehouse.held import LoadState
from .chunk import Batch
from .fetch import Fetched
from .plan import Plan
from .report import RunReport

logger = logging.getLogger("polyai")

_CHANGED = ("changed", "in_progress", "written_back", "partially_loaded")
"""Reasons that count as a change."""


class BatchShaper:
    """Shapes what one agent's reader fetched, and counts it in the run's report.

    Args:
        agent: The agent.
        settings: The run's settings.
        warehouse: State of the load.
        plan: The run's plan, which knows failures, erased callers and crashes.
        report: Takes the counts.

    Attributes:
        forgotten: Rows of `forgotten` for fetched conversations of erased callers.
    """

    def __init__(
        self,
        agent: Agent,
        settings: Settings,
        warehouse: LoadState,
        plan: Plan,
        report: RunReport,
    ) -> None:
        self._agent = agent
        self._source_api = settings.api
        self._redaction = Redaction(settings.pii, settings.pii_secret, settings.transcripts)
        self._warehouse = warehouse
        self._plan = plan
        self._report = report
        self.forgotten: list[dict[str, Any]] = []

    def shape(self, fetched: Sequence[Fetched], load_id: str) -> Batch:
        """Shapes distinct conversations into the rows of every loaded table.

        Args:
            fetched: The conversations.
            load_id: Load package of the rows.
        """
        agent_id = self._agent.agent_id
        self._report.load_ids.add(load_id)
        if self._plan.forgotten_callers:
            fetched = [item for item in fetched if not self._is_forgotten(item)]
        loaded = self._warehouse.loaded(
            agent_id,
            [item.task.conversation_id for item in fetched if item.task.reason != "new"],
            children=self._source_api == V3,
        )
        answers = [
            self._answer(item, loaded.get(item.task.conversation_id))
            for item in fetched
            if item.has_answer
        ]
        shaped = shape(
            self._with_note_histories(answers),
            agent_id=agent_id,
            region=self._agent.region,
            load_id=load_id,
        )
        self._count(fetched, shaped.unmapped, shaped.withheld)
        return Batch.of(shaped.tables | {FETCH_FAILURES.name: self._failures(fetched, load_id)})

    def _is_forgotten(self, item: Fetched) -> bool:
        """Checks for an erased caller; records the conversation, so that it is not read again."""
        if not item.has_answer or not self._plan.forgotten_callers.match(_detail(item)):
            return False
        self._report.forgotten += 1
        self.forgotten.append(
            {
                "agent_id": self._agent.agent_id,
                "conversation_id": item.task.conversation_id,
                "requested_at": item.fetched_at,
                "erased_at": item.fetched_at,
                "is_by_caller": True,
                "recordings": 0,
                "run_id": self._report.run_id,
            }
        )
        return True

    def _answer(self, item: Fetched, loaded: LoadedConversation | None) -> Answer:
        """Combines what was read of the conversation: its list row, its detail, or both."""
        task = item.task
        read = {DATA: item.body, V3: task.document}
        apis = frozenset(api for api, payload in read.items() if payload is not None)
        return Answer(
            task.conversation_id,
            self._redaction.apply(_detail(item)),
            task.summary_hash,
            item.fetched_at,
            loaded,
            apis=apis,
            source_api=self._source_api,
            may_be_partially_loaded=self._plan.is_after_crash,
        )

    def _with_note_histories(self, answers: list[Answer]) -> list[Answer]:
        """Adds the loaded versions of the notes that have changed, which are few."""
        changed = [answer.conversation_id for answer in answers if answer.has_changed_note]
        histories = self._warehouse.note_histories(self._agent.agent_id, changed)
        return [
            answer.with_note_history(histories.get(answer.conversation_id, ()))
            for answer in answers
        ]

    def _count(self, fetched: Sequence[Fetched], unmapped: Counter[str], withheld: int) -> None:
        report = self._report
        report.withheld += withheld
        report.unmapped_fields.update(unmapped)
        for item in fetched:
            if item.is_gone:
                logger.warning("conversation %s was deleted at PolyAI", item.task.conversation_id)
                continue
            if item.error is not None:
                report.failed += 1
                report.note_failure(item.task.conversation_id, item.error)
                logger.warning("conversation %s: %s", item.task.conversation_id, item.error)
                continue
            report.fetched += item.body is not None
            report.new += item.task.reason in ("new", "failed")
            report.changed += item.task.reason in _CHANGED
            report.settled += item.task.reason == "settled"

    def _failures(self, fetched: Sequence[Fetched], load_id: str) -> pa.Table:
        """Makes rows of `fetch_failures`: new, repeated and resolved failures."""
        failures = self._plan.failures
        rows = [
            failure_row(
                self._agent.agent_id,
                item.task.conversation_id,
                failures.get(item.task.conversation_id),
                item.fetched_at,
                item.error,
                is_over=item.error is None or item.is_gone,
            )
            for item in fetched
            if item.error is not None or item.task.conversation_id in failures
        ]
        return audit_table(FETCH_FAILURES, rows, load_id)


def _detail(item: Fetched) -> Json:
    """Combines list row and detail, in the field names of the Data API."""
    body, document = item.body, item.task.document
    detail: Json = decode(body) if body is not None else {}
    if document is None:
        return detail
    row = document.read()
    return merge_detail(row, detail) if body is not None else to_data_api_names(row)
