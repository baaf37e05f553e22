"""Digest of rows, which is equal for equal rows in any order and from any destination."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Context, Decimal
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from ..tables.declaration import Table

_BYTES = 16

_MODULUS = 1 << (8 * _BYTES)

_EXACT = Context(prec=10_000)
"""Context in which no number of a JSON document is rounded."""


@dataclass
class Digest:
    """Count of rows and sum of their hashes: a row that is there twice changes both.

    Attributes:
        rows: Number of rows.
        total: Sum of the hashes of the rows, modulo 2^128.
    """

    rows: int = 0
    total: int = 0

    def add(self, table: Table, rows: pa.Table) -> None:
        """Adds rows of a table, with its declared columns and types."""
        for values in zip(*(_plain(rows[one.name], one.type) for one in table.columns)):
            self.add_values(values)

    def add_values(self, values: Sequence[Any]) -> None:
        """Adds one row of plain values."""
        hashed = hashlib.blake2b(orjson.dumps(values), digest_size=_BYTES)
        self.total = (self.total + int.from_bytes(hashed.digest(), "big")) % _MODULUS
        self.rows += 1

    def include(self, other: Digest) -> None:
        """Adds the rows of another digest."""
        self.rows += other.rows
        self.total = (self.total + other.total) % _MODULUS

    @property
    def hash(self) -> str:
        """The sum as 32 hexadecimal digits."""
        return f"{self.total:0{2 * _BYTES}x}"


def _plain(column: pa.ChunkedArray, type_: str) -> list[Any]:
    """Returns the values of a column in the same form for all destinations."""
    if type_ == "timestamp":
        return list(column.cast(pa.int64()).to_pylist())
    if type_ == "double":
        # some destinations do not keep the sign of zero
        return list(pc.add(column, 0.0).to_pylist())
    values = column.to_pylist()
    if type_ == "json":
        return [None if value is None else canonical_json(value) for value in values]
    return list(values)


def canonical_json(text: str) -> str:
    """Returns a JSON document in one form: keys in order, no spaces, equal numbers alike.

    Destinations with a type of their own for JSON change the order of keys and the notation of
    numbers.
    """
    try:
        value = json.loads(text, parse_float=_number, parse_int=_number)
    except ValueError:
        return text
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _number(digits: str) -> str:
    # `+` turns a negative zero into zero
    return f"number {_EXACT.normalize(_EXACT.plus(Decimal(digits)))}"
