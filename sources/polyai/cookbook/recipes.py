"""The recipes as their files define them: question, remarks, query, and what its columns are."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.resources import files

import sqlglot
from sqlglot import exp

from ..tables.conversations import ANNOTATIONS, TURNS
from ..tables.rules import render
from ..views.definitions import DIALECT
from ..views.fields import FIELDS

_HEADER = re.compile(r"(?:^--.*\n)+", flags=re.MULTILINE)
_COLUMNS = "\nColumns:\n"
_COLUMN = re.compile(r"^(\w+): (.+)$", flags=re.MULTILINE)

_KNOWN: Mapping[str, str] = {
    column.name: column.description for table in (ANNOTATIONS, TURNS) for column in table.columns
} | {field.name: field.meaning for field in FIELDS.values()}
"""What columns mean that a query takes over under their own name."""


@dataclass(frozen=True)
class Recipe:
    """One question and its answer.

    Attributes:
        name: Of the file, which begins with the recipe's number.
        header: The comment that the file begins with.
        query: What follows: one statement, in DuckDB's words, over a dataset `polyai`.
        question: The first line of the header.
        remarks: How it is counted and what to beware of, a paragraph each.
        own: What columns mean that are this query's own, or mean something of their own in it.
    """

    name: str
    header: str
    query: str
    question: str
    remarks: tuple[str, ...]
    own: Mapping[str, str]

    @property
    def number(self) -> int:
        """Its place in the book, from 1."""
        return int(self.name.split("_", 1)[0])

    @cached_property
    def _tree(self) -> exp.Select:
        return sqlglot.parse_one(self.query, read=DIALECT, into=exp.Select)

    @property
    def columns(self) -> Mapping[str, str]:
        """What each column means, in order.

        Raises:
            KeyError: Neither the file nor a table or view says what a column is.
        """
        names = [column.alias_or_name for column in self._tree.selects]
        return {name: self.own.get(name) or _KNOWN[name] for name in names}

    def file(self, dialect: str) -> str:
        """Header and query.

        Args:
            dialect: sqlglot's name of the SQL wanted; DuckDB's is as it was written.
        """
        if dialect == DIALECT:
            return self.header + self.query
        return f"{self.header}{self._tree.sql(dialect, pretty=True)}\n"


@cache
def recipes() -> tuple[Recipe, ...]:
    """All recipes in the order of the book."""
    return tuple(_read())


def _read() -> Iterator[Recipe]:
    for file in sorted(files(__package__).iterdir(), key=lambda file: file.name):
        if file.name.endswith(".sql"):
            sql = render(file.read_text(encoding="utf-8"))
            yield _recipe(file.name.removesuffix(".sql"), sql)


def _recipe(name: str, sql: str) -> Recipe:
    header, query = _parts(sql)
    said = re.sub("^-- ?", "", header, flags=re.MULTILINE)
    question, _, rest = said.partition("\n")
    text, _, columns = rest.partition(_COLUMNS)
    remarks = tuple(" ".join(part.split("\n")) for part in text.strip().split("\n\n"))
    return Recipe(name, header, query, question, remarks, dict(_COLUMN.findall(columns)))


def _parts(sql: str) -> tuple[str, str]:
    found = _HEADER.match(sql)
    if found is None:
        raise ValueError("a recipe begins with a comment")
    return found[0], sql[found.end() :]
