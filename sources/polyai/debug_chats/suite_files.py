"""Reader of scenario files (YAML); needs the extra `debug-chats`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import ConfigurationError
from .chat import ChatSetup
from .document import Document, DocumentError, Mistake
from .expectations import Expectation, expectations
from .suite import ENVIRONMENT, Scenario, Suite, Turn
from .validation import validate

_Path = tuple[str | int, ...]
"""Keys and list indexes from the top of a document to a value."""

_TEXT_LISTS = ("contains", "not_contains", "function_called", "topic_retrieved")
"""Expectations that take one text or a list of texts."""


def read_suites(paths: Iterable[str | Path]) -> list[Suite]:
    """Reads and validates scenario files; see `load_suites`."""
    by_file: dict[Path, Path] = {}
    for path in map(Path, paths):
        by_file.setdefault(path.resolve(), path)
    suites: dict[str, Suite] = {}
    mistakes: list[Mistake] = []
    for path in by_file.values():
        try:
            document = Document(str(path), _content(path))
        except DocumentError as error:
            mistakes += error.mistakes
            continue
        if found := list(validate(document)):
            mistakes += found
            continue
        suite = _suite(path, document)
        if other := suites.get(suite.name):
            position = ("name",) if "name" in document.value else ()
            message = (
                f"duplicate suite name {suite.name!r}, also used in {other.path}: give each suite "
                "its own name, so that their results can be told apart"
            )
            mistakes.append(document.mistake(position, message))
        suites.setdefault(suite.name, suite)
    if mistakes:
        raise ConfigurationError(_message(mistakes))
    return list(suites.values())


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        message = f"cannot read the file: {error.strerror or error}"
        raise DocumentError([Mistake(str(path), 0, 0, message)]) from None


def _message(mistakes: Sequence[Mistake]) -> str:
    lines = [str(mistake) for mistake in dict.fromkeys(sorted(mistakes))]
    if len(lines) == 1:
        return lines[0]
    return "\n".join([f"{len(lines)} mistakes, nothing was sent", *lines])


def _suite(path: Path, document: Document) -> Suite:
    value = document.value
    builder = _ScenarioBuilder(document)
    name = document.source_text(("name",)) if "name" in value else path.stem
    return Suite(
        name, path, tuple(builder.scenario(name, index) for index in range(len(value["scenarios"])))
    )


class _ScenarioBuilder:
    """Builds scenarios from a valid document."""

    def __init__(self, document: Document) -> None:
        self._document = document
        # texts are taken as written in the file, not as YAML interprets them
        self._text = document.source_text

    def scenario(self, suite: str, index: int) -> Scenario:
        """Builds one scenario; settings that it lacks come from the top of the file."""
        path = ("scenarios", index)
        value = self._document.value["scenarios"][index]
        return Scenario(
            suite=suite,
            name=self._text((*path, "name")),
            place=self._document.position(path),
            agent_id=self._setting(path, "agent"),
            setup=self._setup(path),
            greeting=self._expected(path, "greeting"),
            turns=tuple(
                Turn(
                    say=self._text((*path, "turns", number, "say")),
                    metadata=turn.get("metadata"),
                    expected=self._expected((*path, "turns", number), "expect"),
                )
                for number, turn in enumerate(value.get("turns", ()))
            ),
        )

    def _setup(self, path: _Path) -> ChatSetup:
        asr, tts = self._languages(path)
        return ChatSetup(
            environment=self._setting(path, "environment") or ENVIRONMENT,
            variant_id=self._setting(path, "variant"),
            asr_lang_code=asr,
            tts_lang_code=tts,
            channel=self._setting(path, "channel"),
            integration_attributes=self._value(self._setting_path(path, "integration_attributes")),
        )

    def _setting_path(self, path: _Path, key: str) -> _Path:
        """Path of a setting: in the scenario if given there, otherwise at the top of the file."""
        return (*path, key) if key in self._value(path) else (key,)

    def _setting(self, path: _Path, key: str) -> str | None:
        setting_path = self._setting_path(path, key)
        return None if self._value(setting_path) is None else self._text(setting_path)

    def _languages(self, path: _Path) -> tuple[str | None, str | None]:
        """Language codes of speech recognition (ASR) and of speech synthesis (TTS)."""
        setting_path = self._setting_path(path, "language")
        value = self._value(setting_path)
        if isinstance(value, dict):
            codes = {key: self._text((*setting_path, key)) for key in value}
            return codes.get("asr"), codes.get("tts")
        return (value, value)

    def _value(self, path: _Path) -> Any:
        value = self._document.value
        for step in path[:-1]:
            value = value[step]
        return value[path[-1]] if isinstance(path[-1], int) else value.get(path[-1])

    def _expected(self, path: _Path, key: str) -> tuple[Expectation, ...]:
        value = self._value((*path, key))
        return expectations(self._with_source_texts((*path, key), value)) if value else ()

    def _with_source_texts(self, path: _Path, value: Mapping[str, Any]) -> dict[str, Any]:
        """Expectations with texts as written, and a list wherever several texts are allowed."""
        result: dict[str, Any] = {}
        for key, given in value.items():
            at_key = (*path, key)
            if key in _TEXT_LISTS:
                is_list = isinstance(given, list)
                paths = [(*at_key, index) for index in range(len(given))] if is_list else [at_key]
                result[key] = [self._text(text_path) for text_path in paths]
            elif key == "not":
                result[key] = self._with_source_texts(at_key, given)
            elif key == "matches" or (key == "handoff" and not isinstance(given, bool)):
                result[key] = self._text(at_key)
            else:
                result[key] = given
        return result
