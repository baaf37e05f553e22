"""The views as their files define them: grain, question, columns, and what each reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from graphlib import TopologicalSorter
from importlib.resources import files

import sqlglot
from sqlglot import exp

from .fields import FIELDS, Field

DIALECT = "duckdb"
"""What the files are written in, by sqlglot's name."""

INFO_VIEW = "views_info"
"""Tells what the views were made from. It is made last."""

_QUESTION = "Answers: "


@dataclass(frozen=True)
class View:
    """One view.

    Attributes:
        name: Of the view, and of its file.
        sql: The file, as it is.
        grain: What a row is: the first line of the header.
        question: What it answers: the second line.
        remarks: The rest of the header, a paragraph each.
        reads: Tables and views that it reads.
    """

    name: str
    sql: str
    grain: str
    question: str
    remarks: tuple[str, ...]
    reads: frozenset[str]

    def query(self) -> exp.Query:
        """The query, to be changed at will."""
        return self._tree.copy()

    @cached_property
    def _tree(self) -> exp.Query:
        return sqlglot.parse_one(self.sql, read=DIALECT, into=exp.Select)

    @cached_property
    def fields(self) -> tuple[Field, ...]:
        """Its columns, in order."""
        return tuple(FIELDS[column.alias_or_name] for column in self._tree.selects)

    @property
    def comment(self) -> str:
        """What a database shows beside it."""
        return f"{self.grain} {self.question}"


@cache
def views() -> Mapping[str, View]:
    """All views by name, each after those that it reads."""
    found = {view.name: view for view in _read()}
    order = TopologicalSorter(
        {name: sorted(view.reads & found.keys()) for name, view in found.items()}
    )
    last = {INFO_VIEW: found[INFO_VIEW]}
    return {name: found[name] for name in order.static_order() if name != INFO_VIEW} | last


def tables_read() -> frozenset[str]:
    """The tables that the views read."""
    return frozenset().union(*(view.reads for view in views().values())) - views().keys()


def with_dependents(name: str) -> list[str]:
    """A view and those of ours that read it, directly or not, each after what it reads."""
    found = [name]
    for view in views().values():
        if view.reads.intersection(found):
            found.append(view.name)
    return found


def tables_of(tree: exp.Expr) -> frozenset[str]:
    """The tables and views that a query reads, without those that it names itself."""
    own = {cte.alias for cte in tree.find_all(exp.CTE)}
    return frozenset(table.name for table in tree.find_all(exp.Table)) - own


def address(
    tree: exp.Expr,
    dialect: str,
    qualified: Callable[[str], str],
    values: Mapping[str, object],
) -> None:
    """Gives what a query reads its place in a destination, and its `$name` marks their values.

    Args:
        tree: The query; changed.
        dialect: sqlglot's name of the destination's SQL.
        qualified: Makes the full name of a table or view, quoted.
        values: By mark.
    """
    read = tables_of(tree)
    for table in list(tree.find_all(exp.Table)):
        if table.name in read:
            place = exp.to_table(qualified(table.name), dialect=dialect)
            place.set("alias", table.args.get("alias"))
            table.replace(place)
    for mark in list(tree.find_all(exp.Placeholder)):
        mark.replace(exp.convert(values[mark.name]))


def _read() -> Iterator[View]:
    for file in sorted(files(__package__).iterdir(), key=lambda file: file.name):
        if file.name.endswith(".sql"):
            yield _view(file.name.removesuffix(".sql"), file.read_text(encoding="utf-8"))


def _view(name: str, sql: str) -> View:
    tree = sqlglot.parse_one(sql, read=DIALECT)
    grain, question, *rest = [
        line.removeprefix("--").strip() for line in sql.splitlines() if line.startswith("--")
    ]
    remarks = tuple(" ".join(part.split("\n")) for part in "\n".join(rest).strip().split("\n\n"))
    question = question.removeprefix(_QUESTION)
    return View(name, sql, grain, question, tuple(filter(None, remarks)), tables_of(tree))
