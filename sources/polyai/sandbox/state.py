"""State of a sandbox: its clock, and the arrived, deleted and changed conversations."""

from __future__ import annotations

import threading
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from types import EllipsisType
from typing import Any

from .audio import Direction, wav
from .config import SandboxConfig
from .deployments import ENVIRONMENTS
from .disorder import Disorder
from .edits import Edit
from .keys import Key
from .model import Annotation, Conversation
from .oddities import Oddities
from .payloads import DataPayloads
from .timeline import MICROSECOND, Timeline, to_microseconds
from .traits import Traits
from .truth import CONVERSATIONS_V3, Row, expected_rows
from .visibility import visible
from .world import World

_ALL_RIGHTS = Key()
_ARRIVAL_PACE = timedelta(milliseconds=1)
"""Advance of the clock per conversation that arrives during a listing."""


@dataclass
class _Agent:
    """Conversations of an agent and the changes to them."""

    world: World
    timeline: Timeline
    deleted: list[int] = field(default_factory=list)
    edits: dict[int, Edit] = field(default_factory=dict)
    lagging: dict[int, tuple[Edit, int]] = field(default_factory=dict)
    """Edits as a replica still has them, and how often it is read before it catches up."""
    arriving: float = 0.0


class State:
    """Conversations of all agents at the time of the sandbox's clock; thread-safe.

    Attributes:
        config: The configuration.
        oddities: Assignment of oddities to conversations.
        disorder: Deviations of the Data API's listing.
        revision: Incremented with each change of the state.
    """

    def __init__(self, config: SandboxConfig) -> None:
        self.config = config
        self.oddities = Oddities(config)
        self.disorder = Disorder(config)
        self.revision = 0
        self._now = config.now
        self._lock = threading.RLock()
        start = Timeline.spread(config.conversations, config.now, config.span)
        self._agents = {name: _Agent(World(config, name), start) for name in config.agents}

    @property
    def now(self) -> datetime:
        """Time of the sandbox's clock."""
        return self._now

    def advance(self, by: timedelta = timedelta(), arrivals: int = 0) -> None:
        """Advances the clock by `by`; `arrivals` conversations of each agent begin in that time."""
        with self._lock:
            start = to_microseconds(self._now)
            for agent in self._agents.values():
                agent.timeline = agent.timeline.extended(arrivals, start, by // MICROSECOND)
            self._now += by
            self.revision += 1

    def drift(self, agent_id: str) -> None:
        """Adds the conversations that arrive during one listing request."""
        if not self.config.arrivals_per_request:
            return
        with self._lock:
            agent = self._agents[agent_id]
            agent.arriving += self.config.arrivals_per_request
            arrivals = int(agent.arriving)
            agent.arriving -= arrivals
            by = arrivals * _ARRIVAL_PACE
            start = to_microseconds(self._now)
            agent.timeline = agent.timeline.extended(arrivals, start, by // MICROSECOND)
            self._now += by
            self.revision += 1

    def delete(self, agent_id: str, conversation_id: str) -> None:
        """Deletes a conversation, from details and listings.

        Raises:
            KeyError: The conversation does not exist.
        """
        with self._lock:
            insort(self._agents[agent_id].deleted, self._index(agent_id, conversation_id))
            self.revision += 1

    def edit(
        self,
        agent_id: str,
        conversation_id: str,
        *,
        note: str | EllipsisType | None = ...,
        tags: Sequence[str] | EllipsisType | None = ...,
        poly_score: float | EllipsisType | None = ...,
        summary: str | EllipsisType | None = ...,
        extra: Mapping[str, Any] | EllipsisType = ...,
        metrics: Mapping[str, Any] | EllipsisType = ...,
        annotations: Sequence[tuple[int, Annotation]] | EllipsisType = ...,
        withhold_turns: bool | EllipsisType = ...,
        keep_turns: int | EllipsisType | None = ...,
    ) -> None:
        """Changes a conversation, as reviewers and retention do. Omitted parameters stay unchanged.

        Args:
            agent_id: The agent.
            conversation_id: The conversation.
            note: Note; None for no note.
            tags: Tags; None for null.
            poly_score: PolyScore; None for null.
            summary: Content of the summary; None for no summary.
            extra: Undocumented keys of the conversation.
            metrics: Values by name, recorded now, in addition to the existing ones.
            annotations: (turn index, annotation), in addition to the existing ones.
            withhold_turns: Send an empty list of turns.
            keep_turns: Number of turns to keep, from the first; None for all.

        Raises:
            KeyError: The conversation does not exist.
        """
        given = {
            "note": note,
            "tags": tags,
            "poly_score": poly_score,
            "summary": summary,
            "extra": extra,
            "metrics": metrics,
            "annotations": annotations,
            "withhold_turns": withhold_turns,
            "keep_turns": keep_turns,
        }
        changes = {name: value for name, value in given.items() if value is not ...}
        with self._lock:
            index = self._index(agent_id, conversation_id)
            agent = self._agents[agent_id]
            edit = agent.edits.get(index, Edit())
            if self.config.stale_details:
                seen, _ = agent.lagging.get(index, (edit, 0))
                agent.lagging[index] = seen, self.config.stale_details
            agent.edits[index] = edit.with_changes(changes, self._now)
            self.revision += 1

    def annotate(
        self, agent_id: str, conversation_id: str, annotations: Sequence[tuple[int, str, str]]
    ) -> None:
        """Adds annotations (turn index, role, annotation type) as an API client does, now."""
        made = [
            (turn, Annotation(role, kind, None, "api@example.com", self._now))
            for turn, role, kind in annotations
        ]
        self.edit(agent_id, conversation_id, annotations=made)

    def has_agent(self, agent_id: str) -> bool:
        """Checks whether the sandbox has an agent."""
        return agent_id in self._agents

    def count(self, agent_id: str) -> int:
        """Number of listed conversations."""
        agent = self._agents[agent_id]
        return agent.timeline.count - len(agent.deleted)

    def listed(self, agent_id: str, offset: int = 0) -> Iterator[int]:
        """Iterates over the indices of listed conversations from an offset, newest first."""
        agent = self._agents[agent_id]
        with self._lock:
            deleted = list(agent.deleted)
            rank = agent.timeline.count - len(deleted) - 1 - offset
        if rank < 0:
            return iter(())
        # the newest index with `rank` listed ones before it
        start = rank + bisect_right(range(len(deleted)), rank, key=lambda n: deleted[n] - n)
        return self._not_deleted(start, deleted)

    def listed_between(
        self, agent_id: str, start: datetime | None, end: datetime | None, newest: int | None
    ) -> Iterator[int]:
        """Iterates over the indices created in [start, end), newest first, from index `newest`."""
        agent = self._agents[agent_id]
        timeline, deleted = agent.timeline, list(agent.deleted)

        def created_at(index: int) -> datetime:
            return agent.world.created_at(index, timeline)

        indices = range(timeline.count)
        first = bisect_left(indices, start, key=created_at) if start else 0
        last = bisect_left(indices, end, key=created_at) - 1 if end else timeline.count - 1
        if newest is not None:
            last = min(last, newest)
        return self._not_deleted(last, deleted, first)

    @staticmethod
    def _not_deleted(newest: int, deleted: Sequence[int], oldest: int = 0) -> Iterator[int]:
        excluded = frozenset(deleted)
        return (index for index in range(newest, oldest - 1, -1) if index not in excluded)

    def traits(self, agent_id: str, index: int) -> Traits:
        """Traits of a conversation, without generating it."""
        return self._agents[agent_id].world.traits(index)

    def is_in_progress(self, agent_id: str, index: int) -> bool:
        """Checks whether a conversation has not ended yet."""
        agent = self._agents[agent_id]
        return agent.world.finished_at(index, agent.timeline) > self._now

    def head(self, agent_id: str, index: int) -> Conversation:
        """Generates a conversation without turns, metrics and function events."""
        agent = self._agents[agent_id]
        head = self._dated(agent, index, agent.world.head(index, agent.timeline, self._now))
        edit = agent.edits.get(index)
        return edit.apply_to_head(head) if edit else head

    def conversation(self, agent_id: str, index: int) -> Conversation:
        """Generates a conversation at the current time."""
        edit = self._agents[agent_id].edits.get(index)
        return self._edited(agent_id, index, edit)

    def _edited(self, agent_id: str, index: int, edit: Edit | None) -> Conversation:
        agent = self._agents[agent_id]
        conversation = self._dated(
            agent, index, agent.world.conversation(index, agent.timeline, self._now)
        )
        return edit.apply_to(conversation) if edit else conversation

    def stale_conversation(self, agent_id: str, index: int) -> Conversation | None:
        """Reads a conversation from a replica that lags; None if it has caught up."""
        agent = self._agents[agent_id]
        with self._lock:
            if index not in agent.lagging:
                return None
            edit, left = agent.lagging.pop(index)
            if left > 1:
                agent.lagging[index] = edit, left - 1
        return self._edited(agent_id, index, edit)

    def _dated(self, agent: _Agent, index: int, conversation: Conversation) -> Conversation:
        moment = agent.world.created_at(self.disorder.index_of_time(index), agent.timeline)
        shown = self.disorder.created_at(index, moment)
        if shown == conversation.created_at:
            return conversation
        return replace(conversation, created_at=shown)

    def find(self, agent_id: str, conversation_id: str) -> int | None:
        """Index of a conversation; None if it does not exist at the current time."""
        agent = self._agents[agent_id]
        index = agent.world.index(conversation_id)
        if index is None or index >= agent.timeline.count:
            return None
        position = bisect_left(agent.deleted, index)
        is_deleted = position < len(agent.deleted) and agent.deleted[position] == index
        return None if is_deleted else index

    def _index(self, agent_id: str, conversation_id: str) -> int:
        index = self.find(agent_id, conversation_id)
        if index is None:
            raise KeyError(conversation_id)
        return index

    def conversation_ids(self, agent_id: str) -> Iterator[str]:
        """Iterates over the ids of listed conversations, newest first."""
        for index in self.listed(agent_id):
            yield self.traits(agent_id, index).conversation_id

    def detail(self, agent_id: str, conversation_id: str) -> dict[str, Any]:
        """Renders the detail for an API key with full access.

        Raises:
            KeyError: The conversation does not exist.
        """
        call = self.conversation(agent_id, self._index(agent_id, conversation_id))
        return DataPayloads(self.oddities).detail(call)

    def truth(
        self, agent_id: str, apis: Sequence[str] = ("data",), key: Key = _ALL_RIGHTS
    ) -> Iterator[dict[str, list[Row]]]:
        """Iterates over the expected rows of a warehouse, by table, per conversation, newest first.

        Args:
            agent_id: The agent.
            apis: APIs that they were fetched from, in order: `data`, `conversations_v3`.
            key: Key that they were fetched with.
        """
        for index in self.listed(agent_id):
            call = visible(self.conversation(agent_id, index), key)
            is_in_v3 = call.environment in ENVIRONMENTS
            if found := [api for api in apis if is_in_v3 or api != CONVERSATIONS_V3]:
                yield expected_rows(call, found)

    def recording(
        self,
        agent_id: str,
        conversation_id: str,
        direction: Direction = "combined",
        *,
        redacted: bool = True,
    ) -> bytes | None:
        """Renders the recording of a conversation as WAV; None if there is no recording (yet).

        Raises:
            KeyError: The conversation does not exist.
        """
        index = self._index(agent_id, conversation_id)
        agent = self._agents[agent_id]
        if not agent.world.has_recording(index, agent.timeline, self._now):
            return None
        traits = agent.world.traits(index)
        seconds = min(traits.duration.total_seconds(), self.config.recording_cap_seconds)
        return wav(
            traits.entropy,
            seconds,
            direction,
            redacted=redacted,
            rate_hz=self.config.recording_rate_hz,
        )
