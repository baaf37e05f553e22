"""Column of a view."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

FieldType = Literal["text", "bigint", "double", "bool", "timestamp", "local timestamp", "date"]
"""A local timestamp has no time zone; it is in the reporting time zone."""


@dataclass(frozen=True)
class Field:
    """Column of a view.

    Attributes:
        name: Name in SQL.
        type: Declared type; `schemas.generate.sql_types` has DuckDB's name of it.
        unit: Unit of a number; empty for counts and other types.
        meaning: Description, one sentence.
    """

    name: str
    type: FieldType
    unit: str
    meaning: str

    @property
    def comment(self) -> str:
        """Comment on the column in the database: meaning, and unit if it has one."""
        return f"{self.meaning} Unit: {self.unit}." if self.unit else self.meaning
