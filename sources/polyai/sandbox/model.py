"""Data of a conversation, independent of the payloads of any API.

`None` is an unknown value or an empty text. Payloads and expected rows are both derived from this
model, and not from each other.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple


class Sample(NamedTuple):
    """One value of a metric; `recorded_at` is None in shapes without a time."""

    value: Any
    recorded_at: datetime | None


class Metric(NamedTuple):
    """Named series of values; `is_list` distinguishes a list of one value from a scalar."""

    name: str
    samples: tuple[Sample, ...]
    is_list: bool = True


@dataclass(frozen=True, slots=True)
class Summary:
    """Short summary; `extra` are undocumented keys of its object."""

    heading: str | None
    content: str | None
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Annotation:
    """Review of the user's or the agent's part of a turn; `reason` is that of a bad response."""

    role: str | None
    annotation_type: str | None
    comment: str | None
    annotated_by: str | None
    annotated_at: datetime | None
    reason: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FunctionEvent:
    """Function call; `turn_number` counts from 1."""

    turn_number: int
    event_id: str
    function_id: str | None
    function_version: str | None
    name: str
    started_at: datetime | None
    duration_ms: float | None
    error: Any
    utterance: str | None
    content: Any
    handoff_type: str | None
    handoff_reason: str | None
    llm_request_id: str | None
    arguments: dict[str, Any] | None
    state_changes: dict[str, Any] | None
    logs: list[Any] | None
    transition: dict[str, Any] | None
    handoff_extra: dict[str, Any] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Turn:
    """Exchange of a user input and an agent response."""

    turn_id: int
    user_input: str | None
    user_input_at: datetime | None
    agent_response: str | None
    agent_response_at: datetime | None
    latency_seconds: float | None
    latency: dict[str, Any] | None
    barge_in: bool | None
    is_ood: bool | None
    is_silence: bool | None
    user_input_dtmf: str | None
    asr_lang_code: str | None
    tts_lang_code: str | None
    translated_user_input: str | None
    english_agent_response: str | None
    user_input_audio_url: str | None
    current_node: str | None
    topics: tuple[str, ...]
    intents: tuple[str, ...] | None
    entities: tuple[tuple[str, Any], ...] | None
    entities_as_object: bool
    llm_requests: list[dict[str, Any]] | None
    metadata: dict[str, Any] | None
    annotations: tuple[Annotation, ...] = ()
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Conversation:
    """Conversation at one moment.

    `turns` are those that the API includes, None if it omits the key or sends null. `turn_count`,
    `silence_count` and `ood_count` include withheld turns.
    """

    index: int
    conversation_id: str
    agent_id: str
    account_id: str
    region: str
    project_id: str
    channel: str | None
    direction: str | None
    environment: str
    language: Any
    variant_id: Any
    variant_name: str | None
    deployment_id: str | None
    from_number: str | None
    to_number: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    duration_seconds: float | None
    total_duration_seconds: float | None
    polyai_duration_seconds: float | None
    in_progress: bool | None
    handoff: bool | None
    handoff_destination: str | None
    handoff_reason: Any
    poly_score: float | None
    summary: Summary | None
    note: str | None
    audio_url: str | None
    tags: tuple[str, ...] | None
    state: dict[str, Any]
    turns: tuple[Turn, ...] | None
    turn_count: int
    silence_count: int
    ood_count: int
    metrics: tuple[Metric, ...] | None
    function_events: tuple[FunctionEvent, ...] | None
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def is_outbound(self) -> bool:
        """True for calls that the agent made, by their id."""
        return self.conversation_id.startswith("OUT-")
