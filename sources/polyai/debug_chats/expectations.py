"""Expectations for an answer: description, check, and actual value."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from .chat import Reply

_Kind = Callable[[Any], Iterator["Expectation"]]

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0}


@dataclass(frozen=True)
class Expectation:
    """One expectation for an answer.

    Attributes:
        description: Such as `contains "table"`.
        is_met: Tests an answer.
        actual: Describes the actual value, such as `the answer was "Goodbye!"`.
    """

    description: str
    is_met: Callable[[Reply], bool]
    actual: Callable[[Reply], str]


def expectations(given: Mapping[str, Any]) -> tuple[Expectation, ...]:
    """Builds expectations from a mapping that is valid under the schema.

    Args:
        given: As in the file, with texts as written, and a list wherever several are allowed.
    """
    return tuple(one for key, value in given.items() for one in _KINDS[key](value))


def seconds(given: str | float) -> float:
    """Parses a duration: a number of seconds, or text such as 800ms, 2s, 1.5s, 1m."""
    if not isinstance(given, str):
        return given
    number = given.strip().rstrip("ms")
    return float(number) * _UNITS[given.strip()[len(number) :]]


def _contains(text: str) -> Iterator[Expectation]:
    yield Expectation(
        f"contains {_quoted(text)}",
        lambda reply: text.casefold() in reply.response.casefold(),
        _answer,
    )


def _not_contains(text: str) -> Iterator[Expectation]:
    yield Expectation(
        f"does not contain {_quoted(text)}",
        lambda reply: text.casefold() not in reply.response.casefold(),
        _answer,
    )


def _matches(pattern: str) -> Iterator[Expectation]:
    search = re.compile(pattern).search
    yield Expectation(f"matches /{pattern}/", lambda reply: bool(search(reply.response)), _answer)


def _ended(ended: bool) -> Iterator[Expectation]:
    yield Expectation(
        "the agent ends the chat" if ended else "the agent does not end the chat",
        lambda reply: reply.has_ended == ended,
        lambda reply: "it ended" if reply.has_ended else "it goes on",
    )


def _max_latency(given: str | float) -> Iterator[Expectation]:
    limit = seconds(given)
    yield Expectation(
        f"is there within {limit:g} s",
        lambda reply: reply.latency_seconds <= limit,
        lambda reply: f"it took {reply.latency_seconds:.3f} s",
    )


def _function_called(name: str) -> Iterator[Expectation]:
    yield Expectation(
        f"calls {name}",
        lambda reply: name in reply.functions,
        lambda reply: f"functions: {', '.join(reply.functions) or 'none'}",
    )


def _topic_retrieved(name: str) -> Iterator[Expectation]:
    yield Expectation(
        f"retrieves topic {name}",
        lambda reply: name in reply.topics,
        lambda reply: f"topics: {', '.join(reply.topics) or 'none'}",
    )


def _state(wanted: Mapping[str, Any]) -> Iterator[Expectation]:
    return (_state_value(path, value) for path, value in wanted.items())


def _state_value(path: str, value: Any) -> Expectation:
    return Expectation(
        f"state {path} is {_json(value)}",
        lambda reply: _json(_at(reply.state, path)) == _json(value),
        lambda reply: f"it is {_json(_at(reply.state, path))}",
    )


def _delayed(delayed: bool) -> Iterator[Expectation]:
    yield Expectation(
        "the answer is delayed" if delayed else "the answer is not delayed",
        lambda reply: reply.is_delayed == delayed,
        lambda reply: "it is delayed" if reply.is_delayed else "it is not",
    )


def _handoff(wanted: str | bool) -> Iterator[Expectation]:
    def destination(reply: Reply) -> str:
        return f"destination: {reply.handoff_destination or 'none'}"

    if isinstance(wanted, str):
        yield Expectation(
            f"hands over to {_quoted(wanted)}",
            lambda reply: reply.handoff_destination == wanted,
            destination,
        )
    else:
        yield Expectation(
            "hands over" if wanted else "does not hand over",
            lambda reply: bool(reply.handoff_destination) == wanted,
            destination,
        )


def _not(given: Mapping[str, Any]) -> Iterator[Expectation]:
    nested = expectations(given)
    yield Expectation(
        f"not: {' and '.join(one.description for one in nested)}",
        lambda reply: not all(one.is_met(reply) for one in nested),
        lambda reply: "; ".join(dict.fromkeys(one.actual(reply) for one in nested)),
    )


def _each(kind: Callable[[str], Iterator[Expectation]]) -> _Kind:
    """Makes one expectation per text of a list."""
    return lambda texts: (one for text in texts for one in kind(text))


_KINDS: Mapping[str, _Kind] = {
    "contains": _each(_contains),
    "not_contains": _each(_not_contains),
    "matches": _matches,
    "ended": _ended,
    "max_latency": _max_latency,
    "function_called": _each(_function_called),
    "topic_retrieved": _each(_topic_retrieved),
    "state": _state,
    "delayed": _delayed,
    "handoff": _handoff,
    "not": _not,
}
"""Constructors by the schema's keys of expectations."""


def _answer(reply: Reply) -> str:
    delayed = "; the agent announced a delayed answer" if reply.is_delayed else ""
    return f"the answer was {_quoted(reply.response)}{delayed}"


def _quoted(text: str) -> str:
    return f'"{text}"'


def _json(value: Any) -> str:
    """Serializes to JSON with sorted keys: 1 differs from true and from "1", but not from 1.0."""
    return orjson.dumps(_plain(value), option=orjson.OPT_SORT_KEYS).decode()


def _plain(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value) if abs(value) < 2**53 else value
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _at(state: Any, path: str) -> Any:
    """Returns the value at a dotted path, None if it does not exist. Keys may contain dots."""
    if isinstance(state, list):
        name, _, rest = path.partition(".")
        inside = name.isdecimal() and int(name) < len(state)
        found = state[int(name)] if inside else None
        return _at(found, rest) if rest else found
    if not isinstance(state, dict):
        return None
    if path in state:
        return state[path]
    dots = [index for index, letter in enumerate(path) if letter == "." and path[:index] in state]
    return _at(state[path[: dots[-1]]], path[dots[-1] + 1 :]) if dots else None
