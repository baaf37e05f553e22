"""What a sandbox holds at the moment: the clock, what has arrived, vanished and changed."""

from __future__ import annotations

import threading
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import EllipsisType
from typing import Any

from .audio import Direction, wav
from .config import SandboxConfig
from .edits import Edit
from .model import Annotation, Conversation
from .oddities import Oddities
from .payloads import DataPayloads
from .timeline import MICROSECOND, Timeline, to_microseconds
from .traits import Traits
from .truth import Row, expected_rows
from .world import World

_ARRIVAL_PACE = timedelta(milliseconds=1)
"""How far the clock moves with a conversation that arrives while one is listing."""


@dataclass
class _Agent:
    """The world of an agent and what has happened to it since."""

    world: World
    timeline: Timeline
    deleted: list[int] = field(default_factory=list)
    edits: dict[int, Edit] = field(default_factory=dict)
    arriving: float = 0.0


class State:
    """The conversations of all agents as they stand by the sandbox's clock; thread-safe.

    Attributes:
        config: what it was made from.
        oddities: who has which.
        revision: grows with each change of anything.
    """

    def __init__(self, config: SandboxConfig) -> None:
        self.config = config
        self.oddities = Oddities(config.oddities)
        self.revision = 0
        self._now = config.now
        self._lock = threading.RLock()
        start = Timeline.spread(config.conversations, config.now, config.span)
        self._agents = {name: _Agent(World(config, name), start) for name in config.agents}

    @property
    def now(self) -> datetime:
        """The sandbox's clock."""
        return self._now

    def advance(self, by: timedelta = timedelta(), arrivals: int = 0) -> None:
        """Moves the clock, and lets `arrivals` new conversations of each agent begin meanwhile."""
        with self._lock:
            start = to_microseconds(self._now)
            for agent in self._agents.values():
                agent.timeline = agent.timeline.extended(arrivals, start, by // MICROSECOND)
            self._now += by
            self.revision += 1

    def drift(self, agent_id: str) -> None:
        """Lets those conversations begin that arrive with one listing request."""
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
        """Lets a conversation vanish from every answer.

        Raises:
            KeyError: if there is no such conversation.
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
        """Changes a conversation late, as people and retention do; what is not given stays.

        Args:
            agent_id: of the conversation.
            conversation_id: of the conversation.
            note: its note, None for none.
            tags: its tags, None for null.
            poly_score: its score, None for null.
            summary: the content of its summary, None for no summary.
            extra: unknown keys of the conversation.
            metrics: name → value, recorded now in addition to the others.
            annotations: (turn index, annotation) in addition to the others.
            withhold_turns: whether `turns` is empty.
            keep_turns: how many turns remain, from the first; None for all.

        Raises:
            KeyError: if there is no such conversation.
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
            edits = self._agents[agent_id].edits
            edits[index] = edits.get(index, Edit()).with_changes(changes, self._now)
            self.revision += 1

    def annotate(
        self, agent_id: str, conversation_id: str, annotations: Sequence[tuple[int, str, str]]
    ) -> None:
        """Adds (turn index, role, annotation type) as the API's caller, now."""
        made = [
            (turn, Annotation(role, kind, None, "api@example.com", self._now))
            for turn, role, kind in annotations
        ]
        self.edit(agent_id, conversation_id, annotations=made)

    def has_agent(self, agent_id: str) -> bool:
        """Whether the agent is one of this sandbox."""
        return agent_id in self._agents

    def count(self, agent_id: str) -> int:
        """How many conversations are listed now."""
        agent = self._agents[agent_id]
        return agent.timeline.count - len(agent.deleted)

    def listed(self, agent_id: str, offset: int = 0) -> Iterator[int]:
        """The indices of the conversations from an offset on, newest first."""
        agent = self._agents[agent_id]
        with self._lock:
            deleted = list(agent.deleted)
            rank = agent.timeline.count - len(deleted) - 1 - offset
        if rank < 0:
            return iter(())
        # the newest index that has `rank` listed ones before it
        start = rank + bisect_right(range(len(deleted)), rank, key=lambda n: deleted[n] - n)
        return self._not_deleted(start, deleted)

    def listed_between(
        self, agent_id: str, start: datetime | None, end: datetime | None, newest: int | None
    ) -> Iterator[int]:
        """The indices created in [start, end), newest first, from the index `newest` on."""
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
        gone = frozenset(deleted)
        return (index for index in range(newest, oldest - 1, -1) if index not in gone)

    def traits(self, agent_id: str, index: int) -> Traits:
        """The cheap part of a conversation."""
        return self._agents[agent_id].world.traits(index)

    def is_in_progress(self, agent_id: str, index: int) -> bool:
        """Whether a conversation has not ended yet."""
        agent = self._agents[agent_id]
        return agent.world.finished_at(index, agent.timeline) > self._now

    def head(self, agent_id: str, index: int) -> Conversation:
        """A conversation without turns, metrics and events."""
        agent = self._agents[agent_id]
        head = agent.world.head(index, agent.timeline, self._now)
        edit = agent.edits.get(index)
        return edit.applied_to_head(head) if edit else head

    def conversation(self, agent_id: str, index: int) -> Conversation:
        """A conversation as it stands now."""
        agent = self._agents[agent_id]
        conversation = agent.world.conversation(index, agent.timeline, self._now)
        edit = agent.edits.get(index)
        return edit.applied_to(conversation) if edit else conversation

    def find(self, agent_id: str, conversation_id: str) -> int | None:
        """The index of a conversation that is there now, None where it is not."""
        agent = self._agents[agent_id]
        index = agent.world.index(conversation_id)
        if index is None or index >= agent.timeline.count:
            return None
        place = bisect_left(agent.deleted, index)
        is_deleted = place < len(agent.deleted) and agent.deleted[place] == index
        return None if is_deleted else index

    def _index(self, agent_id: str, conversation_id: str) -> int:
        index = self.find(agent_id, conversation_id)
        if index is None:
            raise KeyError(conversation_id)
        return index

    def conversation_ids(self, agent_id: str) -> Iterator[str]:
        """The ids, newest first, as listed now."""
        for index in self.listed(agent_id):
            yield self.traits(agent_id, index).conversation_id

    def detail(self, agent_id: str, conversation_id: str) -> dict[str, Any]:
        """The detail's JSON document as served to a key with full access.

        Raises:
            KeyError: if there is no such conversation.
        """
        call = self.conversation(agent_id, self._index(agent_id, conversation_id))
        return DataPayloads(self.oddities).detail(call)

    def truth(
        self, agent_id: str, apis: Sequence[str] = ("data",)
    ) -> Iterator[dict[str, list[Row]]]:
        """What a warehouse must hold: table → rows, a conversation at a time, newest first.

        Args:
            agent_id: whose conversations.
            apis: what they were read through, in order: `data`, `conversations_v3`.
        """
        for index in self.listed(agent_id):
            yield expected_rows(self.conversation(agent_id, index), apis)

    def recording(
        self,
        agent_id: str,
        conversation_id: str,
        direction: Direction = "combined",
        *,
        redacted: bool = True,
    ) -> bytes | None:
        """The WAV file of a conversation, None where there is no recording (yet).

        Raises:
            KeyError: if there is no such conversation.
        """
        index = self._index(agent_id, conversation_id)
        agent = self._agents[agent_id]
        if not agent.world.has_recording(index, agent.timeline, self._now):
            return None
        traits = agent.world.traits(index)
        seconds = min(traits.duration.total_seconds(), self.config.recording_cap_seconds)
        return wav(traits.entropy, seconds, direction, redacted=redacted)
