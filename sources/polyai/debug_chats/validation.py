"""Validation of scenario files: mistakes with their position and the allowed values.

`scenarios.schema.json` is the only definition of the file format, for editors and for this module;
both show its `errorMessage` texts.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from jsonschema import Draft202012Validator, ValidationError

from .document import Document, Mistake
from .schema import schema_text

_MAX_SHOWN_CHARACTERS = 60
"""Longest part of an invalid text that a message shows."""


@cache
def _validator() -> Draft202012Validator:
    checker = Draft202012Validator.FORMAT_CHECKER
    return Draft202012Validator(json.loads(schema_text()), format_checker=checker)


def validate(document: Document) -> Iterator[Mistake]:
    """Yields the mistakes in a document."""
    found = [
        mistake
        for error in _validator().iter_errors(document.value)
        for mistake in _schema_mistakes(document, error)
    ]
    yield from found
    if not found:
        yield from _duplicate_names(document)
        yield from _turns_after_the_end(document)


def _schema_mistakes(document: Document, error: ValidationError) -> Iterator[Mistake]:
    """Translates a violation of the schema for the author of the file."""
    path = tuple(error.absolute_path)
    schema: Mapping[str, Any] = error.schema  # type: ignore[assignment]  # never a boolean schema
    instance: Any = error.instance
    at = f"{_dotted(path)}: " if path else ""
    match error.validator:
        case "additionalProperties":
            allowed = list(schema["properties"])
            for key in instance:
                if key not in allowed:
                    message = f"{at}unknown key {key!r}; {_suggestion(key, allowed)}"
                    yield document.mistake((*path, key), message, at_key=True)
        case "required":
            # jsonschema reports each missing key with the names of all required keys
            for missing in (key for key in schema["required"] if key not in instance):
                yield document.mistake(path, f"{at}{missing!r} is missing")
        case "anyOf":
            message = f"{at}turns or greeting is missing: there would be nothing to test"
            yield document.mistake(path, message)
        case "format":
            message = f"{at}{_shown(instance)} is not a valid regular expression: {error.cause}"
            yield document.mistake(path, message)
        case _:
            yield document.mistake(path, f"{at}{schema['errorMessage']}, not {_shown(instance)}")


def _suggestion(key: str, allowed: Sequence[str]) -> str:
    if near := difflib.get_close_matches(key.lower().replace("-", "_"), allowed, n=1):
        return f"did you mean {near[0]}?"
    return f"expected one of {', '.join(allowed)}"


def _duplicate_names(document: Document) -> Iterator[Mistake]:
    lines: dict[str, int] = {}
    for index in range(len(document.value["scenarios"])):
        path = ("scenarios", index, "name")
        name = document.source_text(path)
        if name in lines:
            message = f"{_dotted(path)}: duplicate name {name!r}, first in line {lines[name]}"
            yield document.mistake(path, message)
        lines.setdefault(name, document.mistake(path, "").line)


def _turns_after_the_end(document: Document) -> Iterator[Mistake]:
    """Turns that follow one that is expected to end the chat."""
    for index, scenario in enumerate(document.value["scenarios"]):
        path = ("scenarios", index)
        turns = scenario.get("turns", [])
        answers: list[tuple[tuple[str | int, ...], Any]] = [
            ((*path, "greeting"), scenario.get("greeting"))
        ]
        answers += [
            ((*path, "turns", number, "expect"), turn.get("expect"))
            for number, turn in enumerate(turns)
        ]
        for expect_path, expected in answers[: len(turns)]:
            if (expected or {}).get("ended"):
                at = _dotted(expect_path).removesuffix(".expect")
                message = (
                    f"{at}: the agent is expected to end the chat here, so the turns that follow "
                    "cannot be sent"
                )
                yield document.mistake((*expect_path, "ended"), message, at_key=True)


def _dotted(path: Sequence[str | int]) -> str:
    """Formats a path in dotted notation: `scenarios[1].turns[0].say`."""
    steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return "".join(steps).removeprefix(".")


def _shown(value: Any) -> str:
    match value:
        case None:
            return "an empty value"
        case bool():
            return str(value).lower()
        case dict():
            return "a mapping" if value else "an empty mapping"
        case list():
            return "a list" if value else "an empty list"
        case str() if len(value) > _MAX_SHOWN_CHARACTERS:
            return repr(f"{value[:_MAX_SHOWN_CHARACTERS]}…")
    return repr(value)
