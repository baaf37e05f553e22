"""What stands inside a turn, in each of the shapes that the API sends it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .values import number, text

Json = dict[str, Any]

_REVIEW_ALIASES = {
    "role": ("role",),
    "annotationType": ("annotationType", "annotation_type", "type", "label"),
    "comment": ("comment", "note", "text"),
    "createdBy": ("createdBy", "created_by", "author", "annotatedBy", "user"),
    "createdAt": ("createdAt", "created_at", "timestamp", "annotatedAt", "updatedAt"),
}
"""A review's item shape is not documented: the field as sent first, then likely spellings."""


def metadata_of(turn: Json) -> Json:
    """The turn's metadata object, or an empty one."""
    metadata = turn.get("metadata")
    return metadata if isinstance(metadata, dict) else {}


def latency_seconds(latency: Any) -> float | None:
    """Seconds from a number (v3) or from `perceived_latency` of an object (Data API)."""
    try:
        return number(latency.get("perceived_latency") if isinstance(latency, dict) else latency)
    except ValueError:
        return None


def intents(turn: Json) -> Iterator[tuple[str | None]]:
    """Each intent: a name, or an object that has one."""
    for intent in _items(turn.get("intents")):
        if isinstance(intent, dict) and isinstance(intent.get("name"), str):
            intent = intent["name"]
        yield (text(intent),)


def entities(turn: Json) -> Iterator[tuple[str, str | None]]:
    """Each name and single value of objects that map names to one value or several."""
    for entity in _items(turn.get("entities")):
        if not isinstance(entity, dict):
            yield "", text(entity)
            continue
        if {"name", "value"} <= entity.keys():
            entity = {text(entity["name"]) or "": entity["value"]}
        for name, value in entity.items():
            for single in value if isinstance(value, list) else [value]:
                yield name, text(single)


def topics(turn: Json) -> Iterator[tuple[str]]:
    """Each retrieved topic; one value can hold several, joined by commas."""
    for joined in _items(metadata_of(turn).get("retrieved_topics")):
        for topic in joined.split(",") if isinstance(joined, str) else [text(joined) or ""]:
            if name := topic.strip():
                yield (name,)


def reviews(items: Any) -> Iterator[Json]:
    """Each review, its known fields under one spelling and all others as they came."""
    for review in _items(items):
        if not isinstance(review, dict):
            yield {"value": review}
            continue
        rest = dict(review)
        known = {}
        for name, aliases in _REVIEW_ALIASES.items():
            said = (alias for alias in aliases if rest.get(alias) not in (None, ""))
            known[name] = rest.pop(next(said, name), None)
            # null or empty where another spelling has the value
            rest.pop(name, None)
        yield known | rest


def _items(value: Any) -> list[Any]:
    """A list as it is; a single value, which some answers send in its place, as a list of one."""
    if isinstance(value, list):
        return value
    return [] if value in (None, "", {}) else [value]
