"""Views and comments as statements of one destination."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace

from sqlglot import exp

from ..tables.declaration import TOMBSTONE
from ..tables.registry import tables
from .definitions import View, address, views

COMMENTING = frozenset({"duckdb", "postgres", "redshift", "snowflake"})
"""Where `COMMENT ON` takes tables, views and columns, by sqlglot's name.

Tried are DuckDB and PostgreSQL; the others by what their manuals say.
"""

_HEADER = re.compile(r"(?m)^--.*\n")


@dataclass(frozen=True)
class Wording:
    """How one destination words our statements.

    Attributes:
        dialect: sqlglot's name of its SQL.
        qualified: Makes the full name of a table or view, quoted.
        zone: IANA name of the reporting time zone.
        fingerprint: Of all statements; empty while it is being worked out.
    """

    dialect: str
    qualified: Callable[[str], str]
    zone: str
    fingerprint: str = ""

    def query(self, view: View) -> str:
        """A view's query."""
        tree = view.query()
        values = {"reporting_time_zone": self.zone, "fingerprint": self.fingerprint}
        address(tree, self.dialect, self.qualified, values)
        # a header is told in comments of the database
        return tree.sql(self.dialect, pretty=True, comments=False)

    def create(self, view: View, *, replacing: bool) -> str:
        """The statement that makes a view, in the place of an older one or of none."""
        verb = "CREATE OR REPLACE VIEW" if replacing else "CREATE VIEW"
        return f"{verb} {self.qualified(view.name)} AS\n{self.query(view)}"

    def drop(self, name: str) -> str:
        """The statement that drops a view where it is; it refuses where others need it."""
        return f"DROP VIEW IF EXISTS {self.qualified(name)}"

    def view_comments(self, view: View) -> list[str]:
        """The statement that says what a view is; none where there are no comments."""
        return self._comments("VIEW", view.name, view.comment, {})

    def comments_on_copy(self, view: View) -> list[str]:
        """The same for a table into which a view was copied, and its columns."""
        return [
            *self._comments("TABLE", view.name, view.comment, {}),
            *self.view_column_comments(view),
        ]

    def view_column_comments(self, view: View) -> list[str]:
        """The statements that say what its columns mean."""
        meanings = {field.name: field.comment for field in view.fields}
        return self._comments("VIEW", view.name, None, meanings)

    def table_comments(self, held: Mapping[str, Collection[str]]) -> list[str]:
        """The same for our tables.

        Args:
            held: Columns by table, as far as there are any; an older version made fewer.
        """
        return [
            statement
            for table in tables()
            if table.name in held
            for statement in self._comments(
                "TABLE",
                table.name,
                table.description,
                {
                    column.name: column.description + f" Unit: {column.unit}." * bool(column.unit)
                    for column in table.columns
                    if column.name in held[table.name] and column.name != TOMBSTONE
                },
            )
        ]

    def fingerprinted(self) -> Wording:
        """The same with the fingerprint of every statement that it words."""
        words = [self.create(view, replacing=True) for view in views().values()]
        for view in views().values():
            words += [*self.view_comments(view), *self.view_column_comments(view)]
        words += self.table_comments({table.name: table.arrow_schema.names for table in tables()})
        digest = hashlib.blake2b("\n".join(words).encode(), digest_size=16)
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


def as_shown(view: View, wording: Wording) -> str:
    """A view's statement with its header, as people read it."""
    header = "".join(_HEADER.findall(view.sql))
    return f"{header}{wording.create(view, replacing=True)};\n"
