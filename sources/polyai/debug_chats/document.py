"""YAML documents with the position of each value.

Only JSON literals (`true`, `4`, `1.5`, `null`), `True`, `TRUE`, `~` and an empty value are read as
something other than text: `yes`, `on`, `007`, `+15550100` and `2026-03-01` stay text. The source
text of every value is kept, so that `say: 1.0` sends "1.0".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import yaml

MAX_VALUES = 100_000
"""Limit on the number of values: nested aliases can expand a small file without bound."""

_INTEGER_LIMIT = 2**63
"""Integers from here on are ids or account numbers, which JSON numbers cannot represent."""

_TAG = "tag:yaml.org,2002:"

Path = Sequence[str | int]
"""Keys and list indexes from the top of the document to a value."""


@dataclass(frozen=True, order=True)
class Mistake:
    """A mistake in a file; sorts by file and position.

    Attributes:
        file: File name as given.
        line: Line, from 1; 0 for the file as a whole.
        column: Column, from 1.
        message: The mistake and the allowed values.
    """

    file: str
    line: int
    column: int
    message: str

    def __str__(self) -> str:
        position = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        return f"{position}: {self.message}"


class DocumentError(Exception):
    """Invalid YAML, or YAML outside the supported subset.

    Attributes:
        mistakes: The mistakes.
    """

    def __init__(self, mistakes: Sequence[Mistake]) -> None:
        super().__init__(mistakes)
        self.mistakes = mistakes


class Document:
    """One YAML document.

    Args:
        file: The file's name, for mistakes.
        content: Its bytes, UTF-8.

    Attributes:
        value: Content: mappings with text keys, lists, texts, numbers, booleans and None.

    Raises:
        DocumentError: The content is not UTF-8, not YAML, is empty, has more than one document, a
            duplicate key, a key that is not text, or a custom tag.
    """

    def __init__(self, file: str, content: bytes) -> None:
        self._file = file
        self._mistakes: list[Mistake] = []
        self._count = 0
        self._root = self._compose(content)
        self.value: Any = self._value(self._root, ())
        if self._mistakes:
            raise DocumentError(self._mistakes)

    def mistake(self, path: Path, message: str, *, at_key: bool = False) -> Mistake:
        """Returns a mistake at the value with this path, or at its key."""
        return self._mistake_at(self._node(path, at_key=at_key).start_mark, message)

    def position(self, path: Path) -> str:
        """Returns the position of the value with this path, `file:line:column`."""
        mark = self._node(path).start_mark
        return f"{self._file}:{mark.line + 1}:{mark.column + 1}"

    def source_text(self, path: Path) -> str:
        """Returns the text of a scalar as written in the file."""
        return str(self._node(path).value)

    def _compose(self, content: bytes) -> yaml.Node:
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            valid = content[: error.start].decode("utf-8-sig")
            raise self._error_after(valid, "not UTF-8: save the file as UTF-8") from None
        try:
            root = yaml.compose(text, Loader=_Loader)
        except yaml.MarkedYAMLError as error:
            start = f" from line {error.context_mark.line + 1} on" if error.context_mark else ""
            context = f"{error.context}{start}, " if error.context else ""
            message = f"not valid YAML: {context}{error.problem}"
            raise DocumentError([self._mistake_at(error.problem_mark, message)]) from None
        except yaml.reader.ReaderError as error:
            message = f"the character U+{int(error.character):04X} is not allowed in YAML"
            raise self._error_after(text[: error.position], message) from None
        except RecursionError:
            raise DocumentError([Mistake(self._file, 0, 0, "nested too deeply")]) from None
        if root is None:
            raise DocumentError([Mistake(self._file, 1, 1, "the file is empty")])
        return root

    def _error_after(self, valid: str, message: str) -> DocumentError:
        """Error at the position that follows the valid part of the text."""
        line, column = valid.count("\n") + 1, len(valid) - valid.rfind("\n")
        return DocumentError([Mistake(self._file, line, column, message)])

    def _value(self, node: yaml.Node, parents: tuple[yaml.Node, ...]) -> Any:
        self._count += 1
        if node in parents:
            return self._reject(node, "this alias is inside the value that it refers to")
        if self._count > MAX_VALUES:
            raise DocumentError([Mistake(self._file, 0, 0, f"more than {MAX_VALUES:,} values")])
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
                self._reject(key, "a key must be text")
                continue
            if key.value in lines:
                self._reject(key, f"duplicate key {key.value!r}, first in line {lines[key.value]}")
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
                    return number if abs(number) < _INTEGER_LIMIT else text
                case "float":
                    return float(text) if isfinite(float(text)) else text
        except (KeyError, ValueError):
            pass
        return self._reject(node, f"{text!r} cannot be read as {node.tag!r}")

    def _reject(self, node: yaml.Node, message: str) -> None:
        self._mistakes.append(self._mistake_at(node.start_mark, message))

    def _mistake_at(self, mark: yaml.Mark | None, message: str) -> Mistake:
        if mark is None:
            return Mistake(self._file, 0, 0, message)
        return Mistake(self._file, mark.line + 1, mark.column + 1, message)

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
    """YAML loader with the type rules of this module."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012, pyyaml's own interface


for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"-?(?:0|[1-9][0-9]*)", list("-0123456789")),
    ("float", r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?", list("-0123456789")),
):
    _Loader.add_implicit_resolver(_TAG + _tag, re.compile(rf"(?:{_pattern})\Z"), _first)
