"""Scenarios as they stand in YAML files: read, and refused with all their mistakes at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ConfigurationError
from .chat import ChatSetup
from .document import Document, Mistake, UnreadableError
from .expectations import Expectation, expectations
from .validation import mistakes_in

ENVIRONMENT = "sandbox"
"""Where a scenario is tried that does not say where."""


@dataclass(frozen=True)
class Turn:
    """One thing that is said.

    Attributes:
        say: The message, as written; empty for silence.
        metadata: What is sent with it.
        expected: What is expected of the answer.
    """

    say: str
    metadata: Mapping[str, Any] | None
    expected: tuple[Expectation, ...]


@dataclass(frozen=True)
class Scenario:
    """One chat that is to be had.

    Attributes:
        suite: Name of the suite that it belongs to.
        name: Its own, unique within the suite.
        place: Where it stands, `file:line:column`.
        agent_id: The agent; None for the only one that is configured.
        setup: What the chat is begun with.
        greeting: What is expected of turn 0, the greeting.
        turns: What is said, turn 1 and later.
    """

    suite: str
    name: str
    place: str
    agent_id: str | None
    setup: ChatSetup
    greeting: tuple[Expectation, ...]
    turns: tuple[Turn, ...]

    @property
    def names(self) -> frozenset[str]:
        """What it is called: `scenario` and `suite/scenario`."""
        return frozenset({self.name, f"{self.suite}/{self.name}"})


@dataclass(frozen=True)
class Suite:
    """The scenarios of one file.

    Attributes:
        name: The name that the file gives itself, else the file's without its ending.
        path: The file.
        scenarios: In its order.
    """

    name: str
    path: Path
    scenarios: tuple[Scenario, ...]


def load_suite(path: str | Path) -> Suite:
    """Reads one scenarios file.

    Raises:
        ConfigurationError: As `load_suites` does.
    """
    return load_suites([path])[0]


def load_suites(paths: Iterable[str | Path]) -> list[Suite]:
    """Reads scenarios files; the same one is read once, however often it is named.

    Raises:
        ConfigurationError: A file cannot be read, or is not as it should be. The message has a
            line for each mistake in any of them, `file:line:column: what is wrong`.
    """
    by_file: dict[Path, Path] = {}
    for path in map(Path, paths):
        by_file.setdefault(path.resolve(), path)
    suites: dict[str, Suite] = {}
    mistakes: list[Mistake] = []
    for path in by_file.values():
        try:
            document = Document(str(path), _content(path))
        except UnreadableError as error:
            mistakes += error.mistakes
            continue
        if found := list(mistakes_in(document)):
            mistakes += found
            continue
        suite = _suite(path, document)
        if same := suites.get(suite.name):
            where = ("name",) if "name" in document.value else ()
            said = (
                f"the suite in {same.path} is called {suite.name!r} too: give each a name of its "
                "own, which tells their results apart"
            )
            mistakes.append(document.mistake(where, said))
        suites.setdefault(suite.name, suite)
    if mistakes:
        raise ConfigurationError(_told(mistakes))
    return list(suites.values())


def chosen_scenarios(suites: Iterable[Suite], names: Sequence[str]) -> list[Scenario]:
    """The scenarios of these names; all where none is given.

    Args:
        suites: The suites.
        names: `scenario`, or `suite/scenario` where several have one of that name.

    Raises:
        ConfigurationError: No scenario has a given name.
    """
    every = [scenario for suite in suites for scenario in suite.scenarios]
    known = {name for one in every for name in one.names}
    if unknown := [name for name in names if name not in known]:
        raise ConfigurationError(
            f"no scenario is called {', '.join(map(repr, unknown))}: there are "
            f"{', '.join(repr(name) for name in dict.fromkeys(one.name for one in every))}"
        )
    return [one for one in every if not names or not one.names.isdisjoint(names)]


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        said = f"the file cannot be read: {error.strerror or error}"
        raise UnreadableError([Mistake(str(path), 0, 0, said)]) from None


def _told(mistakes: Sequence[Mistake]) -> str:
    lines = [str(mistake) for mistake in dict.fromkeys(sorted(mistakes))]
    if len(lines) == 1:
        return lines[0]
    return "\n".join([f"{len(lines)} mistakes, nothing was sent", *lines])


def _suite(path: Path, document: Document) -> Suite:
    value = document.value
    reader = _Reader(document)
    name = reader.text(("name",)) if "name" in value else path.stem
    return Suite(
        name,
        path,
        tuple(reader.scenario(name, place) for place in range(len(value["scenarios"]))),
    )


class _Reader:
    """Makes scenarios of a document that the schema has found to be in order."""

    def __init__(self, document: Document) -> None:
        self._document = document

    def text(self, path: Sequence[str | int]) -> str:
        """A text as it was written, whatever YAML takes it for."""
        return self._document.written(path)

    def scenario(self, suite: str, place: int) -> Scenario:
        """One scenario, with what the file gives as a default."""
        path = ("scenarios", place)
        value = self._document.value["scenarios"][place]
        at = self._document.mistake(path, "")
        return Scenario(
            suite=suite,
            name=self.text((*path, "name")),
            place=f"{at.file}:{at.line}:{at.column}",
            agent_id=self._setting(path, "agent"),
            setup=self._setup(path),
            greeting=self._expected(path, "greeting"),
            turns=tuple(
                Turn(
                    say=self.text((*path, "turns", number, "say")),
                    metadata=turn.get("metadata"),
                    expected=self._expected((*path, "turns", number), "expect"),
                )
                for number, turn in enumerate(value.get("turns", ()))
            ),
        )

    def _setup(self, path: tuple[str | int, ...]) -> ChatSetup:
        asr, tts = self._languages(path)
        return ChatSetup(
            environment=self._setting(path, "environment") or ENVIRONMENT,
            variant_id=self._setting(path, "variant"),
            asr_lang_code=asr,
            tts_lang_code=tts,
            channel=self._setting(path, "channel"),
            integration_attributes=self._value(self._where(path, "integration_attributes")),
        )

    def _where(self, path: tuple[str | int, ...], key: str) -> tuple[str | int, ...]:
        """The path of a setting: the scenario's own, or the file's for all of them."""
        return (*path, key) if key in self._value(path) else (key,)

    def _setting(self, path: tuple[str | int, ...], key: str) -> str | None:
        where = self._where(path, key)
        return None if self._value(where) is None else self.text(where)

    def _languages(self, path: tuple[str | int, ...]) -> tuple[str | None, str | None]:
        where = self._where(path, "language")
        value = self._value(where)
        if isinstance(value, dict):
            given = {key: self.text((*where, key)) for key in value}
            return given.get("asr"), given.get("tts")
        return (value, value)

    def _value(self, path: tuple[str | int, ...]) -> Any:
        value = self._document.value
        for step in path[:-1]:
            value = value[step]
        return value[path[-1]] if isinstance(path[-1], int) else value.get(path[-1])

    def _expected(self, path: tuple[str | int, ...], key: str) -> tuple[Expectation, ...]:
        value = self._value((*path, key))
        return expectations(self._texts((*path, key), value)) if value else ()

    def _texts(self, path: tuple[str | int, ...], value: Mapping[str, Any]) -> dict[str, Any]:
        """Expectations with their texts as written, and lists where there can be several."""
        read: dict[str, Any] = {}
        for key, given in value.items():
            where = (*path, key)
            if key in ("contains", "not_contains", "function_called", "topic_retrieved"):
                several = isinstance(given, list)
                places = [(*where, number) for number in range(len(given))] if several else [where]
                read[key] = [self.text(place) for place in places]
            elif key == "not":
                read[key] = self._texts(where, given)
            elif key == "matches" or (key == "handoff" and not isinstance(given, bool)):
                read[key] = self.text(where)
            else:
                read[key] = given
        return read
