"""Nested values of a turn: latency, intents, entities, topics and reviews, in all their shapes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .values import number, text

Json = dict[str, Any]

_REVIEW_ALIASES = {
    "role": ("role",),
    "annotationType": ("annotationType", "annotation_type", "type", "label"),
    "reason": ("reason",),
    "comment": ("comment", "note", "text"),
    "createdBy": ("createdBy", "created_by", "author", "annotatedBy", "user"),
    "createdAt": ("createdAt", "created_at", "timestamp", "annotatedAt", "updatedAt"),
}
"""Aliases of a review's fields, whose shape is not documented: first the name as seen."""


def metadata_of(turn: Json) -> Json:
    """Returns the turn's metadata object, or an empty one."""
    metadata = turn.get("metadata")
    return metadata if isinstance(metadata, dict) else {}


def latency_seconds(latency: Any) -> float | None:
    """Reads seconds from a number (v3) or from `perceived_latency` of an object (Data API)."""
    try:
        return number(latency.get("perceived_latency") if isinstance(latency, dict) else latency)
    except ValueError:
        return None


def intents(turn: Json) -> Iterator[tuple[str | None]]:
    """Yields each intent, sent as a name or as an object with a name."""
    for intent in listed(turn.get("intents")):
        if isinstance(intent, dict) and isinstance(intent.get("name"), str):
            intent = intent["name"]
        yield (text(intent),)


def entities(turn: Json) -> Iterator[tuple[str, str | None]]:
    """Yields name and value of each entity; an entity with several values has several rows."""
    for entity in listed(turn.get("entities")):
        if not isinstance(entity, dict):
            yield "", text(entity)
            continue
        if {"name", "value"} <= entity.keys():
            entity = {text(entity["name"]) or "": entity["value"]}
        for name, value in entity.items():
            for single in value if isinstance(value, list) else [value]:
                yield name, text(single)


def topics(turn: Json) -> Iterator[tuple[str]]:
    """Yields each retrieved topic; one value can contain several, joined by commas."""
    for joined in listed(metadata_of(turn).get("retrieved_topics")):
        for topic in joined.split(",") if isinstance(joined, str) else [text(joined) or ""]:
            if name := topic.strip():
                yield (name,)


def reviews(items: Any) -> Iterator[Json]:
    """Yields each review, with known fields under one name and all others as sent."""
    for review in listed(items):
        if not isinstance(review, dict):
            yield {"value": review}
            continue
        rest = dict(review)
        known = {}
        for name, aliases in _REVIEW_ALIASES.items():
            filled = (alias for alias in aliases if rest.get(alias) not in (None, ""))
            known[name] = rest.pop(next(filled, name), None)
            # null or empty where an alias has the value
            rest.pop(name, None)
        yield known | rest


def listed(value: Any) -> list[Any]:
    """Returns a list unchanged, and a single value, which some answers send instead, as a list."""
    if isinstance(value, list):
        return value
    return [] if value in (None, "", {}) else [value]
