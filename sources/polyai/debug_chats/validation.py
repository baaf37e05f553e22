"""What is wrong in a scenarios file, each mistake with its place and what is allowed there.

`scenarios.schema.json` beside this module is the one definition of what a file may hold, for
editors as for this module; an `errorMessage` in it is shown by both.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from .document import Document, Mistake

if TYPE_CHECKING:
    from jsonschema import Draft202012Validator, ValidationError

_SHOWN_CHARACTERS = 60
"""Of a text that is wrong."""


def schema_text() -> str:
    """The JSON Schema of scenarios files, for editors."""
    return files(__package__).joinpath("scenarios.schema.json").read_text(encoding="utf-8")


@cache
def _validator() -> Draft202012Validator:
    # takes 0.06 s, and no other command needs it
    from jsonschema import Draft202012Validator

    checker = Draft202012Validator.FORMAT_CHECKER
    return Draft202012Validator(json.loads(schema_text()), format_checker=checker)


def mistakes_in(document: Document) -> Iterator[Mistake]:
    """What is wrong in a file that is YAML."""
    found = [
        mistake
        for error in _validator().iter_errors(document.value)
        for mistake in _of_schema(document, error)
    ]
    yield from found
    if not found:
        yield from _of_scenarios(document)


def _of_schema(document: Document, error: ValidationError) -> Iterator[Mistake]:
    """What the schema finds, in words for the one who wrote the file."""
    path = tuple(error.absolute_path)
    schema: Mapping[str, Any] = error.schema  # type: ignore[assignment]  # ours are no booleans
    instance: Any = error.instance
    place = f"{_place(path)}: " if path else ""
    match error.validator:
        case "additionalProperties":
            allowed = list(schema["properties"])
            for key in instance:
                if key not in allowed:
                    said = f"{place}{key!r} is not known; {_suggestion(key, allowed)}"
                    yield document.mistake((*path, key), said, at_key=True)
        case "required":
            # an error for each that is missing comes with the names of all
            for missing in (key for key in schema["required"] if key not in instance):
                yield document.mistake(path, f"{place}{missing!r} is missing")
        case "anyOf":
            said = f"{place}turns or greeting is missing: nothing would be tried"
            yield document.mistake(path, said)
        case "format":
            said = f"{place}{_shown(instance)} is no regular expression: {error.cause}"
            yield document.mistake(path, said)
        case _:
            said = f"{place}{schema['errorMessage']}, not {_shown(instance)}"
            yield document.mistake(path, said)


def _suggestion(key: str, allowed: Sequence[str]) -> str:
    if near := difflib.get_close_matches(key.lower().replace("-", "_"), allowed, n=1):
        return f"did you mean {near[0]}?"
    return f"allowed are {', '.join(allowed)}"


def _of_scenarios(document: Document) -> Iterator[Mistake]:
    """What no schema can tell."""
    lines: dict[str, int] = {}
    for number, scenario in enumerate(document.value["scenarios"]):
        at_name = ("scenarios", number, "name")
        name = document.written(at_name)
        here = document.mistake(at_name, f"{_place(at_name)}: {name!r} is taken by line ")
        if name in lines:
            yield Mistake(here.file, here.line, here.column, f"{here.said}{lines[name]}")
        lines.setdefault(name, here.line)
        turns = scenario.get("turns", [])
        answers = [("greeting", scenario.get("greeting"), len(turns))]
        answers += [
            (f"turns[{place}]", turn.get("expect"), len(turns) - place - 1)
            for place, turn in enumerate(turns)
        ]
        for place, (at, expected, turns_left) in enumerate(answers):
            if turns_left and (expected or {}).get("ended"):
                steps = ("turns", place - 1, "expect") if place else ("greeting",)
                said = (
                    f"scenarios[{number}].{at}: the agent is expected to end the chat here, so "
                    "what follows cannot be said"
                )
                yield document.mistake(("scenarios", number, *steps, "ended"), said, at_key=True)


def _place(path: Sequence[str | int]) -> str:
    """A path as it is written in many a language: `scenarios[1].turns[0].say`."""
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
        case str() if len(value) > _SHOWN_CHARACTERS:
            return repr(f"{value[:_SHOWN_CHARACTERS]}…")
    return repr(value)
