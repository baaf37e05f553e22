"""Queue of the slices of a backfill, which joins adjacent ones where there is little to load."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from .refetch import Span
from .slices import Slice, SliceReport

FEW_CONVERSATIONS = 500
"""Conversations below which more slices are joined next: a tenth of a chunk. A slice takes about
as long as 500 conversations, even if it has none."""

SEPARATE_SLICES = 8
"""Slices in a row with few conversations before the next ones are joined."""

MOST_JOINED = 64
"""Slices that are joined at most."""


@dataclass
class _Waiting:
    """Slices of one agent that wait, and what the last ones were like.

    Attributes:
        slices: The slices, oldest first, each beginning where the one before ends.
        in_a_row: Slices in a row with few conversations.
        size: Slices to join next.
    """

    slices: deque[Slice] = field(default_factory=deque)
    in_a_row: int = 0
    size: int = 1

    def take(self) -> Slice:
        taken = [self.slices.popleft() for _ in range(min(self.size, len(self.slices)))]
        first, last = taken[0], taken[-1]
        return Slice(first.agent_id, Span(first.span.since, last.span.before), len(taken))

    def adapt(self, listed: int) -> None:
        if listed >= FEW_CONVERSATIONS:
            self.in_a_row = 0
            self.size = max(1, self.size // 2)
            return
        self.in_a_row += 1
        if self.in_a_row >= SEPARATE_SLICES:
            self.size = min(2 * self.size, MOST_JOINED)


class SliceQueue:
    """Slices that wait, alternating between the agents.

    Args:
        slices: Slices of the requested length, oldest first, without gaps between those of an
            agent.
    """

    def __init__(self, slices: Iterable[Slice]) -> None:
        self._agents: dict[str, _Waiting] = {}
        for slice_ in slices:
            self._agents.setdefault(slice_.agent_id, _Waiting()).slices.append(slice_)
        self._turns = deque(self._agents)

    def __bool__(self) -> bool:
        return bool(self._turns)

    def take(self) -> Slice:
        """Removes and returns the next slice, joined with those after it if few are expected."""
        agent_id = self._turns.popleft()
        waiting = self._agents[agent_id]
        slice_ = waiting.take()
        if waiting.slices:
            self._turns.append(agent_id)
        return slice_

    def adapt(self, report: SliceReport) -> None:
        """Adapts the number of slices that are joined to what one that has ended has listed."""
        if report.status == "complete":
            self._agents[report.agent_id].adapt(report.counts["listed"])
