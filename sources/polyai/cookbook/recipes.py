"""Recipes as defined by their SQL files: question, remarks, query, and meanings of columns."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.resources import files

import sqlglot
from sqlglot import exp

from ..tables.children import ANNOTATIONS
from ..tables.rules import render
from ..tables.turns import TURNS
from ..views.definitions import DIALECT
from ..views.fields import FIELDS

_HEADER = re.compile(r"(?:^--.*\n)+", flags=re.MULTILINE)
_COLUMNS = "\nColumns:\n"
_COLUMN = re.compile(r"^(\w+): (.+)$", flags=re.MULTILINE)

_KNOWN: Mapping[str, str] = {
    column.name: column.description for table in (ANNOTATIONS, TURNS) for column in table.columns
} | {field.name: field.meaning for field in FIELDS.values()}
"""Meanings of columns that a query selects under their own name."""


@dataclass(frozen=True)
class Recipe:
    """One question and its answer.

    Attributes:
        name: Name of the file, which begins with the number of the recipe.
        header: Comment at the start of the file.
        query: Query in DuckDB's dialect, over a dataset `polyai`.
        question: First line of the header.
        remarks: Paragraphs about the method and its limits.
        own: Meanings of columns that are specific to this query.
    """

    name: str
    header: str
    query: str
    question: str
    remarks: tuple[str, ...]
    own: Mapping[str, str]

    @property
    def number(self) -> int:
        """Position in the cookbook, from 1."""
        return int(self.name.split("_", 1)[0])

    @cached_property
    def _tree(self) -> exp.Select:
        return sqlglot.parse_one(self.query, read=DIALECT, into=exp.Select)

    @property
    def columns(self) -> Mapping[str, str]:
        """Meaning of each column, in order.

        Raises:
            KeyError: Neither the file nor a table or view describes a column.
        """
        names = [column.alias_or_name for column in self._tree.selects]
        return {name: self.own.get(name) or _KNOWN[name] for name in names}

    def file(self, dialect: str) -> str:
        """Returns header and query.

        Args:
            dialect: SQL dialect, as named by sqlglot. The formatting is kept for DuckDB only.
        """
        if dialect == DIALECT:
            return self.header + self.query
        return f"{self.header}{self._tree.sql(dialect, pretty=True)}\n"


@cache
def recipes() -> tuple[Recipe, ...]:
    """Returns all recipes in order."""
    return tuple(_read())


def _read() -> Iterator[Recipe]:
    for file in sorted(files(__package__).iterdir(), key=lambda file: file.name):
        if file.name.endswith(".sql"):
            sql = render(file.read_text(encoding="utf-8"))
            yield _recipe(file.name.removesuffix(".sql"), sql)


def _recipe(name: str, sql: str) -> Recipe:
    header, query = _parts(sql)
    comment = re.sub("^-- ?", "", header, flags=re.MULTILINE)
    question, _, rest = comment.partition("\n")
    text, _, columns = rest.partition(_COLUMNS)
    remarks = tuple(" ".join(part.split("\n")) for part in text.strip().split("\n\n"))
    return Recipe(name, header, query, question, remarks, dict(_COLUMN.findall(columns)))


def _parts(sql: str) -> tuple[str, str]:
    found = _HEADER.match(sql)
    if found is None:
        raise ValueError("a recipe has to begin with a comment")
    return found[0], sql[found.end() :]
