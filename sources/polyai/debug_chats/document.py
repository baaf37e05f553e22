"""YAML with the place of everything in it.

Text stays text. Only what is a literal in JSON (`true`, `4`, `1.5`, `null`) is something else, and
so are `True`, `TRUE`, `~` and nothing at all: `yes`, `on`, `007`, `+15550100` and `2026-03-01`
are what they look like. What was written is kept beside every value, so that `say: 1.0` says it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import yaml

MOST_VALUES = 100_000
"""Aliases of aliases make a small file large; what has more values than this is no file of ours."""

_NO_NUMBER = 2**63
"""Digits from here on are an id or an account: JSON cannot carry them as a number."""

_TAG = "tag:yaml.org,2002:"

Path = Sequence[str | int]
"""Keys and positions, from the top of the document."""


@dataclass(frozen=True, order=True)
class Mistake:
    """Something wrong in a file; sorts by file and place.

    Attributes:
        file: Its name as it was given.
        line: Counted from 1; 0 where the file as a whole is meant.
        column: Counted from 1.
        said: What is wrong, and what is allowed.
    """

    file: str
    line: int
    column: int
    said: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        return f"{place}: {self.said}"


class UnreadableError(Exception):
    """A file that is no YAML, or not of the kind that is read here."""

    def __init__(self, mistakes: Sequence[Mistake]) -> None:
        super().__init__(mistakes)
        self.mistakes = mistakes


class Document:
    """One YAML document.

    Args:
        file: The file's name, for mistakes.
        content: Its bytes, UTF-8.

    Attributes:
        value: What is in it: mappings with text as keys, lists, texts, numbers, booleans and None.

    Raises:
        UnreadableError: It is not UTF-8, not YAML, has no document or several, has a key twice, a
            key that is no text, or a tag of its own.
    """

    def __init__(self, file: str, content: bytes) -> None:
        self._file = file
        self._mistakes: list[Mistake] = []
        self._count = 0
        self._root = self._parsed(content)
        self.value: Any = self._value(self._root, ())
        if self._mistakes:
            raise UnreadableError(self._mistakes)

    def mistake(self, path: Path, said: str, *, at_key: bool = False) -> Mistake:
        """A mistake at the value of this path, or at its key."""
        node = self._node(path, at_key=at_key)
        return self._mistake_at(node.start_mark, said)

    def written(self, path: Path) -> str:
        """The text of a scalar, as it was written."""
        return str(self._node(path).value)

    def _parsed(self, content: bytes) -> yaml.Node:
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            good = content[: error.start].decode("utf-8-sig")
            raise self._unreadable(good, "this is not UTF-8: save the file as UTF-8") from None
        try:
            root = yaml.compose(text, Loader=_Loader)
        except yaml.MarkedYAMLError as error:
            begun = f" from line {error.context_mark.line + 1} on" if error.context_mark else ""
            context = f"{error.context}{begun}, " if error.context else ""
            said = f"this is no YAML: {context}{error.problem}"
            raise UnreadableError([self._mistake_at(error.problem_mark, said)]) from None
        except yaml.reader.ReaderError as error:
            said = f"the character U+{int(error.character):04X} is not allowed in YAML"
            raise self._unreadable(text[: error.position], said) from None
        except RecursionError:
            raise UnreadableError(
                [Mistake(self._file, 0, 0, "this is nested too deeply")]
            ) from None
        if root is None:
            raise UnreadableError([Mistake(self._file, 1, 1, "the file is empty")])
        return root

    def _unreadable(self, good: str, said: str) -> UnreadableError:
        """The error behind a part of the text that is in order."""
        line, column = good.count("\n") + 1, len(good) - good.rfind("\n")
        return UnreadableError([Mistake(self._file, line, column, said)])

    def _value(self, node: yaml.Node, parents: tuple[yaml.Node, ...]) -> Any:
        self._count += 1
        if node in parents:
            return self._refused(node, "this alias stands within what it refers to")
        if self._count > MOST_VALUES:
            raise UnreadableError(
                [Mistake(self._file, 0, 0, f"there are more than {MOST_VALUES:,} values")]
            )
        if isinstance(node, yaml.MappingNode):
            return dict(self._items(node, (*parents, node)))
        if isinstance(node, yaml.SequenceNode):
            return [self._value(item, (*parents, node)) for item in node.value]
        return self._scalar(node)

    def _items(
        self, node: yaml.MappingNode, parents: tuple[yaml.Node, ...]
    ) -> Iterator[tuple[str, Any]]:
        lines: dict[str, int] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self._refused(key, "a key has to be text")
                continue
            if key.value in lines:
                said = f"{key.value!r} is here twice, first in line {lines[key.value]}"
                self._refused(key, said)
            lines.setdefault(key.value, key.start_mark.line + 1)
            yield key.value, self._value(value, parents)

    def _scalar(self, node: yaml.Node) -> Any:
        text = str(node.value)
        try:
            match node.tag.removeprefix(_TAG):
                case "str":
                    return text
                case "null":
                    return None
                case "bool":
                    return {"true": True, "false": False}[text.lower()]
                case "int":
                    number = int(text)
                    return number if abs(number) < _NO_NUMBER else text
                case "float":
                    return float(text) if isfinite(float(text)) else text
        except (KeyError, ValueError):
            pass
        return self._refused(node, f"{text!r} is not of the kind {node.tag!r}")

    def _refused(self, node: yaml.Node, said: str) -> None:
        self._mistakes.append(self._mistake_at(node.start_mark, said))

    def _mistake_at(self, mark: yaml.Mark | None, said: str) -> Mistake:
        if mark is None:
            return Mistake(self._file, 0, 0, said)
        return Mistake(self._file, mark.line + 1, mark.column + 1, said)

    def _node(self, path: Path, *, at_key: bool = False) -> yaml.Node:
        node = self._root
        for depth, step in enumerate(path, 1):
            if isinstance(node, yaml.MappingNode):
                key, value = next(pair for pair in node.value if pair[0].value == step)
                node = key if at_key and depth == len(path) else value
            else:
                node = node.value[step]
        return node


class _Loader(yaml.SafeLoader):
    """Finds out what is what by the rules of this module."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012, it is pyyaml's own way


for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"-?(?:0|[1-9][0-9]*)", list("-0123456789")),
    ("float", r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?", list("-0123456789")),
):
    _Loader.add_implicit_resolver(_TAG + _tag, re.compile(rf"(?:{_pattern})\Z"), _first)
