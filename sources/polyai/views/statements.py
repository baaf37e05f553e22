"""SQL statements for views and comments, in the dialect of one destination."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version

from sqlglot import Dialect, ErrorLevel, exp

from ..tables.declaration import TOMBSTONE
from ..tables.registry import tables
from ..warehouse.dialects import to_sql
from .definitions import DIALECT, View, address, sql_files
from .fields import FIELDS
from .local_times import use_offsets_of_days

COMMENTING = frozenset({"duckdb", "postgres", "redshift", "snowflake"})
"""Dialects in which `COMMENT ON` accepts tables, views and columns, as named by sqlglot.

DuckDB and PostgreSQL are tested; the others follow their manuals.
"""

WITHOUT_REPLACE = frozenset({"sqlite"})
"""Dialects that have no statement to replace a view: it is dropped first."""

WORDING = 4
"""Version of the code that words statements, here and in `definitions.address`; a part of the
fingerprint. Raise it with each change that gives other statements for the same definitions."""

_HEADER = re.compile(r"(?m)^--.*\n")


@dataclass(frozen=True)
class Statements:
    """Statements in the dialect of one destination.

    Attributes:
        dialect: SQL dialect, as named by sqlglot.
        qualified: Returns the full, quoted name of a table or view.
        zone: IANA name of the reporting time zone.
        fingerprint: Hash of all that the statements depend on; empty until `fingerprinted` has
            computed it.
    """

    dialect: str
    qualified: Callable[[str], str]
    zone: str
    fingerprint: str = ""

    def query(self, view: View) -> str:
        """Returns the query of a view.

        Raises:
            SqlglotError: The dialect has no equal query.
        """
        tree = view.query()
        values = {"reporting_time_zone": self.zone, "fingerprint": self.fingerprint}
        # SQLite looks up tables in the file of the view, by whatever name it is attached
        name = _bare if self.dialect == "sqlite" else self.qualified
        address(tree, self.dialect, name, values)
        if self.dialect == DIALECT:
            use_offsets_of_days(tree)
        if Dialect.get_or_raise(self.dialect).NULL_ORDERING == "nulls_are_small":
            # the views order by what valid rows have, and not every dialect has NULLS LAST
            for order in tree.find_all(exp.Ordered):
                order.set("nulls_first", not order.args.get("desc"))
        # the header becomes a comment of the database instead
        return to_sql(
            tree,
            self.dialect,
            pretty=True,
            comments=False,
            unsupported_level=ErrorLevel.RAISE,
        )

    def create(self, view: View, *, replacing: bool) -> str:
        """Returns the statement that creates a view.

        Args:
            view: The view.
            replacing: Replace an existing view of the name.

        Raises:
            SqlglotError: The dialect has no equal query.
        """
        is_replaced = replacing and self.dialect not in WITHOUT_REPLACE
        verb = "CREATE OR REPLACE VIEW" if is_replaced else "CREATE VIEW"
        return f"{verb} {self.qualified(view.name)} AS\n{self.query(view)}"

    def drop(self, name: str) -> str:
        """Returns the statement that drops a view if it exists; fails if others depend on it."""
        return f"DROP VIEW IF EXISTS {self.qualified(name)}"

    def view_comments(self, view: View) -> list[str]:
        """Returns the statement that comments on a view; none if there are no comments."""
        return self._comments("VIEW", view.name, view.comment, {})

    def comments_on_copy(self, view: View, existing: Collection[str]) -> list[str]:
        """Returns the comments on a table that a view was copied into, and on its columns.

        Args:
            view: The view.
            existing: Its columns in the warehouse; a view of an older version has fewer.
        """
        meanings = {field.name: field.comment for field in view.fields if field.name in existing}
        return self._comments("TABLE", view.name, view.comment, meanings)

    def view_column_comments(self, view: View) -> list[str]:
        """Returns the statements that comment on the columns of a view."""
        meanings = {field.name: field.comment for field in view.fields}
        return self._comments("VIEW", view.name, None, meanings)

    def table_comments(self, existing: Mapping[str, Collection[str]]) -> list[str]:
        """Returns the statements that comment on tables and their columns.

        Args:
            existing: Existing columns by existing table; an older version created fewer.
        """
        return [
            statement
            for table in tables()
            if table.name in existing
            for statement in self._comments(
                "TABLE",
                table.name,
                table.description,
                {
                    column.name: column.comment
                    for column in table.columns
                    if column.name in existing[table.name] and column.name != TOMBSTONE
                },
            )
        ]

    def fingerprinted(self) -> Statements:
        """Returns the same with its fingerprint, without parsing or wording a statement.

        Equal fingerprints mean equal statements. Hashes the definitions instead of the statements,
        which take a second to word.
        """
        described = [
            (
                table.name,
                table.description,
                [(c.name, c.comment) for c in table.columns],
            )
            for table in tables()
        ]
        names = [*sql_files(), *(table.name for table in tables())]
        dependencies = (
            (WORDING, version("sqlglot")),
            (self.dialect, self.zone, [self.qualified(name) for name in names]),
            (sorted(sql_files().items()), sorted(FIELDS.items()), described),
        )
        digest = hashlib.blake2b(repr(dependencies).encode(), digest_size=16)
        return replace(self, fingerprint=digest.hexdigest())

    def _comments(
        self, kind: str, name: str, text: str | None, columns: Mapping[str, str]
    ) -> list[str]:
        if self.dialect not in COMMENTING:
            return []
        place = self.qualified(name)
        found = [] if text is None else [f"COMMENT ON {kind} {place} IS {self._literal(text)}"]
        for column, meaning in columns.items():
            quoted = exp.to_identifier(column).sql(self.dialect)
            found.append(f"COMMENT ON COLUMN {place}.{quoted} IS {self._literal(meaning)}")
        return found

    def _literal(self, text: str) -> str:
        return exp.Literal.string(text).sql(self.dialect)


def _bare(name: str) -> str:
    return f'"{name}"'


def with_header(view: View, statements: Statements) -> str:
    """Returns the statement that creates a view, with the header of its file."""
    header = "".join(_HEADER.findall(view.sql))
    return f"{header}{statements.create(view, replacing=True)};\n"
