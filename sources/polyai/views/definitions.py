"""Views as defined by their SQL files: grain, question, key, columns, and the tables they read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from graphlib import TopologicalSorter
from importlib.resources import files

import sqlglot
from sqlglot import exp

from ..tables.rules import render
from ..warehouse.dialects import portable, qualify_tables, tables_of
from .field import Field
from .fields import FIELDS
from .names import PER_CONVERSATION, with_names

DIALECT = "duckdb"
"""SQL dialect of the files, as named by sqlglot."""

INFO_VIEW = "views_info"
"""View that identifies the version of the views. It is created last."""

_ENDING = ".sql"

_QUESTION = "Answers: "

_KEY = "Key: "


@dataclass(frozen=True)
class View:
    """One view.

    Attributes:
        name: Name of the view and of its file.
        sql: Text of the file, its rules rendered.
        grain: First line of the header: "One row per …".
        question: Second line of the header: the question that the view answers.
        key: Columns that are unique together, in the third line; empty for a view of one row.
        remarks: Paragraphs of the rest of the header.
    """

    name: str
    sql: str
    grain: str
    question: str
    key: tuple[str, ...]
    remarks: tuple[str, ...]

    def query(self) -> exp.Query:
        """Returns a copy of the query, with names, which the caller can change."""
        return self._tree.copy()

    @cached_property
    def _tree(self) -> exp.Query:
        query = sqlglot.parse_one(self.sql, read=DIALECT, into=exp.Select)
        return query if self.name == PER_CONVERSATION else with_names(query, tables_of(query))

    @cached_property
    def reads(self) -> frozenset[str]:
        """Tables and views that it reads."""
        return tables_of(self._tree)

    @cached_property
    def fields(self) -> tuple[Field, ...]:
        """Columns in order."""
        return tuple(FIELDS[column.alias_or_name] for column in self._tree.selects)

    @property
    def comment(self) -> str:
        """Comment on the view in the database."""
        return f"{self.grain} {self.question}"


@cache
def sql_files() -> Mapping[str, str]:
    """Returns the text of each view's file by the view's name, its rules rendered; parses none."""
    return {
        file.name.removesuffix(_ENDING): render(file.read_text(encoding="utf-8"))
        for file in sorted(files(__package__).iterdir(), key=lambda file: file.name)
        if file.name.endswith(_ENDING)
    }


@cache
def views() -> Mapping[str, View]:
    """Returns all views by name, each after the views that it reads."""
    found = {name: view_of(name, sql) for name, sql in sql_files().items()}
    order = TopologicalSorter(
        {name: sorted(view.reads & found.keys()) for name, view in found.items()}
    )
    last = {INFO_VIEW: found[INFO_VIEW]}
    return {name: found[name] for name in order.static_order() if name != INFO_VIEW} | last


def tables_read() -> frozenset[str]:
    """Returns the names of the tables that the views read."""
    return frozenset().union(*(view.reads for view in views().values())) - views().keys()


def with_dependents(name: str) -> list[str]:
    """Returns a view and all views that read it, directly or not, in order of creation."""
    found = [name]
    for view in views().values():
        if view.reads.intersection(found):
            found.append(view.name)
    return found


def address(
    tree: exp.Expr,
    dialect: str,
    qualified: Callable[[str], str],
    values: Mapping[str, object],
) -> None:
    """Qualifies the table names of a query for a destination and fills in its `$name` parameters.

    Args:
        tree: The query; changed in place.
        dialect: SQL dialect of the destination, as named by sqlglot.
        qualified: Returns the full, quoted name of a table or view.
        values: Values by parameter.
    """
    qualify_tables(tree, dialect, qualified)
    for mark in list(tree.find_all(exp.Placeholder)):
        mark.replace(exp.convert(values[mark.name]))
    portable(tree, dialect)


def view_of(name: str, sql: str) -> View:
    """Returns the view of a SQL file with this name and text."""
    grain, question, *rest = [
        line.removeprefix("--").strip() for line in sql.splitlines() if line.startswith("--")
    ]
    key: tuple[str, ...] = ()
    if rest and rest[0].startswith(_KEY):
        key = tuple(rest.pop(0).removeprefix(_KEY).split(", "))
    remarks = tuple(" ".join(part.split("\n")) for part in "\n".join(rest).strip().split("\n\n"))
    return View(
        name,
        sql,
        grain,
        question.removeprefix(_QUESTION),
        key,
        tuple(filter(None, remarks)),
    )
