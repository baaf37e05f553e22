"""Changes to conversations after they ended, as by reviewers and retention."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from .model import Annotation, Conversation, Metric, Sample, Summary, Turn

_LISTED_FIELDS = frozenset({"note", "tags", "poly_score", "summary", "extra"})


@dataclass(frozen=True, slots=True)
class Edit:
    """Cumulative changes to one conversation; parameters as in `State.edit`."""

    head: Mapping[str, Any] = field(default_factory=dict)
    metrics: tuple[tuple[str, Sample], ...] = ()
    annotations: tuple[tuple[int, Annotation], ...] = ()
    withhold_turns: bool = False
    keep_turns: int | None = None

    def with_changes(self, changes: Mapping[str, Any], now: datetime) -> Edit:
        """Returns these changes combined with further ones."""
        head = {name: value for name, value in changes.items() if name in _LISTED_FIELDS}
        if isinstance(head.get("summary"), str):
            head["summary"] = Summary(None, head["summary"])
        if head.get("tags") is not None:
            head["tags"] = tuple(head["tags"])
        recorded = (
            (name, Sample(value, now)) for name, value in changes.get("metrics", {}).items()
        )
        return Edit(
            head={**self.head, **head},
            metrics=(*self.metrics, *recorded),
            annotations=(*self.annotations, *changes.get("annotations", ())),
            withhold_turns=changes.get("withhold_turns", self.withhold_turns),
            keep_turns=changes.get("keep_turns", self.keep_turns),
        )

    def apply_to_head(self, call: Conversation) -> Conversation:
        """Returns the conversation with the changes to fields that a listing includes."""
        return replace(call, **self.head)

    def apply_to(self, call: Conversation) -> Conversation:
        """Returns the conversation with all changes."""
        return replace(
            self.apply_to_head(call),
            turns=self._turns(call.turns),
            metrics=self._metrics(call.metrics),
        )

    def _turns(self, turns: tuple[Turn, ...] | None) -> tuple[Turn, ...] | None:
        if self.withhold_turns:
            return ()
        if turns is None:
            return None
        changed = list(turns[: self.keep_turns])
        for number, annotation in self.annotations:
            if number < len(changed):
                turn = changed[number]
                changed[number] = replace(turn, annotations=(*turn.annotations, annotation))
        return tuple(changed)

    def _metrics(self, metrics: tuple[Metric, ...] | None) -> tuple[Metric, ...] | None:
        if not self.metrics:
            return metrics
        found = {metric.name: metric for metric in metrics or ()}
        for name, sample in self.metrics:
            metric = found.get(name, Metric(name, ()))
            found[name] = Metric(name, (*metric.samples, sample))
        return tuple(found.values())
