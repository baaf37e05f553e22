"""Shaping of fetched conversations into batches, with what the warehouse has of them."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from ..config.agent import DATA, V3, Agent
from ..config.settings import Settings
from ..errors import ApiError, PolyAIError, unexpected_error
from ..shape.answer import Answer, Json, LoadedConversation
from ..shape.audit_rows import audit_table, failure_row
from ..shape.column_rules import ColumnRules
from ..shape.redaction import Redaction
from ..shape.shaping import Shaped, shape
from ..shape.transcripts import without_transcript
from ..shape.v3_rows import merge_detail, to_data_api_names
from ..tables.audit import FETCH_FAILURES
from ..warehouse.held import LoadState
from .chunk import Batch
from .fetch import Fetched
from .plan import Plan
from .report import RunReport
from .stale_details import is_given_up, stale_error, stale_fields

logger = logging.getLogger("polyai")

_CHANGED = ("changed", "in_progress", "written_back", "partially_loaded", "stale")
"""Reasons that count as a change."""

_UNKNOWN = ("new", "failed", "partially_loaded")
"""Reasons of conversations that were not loaded, or not completely."""


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
        self._redaction = Redaction.of(settings)
        self._rules = ColumnRules.of(settings)
        self._warehouse = warehouse
        self._plan = plan
        self._report = report
        self.forgotten: list[dict[str, Any]] = []

    def shape(self, fetched: Sequence[Fetched], load_id: str) -> Batch:
        """Shapes distinct conversations into the rows of every loaded table.

        A conversation that cannot be shaped is recorded as a failure, whatever the error is: it
        keeps no other from being loaded.

        Args:
            fetched: The conversations.
            load_id: Load package of the rows.
        """
        agent_id = self._agent.agent_id
        self._report.load_ids.add(load_id)
        failed: dict[str, ApiError] = {}
        details = self._details(fetched, failed)
        fetched = [
            item for item in fetched if details.get(item.task.conversation_id) is not _LEFT_OUT
        ]
        loaded = self._warehouse.loaded(
            agent_id,
            [item.task.conversation_id for item in fetched if item.task.reason != "new"],
            children=any(item.task.source_api == V3 for item in fetched),
        )
        answers: list[Answer] = []
        for item in fetched:
            conversation_id = item.task.conversation_id
            if conversation_id in details:
                with _isolated(conversation_id, failed):
                    answers.append(
                        self._answer(item, details[conversation_id], loaded.get(conversation_id))
                    )
        shaped = self._shaped(self._with_note_histories(answers, failed), load_id, failed)
        fetched = [
            _with_error(item, failed[item.task.conversation_id])
            if item.task.conversation_id in failed
            else item
            for item in fetched
        ]
        self._count(fetched, shaped.unmapped, shaped.withheld)
        stale = self._stale(fetched, details, loaded)
        failures = [*self._failures(fetched), *self._stale_failures(fetched, stale)]
        table = audit_table(FETCH_FAILURES, failures, load_id)
        tables = self._rules.without_dropped(shaped.tables)
        return Batch.of(tables | {FETCH_FAILURES.name: table})

    def _details(self, fetched: Sequence[Fetched], failed: dict[str, ApiError]) -> dict[str, Json]:
        """Combines what was read, by conversation; `_LEFT_OUT` for those not to be loaded."""
        details: dict[str, Json] = {}
        for item in fetched:
            conversation_id = item.task.conversation_id
            if item.has_answer:
                with _isolated(conversation_id, failed):
                    detail = _detail(item)
                    is_left_out = self._is_forgotten(item, detail) or self._is_too_old(item, detail)
                    details[conversation_id] = (
                        _LEFT_OUT if is_left_out else self._without_old_words(item, detail)
                    )
        return details

    def _is_forgotten(self, item: Fetched, detail: Json) -> bool:
        """Checks for an erased caller; records the conversation, so that it is not read again."""
        is_loaded = item.task.reason not in _UNKNOWN
        if not self._plan.forgotten_callers.match(detail, is_loaded=is_loaded):
            return False
        if self._is_on_hold(item.task.conversation_id):
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

    def _is_too_old(self, item: Fetched, detail: Json) -> bool:
        """Checks the age of a conversation that was read without its list row."""
        is_loaded = item.task.reason not in _UNKNOWN
        return not is_loaded and self._plan.retention.is_too_old(detail)

    def _without_old_words(self, item: Fetched, detail: Json) -> Json:
        """Removes the words of a conversation that is old, unless it is on legal hold."""
        if not self._plan.retention.has_old_words(detail):
            return detail
        return detail if self._is_on_hold(item.task.conversation_id) else without_transcript(detail)

    def _is_on_hold(self, conversation_id: str) -> bool:
        holds = self._plan.holds
        return holds is not None and bool(holds.among(self._warehouse, [conversation_id]))

    def _answer(self, item: Fetched, detail: Json, loaded: LoadedConversation | None) -> Answer:
        """Combines what was read of the conversation: its list row, its detail, or both."""
        task = item.task
        read = {DATA: item.detail, V3: task.document}
        apis = frozenset(api for api, payload in read.items() if payload is not None)
        return Answer(
            task.conversation_id,
            self._redaction.apply(detail),
            task.summary_hash,
            item.fetched_at,
            loaded,
            apis=apis,
            source_api=task.source_api,
            may_be_partially_loaded=self._plan.is_after_crash,
        )

    def _shaped(
        self, answers: Sequence[Answer], load_id: str, failed: dict[str, ApiError]
    ) -> Shaped:
        """Shapes the answers, without those that raise an error, which are found by bisection."""
        place = {
            "agent_id": self._agent.agent_id,
            "region": self._agent.region,
            "load_id": load_id,
        }
        if len(answers) == 1:
            with _isolated(answers[0].conversation_id, failed):
                return shape(answers, **place)
            return shape((), **place)
        try:
            return shape(answers, **place)
        except _NOT_OF_A_CONVERSATION:
            raise
        except Exception:
            middle = len(answers) // 2
            first = self._shaped(answers[:middle], load_id, failed)
            return first + self._shaped(answers[middle:], load_id, failed)

    def _stale(
        self,
        fetched: Sequence[Fetched],
        details: Mapping[str, Json],
        loaded: Mapping[str, LoadedConversation],
    ) -> dict[str, list[str]]:
        """Returns the fields in which details are older than their list rows, by conversation."""
        read = [
            item
            for item in fetched
            if item.detail is not None
            and (item.task.row is not None or item.task.conversation_id in self._plan.stale)
        ]
        tags = self._warehouse.tags(
            self._agent.agent_id,
            [
                item.task.conversation_id
                for item in read
                if item.task.conversation_id in loaded
                and not (item.task.row or {}).get("tags")
                and details[item.task.conversation_id].get("tags")
            ],
        )
        found: dict[str, list[str]] = {}
        for item in read:
            conversation_id = item.task.conversation_id
            detail = details[conversation_id]
            known = loaded.get(conversation_id)
            with _isolated(conversation_id, {}):
                fields = stale_fields(
                    item.task.row,
                    detail,
                    self._redaction.apply(detail) if known else detail,
                    known,
                    tags.get(conversation_id),
                    was_stale=conversation_id in self._plan.stale,
                )
                if fields:
                    found[conversation_id] = fields
        return found

    def _with_note_histories(
        self, answers: list[Answer], failed: dict[str, ApiError]
    ) -> list[Answer]:
        """Adds the loaded versions of the notes that have changed, which are few."""
        changed = []
        for answer in answers:
            with _isolated(answer.conversation_id, failed):
                if answer.has_changed_note:
                    changed.append(answer.conversation_id)
        answers = [answer for answer in answers if answer.conversation_id not in failed]
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
            report.fetched += item.detail is not None
            report.new += item.task.reason in ("new", "failed")
            report.changed += item.task.reason in _CHANGED
            report.settled += item.task.reason == "settled"

    def _failures(self, fetched: Sequence[Fetched]) -> Iterator[dict[str, Any]]:
        """Yields rows of `fetch_failures`: new, repeated and resolved failures."""
        failures = self._plan.failures
        for item in fetched:
            conversation_id = item.task.conversation_id
            if item.error is not None or conversation_id in failures:
                yield failure_row(
                    self._agent.agent_id,
                    conversation_id,
                    failures.get(conversation_id),
                    item.fetched_at,
                    item.error,
                    is_over=item.error is None or item.is_gone,
                )

    def _stale_failures(
        self, fetched: Sequence[Fetched], stale: Mapping[str, Sequence[str]]
    ) -> Iterator[dict[str, Any]]:
        """Yields rows of `fetch_failures` for stale details, and for those that are no longer."""
        for item in fetched:
            conversation_id = item.task.conversation_id
            known = self._plan.stale.get(conversation_id)
            if conversation_id in stale:
                is_over = is_given_up(known)
                error = stale_error(stale[conversation_id], is_over=is_over)
                self._report.failed += 1
                self._report.note_failure(conversation_id, error)
                logger.warning("conversation %s: %s", conversation_id, error)
            elif known is not None and (item.error is None or item.is_gone):
                is_over, error = True, None
            else:
                continue
            yield failure_row(
                self._agent.agent_id,
                conversation_id,
                known,
                item.fetched_at,
                error,
                is_over=is_over,
                stage="stale_detail",
            )


_LEFT_OUT: Json = {"": "belongs to an erased caller, or is too old"}
"""Stands for the detail of a conversation that is not loaded."""

_NOT_OF_A_CONVERSATION = (PolyAIError, OSError, MemoryError)
"""Errors of the machine or of the warehouse, which end the run."""


@contextmanager
def _isolated(conversation_id: str, failed: dict[str, ApiError]) -> Iterator[None]:
    """Turns whatever is raised into a failure of the conversation."""
    try:
        yield
    except _NOT_OF_A_CONVERSATION:
        raise
    except Exception as error:
        logger.debug("conversation %s", conversation_id, exc_info=True)
        failed[conversation_id] = unexpected_error("its answer cannot be shaped", error)


def _with_error(item: Fetched, error: ApiError) -> Fetched:
    return replace(item, task=replace(item.task, document=None), detail=None, error=error)


def _detail(item: Fetched) -> Json:
    """Combines list row and detail, in the field names of the Data API."""
    conversation = item.detail.conversation if item.detail is not None else None
    document = item.task.document
    if document is None:
        return conversation or {}
    row = document.read()
    return to_data_api_names(row) if conversation is None else merge_detail(row, conversation)
